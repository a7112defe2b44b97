//! The yardstick: what Pingora costs when it only passes requests on.
//!
//! `ProxyHttp` with the one method that it demands, to one backend. Profile, allocator and number of threads are
//! the gateway's, so that what is left between the two is the gateway's own work.

use std::net::SocketAddr;

use async_trait::async_trait;
use clap::Parser;
use mimalloc::MiMalloc;
use pingora_core::{
    Result,
    server::{RunArgs, Server, configuration::ServerConf},
    upstreams::peer::HttpPeer,
};
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Passes every request on to one backend
#[derive(Parser)]
struct Arguments {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// The backend
    #[arg(long)]
    backend: SocketAddr,
    /// Threads that serve requests
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

struct PassThrough(SocketAddr);

#[async_trait]
impl ProxyHttp for PassThrough {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut Self::CTX) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

fn main() {
    let arguments = Arguments::parse();
    let conf = ServerConf { threads: arguments.threads, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, PassThrough(arguments.backend));
    service.add_tcp(&arguments.listen.to_string());
    server.add_service(service);
    server.run(RunArgs::default());
}
