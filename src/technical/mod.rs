//! The technical endpoint: checks configurations, and has the health path too.
//!
//! On an address of its own (`TechnicalEndpointListen`), for operators and for CI. Whoever can reach it can send it
//! anything: the configuration is bounded in size and read under a deadline, one is checked at a time, beside the
//! endpoint's thread, and nothing of this process can be learned from the answer; see [`Config::check`].

mod validate;

use async_trait::async_trait;
use http::Method;
use pingora_core::{protocols::http::ServerSession, services::listening};
use pingora_error::Result;

use self::validate::Validator;
use crate::{
    config::{Config, Listen},
    telemetry::endpoint::{self, Answer, App, Draining, Endpoint, Route, health::health},
};

const VALIDATE: &str = "/configuration/validate";

pub struct Technical {
    routes: Vec<Route>,
    validator: Validator,
    draining: Draining,
}

/// The service, and where it listens, if the configuration asks for one.
pub fn service(config: &Config, draining: Draining) -> Option<(listening::Service<App<Technical>>, Listen)> {
    let technical = config.technical.as_ref()?;
    let health = config.health_check_endpoint.iter().map(|path| Route::new(Method::GET, path));
    let endpoint = Technical {
        routes: [Route::new(Method::POST, VALIDATE)].into_iter().chain(health).collect(),
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
        if route.method == Method::POST {
            return self.validator.answer(session).await;
        }
        let (head, body) = health((self.draining)())?;
        Ok(Answer { head, body })
    }
}
