//! The `akubra` binary: see [`akubra::cli`].

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    akubra::cli::run(akubra::cli::Arguments::parse())
}
