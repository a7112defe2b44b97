//! The journal, and what regions ask of it.

use std::path::Path;

use super::*;

fn journal(block: &str) -> JournalConfig {
    parse(&format!("Journal: {block}\n{MINIMAL}")).unwrap().journal.unwrap()
}

#[test]
fn an_empty_block_is_a_journal_in_the_state_directory() {
    let JournalConfig { engine, remembered_objects, settle } = journal("{}");
    assert!(
        matches!(&engine, JournalEngine::Sqlite(file) if file == Path::new("/var/lib/akubra/journal.sqlite"))
    );
    assert_eq!((remembered_objects, settle), (100_000, Duration::from_secs(120)));
    assert!(parse(MINIMAL).unwrap().journal.is_none());
    for block in
        ["{}\nStateDirectory: /s", "{SQLite: {}}\nStateDirectory: /s", "{SQLite: {File: /s/journal.sqlite}}"]
    {
        let engine = journal(block).engine;
        assert!(
            matches!(&engine, JournalEngine::Sqlite(file) if file == Path::new("/s/journal.sqlite")),
            "{engine:?}"
        );
    }
}

#[test]
fn a_database_is_named_as_the_synclogs_is() {
    let journal = journal("{PostgreSQL: {user: u, password: hunter2, dbname: d, port: 5433}, Settle: 1m}");
    let JournalEngine::Postgres(login) = &journal.engine else { panic!("{journal:?}") };
    assert_eq!((login.user.as_str(), login.dbname.as_str(), login.port), ("u", "d", 5433));
    assert_eq!((login.host.as_str(), journal.settle), ("localhost", Duration::from_secs(60)));
    assert!(!format!("{journal:?}").contains("hunter2"));
}

#[test]
fn a_regions_consistency_needs_a_journal() {
    let with = |consistency: &str| {
        MINIMAL.replacen("{Default: true,", &format!("{{Default: true, Consistency: {consistency},"), 1)
    };
    for (word, consistency) in
        [("none", Consistency::None), ("weak", Consistency::Weak), ("strong", Consistency::Strong)]
    {
        let config = parse(&format!("Journal: {{}}\n{}", with(word))).unwrap();
        assert_eq!(config.regions[0].consistency, consistency);
    }
    assert_eq!(parse(MINIMAL).unwrap().regions[0].consistency, Consistency::None);
    assert!(parse(&with("none")).is_ok());
    let found = errors(&with("strong"));
    assert!(
        found.contains("Regions.r.Consistency: there is no Journal to tell of writes; write Journal: {}"),
        "{found}"
    );
    let found = errors(&with("full"));
    assert!(
        found.contains("Regions.r.Consistency: \"full\" is not known; write one of none, weak, strong"),
        "{found}"
    );
}

#[test]
fn each_mistake_in_a_journal_is_named() {
    for (block, expected) in [
        ("{SQLite: {}, PostgreSQL: {user: u, dbname: d}}", "Journal.PostgreSQL: beside SQLite"),
        ("{SQLite: {File: journal}}", "Journal.SQLite.File: \"journal\" is not an absolute path"),
        ("{SQLite: {Path: /j}}", "Journal.SQLite.Path: unknown key"),
        ("{PostgreSQL: {user: u}}", "Journal.PostgreSQL.dbname: missing"),
        ("{PostgreSQL: {user: u, dbname: d, spool: 1G}}", "Journal.PostgreSQL.spool: unknown key"),
        ("{RememberedObjects: 0}", "Journal.RememberedObjects: 0 would remember nothing"),
        ("{Settle: 0s}", "Journal.Settle: 0 would end every wait at once"),
        ("true", "Journal: found a single value; write a mapping of keys"),
    ] {
        let found = errors(&format!("Journal: {block}\n{MINIMAL}"));
        assert!(found.contains(expected), "{block}: {found}");
    }
}
