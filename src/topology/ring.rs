//! The weighted circle that maps an object's key to its home cluster.

#[derive(Debug)]
pub struct Ring {}
