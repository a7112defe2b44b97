//! The access log: one JSON line per client request.
//!
//! It tells what happened, it is not what data safety stands on: when its destinations are slower than
//! requests come, lines are dropped and counted, and a warning in the main log says so. Requests never wait.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use http::Method;
use serde::{Serialize, Serializer};
use tokio::time::Instant;

use super::{
    backlog::Limits,
    channel::LogChannel,
    destination::{Destination, OpenError},
    line,
    report::Report,
};
use crate::config::LogConfig;

const LOG: &str = "accesslog";
/// Entries of about half a kilobyte.
const CAPACITY: usize = 16 * 1024;

/// The handle that requests write through. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AccessLog {
    entries: LogChannel<AccessEntry>,
    full: Arc<Report>,
}

/// One request and its answer, in the order of its line's fields.
#[derive(Debug, Clone, Serialize)]
pub struct AccessEntry {
    #[serde(serialize_with = "method")]
    pub method: Method,
    pub host: String,
    /// Raw; a query is cut off when the line is made.
    #[serde(serialize_with = "line::path")]
    pub path: String,
    pub useragent: String,
    /// Of the answer; 0 = none was sent.
    pub status: u16,
    /// From the request's head to the answer's end; milliseconds with a fraction in the line.
    #[serde(serialize_with = "milliseconds")]
    pub duration: Duration,
    /// Empty where there was none.
    pub error: String,
    #[serde(rename = "reqID")]
    pub req_id: String,
    /// When the request came.
    #[serde(serialize_with = "line::timestamp")]
    pub ts: DateTime<Utc>,
    /// Bytes of the body read from the client.
    pub bytes_in: u64,
    /// Bytes of the answer's body sent to the client.
    pub bytes_out: u64,
    /// Empty where the request got no further.
    pub region: String,
    pub cluster: String,
    /// Backends that were asked.
    pub asked: usize,
    /// Backends whose reply was good when the client's answer ended.
    pub good: usize,
    /// The client's address; an empty string in the line where there is none (a unix socket).
    #[serde(serialize_with = "address")]
    pub remote: Option<IpAddr>,
}

impl AccessLog {
    /// Opens the file, if there is one.
    pub fn open(config: &LogConfig) -> Result<AccessLog, OpenError> {
        Ok(AccessLog::to(Destination::open_all(LOG, config)?, CAPACITY))
    }

    /// A log that goes nowhere.
    pub fn off() -> AccessLog {
        AccessLog::to(Vec::new(), 1)
    }

    fn to(destinations: Vec<Destination>, capacity: usize) -> AccessLog {
        let encode = Arc::new(|entry: &AccessEntry, buffer: &mut Vec<u8>| line::push_json(entry, buffer));
        let entries = LogChannel::new(LOG, destinations, capacity, Limits::default(), encode);
        AccessLog { entries, full: Arc::new(Report::new(LOG)) }
    }

    /// Starts writing; what came before waits in the channel.
    pub fn start(&self) -> io::Result<()> {
        self.entries.start()
    }

    /// Hands an entry to the log's task, or drops it if that has no room. Returns at once.
    pub fn log(&self, entry: AccessEntry) {
        if !self.entries.offer(entry) {
            self.full.at(log::Level::Warn, format_args!("{LOG}: its channel is full: a line is dropped"));
        }
    }

    /// Opens the file anew, as soon as what is being written is written.
    pub fn reopen(&self) {
        self.entries.reopen();
    }

    /// Waits until everything is written, at most until `deadline`.
    pub async fn flush(&self, deadline: Instant) {
        if !self.entries.flush(deadline).await {
            log::error!("{LOG}: not written in time: lines are lost");
        }
    }
}

fn method<S: Serializer>(method: &Method, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(method.as_str())
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    // One division of whole microseconds: no digits that the clock did not give.
    serializer.serialize_f64(duration.as_micros() as f64 / 1000.0)
}

fn address<S: Serializer>(address: &Option<IpAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => serializer.collect_str(address),
        None => serializer.serialize_str(""),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::telemetry::metrics::LogMetrics;

    fn entry() -> AccessEntry {
        AccessEntry {
            method: Method::PUT,
            host: "s3.example.org:8080".into(),
            path: "/bucket/a%20key?X-Amz-Signature=secret".into(),
            useragent: "agent \"one\"\n".into(),
            status: 200,
            duration: Duration::from_nanos(12_345_678),
            error: String::new(),
            req_id: "r-1".into(),
            ts: DateTime::from_timestamp(1_767_323_045, 678_901_234).unwrap(),
            bytes_in: 5_000_000_000,
            bytes_out: 0,
            region: "eu".into(),
            cluster: "c1".into(),
            asked: 3,
            good: 2,
            remote: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        }
    }

    #[tokio::test]
    async fn a_line_has_the_fields_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = AccessLog::open(&LogConfig { file: Some(path.clone()), ..LogConfig::default() }).unwrap();
        log.start().unwrap();
        log.log(entry());
        log.flush(Instant::now() + Duration::from_secs(20)).await;
        let expected = concat!(
            r#"{"method":"PUT","host":"s3.example.org:8080","path":"/bucket/a%20key","#,
            r#""useragent":"agent \"one\"\n","status":200,"duration":12.345,"error":"","reqID":"r-1","#,
            r#""ts":"2026-01-02T03:04:05.678901234Z","bytes_in":5000000000,"bytes_out":0,"region":"eu","#,
            r#""cluster":"c1","asked":3,"good":2,"remote":"127.0.0.1"}"#,
            "\n"
        );
        assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
    }

    #[tokio::test]
    async fn lines_beyond_the_channel_are_dropped_and_counted() {
        let log = AccessLog::to(vec![Destination::Scripted(Box::new(io::sink()))], 2);
        let dropped = LogMetrics::of(LOG).dropped;
        let before = dropped.get();
        for _ in 0..5 {
            log.log(entry());
        }
        assert_eq!(dropped.get() - before, 3);
        log.flush(Instant::now() + Duration::from_secs(20)).await;
    }

    #[tokio::test]
    async fn a_log_that_is_off_takes_everything_and_is_flushed_at_once() {
        let log = AccessLog::off();
        for _ in 0..5 {
            log.log(entry());
        }
        log.flush(Instant::now()).await;
    }
}
