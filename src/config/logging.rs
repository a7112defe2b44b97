//! `Logging`: where each of the four logs goes.

use std::{path::PathBuf, sync::Arc};

use log::LevelFilter;

use super::{
    LogConfig, Logging, Syslog, SyslogAddress, database,
    reader::{At, MapReader},
    syslog,
};

/// The original's levels. Its Panic and Fatal end the program there; here they are errors.
const LEVELS: [(&str, LevelFilter); 6] = [
    ("Panic", LevelFilter::Error),
    ("Fatal", LevelFilter::Error),
    ("Error", LevelFilter::Error),
    ("Warn", LevelFilter::Warn),
    ("Info", LevelFilter::Info),
    ("Debug", LevelFilter::Debug),
];

pub fn read(top: &mut MapReader) -> Logging {
    let mut logging = Logging::default();
    let report = top.at.report;
    let block = top.get("Logging");
    if let Some(mut map) = block.as_ref().and_then(At::map) {
        logging.synclog = read_log(&mut map, "Synclog");
        logging.mainlog = read_log(&mut map, "Mainlog");
        logging.accesslog = read_log(&mut map, "Accesslog");
        logging.clustersynclog = read_log(&mut map, "ClusterSyncLog");
        map.finish();
    }
    let judged = !block.as_ref().is_some_and(|at| at.node.holds_unknown());
    if judged && !logging.synclog.goes_anywhere() {
        let line = block.map_or(1, |at| at.node.line);
        let message =
            "it goes nowhere: nobody learns what a backend missed; write stderr, file, syslog or database";
        report.warning("Logging.Synclog", line, message);
    }
    logging.mainlog.level.get_or_insert(LevelFilter::Debug);
    logging.mainlog.plaintext.get_or_insert(true);
    logging
}

fn read_log(logging: &mut MapReader, name: &'static str) -> LogConfig {
    let block = logging.get(name);
    let Some(mut map) = block.as_ref().and_then(At::map) else {
        return LogConfig { stderr: name == "Mainlog", ..LogConfig::default() };
    };
    let stderr = map.get("stderr").and_then(|at| at.boolean());
    let log = LogConfig {
        stderr: stderr.unwrap_or(false),
        stdout: map.read("stdout", false, At::boolean),
        file: map.get("file").and_then(|at| at.nonempty()).map(PathBuf::from),
        level: map.get("level").and_then(|at| level(&at, name)),
        plaintext: map.get("plaintext").and_then(|at| at.boolean()),
        syslog: syslog::read(&mut map),
        database: if name == "Synclog" { database::read(&mut map).map(Arc::new) } else { None },
    };
    if name == "Synclog" && log.only_by_datagrams() {
        map.at.warning(
            "records that get lost on the way to a collector are lost silently; write file or database too",
        );
    }
    map.finish();
    // A main log that is not sent anywhere, and not silenced either, is one nobody thought of.
    let forgotten = name == "Mainlog" && stderr.is_none() && !log.goes_anywhere();
    LogConfig { stderr: log.stderr || forgotten, ..log }
}

impl LogConfig {
    /// Whether anybody will see it.
    pub fn goes_anywhere(&self) -> bool {
        self.stderr || self.stdout || self.file.is_some() || self.syslog.is_some() || self.database.is_some()
    }

    /// Whether nobody would notice what the network loses.
    fn only_by_datagrams(&self) -> bool {
        let udp = |syslog: &Syslog| matches!(syslog.address, SyslogAddress::Udp { .. });
        let others = LogConfig { syslog: None, ..self.clone() };
        self.syslog.as_ref().is_some_and(udp) && !others.goes_anywhere()
    }
}

fn level(at: &At, log: &str) -> Option<LevelFilter> {
    let level = at.one_of(&LEVELS)?;
    if log != "Mainlog" {
        at.warning("only Mainlog has levels; this has no effect");
    }
    Some(level)
}
