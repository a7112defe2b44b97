//! Credentials: whose they are, where they come from, and that nobody sees them.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use super::{MINIMAL, errors};
use crate::config::Config;

const KEYS: &str = "{AccessKey: AK, SecretKey: hunter2}";

fn with(credentials: &str) -> String {
    let cluster = format!("c1: {{Backends: [http://b1, http://b3], Credentials: {credentials}}}");
    let yaml = MINIMAL.replace("c1: {Backends: [http://b1]}", &cluster);
    assert_ne!(yaml, MINIMAL);
    yaml
}

fn file(folder: &tempfile::TempDir, mode: u32, text: &str) -> PathBuf {
    let path = folder.path().join(format!("{mode:o}-{}", text.len()));
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn each_backend_has_its_own_or_those_of_the_cluster() {
    let env = |name: &str| Some(format!("of-{name}"));
    let of = |credentials: &str| {
        let config = Config::parse(&with(credentials), &env).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(!format!("{config:?}").contains("of-") && !format!("{config:?}").contains("hunter2"));
        assert!(!config.in_force.text().contains("hunter2"), "{}", config.in_force.text());
        assert_eq!(config.clusters[1].credentials, [None]);
        config.clusters[0].credentials.clone()
    };
    let all = of("{AccessKey: '${A}', SecretKey: '${S}', SessionToken: '${T}', Region: eu-1}");
    let first = all[0].clone().unwrap();
    assert_eq!(all[0], all[1]);
    assert_eq!((first.access_key.as_str(), first.region.as_str()), ("of-A", "eu-1"));
    assert_eq!((first.secret_key.reveal(), first.session_token.clone().unwrap().reveal()), ("of-S", "of-T"));
    let own = of(&format!("[{KEYS}, {{AccessKey: B3, SecretKey: x, Backend: HTTP://B3:80/}}]"));
    let keys = own.map_keys();
    assert_eq!(keys, [Some("AK".to_owned()), Some("B3".to_owned())]);
    let one = of("[{AccessKey: B3, SecretKey: x, Backend: http://b3}]");
    assert_eq!(one.map_keys(), [None, Some("B3".to_owned())]);
    assert_eq!(one[1].as_ref().unwrap().region, "us-east-1");
}

trait MapKeys {
    fn map_keys(&self) -> Vec<Option<String>>;
}

impl MapKeys for Vec<Option<std::sync::Arc<crate::config::Credentials>>> {
    fn map_keys(&self) -> Vec<Option<String>> {
        self.iter().map(|one| one.as_ref().map(|one| one.access_key.clone())).collect()
    }
}

#[test]
fn each_mistake_is_named() {
    let cases = [
        ("x", "Credentials: found a single value; write a mapping"),
        ("{AccessKey: a}", "Clusters.c1.Credentials.SecretKey: missing; write it, best as ${NAME}"),
        ("{SecretKey: hunter2}", "Credentials.AccessKey: missing; write it, best as ${NAME}"),
        ("[{AccessKey: a, SecretKey: 'hunter2 '}]", "Credentials[0].SecretKey: not usable as a secret key"),
        ("{AccessKey: \"hunter2\\n\", SecretKey: b}", "AccessKey: not usable as an access key"),
        ("{AccessKey: a, SecretKey: b, Region: 'hunter2,'}", "Region: not usable as a region"),
        ("{AccessKey: a, SecretKey: b, Token: hunter2}", "Credentials.Token: unknown key"),
        ("{File: x}", "File: \"x\" is not an absolute path"),
        ("{File: /x, AccessKey: hunter2, SecretKey: b}", "Credentials.AccessKey: stands beside File"),
        ("{File: /nonexistent/x}", "File: \"/nonexistent/x\" cannot be read: No such file"),
        ("{File: /dev/null}", "File: \"/dev/null\" is no file"),
        (
            "[{AccessKey: a, SecretKey: b, Backend: http://b9}]",
            "Backend: \"http://b9\" is no backend of this cluster",
        ),
        ("[{AccessKey: a, SecretKey: b, Backend: b1}]", "Credentials[0].Backend: not a URL of a backend"),
        (
            "[{AccessKey: a, SecretKey: b, Backend: http://b1}, {AccessKey: a, SecretKey: b, Backend: http://b1:80}]",
            "Credentials[1].Backend: \"http://b1:80\" has Credentials already",
        ),
        (&format!("[{KEYS}, {KEYS}]"), "Credentials[1]: the second one without Backend"),
    ];
    for (credentials, expected) in cases {
        let found = errors(&with(credentials));
        assert!(found.contains(expected) && found.lines().count() == 1, "{credentials}: {found}");
        assert!(!found.contains("hunter2"), "{found}");
    }
    let both =
        with(KEYS).replace("[http://b2]", "[http://b1], Credentials: {AccessKey: AK, SecretKey: other}");
    let found = errors(&both);
    assert!(
        found.contains("Clusters.c2.Backends[0]: \"http://b1\" has other Credentials in cluster c1"),
        "{found}"
    );
    assert_eq!(errors(&both.replace("other", "hunter2")), "");
}

#[test]
fn a_file_is_read_if_only_its_owner_may_change_it() {
    let folder = tempfile::tempdir().unwrap();
    let good = "# keys\nAccessKey: AK\nSecretKey: \"s/+=\"\n";
    for mode in [0o600, 0o400, 0o640] {
        let yaml = with(&format!("{{File: '{}'}}", file(&folder, mode, good).display()));
        let config = Config::parse(&yaml, &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
        let keys = config.clusters[0].credentials[1].clone().unwrap();
        assert_eq!((keys.access_key.as_str(), keys.secret_key.reveal()), ("AK", "s/+="));
    }
    let large = format!("AccessKey: hunter2\n{}", "# more\n".repeat(10_000));
    let cases = [
        (0o644, good, "has the mode 0644, so that others may use it; make that 0600, or 0640"),
        (0o660, good, "has the mode 0660"),
        (0o604, good, "has the mode 0604"),
        (0o700, good, "has the mode 0700"),
        (0o600, "AccessKey: hunter2\n", "is wrong in line 1; write a line each of AccessKey"),
        (0o600, "AccessKey: a\nSecretKey: b\nhunter2: x\n", "is wrong in line 3"),
        (0o600, "root:hunter2:1:2\n", "is wrong in line 1"),
        (0o600, "", "is wrong in line 1"),
        (0o600, large.as_str(), "is larger than 64 KiB"),
    ];
    for (mode, text, expected) in cases {
        let path = file(&folder, mode, text);
        let found = errors(&with(&format!("{{File: '{}'}}", path.display())));
        let expected = format!("Clusters.c1.Credentials.File: \"{}\" {expected}", path.display());
        assert!(found.contains(&expected) && found.lines().count() == 1, "{mode:o}: {found}");
        assert!(!found.contains("hunter2"), "{found}");
    }
}

#[test]
fn a_text_from_outside_learns_nothing_of_files() {
    for path in ["/etc/passwd", "/nonexistent"] {
        let warnings = Config::check(with(&format!("{{File: {path}}}")).into()).unwrap();
        assert_eq!(
            warnings,
            [
                "line 3: Clusters.c1.Credentials.File: the file system is not looked at here: the file is not checked"
            ]
        );
    }
    for withheld in [
        "File: '${F}'",
        "AccessKey: '${A}', SecretKey: b",
        "AccessKey: a, SecretKey: '${S}'",
        "AccessKey: a, SecretKey: b, Backend: '${B}'",
        "AccessKey: a, SecretKey: b, Region: '${R}'",
    ] {
        let warnings = Config::check(with(&format!("{{{withheld}}}")).into());
        let warnings = warnings.unwrap_or_else(|errors| panic!("{withheld}: {errors}"));
        assert!(warnings.len() == 1 && warnings[0].contains("is not checked"), "{withheld}: {warnings:?}");
    }
}
