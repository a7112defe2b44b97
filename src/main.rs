//! The `akubra` binary: see [`akubra::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    akubra::cli::run(akubra::cli::arguments())
}
