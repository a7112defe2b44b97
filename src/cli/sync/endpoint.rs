//! `Sync.Listen`: metrics and health of the sync process, on a thread of their own.

use std::{sync::Arc, thread};

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use pingora_core::{
    protocols::http::ServerSession,
    server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, configuration::ServerConf},
};
use pingora_error::Result;
use pingora_prometheus::PrometheusHttpApp;
use tokio::sync::watch;

use crate::{
    config::Listen,
    telemetry::endpoint::{self, Answer, Endpoint, Route, health::health},
};

const METRICS: &str = "/metrics";
const HEALTH: &str = "/health";

struct Sync {
    routes: [Route; 2],
    stop: watch::Receiver<bool>,
}

#[async_trait]
impl Endpoint for Sync {
    fn name(&self) -> &'static str {
        "sync"
    }

    fn routes(&self) -> &[Route] {
        &self.routes
    }

    async fn answer(&self, route: &Route, session: &mut ServerSession) -> Result<Answer> {
        use pingora_core::apps::http_app::ServeHttp;
        if route.path == HEALTH {
            let (head, body) = health(*self.stop.borrow())?;
            return Ok(Answer { head, body: body.into() });
        }
        let (head, body) = PrometheusHttpApp.response(session).await.into_parts();
        Ok(Answer { head: head.into(), body: Bytes::from(body).into() })
    }
}

/// Ends the server when that is said, and when nobody can say it any more.
struct End(watch::Receiver<bool>);

#[async_trait]
impl ShutdownSignalWatch for End {
    async fn recv(&self) -> ShutdownSignal {
        let mut ended = self.0.clone();
        // An error says that the process has no more to do.
        ended.wait_for(|ended| *ended).await.map(drop).unwrap_or_default();
        ShutdownSignal::FastShutdown
    }
}

/// Serves until `ended`; draining once `stop`.
pub fn start(
    listen: &Listen,
    stop: watch::Receiver<bool>,
    ended: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    // Pingora would end in a panic.
    if let Listen::Tcp(address) = listen {
        let taken = || format!("Sync.Listen: cannot listen on {address}; another akubra sync may have it");
        std::net::TcpListener::bind(address).with_context(taken)?;
    }
    let draining = stop.clone();
    let routes = [Route::new(Method::GET, METRICS), Route::new(Method::GET, HEALTH)];
    let service = endpoint::service(Sync { routes, stop }, listen, Arc::new(move || *draining.borrow()));
    let conf = ServerConf { upgrade_sock: String::new(), ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.add_service(service);
    let serve = move || server.run(RunArgs { shutdown_signal: Box::new(End(ended)) });
    thread::Builder::new()
        .name("sync metrics".to_owned())
        .spawn(serve)
        .context("no thread can be started")?;
    log::info!("metrics at http://{listen}{METRICS}");
    Ok(())
}
