//! Values from the environment: they arrive, and no message or debug output repeats them.

use std::time::Duration;

use super::{super::server, MINIMAL, errors, shipped::reference};
use crate::config::Config;

#[test]
fn values_come_from_the_environment() {
    let env = |name: &str| (name == "N").then(|| "7".to_owned());
    let yaml = format!("threads: ${{N}}\nMaxIdleConns: \"${{N}}\"\nDialTimeout: ${{N}}s\n{MINIMAL}");
    let config = Config::parse(&yaml, &env).unwrap();
    assert_eq!((config.server.threads, config.transport.max_idle_conns), (7, 7));
    assert_eq!(config.transport.dial_timeout, Duration::from_secs(7));
    let found = errors(&format!("Metrics: {{Addr: '${{NOPE}}', Target: graphite}}\n{MINIMAL}"));
    assert_eq!(found, "line 1: Metrics.Addr: the environment variable NOPE is not set");
}

#[test]
fn a_text_from_outside_is_checked_without_the_environment() {
    // A variable that every process has: what is said must be the same as of one that nobody has.
    let check = |yaml: &str| Config::check(yaml.into()).map_err(|errors| errors.to_string());
    for name in ["PATH", "AKUBRA_NO_SUCH_VARIABLE"] {
        let warnings = check(&format!("DialTimeout: 1${{{name}}}\n{MINIMAL}")).unwrap();
        assert_eq!(
            warnings,
            ["line 1: DialTimeout: the environment is not looked at here: the value is not checked"]
        );
    }
    let found = check(&format!("DialTimeout: '${{'\nFoo: $${{x}}\n{MINIMAL}")).unwrap_err();
    assert!(found.contains("DialTimeout: \"${\" without a variable's name"), "{found}");
    assert!(found.contains("Foo: unknown key") && found.lines().count() == 2, "{found}");
}

#[test]
fn what_hangs_on_a_value_that_is_not_looked_up_is_not_called_wrong() {
    let cases = [
        ("[http://b1]", "['${B}']"),
        ("[http://b1]", "'${B}'"),
        ("Cluster: c1,", "Cluster: '${C}',"),
        ("Weight: 1", "Weight: '${W}'"),
        ("Default: true", "Default: '${D}'"),
        ("Default: true", "Domains: ['${D}']"),
        ("Default: true", "Domains: '${D}'"),
        ("stderr: true", "file: '${F}'"),
        ("':0'", "'${L}'"),
    ];
    for (good, withheld) in cases {
        let yaml = format!("MaintainedBackends: [http://b2]\n{MINIMAL}").replacen(good, withheld, 1);
        assert_ne!(yaml, MINIMAL);
        let warnings = Config::check(yaml.into()).unwrap_or_else(|errors| panic!("{withheld}: {errors}"));
        let told: Vec<_> = warnings.iter().filter(|w| !w.contains("MaintainedBackends")).collect();
        assert!(told.len() == 1 && told[0].contains("is not checked"), "{withheld}: {told:?}");
    }
    let yaml = format!("MaintainedBackends: [http://b9]\n{}", MINIMAL.replacen("[http://b1]", "['${B}']", 1));
    assert!(Config::check(yaml.into()).is_ok());
}

#[test]
fn checking_takes_time_in_proportion_to_the_text() {
    let many = |line: &str| (0..12_000).map(|n| line.replace('#', &n.to_string())).collect::<String>();
    let head = "Listen: ':0'\nRegions: {r: {Default: true, Clusters: [{Cluster: c, Weight: 1}]}}\n";
    let cases = [
        format!(
            "{head}Clusters:\n  c:\n    Backends:\n{}MaintainedBackends:\n{}",
            many("    - http://b#\n"),
            many("- http://b#\n")
        ),
        format!(
            "{head}Clusters:\n  c:\n    Backends:\n{}MaintainedBackends:\n{}",
            many("    - http://b#\n"),
            many("- http://c#\n")
        ),
        format!(
            "{head}Clusters:\n  c:\n    Backends:\n{}    Credentials:\n{}",
            many("    - http://b#\n"),
            many("    - {AccessKey: a, SecretKey: b, Backend: http://b#}\n")
        ),
        format!("{head}Clusters:\n{}", many("  c#: {Backends: [http://b#]}\n")),
        "a: 1\n".repeat(60_000),
        format!("a: [{}]", "a: b,".repeat(50_000)),
        format!("a: &a [1]\nb: [{}]", "*a,".repeat(80_000)),
    ];
    for yaml in cases {
        let started = std::time::Instant::now();
        drop(Config::check(yaml.clone().into()));
        // Half a second without optimisation; where it grew with the square it would be half a minute.
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}: {:.60}", started.elapsed(), yaml);
    }
}

#[test]
fn a_value_from_the_environment_is_in_no_message() {
    let secret = "hunter-2/secret";
    let full =
        reference(|_| false) + "Metrics: {Target: x, ExpAddr: x, Interval: x, Addr: x, Percentiles: [x]}\n";
    let full = full + &server::KEYS.map(|key| format!("{key}: x\n")).concat();
    let full = full
        + "MaintainedBackends: [x]\nSyncLogMethods: [x]\nBodyMaxSize: x\nDialTimeout: x\nMaxIdleConns: x\n";
    // Every value of the file in turn comes from the environment, in every way it can be wrong.
    for (index, line) in full.lines().enumerate() {
        let Some(start) = line.rfind([':', '-', '[']).filter(|_| !line.trim_start().starts_with('#')) else {
            continue;
        };
        let changed = format!("{} '${{S}}'{}", &line[..=start], if line.ends_with(']') { "]" } else { "" });
        let yaml: String = full
            .lines()
            .enumerate()
            .map(|(i, line)| if i == index { &changed } else { line }.to_owned() + "\n")
            .collect();
        for value in [
            secret.to_owned(),
            format!("http://{secret}@h"),
            format!("\n{secret}: &a"),
            "\u{0}hunter-2".into(),
        ] {
            match Config::parse(&yaml, &|_| Some(value.clone())) {
                Ok(_) => {}
                Err(errors) => {
                    assert!(!format!("{errors} {errors:?}").contains("hunter-2"), "{changed}: {errors}")
                }
            }
        }
    }
}

#[test]
fn secrets_that_stand_in_the_file_are_in_no_message_either() {
    let database = "Logging: {Synclog: {database: {user: [hunter2], password: hunter2, port: x}}}";
    for keys in [
        "AdditionalRequestHeaders: {Authorization: \"hunter2\\n\", Host: hunter2}",
        "MaintainedBackends: ['http://me:hunter2@b1', 'http://b1/?token=hunter2']",
        database,
    ] {
        let found =
            errors(&format!("{keys}\n{}", MINIMAL.replace("Logging: {Synclog: {stderr: true}}\n", "")));
        assert!(!found.is_empty() && !found.contains("hunter2"), "{found}");
    }
    let yaml = format!("AdditionalRequestHeaders: {{Authorization: '${{S}}'}}\n{MINIMAL}");
    let config = Config::parse(&yaml, &|_| Some("hunter2".into())).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    assert_eq!(config.additional_request_headers[0].1.as_bytes(), b"hunter2");
}
