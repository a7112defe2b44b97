//! The configuration as it is shown: all of it, and no secret.

use super::MINIMAL;
use crate::config::Config;

fn in_force(yaml: &str) -> String {
    let env = |name: &str| (name == "S").then(|| "hunter2".to_owned());
    let config = Config::parse(yaml, &env).unwrap_or_else(|errors| panic!("{errors}"));
    config.in_force.text().to_string()
}

#[test]
fn it_is_what_was_read_and_reads_the_same() {
    let files = ["conf/akubra.yaml", "conf/dev.yaml", "tests/data/seed.yaml"];
    for file in files {
        let yaml = std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let shown = in_force(&yaml);
        assert!(!shown.contains('#') && shown.starts_with(|c: char| c.is_ascii_alphabetic()), "{shown}");
        let again = shown.replace("(hidden)", "x");
        assert_eq!(in_force(&again), shown, "{file}");
        if !shown.contains("(hidden)") {
            let [a, b] = [&yaml, &shown].map(|yaml| Config::parse(yaml, &|_| None).unwrap());
            let without_lines = |config: Config| format!("{:?}", Config { warnings: vec![], ..config });
            assert_eq!(without_lines(a), without_lines(b), "{file}");
        }
    }
}

#[test]
fn values_stand_as_they_stood() {
    let yaml = format!(
        "# a comment\n{MINIMAL}SyncLogMethods: [PUT, 'DELETE']\nHealthCheckEndpoint: \"/a\"\n\
         MaxIdleConns: '1${{X}}'\nTrustedProxies: []\nBodyMaxSize:\n"
    );
    let env = |_: &str| Some("7".to_owned());
    let shown = Config::parse(&yaml, &env).unwrap().in_force.text().to_string();
    for line in [
        "SyncLogMethods:\n  - PUT\n  - \"DELETE\"\n",
        "\nHealthCheckEndpoint: \"/a\"\n",
        "\nMaxIdleConns: \"1${X}\"\n",
        "\nTrustedProxies: []\n",
        "\nBodyMaxSize:\n",
        "    Clusters:\n      - Cluster: c1\n        Weight: 0\n      - Cluster: c2\n",
    ] {
        assert!(shown.contains(line), "no {line:?} in {shown}");
    }
    assert!(!shown.contains("comment"));
}

#[test]
fn secrets_are_hidden() {
    let synclog = "Logging: {Synclog: {stderr: true, database: {user: me, password: PASSWORD, dbname: d}}}";
    let headers = "AdditionalRequestHeaders: {Authorization: hunter2, X-Version: '${S}'}";
    let minimal = MINIMAL.replace("Logging: {Synclog: {stderr: true}}", synclog);
    assert_ne!(minimal, MINIMAL);
    let yaml = format!("{headers}\n{minimal}AdditionalResponseHeaders: {{X-A: '${{S}}'}}\n");
    for (written, shown) in
        [("hunter2", "(hidden)"), ("'a${S}'", "(hidden)"), ("'$${x}'", "(hidden)"), ("'${S}'", "\"${S}\"")]
    {
        let text = in_force(&yaml.replace("PASSWORD", written));
        assert!(text.contains(&format!("password: {shown}\n")), "{text}");
        assert!(text.contains("user: me\n") && text.contains("X-Version: (hidden)\n"), "{text}");
        assert!(text.contains("X-A: \"${S}\"\n") && !text.contains("hunter2"), "{text}");
    }
}
