//! The `akubra` binary: see [`akubra::cli`].

use std::process::ExitCode;

/// Small blocks that live for one request are what a proxy allocates; `docs/performance.md` has what that saves.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    akubra::cli::run(akubra::cli::arguments())
}
