//! The integration tests: the real binary as a child process, real S3 servers and misbehaving ones in
//! this process, real clients and raw ones. One file per capability; `fixture` holds what they stand on.
//!
//! Every test listens on port 0, waits for conditions with deadlines, and runs alone or beside the others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod alerts;
mod answers;
mod connections;
mod copies;
mod crash;
mod e2e;
mod figures;
mod fixture;
mod fixtures;
mod health;
mod imports;
mod installation;
mod journal;
mod journaling;
mod journaling_postgres;
mod journaling_reads;
mod lifecycle;
mod logs;
mod metrics;
mod mirror_broken;
mod mirror_clients;
mod mirror_early;
mod mirror_failures;
mod mirror_order;
mod mirror_pool;
mod mirror_records;
mod mirror_slow;
mod mirror_streaming;
mod operations;
mod proxies;
mod reads;
mod refusals;
mod regions;
mod regressions;
mod regressions_wire;
mod reload;
mod reports;
mod s3_clients;
mod smuggling;
mod smuggling_answers;
mod status;
mod status_journal;
mod supervision;
mod sync;
mod sync_journal;
mod sync_misplaced;
mod sync_rgw;
mod sync_stores;
mod synclog_postgres;
mod syslog;
mod takeover;
mod takeover_failures;
mod technical;
mod tracing;
mod validation;
