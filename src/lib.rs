//! akubra: a proxy that keeps independent S3 storages in sync.
//!
//! A client speaks plain S3 to one address; every write is streamed at once to all backends of the
//! cluster that a weighted consistent-hash ring picks for the object, and what a backend missed is
//! recorded in the synclog.
//!
//! The code map, in the order in which a request meets it:
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | the YAML file: typed, validated, all errors at once |
//! | [`topology`] | regions, clusters, backends and the ring: an immutable snapshot |
//! | [`s3`] | what a request is about, and S3's error answers |
//! | [`gateway`] | the Pingora `ProxyHttp` service: admit, route, read or mirror, respond, record |
//! | [`mirror`] | one client request, one sub-request per backend, one verdict |
//! | [`upstream`] | the one road to backends: pool, limits, deadlines, one exchange |
//! | [`journal`] | what may have diverged, durable: intents of writes, records, leases |
//! | [`sync`] | the independent process that makes backends agree |
//! | [`synclog`] | records of divergences, written by a task of their own |
//! | [`telemetry`] | metrics, access log, main log, and the HTTP server of what is for operators |
//! | [`technical`] | the technical endpoint: checks configurations, health |
//! | [`cli`] | the subcommands |

pub mod cli;
pub mod config;
pub mod gateway;
pub mod journal;
pub mod mirror;
pub mod s3;
pub mod sync;
pub mod synclog;
pub mod technical;
pub mod telemetry;
pub mod topology;
pub mod upstream;
