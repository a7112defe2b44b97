//! The `akubra` binary: see [`akubra::cli`].

use std::process::ExitCode;

/// Small blocks that live for one request are what a proxy allocates: a third less CPU than the system's
/// allocator for a 4 KiB PUT (`docs/performance.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    akubra::cli::run(akubra::cli::arguments())
}
