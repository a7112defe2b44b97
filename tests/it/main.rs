//! The integration tests: the real binary as a child process, real S3 servers and misbehaving ones in
//! this process, real clients and raw ones. One file per capability; `fixture` holds what they stand on.
//!
//! Every test listens on port 0, waits for conditions with deadlines, and runs alone or beside the others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;
mod fixtures;
mod imports;
