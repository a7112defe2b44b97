//! What is known of one client request while it is served, and the line it leaves in the access log.

use std::{sync::Arc, time::Instant};

use chrono::{DateTime, Utc};
use pingora_proxy::Session;

use super::{client_address::client_address, drain::Admitted, follow::Followed, snapshot::Snapshot};
use crate::{
    telemetry::{Logs, access_log::AccessEntry, metrics::METRICS},
    topology::Region,
    upstream::Observer,
};

/// Per-request state.
pub struct Context {
    pub snapshot: Arc<Snapshot>,
    pub id: String,
    /// If it is traced.
    pub followed: Option<Followed>,
    pub started: Instant,
    pub ts: DateTime<Utc>,
    pub region: Option<Arc<Region>>,
    pub cluster: String,
    /// Backends that were asked, and that replied good by the time the client was answered.
    pub asked: usize,
    pub good: usize,
    /// What went wrong, for the access log.
    pub error: String,
    /// Bytes of the request's body that were read.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// The health path is not logged: balancers ask it all the time.
    pub unlogged: bool,
    /// When the last of the answer had been sent; what comes then is lingering and recording.
    pub answered: Option<Instant>,
    /// Its share of `MaxConcurrentRequests`.
    pub admitted: Option<Admitted>,
    _in_flight: InFlight,
}

/// Counts a request in the metrics, until it is dropped.
struct InFlight;

impl Drop for InFlight {
    fn drop(&mut self) {
        METRICS.requests_in_flight.dec();
    }
}

impl Context {
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        METRICS.requests_in_flight.inc();
        Context {
            snapshot,
            followed: None,
            id: format!("{:016X}", rand::random::<u64>()),
            started: Instant::now(),
            ts: Utc::now(),
            region: None,
            cluster: String::new(),
            asked: 0,
            good: 0,
            error: String::new(),
            bytes_in: 0,
            bytes_out: 0,
            unlogged: false,
            answered: None,
            admitted: None,
            _in_flight: InFlight,
        }
    }

    /// Who is told of the exchanges with backends, if anybody is.
    pub fn observer(&self) -> Option<Arc<dyn Observer>> {
        self.followed.as_ref().map(Followed::observer)
    }

    /// The access log's line. `status` is that of the answer, 0 if none was sent.
    pub fn entry(&mut self, session: &Session) -> AccessEntry {
        let trusted = &self.snapshot.config.trusted_proxies;
        let request = session.req_header();
        let status = session.response_written().map_or(0, |answer| answer.status.as_u16());
        let peer = session.client_addr().and_then(|address| address.as_inet());
        AccessEntry {
            method: request.method.clone(),
            host: header(session, "host"),
            path: String::from_utf8_lossy(request.raw_path()).into_owned(),
            useragent: header(session, "user-agent"),
            status,
            duration: self.answered.unwrap_or_else(Instant::now).duration_since(self.started),
            error: std::mem::take(&mut self.error),
            req_id: self.id.clone(),
            ts: self.ts,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            region: self.region.as_ref().map(|region| region.name.clone()).unwrap_or_default(),
            cluster: std::mem::take(&mut self.cluster),
            asked: self.asked,
            good: self.good,
            remote: client_address(peer.map(|address| address.ip()), &request.headers, trusted),
        }
    }
}

/// Counts a request that has been answered, or whose client has gone, and logs it.
pub fn account(logs: &Logs, entry: AccessEntry) {
    let status = http::StatusCode::from_u16(entry.status).ok();
    METRICS.requests.ended(&entry.method, status, entry.duration);
    METRICS.client_received_bytes.inc_by(entry.bytes_in);
    METRICS.client_sent_bytes.inc_by(entry.bytes_out);
    logs.access.log(entry);
}

/// A request header as text; empty where there is none.
pub fn header(session: &Session, name: &str) -> String {
    let value = session.req_header().headers.get(name);
    value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
}
