//! `Logging`: where each of the four logs goes.

use std::path::PathBuf;

use log::LevelFilter;

use super::{
    LogConfig, Logging,
    reader::{At, MapReader},
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

/// syslog(3)'s facilities, without the prefix `LOG_`.
const FACILITIES: [&str; 20] = [
    "KERN", "USER", "MAIL", "DAEMON", "AUTH", "SYSLOG", "LPR", "NEWS", "UUCP", "CRON", "AUTHPRIV", "FTP",
    "LOCAL0", "LOCAL1", "LOCAL2", "LOCAL3", "LOCAL4", "LOCAL5", "LOCAL6", "LOCAL7",
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
        let message = "it goes nowhere: nobody learns what a backend missed; write stderr, stdout or file";
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
    };
    read_unsupported(&mut map, name);
    map.finish();
    // A main log that is not sent anywhere, and not silenced either, is one nobody thought of.
    let forgotten = name == "Mainlog" && stderr.is_none() && !log.goes_anywhere();
    LogConfig { stderr: log.stderr || forgotten, ..log }
}

impl LogConfig {
    /// Whether anybody will see it.
    pub fn goes_anywhere(&self) -> bool {
        self.stderr || self.stdout || self.file.is_some()
    }
}

fn level(at: &At, log: &str) -> Option<LevelFilter> {
    let level = at.one_of(&LEVELS)?;
    if log != "Mainlog" {
        at.warning("only Mainlog has levels; this has no effect");
    }
    Some(level)
}

/// Sinks of the original that are still to come: checked, then ignored.
fn read_unsupported(map: &mut MapReader, log: &str) {
    if let Some(at) = map.get("syslog") {
        let facility = at.text().map(|text| (text.value, text.shown));
        match facility {
            Some((value, _)) if value.is_empty() => {}
            Some((value, _)) if is_facility(&value) => at.report.unsupported(&at.path),
            Some((_, shown)) => {
                at.report.error(
                    &at.path,
                    at.node.line,
                    format!("{shown} is no facility; write one such as LOG_LOCAL1"),
                );
            }
            None => {}
        }
    }
    if log != "Synclog" {
        return;
    }
    let Some(at) = map.get("database") else { return };
    let Some(mut database) = at.map() else { return };
    for key in ["user", "password", "dbname", "host", "inserttmpl"] {
        // The text is dropped, and no message repeats it: one of them is a password.
        database.get(key).and_then(|at| at.text());
    }
    database.get("port").and_then(|at| at.count());
    database.finish();
    at.report.unsupported(&at.path);
}

fn is_facility(name: &str) -> bool {
    FACILITIES.contains(&name.strip_prefix("LOG_").unwrap_or(name))
}
