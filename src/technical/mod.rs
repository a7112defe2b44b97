//! The technical endpoint: the status page, checks of configurations, who is under maintenance, and the health path.
//!
//! | route | |
//! |---|---|
//! | `GET /status`, `/status.json`, `/status/events` | what is going on, see [`status`] |
//! | `POST /configuration/validate` | checks a configuration |
//! | `GET /maintenance` | which backends get nothing |
//! | `POST /maintenance` | changes that; takes a token |
//! | `POST /journal` | tries an object of the journal again, or forgets it; takes a token |
//! | `GET` of the health path | whether the gateway serves |
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

pub mod decisions;
pub mod maintenance;
pub mod status;
mod token;
mod validate;

use std::sync::Arc;

use async_trait::async_trait;
use http::{Method, StatusCode};
use pingora_core::{protocols::http::ServerSession, services::listening};
use pingora_error::Result;

use self::{
    decisions::{Decisions, Desk},
    maintenance::{Maintenance, Switch},
    status::{Installation, Sampler, Status},
    token::Token,
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
    maintenance: Maintenance,
    /// If there is a journal.
    decisions: Option<Decisions>,
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
    switch: Arc<dyn Switch>,
    desk: Option<Arc<dyn Desk>>,
) -> Option<Made> {
    let technical = config.technical.as_ref()?;
    let token = Token::new(technical.token.clone());
    let health = config.health_check_endpoint.clone();
    let (status, sampler) = Status::of(installation, feed, draining.clone());
    let endpoint = Technical {
        routes: routes(health.as_deref(), desk.is_some()),
        validator: Validator::new(technical.body_max_size),
        maintenance: Maintenance::new(token.clone(), switch),
        decisions: desk.map(|desk| Decisions::new(token, desk)),
        status,
        health,
        draining: draining.clone(),
    };
    let service = endpoint::service(endpoint, &technical.listen, draining);
    Some(Made { service, listen: technical.listen.clone(), sampler })
}

/// Of two at one path the first is found: balancers need the health path.
fn routes(health: Option<&str>, has_journal: bool) -> Vec<Route> {
    let get = [status::PAGE, status::JSON, status::EVENTS, maintenance::PATH];
    let post = [VALIDATE, maintenance::PATH].into_iter().chain(has_journal.then_some(decisions::PATH));
    post.map(|path| Route::new(Method::POST, path))
        .chain(health.into_iter().chain(get).map(|path| Route::new(Method::GET, path)))
        .collect()
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
            (&Method::POST, maintenance::PATH) => self.maintenance.change(session).await,
            (&Method::POST, decisions::PATH) => match &self.decisions {
                Some(decisions) => decisions.take(session).await,
                None => Answer::text(StatusCode::NOT_FOUND, "The configuration has no Journal."),
            },
            (&Method::POST, _) => self.validator.answer(session).await,
            // The health path may be any, also one of those below.
            (_, path) if self.health.as_deref() == Some(path) => {
                let (head, body) = health((self.draining)())?;
                Ok(Answer { head, body: body.into() })
            }
            (_, maintenance::PATH) => self.maintenance.list(),
            (_, status::JSON) => self.status.json(),
            (_, status::EVENTS) => self.status.events(),
            _ => self.status.page(),
        }
    }
}
