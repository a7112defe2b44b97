//! The configuration: what the YAML file says, typed and validated.
//!
//! [`Config::load`] is the way in. A text goes through four steps, one file each: `tree` (YAML to a
//! tree with lines), `env` (`${NAME}`), the typed `reader` with one file per block of keys, and
//! `validate` for what only the whole shows. All of them write to one `errors::Report`, so that
//! all errors come at once, each with its path and line. What comes out is valid in itself: nobody
//! behind it checks again.

mod address;
mod credentials;
mod database;
mod env;
mod errors;
mod headers;
mod health;
mod in_force;
mod insert;
mod journal;
mod load;
mod logging;
mod metrics;
mod proxies;
mod reader;
mod regions;
mod secret;
mod server;
mod suggest;
mod sync;
mod syslog;
#[cfg(test)]
mod tests;
mod tracing;
mod tree;
pub mod units;
mod validate;

pub use address::AddressError;
pub use credentials::Credentials;
pub use database::{Database, Login};
pub use errors::{ConfigError, ConfigErrors};
pub use in_force::InForce;
pub use insert::{FIELDS, Insert, Piece};
pub use metrics::percentile_name;
pub use proxies::TrustedProxies;
pub use secret::Secret;
pub use syslog::{Syslog, SyslogAddress};
pub use tracing::Tracing;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method};
use pingora_core::server::configuration::ServerConf;

/// The whole configuration, valid in itself.
#[derive(Debug, Clone)]
pub struct Config {
    pub listen: Listen,
    /// The endpoint for operators, where there is one.
    pub technical: Option<Technical>,
    /// How metrics leave the process, if they do.
    pub metrics: Option<Exporter>,
    /// Where the process keeps what must survive it.
    pub state_directory: PathBuf,
    pub health_check_endpoint: Option<String>,
    /// Spans for OpenTelemetry, if there are to be any.
    pub tracing: Option<Tracing>,
    pub additional_request_headers: Vec<(HeaderName, HeaderValue)>,
    pub additional_response_headers: Vec<(HeaderName, HeaderValue)>,
    pub transport: Transport,
    /// Largest accepted request body in bytes; `None` = no limit.
    pub body_max_size: Option<u64>,
    /// Most client requests in flight at once; 0 = no limit.
    pub max_concurrent_requests: usize,
    /// Most connections of clients; 0 = half of the files that the process may have open.
    pub max_client_connections: usize,
    pub maintained_backends: Vec<BackendUrl>,
    /// Methods whose records the synclog prints; `None` = all.
    pub sync_log_methods: Option<Vec<Method>>,
    pub clusters: Vec<ClusterConfig>,
    pub regions: Vec<RegionConfig>,
    pub logging: Logging,
    pub mirror: MirrorConfig,
    pub health_check: HealthCheck,
    pub ejection: Ejection,
    /// Longest time from a connection's, or a later head's, first byte to the head's end.
    pub client_header_timeout: Duration,
    /// How long a client's connection may be idle between requests.
    pub client_idle_timeout: Duration,
    /// Longest wait for the next byte of a client's body.
    pub client_read_timeout: Duration,
    /// Longest wait for a client to take the next bytes of an answer.
    pub client_write_timeout: Duration,
    /// How `akubra sync` works.
    pub sync: SyncConfig,
    /// Proxies in front of the gateway that are believed about whom they speak for.
    pub trusted_proxies: TrustedProxies,
    /// Whether those begin each connection with a PROXY header.
    pub proxy_protocol: bool,
    /// Pingora's own keys of the same file.
    pub server: Arc<ServerConf>,
    /// What backends may not agree on is kept there; `None` = nowhere but in the synclog.
    pub journal: Option<JournalConfig>,
    /// What works and is hardly meant, each with line and path.
    pub warnings: Vec<String>,
    /// The file as it may be shown.
    pub in_force: InForce,
}

impl Config {
    /// Whether `MaintainedBackends` lists the backend of this URL, however it is written.
    pub fn maintains(&self, url: &str) -> bool {
        is_among(url, self.maintained_backends.iter())
    }

    /// Whether the URL is a backend of a cluster, however it is written.
    pub fn names(&self, url: &str) -> bool {
        is_among(url, self.clusters.iter().flat_map(|cluster| &cluster.backends))
    }
}

fn is_among<'a>(url: &str, mut backends: impl Iterator<Item = &'a BackendUrl>) -> bool {
    let asked = BackendUrl::parse(url).map(|url| url.endpoint());
    asked.is_ok_and(|asked| backends.any(|backend| backend.endpoint() == asked))
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// The endpoint that checks configurations.
#[derive(Debug, Clone)]
pub struct Technical {
    pub listen: Listen,
    /// Largest configuration that it takes, in bytes.
    pub body_max_size: usize,
    /// What changes at run time take; `None` = there are none.
    pub token: Option<Secret>,
}

/// How metrics leave the process.
#[derive(Debug, Clone)]
pub enum Exporter {
    /// Served at `/metrics` of this address.
    Prometheus { listen: Listen },
    /// Served at `/debug/vars` of this address.
    Expvar { listen: Listen, reports: Reports },
    /// Sent to a collector.
    Graphite { collector: Collector, reports: Reports },
    /// Printed.
    Stdout { reports: Reports },
}

/// What a report holds, and when there is one.
#[derive(Debug, Clone)]
pub struct Reports {
    pub interval: Duration,
    /// In front of every path; may be empty.
    pub prefix: String,
    /// Whether host and process come behind the prefix.
    pub append_defaults: bool,
    /// As fractions; each has a name of its own.
    pub percentiles: Vec<f64>,
    /// Whether the process's own figures are told.
    pub debug: bool,
}

/// Where graphite listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    /// A name or an address; an IPv6 address stands without brackets.
    pub host: String,
    pub port: u16,
}

/// How connections to backends are kept and bounded.
#[derive(Debug, Clone)]
pub struct Transport {
    /// Idle connections kept in all; 0 = no limit.
    pub max_idle_conns: usize,
    /// Idle connections kept per backend.
    pub max_idle_conns_per_host: usize,
    /// How long a connection may idle; `None` = for ever.
    pub idle_conn_timeout: Option<Duration>,
    pub disable_keep_alives: bool,
    pub dial_timeout: Duration,
    /// Longest wait for the final answer's head once the backend has taken the whole request.
    pub response_header_timeout: Duration,
    /// Connections in use at once per backend; 0 = no limit.
    pub max_conns_per_backend: usize,
}

/// How writes are mirrored.
#[derive(Debug, Clone)]
pub struct MirrorConfig {
    /// Bytes of a body that may wait for one backend.
    pub replica_buffer: usize,
    /// Bytes of a body that are kept for a second try on a fresh connection.
    pub replay_buffer: usize,
    pub slow_backend_timeout: Duration,
    /// Longest time without progress of a sub-request whose client has gone on.
    pub background_timeout: Duration,
    /// Background sub-requests per backend, in count and in bytes still to be sent.
    pub background_requests: usize,
    pub background_bytes: usize,
    /// Whether good replies with different plain-MD5 ETags are a divergence.
    pub compare_etags: bool,
}

/// How a backend is asked for its health.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheck {
    pub kind: CheckKind,
    /// Of the request, with a query if there is one.
    pub path: String,
    /// From one check's start to the next one's.
    pub interval: Duration,
    /// For the whole check; not longer than the interval.
    pub timeout: Duration,
    /// Good checks in a row that bring an ejected backend back.
    pub healthy: usize,
    /// Failed checks in a row that eject one.
    pub unhealthy: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckKind {
    /// A request; an answer below 500 is good.
    Http,
    /// A connection.
    Tcp,
    None,
}

/// When a backend is taken out for a while, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct Ejection {
    pub enabled: bool,
    /// Failures in a row; 0 = not by these.
    pub consecutive_failures: usize,
    /// Part of the exchanges within the window that failed, from which on; 0 = not by it.
    pub error_rate: f64,
    /// Fewer exchanges within the window say nothing.
    pub min_requests: usize,
    pub window: Duration,
    /// Longest answer wait that the percentile may show; `None` = not by it.
    pub latency: Option<Duration>,
    pub latency_percentile: f64,
    /// The first ejection; each further one takes twice as long, up to the longest.
    pub time: Duration,
    pub max_time: Duration,
    /// Part of a cluster that may be out at once.
    pub max_ejected: f64,
}

/// How the process works that makes backends agree.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncConfig {
    /// Objects that are repaired at once.
    pub concurrency: usize,
    /// Requests at once to one backend.
    pub concurrency_per_backend: usize,
    /// Bytes per second that copies read from one backend, or write to it; `None` = no limit.
    pub bandwidth_per_backend: Option<u64>,
    /// Bytes per second; a copy that is slower for a minute is given up. `None` = none is too slow.
    pub least_rate: Option<u64>,
    /// How far the clocks of gateways and backends may be apart.
    pub clock_bound: Duration,
    pub copy_acl: bool,
    /// The header with an object's version, `x-amz-meta-*`.
    pub object_version_header: HeaderName,
    /// Larger objects are copied in parts of `part_size` bytes.
    pub multipart_threshold: u64,
    pub part_size: u64,
    /// Failed tries after which an object is dead; `None` = it never is.
    pub max_attempts: Option<u32>,
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    /// How long a lease lasts that is not renewed.
    pub hold: Duration,
    /// For its metrics and its health.
    pub listen: Option<Listen>,
}

/// The address of one backend, `http://host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BackendUrl {
    /// As written in the file, without a trailing slash: the backend's name in logs.
    pub url: String,
    /// A name or an address; an IPv6 address stands without brackets.
    pub host: String,
    pub port: u16,
}

#[derive(Debug, Clone)]
pub struct ClusterConfig {
    pub name: String,
    pub backends: Vec<BackendUrl>,
    /// Of each backend, in the same order: what requests of the program's own are signed with.
    pub credentials: Vec<Option<Arc<Credentials>>>,
}

#[derive(Debug, Clone)]
pub struct RegionConfig {
    pub name: String,
    /// Cluster name and weight, in configuration order.
    pub clusters: Vec<(String, f64)>,
    /// Lower-cased.
    pub domains: Vec<String>,
    pub default: bool,
    pub read_policy: ReadPolicy,
    pub virtual_host_style: VirtualHostStyle,
    /// `UnmergedListings: allow`
    pub allow_unmerged_listings: bool,
    /// Other than `None` only with a journal.
    pub consistency: Consistency,
}

/// When the journal learns of a write, and so what a crash can lose of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// When backends do not agree on it.
    #[default]
    None,
    /// While it begins.
    Weak,
    /// Before anything of it goes to a backend.
    Strong,
}

/// The journal of writes that backends may not agree on.
#[derive(Debug, Clone)]
pub struct JournalConfig {
    pub engine: JournalEngine,
    /// Objects that a gateway keeps in memory, at most; others it asks for.
    pub remembered_objects: usize,
    /// After so long a request whose connection is closed does not happen any more.
    pub settle: Duration,
}

#[derive(Debug, Clone)]
pub enum JournalEngine {
    /// A file, for the processes of one machine.
    Sqlite(PathBuf),
    /// For gateways and workers on many.
    Postgres(Login),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadPolicy {
    /// Ask one backend, then the next.
    #[default]
    One,
    /// Ask all backends of a cluster at once, the first good answer wins.
    Race,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VirtualHostStyle {
    /// Hash `/<bucket>/<key>`, as in path style.
    #[default]
    Unified,
    /// Hash the bare path, as the original did.
    Original,
}

/// The four logs.
#[derive(Debug, Clone, Default)]
pub struct Logging {
    pub synclog: LogConfig,
    pub mainlog: LogConfig,
    pub accesslog: LogConfig,
    pub clustersynclog: LogConfig,
}

/// Where one log goes: to any of these.
#[derive(Debug, Clone, Default)]
pub struct LogConfig {
    pub stderr: bool,
    pub stdout: bool,
    pub file: Option<PathBuf>,
    pub syslog: Option<Syslog>,
    /// Synclog only.
    pub database: Option<Arc<Database>>,
    /// Main log only, and always there.
    pub level: Option<log::LevelFilter>,
    /// Main log only, and always there: plain text lines or JSON objects.
    pub plaintext: Option<bool>,
}
