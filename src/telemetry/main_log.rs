//! The main log: what the program has to say, as the `log` crate's global logger.
//!
//! env_logger filters and formats, on the caller's thread; the line then goes into a bounded channel and is
//! dropped (and counted) when that is full: no caller waits for a disk. The line that follows a gap says how
//! many are missing. Until the log is started, lines go to stderr directly: errors of the start are seen even
//! if the program never comes to run. Messages can hold what clients sent; their control characters are
//! escaped, so that nobody forges lines.
//!
//! The level can be changed while the program runs, unless the environment's `RUST_LOG` filters.

use std::{
    io,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use chrono::{SecondsFormat, Utc};
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde::Serialize;
use tokio::time::Instant;

use super::{
    MAINLOG,
    backlog::Limits,
    channel::LogChannel,
    destination::{Destination, OpenError},
    line,
};
use crate::config::LogConfig;

const CAPACITY: usize = 8 * 1024;
/// The beginning of the names of modules that tell of every connection at Info, or of every statement at Debug.
const TALKATIVE: [&str; 2] = ["pingora", "tokio_postgres"];

/// The main log's task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MainLog {
    lines: LogChannel<Vec<u8>>,
    form: Form,
    level: Arc<Threshold>,
    /// Lines dropped since the last one that was written.
    gap: Arc<AtomicU64>,
}

/// What is logged now.
#[derive(Debug)]
struct Threshold {
    /// A [`LevelFilter`] as a number.
    level: AtomicUsize,
    /// The environment filters, and not this.
    overridden: AtomicBool,
    /// Ours is the program's logger.
    installed: AtomicBool,
}

/// The logger that is installed.
struct Logger {
    inner: env_logger::Logger,
    threshold: Arc<Threshold>,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Plain,
    Json,
}

impl MainLog {
    /// Opens the file, if there is one. Without any destination the log is silent.
    pub fn open(config: &LogConfig) -> Result<MainLog, OpenError> {
        Ok(MainLog::to(Destination::open_all(MAINLOG, config)?, config, CAPACITY))
    }

    fn to(destinations: Vec<Destination>, config: &LogConfig, capacity: usize) -> MainLog {
        let form = if config.plaintext.unwrap_or(true) { Form::Plain } else { Form::Json };
        let gap = Arc::<AtomicU64>::default();
        let missing = Arc::clone(&gap);
        let encode = move |line: &Vec<u8>, buffer: &mut Vec<u8>| {
            let missing = missing.swap(0, Relaxed);
            if missing > 0 {
                let message = format!("{missing} lines are missing here: the main log's channel was full");
                form.push(Level::Warn, module_path!(), &message, buffer)?;
            }
            buffer.extend_from_slice(line);
            Ok(())
        };
        let lines = LogChannel::new(MAINLOG, destinations, capacity, Limits::default(), Arc::new(encode));
        let level = Arc::new(Threshold {
            level: AtomicUsize::new(config.level.unwrap_or(LevelFilter::Info) as usize),
            overridden: AtomicBool::new(false),
            installed: AtomicBool::new(false),
        });
        MainLog { lines, form, level, gap }
    }

    /// Makes this the `log` crate's logger; the environment's `RUST_LOG` overrides the level. Where a program
    /// that embeds us, or a test, has a logger already, that one stays.
    pub fn install(&self) {
        let logger = self.logger(std::env::var("RUST_LOG").ok().as_deref());
        let max_level = logger.max_level();
        if log::set_boxed_logger(Box::new(logger)).is_ok() {
            self.level.installed.store(true, Relaxed);
            log::set_max_level(max_level);
        }
    }

    /// Changes the level from now on; `false`, with a warning, where the environment's `RUST_LOG` stands instead.
    pub fn set_level(&self, level: LevelFilter) -> bool {
        if self.level.overridden.load(Relaxed) {
            log::warn!("the main log's level stays as RUST_LOG in the environment says");
            return false;
        }
        self.level.level.store(level as usize, Relaxed);
        if self.level.installed.load(Relaxed) && !self.lines.is_off() {
            log::set_max_level(level);
        }
        true
    }

    fn logger(&self, filters: Option<&str>) -> Logger {
        let mut builder = env_logger::Builder::new();
        match filters.filter(|filters| !filters.is_empty()) {
            Some(filters) => {
                builder.parse_filters(filters);
                self.level.overridden.store(true, Relaxed);
            }
            // What passes is decided before, since it can change.
            None => {
                builder.filter_level(LevelFilter::Trace);
            }
        }
        let form = self.form;
        builder.format(move |out, record| {
            let mut line = Vec::with_capacity(128);
            form.push(record.level(), record.target(), &record.args().to_string(), &mut line)?;
            out.write_all(&line)
        });
        let pipe = Pipe { lines: self.lines.clone(), gap: Arc::clone(&self.gap) };
        builder.target(env_logger::Target::Pipe(Box::new(pipe)));
        Logger { inner: builder.build(), threshold: Arc::clone(&self.level) }
    }

    /// Opens the file anew, as soon as what is being written is written.
    pub fn reopen(&self) {
        self.lines.reopen();
    }

    /// From here on lines go to the log's destinations.
    pub fn start(&self) -> io::Result<()> {
        self.lines.start()?;
        if self.lines.is_off() && self.level.installed.load(Relaxed) {
            // Nobody would read what costs a tenth of a small request to write.
            log::set_max_level(LevelFilter::Off);
        }
        Ok(())
    }

    /// Waits until everything is written, at most until `deadline`.
    pub async fn flush(&self, deadline: Instant) {
        if !self.lines.flush(deadline).await {
            writeln!(io::stderr(), "{MAINLOG}: not written in time: lines are lost").ok();
        }
    }
}

impl Threshold {
    fn level(&self) -> LevelFilter {
        let number = self.level.load(Relaxed);
        LevelFilter::iter().find(|level| *level as usize == number).unwrap_or(LevelFilter::Info)
    }

    fn passes(&self, metadata: &Metadata) -> bool {
        let level = self.level();
        let least = if level <= LevelFilter::Info { LevelFilter::Warn } else { LevelFilter::Info };
        let talkative = TALKATIVE.iter().any(|name| metadata.target().starts_with(name));
        let most = if talkative { level.min(least) } else { level };
        self.overridden.load(Relaxed) || metadata.level() <= most
    }
}

impl Logger {
    /// The most that any module may log now.
    fn max_level(&self) -> LevelFilter {
        if self.threshold.overridden.load(Relaxed) { self.inner.filter() } else { self.threshold.level() }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.threshold.passes(metadata) && self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if self.threshold.passes(record.metadata()) {
            self.inner.log(record);
        }
    }

    fn flush(&self) {
        self.inner.flush();
    }
}

impl Form {
    /// Appends one line, stamped with the present time in microseconds.
    fn push(self, level: Level, target: &str, message: &str, line: &mut Vec<u8>) -> serde_json::Result<()> {
        let ts = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
        match self {
            Form::Plain => {
                let message = line::escape(message);
                line.extend_from_slice(format!("{ts} {level} {target}: {message}\n").as_bytes());
                Ok(())
            }
            Form::Json => {
                line::push_json(&JsonLine { ts: &ts, level: level.as_str(), target, msg: message }, line)
            }
        }
    }
}

#[derive(Serialize)]
struct JsonLine<'a> {
    ts: &'a str,
    level: &'a str,
    target: &'a str,
    msg: &'a str,
}

/// Where env_logger writes; it does so under a lock, one whole line at a time. Must not log.
struct Pipe {
    lines: LogChannel<Vec<u8>>,
    gap: Arc<AtomicU64>,
}

impl Write for Pipe {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !self.lines.is_started() {
            io::stderr().write_all(line)?;
        } else if !self.lines.offer(line.to_vec()) {
            self.gap.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::{metrics::LogMetrics, scripted::Scripted};

    fn log_to(sink: &Scripted, config: LogConfig, capacity: usize) -> MainLog {
        MainLog::to(vec![sink.destination()], &config, capacity)
    }

    fn say(logger: &Logger, level: Level, target: &str, message: &str) {
        logger.log(&Record::builder().level(level).target(target).args(format_args!("{message}")).build());
    }

    async fn flush(log: &MainLog) {
        log.flush(Instant::now() + Duration::from_secs(20)).await;
    }

    #[tokio::test]
    async fn a_message_cannot_forge_a_line() {
        let sink = Scripted::takes();
        let log = log_to(&sink, LogConfig::default(), 10);
        log.start().unwrap();
        let logger = log.logger(None);
        say(&logger, Level::Error, "akubra::gateway", "bad key a\n2026-01-02T03:04:05Z ERROR x: \u{1b}[2J");
        flush(&log).await;
        let text = sink.text();
        let (ts, rest) = text.split_once(' ').unwrap();
        assert_eq!(ts.len(), "2026-01-02T03:04:05.678901Z".len());
        assert!(chrono::DateTime::parse_from_rfc3339(ts).is_ok());
        assert_eq!(rest, "ERROR akubra::gateway: bad key a\\n2026-01-02T03:04:05Z ERROR x: \\u{1b}[2J\n");
    }

    #[tokio::test]
    async fn without_plaintext_a_line_is_a_json_object() {
        let sink = Scripted::takes();
        let log = log_to(&sink, LogConfig { plaintext: Some(false), ..LogConfig::default() }, 10);
        log.start().unwrap();
        say(&log.logger(None), Level::Warn, "akubra", "two\nlines");
        flush(&log).await;
        let line: serde_json::Value = serde_json::from_str(&sink.text()).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["target"], "akubra");
        assert_eq!(line["msg"], "two\nlines");
        assert_eq!(sink.text().lines().count(), 1);
    }

    #[test]
    fn levels_come_from_the_file_and_the_environment_overrides_them() {
        let enabled = |level, filters: Option<&str>, target: &str, at: Level| {
            let log = log_to(&Scripted::takes(), LogConfig { level, ..LogConfig::default() }, 1);
            let metadata = log::Metadata::builder().level(at).target(target).build();
            log.logger(filters).enabled(&metadata)
        };
        let debug = Some(LevelFilter::Debug);
        assert!(enabled(None, None, "akubra::mirror", Level::Info));
        assert!(!enabled(None, None, "akubra::mirror", Level::Debug));
        assert!(!enabled(None, None, "pingora_core::server", Level::Info));
        assert!(enabled(None, None, "pingora_proxy", Level::Warn));
        assert!(enabled(debug, None, "pingora_proxy", Level::Info));
        assert!(!enabled(debug, None, "pingora_proxy", Level::Debug));
        assert!(!enabled(Some(LevelFilter::Error), None, "pingora_proxy", Level::Warn));
        assert!(!enabled(debug, Some("error"), "akubra", Level::Warn));
        assert!(enabled(None, Some(""), "akubra", Level::Info));
        assert!(!enabled(Some(LevelFilter::Off), None, "akubra", Level::Error));
    }

    #[test]
    fn the_level_changes_at_once_unless_the_environment_filters() {
        let at = |target: &'static str, level| log::Metadata::builder().level(level).target(target).build();
        let log = log_to(&Scripted::takes(), LogConfig::default(), 1);
        let logger = log.logger(None);
        assert!(!logger.enabled(&at("akubra", Level::Debug)));
        assert!(log.set_level(LevelFilter::Debug));
        assert!(
            logger.enabled(&at("akubra", Level::Debug)) && logger.enabled(&at("pingora_core", Level::Info))
        );
        assert!(!logger.enabled(&at("pingora_core", Level::Debug)));
        assert!(log.set_level(LevelFilter::Off));
        assert!(!logger.enabled(&at("akubra", Level::Error)));

        let log = log_to(&Scripted::takes(), LogConfig::default(), 1);
        let logger = log.logger(Some("error"));
        assert!(!log.set_level(LevelFilter::Debug));
        assert!(!logger.enabled(&at("akubra", Level::Warn)) && logger.enabled(&at("akubra", Level::Error)));
    }

    #[tokio::test]
    async fn a_full_channel_drops_lines_and_the_log_says_how_many() {
        let sink = Scripted::hangs();
        let log = log_to(&sink, LogConfig::default(), 4);
        log.start().unwrap();
        let logger = log.logger(None);
        let dropped = LogMetrics::of(MAINLOG).dropped;
        let before = dropped.get();
        // The queue of the hanging destination takes whole batches until it holds 8 MiB.
        let message = "x".repeat(64 * 1024);
        for _ in 0..500 {
            say(&logger, Level::Info, "akubra", &message);
        }
        let missing = dropped.get() - before;
        assert!(missing > 0);
        sink.take();
        flush(&log).await;
        say(&logger, Level::Info, "akubra", "after");
        flush(&log).await;
        let text = sink.text();
        assert_eq!(text.lines().filter(|line| line.ends_with('x')).count() as u64, 500 - missing);
        let gaps =
            text.lines().filter_map(|line| line.split_once("main_log: ")?.1.split_once(" lines are missing"));
        assert_eq!(gaps.map(|(n, _)| n.parse::<u64>().unwrap()).sum::<u64>(), missing);
        assert!(text.ends_with(" INFO akubra: after\n"));
    }
}
