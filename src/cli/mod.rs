//! The subcommands.

#[cfg(feature = "demo")]
pub mod demo;
