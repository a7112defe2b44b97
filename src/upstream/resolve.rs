//! Placeholder until the resolver lands.
use crate::topology::BackendId;
use std::{net::SocketAddr, sync::Arc};
pub struct Resolver {}
impl Resolver { pub fn addrs(&self, _id: BackendId) -> Arc<[SocketAddr]> { Arc::from(Vec::new()) } }
