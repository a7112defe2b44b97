//! The status page: what goes on in this process, live.
//!
//! `GET /status` is one page for a browser, `/status/events` what keeps it up to date, `/status.json` the same for
//! programs. Numbers are read from the metrics ([`sampler`]), what no metric says is asked of the [`Installation`],
//! and divergences come from the synclog's feed. Whoever reaches the endpoint may read all of it; what the page
//! changes goes to [`super::decisions`], with the token. Keys of objects and words of backends are hostile: to the page they are text and nothing else.

mod history;
pub mod installation;
pub mod journal;
mod page;
mod quantile;
mod report;
mod sampler;
mod stream;

use std::sync::Arc;

use bytes::Bytes;
use http::{StatusCode, header};
use pingora_error::Result;
use pingora_http::ResponseHeader;

pub use self::{
    installation::{Backend, Cluster, Condition, Installation, Region, State},
    sampler::Sampler,
};
use self::{
    page::Page,
    sampler::Latest,
    stream::{Streams, VIEWERS_MOST},
};
use crate::{
    synclog::feed::Feed,
    telemetry::endpoint::{Answer, Body, Draining},
};

/// Where the page is.
pub const PAGE: &str = "/status";
/// The same as JSON.
pub const JSON: &str = "/status.json";
/// What changes, as it changes.
pub const EVENTS: &str = "/status/events";

/// What answers.
pub struct Status {
    page: Page,
    latest: Arc<Latest>,
    feed: Feed,
    streams: Streams,
}

impl Status {
    /// The status of what is installed, and the task behind it, which is to be started.
    pub fn of(installation: Arc<dyn Installation>, feed: Feed, draining: Draining) -> (Status, Sampler) {
        let latest = Arc::new(Latest::default());
        let sampler = Sampler::new(installation, draining, latest.clone());
        let streams = Streams::new(latest.clone(), sampler.news(), feed.clone());
        (Status { page: Page::new(), latest, feed, streams }, sampler)
    }

    pub fn page(&self) -> Result<Answer> {
        let mut head = head("text/html; charset=utf-8")?;
        head.insert_header(header::CONTENT_SECURITY_POLICY, &self.page.policy)?;
        Ok(Answer { head, body: self.page.html.clone().into() })
    }

    pub fn json(&self) -> Result<Answer> {
        match self.latest.whole(&self.feed) {
            Some((json, _)) => Ok(Answer { head: head("application/json")?, body: Bytes::from(json).into() }),
            None => unavailable("The status is not known yet.".into()),
        }
    }

    pub fn events(&self) -> Result<Answer> {
        match self.streams.open() {
            Some(viewer) => {
                Ok(Answer { head: head("text/event-stream")?, body: Body::Stream(Box::new(viewer)) })
            }
            None => unavailable(format!(
                "{VIEWERS_MOST} viewers are told what changes, and there is no place for more. {JSON} says the same."
            )),
        }
    }
}

/// The head of an answer that nobody keeps and no browser takes for something else.
fn head(content_type: &'static str) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build(StatusCode::OK, Some(8))?;
    head.insert_header(header::CONTENT_TYPE, content_type)?;
    head.insert_header(header::CACHE_CONTROL, "no-store")?;
    head.insert_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")?;
    head.insert_header(header::REFERRER_POLICY, "no-referrer")?;
    Ok(head)
}

fn unavailable(why: String) -> Result<Answer> {
    let mut answer = Answer::text(StatusCode::SERVICE_UNAVAILABLE, why)?;
    answer.head.insert_header(header::RETRY_AFTER, "5")?;
    answer.head.insert_header(header::CACHE_CONTROL, "no-store")?;
    Ok(answer)
}
