//! The technical endpoint: checks configurations, shows the status, and has the health path too.
//!
//! On an address of its own (`TechnicalEndpointListen`), for operators and for CI. Whoever can reach it can send it
//! anything: the configuration is bounded in size and read under a deadline, one is checked at a time, beside the
//! endpoint's thread, and nothing of this process can be learned from the answer; see [`Config::check`]. What can be
//! learned of it is the status page's business ([`status`]).
//!
//! | route | what it is |
//! |---|---|
//! | `POST /configuration/validate` | `validate.rs` |
//! | `GET /status`, `/status.json`, `/status/events` | `status/` |
//! | the health path | `telemetry::endpoint::health` |

pub mod status;
mod validate;

use std::sync::Arc;

use async_trait::async_trait;
use http::Method;
use pingora_core::{protocols::http::ServerSession, services::listening};
use pingora_error::Result;

use self::{
    status::{Installation, Sampler, Status},
    validate::Validator,
};
use crate::{
    config::{Config, Listen},
    synclog::feed::Feed,
    telemetry::endpoint::{self, Answer, App, Draining, Endpoint, Route, health::health},
};

const VALIDATE: &str = "/configuration/validate";

pub struct Technical {
    routes: Vec<Route>,
    validator: Validator,
    status: Status,
    health: Option<String>,
    draining: Draining,
}

/// The endpoint as it is made: a service to be added where it listens, and the task behind the status.
pub struct Made {
    pub service: listening::Service<App<Technical>>,
    pub listen: Listen,
    pub sampler: Sampler,
}

/// The endpoint, if the configuration asks for one.
pub fn make(
    config: &Config,
    draining: Draining,
    installation: Arc<dyn Installation>,
    feed: Feed,
) -> Option<Made> {
    let technical = config.technical.as_ref()?;
    let health = config.health_check_endpoint.iter().map(|path| Route::new(Method::GET, path));
    let status = [status::PAGE, status::JSON, status::EVENTS].map(|path| Route::new(Method::GET, path));
    // Of two at one path the first is found: balancers need the health path.
    let routes = [Route::new(Method::POST, VALIDATE)].into_iter().chain(health).chain(status).collect();
    let (status, sampler) = Status::of(installation, feed, draining.clone());
    let validator = Validator::new(technical.body_max_size);
    let health = config.health_check_endpoint.clone();
    let endpoint = Technical { routes, validator, status, health, draining: draining.clone() };
    let service = endpoint::service(endpoint, &technical.listen, draining);
    Some(Made { service, listen: technical.listen.clone(), sampler })
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
        match route.path.as_str() {
            // The health path may be any, also one of those below.
            path if self.health.as_deref() == Some(path) => {
                let (head, body) = health((self.draining)())?;
                Ok(Answer { head, body: body.into() })
            }
            status::JSON => self.status.json(),
            status::EVENTS => self.status.events(),
            _ => self.status.page(),
        }
    }
}
