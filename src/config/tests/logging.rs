//! Where logs go: syslogs and the synclog's database.

use super::{super::insert, *};

/// The smallest configuration with these keys of the synclog.
fn with(synclog: &str) -> String {
    MINIMAL.replacen("{stderr: true}", &format!("{{{synclog}}}"), 1)
}

#[test]
fn a_syslog_has_a_facility_and_an_address() {
    let udp = |host: &str, port| SyslogAddress::Udp { host: host.to_owned(), port };
    for (keys, facility, address) in [
        ("syslog: LOG_LOCAL1", 17, SyslogAddress::Unix("/dev/log".into())),
        ("syslog: DAEMON, syslogaddr: 'unix:/run/log'", 3, SyslogAddress::Unix("/run/log".into())),
        (
            "stderr: true, syslog: LOG_LOCAL7, syslogaddr: 'udp:logs.example:514'",
            23,
            udp("logs.example", 514),
        ),
        ("stderr: true, syslog: LOG_KERN, syslogaddr: 'udp:[::1]:5140'", 0, udp("::1", 5140)),
    ] {
        let config = parse(&with(keys)).unwrap();
        assert_eq!(config.logging.synclog.syslog, Some(Syslog { facility, address }), "{keys}");
        assert!(
            config.warnings.is_empty() && config.logging.synclog.goes_anywhere(),
            "{keys}: {:?}",
            config.warnings
        );
    }
    assert_eq!(parse(&with("stderr: true, syslog: ''")).unwrap().logging.synclog.syslog, None);
    for (keys, expected) in [
        ("stderr: true, syslogaddr: 'unix:/dev/log'", "Logging.Synclog.syslogaddr: without syslog: FACILITY"),
        ("syslog: LOCAL1, syslogaddr: 'udp:h:514'", "Logging.Synclog: records that get lost on the way"),
    ] {
        assert!(warnings(&with(keys)).contains(expected), "{keys}");
    }
}

#[test]
fn each_mistake_in_a_syslog_is_named() {
    for (keys, expected) in [
        (
            "syslog: LOG_LOCAL8",
            "line 7: Logging.Synclog.syslog: \"LOG_LOCAL8\" is no facility; write one such as LOG_LOCAL1",
        ),
        ("syslog: [LOG_LOCAL1]", "Logging.Synclog.syslog: found a list"),
        (
            "syslog: LOCAL1, syslogaddr: /dev/log",
            "\"/dev/log\" is no address of a syslog; write unix:/dev/log or udp:HOST:PORT",
        ),
        ("syslog: LOCAL1, syslogaddr: 'unix:log'", "\"unix:log\" names no absolute path"),
        ("syslog: LOCAL1, syslogaddr: 'udp:host'", "is no address of a syslog"),
        ("syslog: LOCAL1, syslogaddr: 'udp:host:0'", "\"udp:host:0\" names no host and port"),
        ("syslog: LOCAL1, syslogaddr: 'udp:::1:514'", "an IPv6 address in brackets"),
        ("syslog: LOCAL1, syslogaddr: 'tcp:host:514'", "\"tcp:host:514\" is no address of a syslog"),
    ] {
        let found = errors(&with(keys));
        assert!(found.contains(expected), "{keys}: {found}");
    }
}

#[test]
fn a_database_has_the_originals_keys_and_ours() {
    let config = parse(&with("database: {user: u, dbname: d}")).unwrap();
    let database = config.logging.synclog.database.unwrap();
    assert_eq!(
        (database.login.user.as_str(), database.login.dbname.as_str(), &database.login.password),
        ("u", "d", &None)
    );
    assert_eq!(
        (database.login.host.as_str(), database.login.port, database.spool),
        ("localhost", 5432, 1 << 30)
    );
    assert_eq!(Ok(&database.insert), insert::translate(insert::DEFAULT).as_ref());
    assert!(config.warnings.is_empty());

    let keys = "user: u, password: '${P}', dbname: d, host: /run/postgresql, port: 5433, sslmode: disable, \
        spool: 10MiB, inserttmpl: \"INSERT INTO t VALUES ('{{.path}}');\"";
    let config = Config::parse(&with(&format!("database: {{{keys}}}")), &|_| Some("hunter2".into())).unwrap();
    let database = config.logging.synclog.database.as_ref().unwrap();
    assert_eq!(database.login.password.as_ref().map(Secret::reveal), Some("hunter2"));
    assert_eq!(
        (database.login.host.as_str(), database.login.port, database.spool),
        ("/run/postgresql", 5433, 10 << 20)
    );
    assert_eq!(database.insert.sql, "INSERT INTO t VALUES ($1)");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn each_mistake_in_a_database_is_named() {
    for (keys, expected) in [
        ("{}", "line 7: Logging.Synclog.database.user: missing; write the role that inserts"),
        ("{user: u}", "Logging.Synclog.database.dbname: missing; write the database's name"),
        ("{user: '', dbname: d}", "Logging.Synclog.database.user: empty"),
        (
            "{user: u, dbname: d, port: 0}",
            "Logging.Synclog.database.port: no port; write a number from 1 to 65535",
        ),
        ("{user: u, dbname: d, port: 70000}", "Logging.Synclog.database.port: no port"),
        ("{user: u, dbname: d, spool: 1K}", "Logging.Synclog.database.spool: \"1K\" is less than 1MiB"),
        (
            "{user: u, dbname: d, sslmode: require}",
            "Logging.Synclog.database.sslmode: \"require\" is not supported: connections are not encrypted; write disable",
        ),
        (
            "{user: u, dbname: d, inserttmpl: \"INSERT INTO t VALUES ('{{.pth}}')\"}",
            "line 7: Logging.Synclog.database.inserttmpl: line 1 of the template: \"pth\" is no field; did you mean \"path\"?",
        ),
        (
            "{user: u, dbname: d, inserttmp: x}",
            "Logging.Synclog.database.inserttmp: unknown key; did you mean \"inserttmpl\"?",
        ),
    ] {
        let found = errors(&with(&format!("database: {keys}")));
        assert!(found.contains(expected), "{keys}: {found}");
    }
    let elsewhere =
        MINIMAL.replacen("{stderr: true}", "{stderr: true}, Accesslog: {database: {user: u, dbname: d}}", 1);
    assert!(errors(&elsewhere).contains("Logging.Accesslog.database: unknown key"));
}

#[test]
fn a_template_in_a_block_is_told_with_both_lines() {
    let yaml = MINIMAL.replacen(
        "{stderr: true}}",
        "\n    database:\n      user: u\n      dbname: d\n      inserttmpl: |\n        INSERT INTO t\n        VALUES ({{if}})\n",
        1,
    );
    let yaml = yaml.replacen("Logging: {Synclog: ", "Logging:\n  Synclog:", 1);
    let found = errors(&yaml);
    assert!(found.contains("database.inserttmpl: line 2 of the template: \"if\" is no field"), "{found}");
}

#[test]
fn the_shipped_statement_and_table_name_the_same_columns() {
    let table = include_str!("../../../conf/postgres/001-synclog.sql");
    let (_, columns) = insert::DEFAULT.split_once('(').unwrap();
    let (columns, _) = columns.split_once(')').unwrap();
    for column in columns.split(',').map(str::trim) {
        assert!(table.lines().any(|line| line.trim_start().starts_with(&format!("{column} "))), "{column}");
    }
}
