//! To come.

pub mod resolve;
