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
