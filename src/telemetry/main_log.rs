//! The main log: what the program has to say, as the `log` crate's global logger.
//!
//! env_logger filters and formats, on the caller's thread; the line then goes into a bounded channel and is
//! dropped (and counted) when that is full: no caller waits for a disk. The line that follows a gap says how
//! many are missing. Until the log is started, lines go to stderr directly: errors of the start are seen even
//! if the program never comes to run. Messages can hold what clients sent; their control characters are
//! escaped, so that nobody forges lines.

use std::{
    io,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use chrono::{SecondsFormat, Utc};
use log::{Level, LevelFilter};
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
/// Crates that tell of every connection at Info.
const TALKATIVE: [&str; 5] =
    ["pingora_core", "pingora_http", "pingora_pool", "pingora_proxy", "pingora_runtime"];

/// The main log's task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MainLog {
    lines: LogChannel<Vec<u8>>,
    form: Form,
    level: LevelFilter,
    /// Lines dropped since the last one that was written.
    gap: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Plain,
    Json,
}

impl MainLog {
    /// Opens the file, if there is one. Without any destination the log goes to stderr.
    pub fn open(config: &LogConfig) -> Result<MainLog, OpenError> {
        let mut destinations = Destination::open_all(MAINLOG, config)?;
        if destinations.is_empty() {
            destinations.push(Destination::Stderr);
        }
        Ok(MainLog::to(destinations, config, CAPACITY))
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
        let lines = LogChannel::new(MAINLOG, destinations, capacity, Limits::default(), Box::new(encode));
        MainLog { lines, form, level: config.level.unwrap_or(LevelFilter::Info), gap }
    }

    /// Makes this the `log` crate's logger; the environment's `RUST_LOG` overrides the level. Where a program
    /// that embeds us, or a test, has a logger already, that one stays.
    pub fn install(&self) {
        let logger = self.logger(std::env::var("RUST_LOG").ok().as_deref());
        let max_level = logger.filter();
        if log::set_boxed_logger(Box::new(logger)).is_ok() {
            log::set_max_level(max_level);
        }
    }

    fn logger(&self, filters: Option<&str>) -> env_logger::Logger {
        let mut builder = env_logger::Builder::new();
        match filters.filter(|filters| !filters.is_empty()) {
            Some(filters) => {
                builder.parse_filters(filters);
            }
            None => {
                builder.filter_level(self.level);
                if self.level <= LevelFilter::Info {
                    for module in TALKATIVE {
                        builder.filter_module(module, self.level.min(LevelFilter::Warn));
                    }
                }
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
        builder.build()
    }

    /// From here on lines go to the log's destinations.
    pub fn start(&self) -> io::Result<()> {
        self.lines.start()
    }

    /// Waits until everything is written, at most until `deadline`.
    pub async fn flush(&self, deadline: Instant) {
        if !self.lines.flush(deadline).await {
            writeln!(io::stderr(), "{MAINLOG}: not written in time: lines are lost").ok();
        }
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
