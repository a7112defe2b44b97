//! `Metrics.Target: prometheus`: the registry as text, at `/metrics` of `Metrics.ExpAddr`.
//!
//! The text is made by `pingora-prometheus`. Its own server is not used: it answers every path and method alike, and
//! knows neither deadlines nor a bound on connections.

use std::sync::LazyLock;

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use pingora_core::{apps::http_app::ServeHttp, protocols::http::ServerSession, services::listening};
use pingora_error::Result;
use pingora_prometheus::PrometheusHttpApp;

use crate::{
    config::{Config, Exporter, Listen},
    telemetry::{
        endpoint::{self, Answer, App, Draining, Endpoint, Route},
        metrics::METRICS,
    },
};

/// Where metrics are.
pub const PATH: &str = "/metrics";

pub struct Prometheus {
    routes: [Route; 1],
}

/// The service, and where it listens, if the configuration asks for one.
pub fn service(config: &Config, draining: Draining) -> Option<(listening::Service<App<Prometheus>>, Listen)> {
    let Some(Exporter::Prometheus { listen }) = &config.metrics else { return None };
    LazyLock::force(&METRICS);
    let endpoint = Prometheus { routes: [Route::new(Method::GET, PATH)] };
    Some((endpoint::service(endpoint, listen, draining), listen.clone()))
}

#[async_trait]
impl Endpoint for Prometheus {
    fn name(&self) -> &'static str {
        "metrics"
    }

    fn routes(&self) -> &[Route] {
        &self.routes
    }

    async fn answer(&self, _: &Route, session: &mut ServerSession) -> Result<Answer> {
        let (head, body) = PrometheusHttpApp.response(session).await.into_parts();
        Ok(Answer { head: head.into(), body: Bytes::from(body).into() })
    }
}
