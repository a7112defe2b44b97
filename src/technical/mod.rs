//! The technical endpoint: checks configurations, changes who is under maintenance, and has the health path too.
//!
//! | route | |
//! |---|---|
//! | `POST /configuration/validate` | checks a configuration |
//! | `GET /maintenance` | which backends get nothing |
//! | `POST /maintenance` | changes that; takes a token |
//! | `GET` of the health path | whether the gateway serves |
//!
//! On an address of its own (`TechnicalEndpointListen`), for operators and for CI. Whoever can reach it can send it
//! anything: the configuration is bounded in size and read under a deadline, one is checked at a time, beside the
//! endpoint's thread, and nothing of this process can be learned from the answer; see [`Config::check`].

pub mod maintenance;
mod validate;

use std::sync::Arc;

use async_trait::async_trait;
use http::Method;
use pingora_core::{protocols::http::ServerSession, services::listening};
use pingora_error::Result;

use self::{
    maintenance::{Maintenance, Switch},
    validate::Validator,
};
use crate::{
    config::{Config, Listen},
    telemetry::endpoint::{self, Answer, App, Draining, Endpoint, Route, health::health},
};

const VALIDATE: &str = "/configuration/validate";

pub struct Technical {
    routes: Vec<Route>,
    validator: Validator,
    maintenance: Maintenance,
    draining: Draining,
}

/// The service, and where it listens, if the configuration asks for one.
pub fn service(
    config: &Config,
    switch: Arc<dyn Switch>,
    draining: Draining,
) -> Option<(listening::Service<App<Technical>>, Listen)> {
    let technical = config.technical.as_ref()?;
    let health = config.health_check_endpoint.iter().map(|path| Route::new(Method::GET, path));
    let endpoint = Technical {
        routes: [
            Route::new(Method::POST, VALIDATE),
            Route::new(Method::GET, maintenance::PATH),
            Route::new(Method::POST, maintenance::PATH),
        ]
        .into_iter()
        .chain(health)
        .collect(),
        maintenance: Maintenance::new(technical.token.clone(), switch),
        validator: Validator::new(technical.body_max_size),
        draining: draining.clone(),
    };
    Some((endpoint::service(endpoint, &technical.listen, draining), technical.listen.clone()))
}

#[async_trait]
impl Endpoint for Technical {
    fn name(&self) -> &'static str {
        "technical"
    }

    fn routes(&self) -> &[Route] {
        &self.routes
    }

    async fn answer(&self, route: &Route, session: &mut ServerSession) -> Result<Answer> {
        match (&route.method, route.path.as_str()) {
            (_, VALIDATE) => self.validator.answer(session).await,
            (&Method::POST, maintenance::PATH) => self.maintenance.change(session).await,
            (_, maintenance::PATH) => self.maintenance.list(),
            _ => {
                let (head, body) = health((self.draining)())?;
                Ok(Answer { head, body })
            }
        }
    }
}
