//! To come.

pub mod locate;
