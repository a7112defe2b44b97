//! The HTTP server that the endpoints for operators have in common: the technical endpoint and the metrics.
//!
//! They listen on addresses of their own, with a thread of their own, so that they answer whatever the gateway's load
//! is. What comes from there is hostile all the same: connections are bounded in number, everything that is waited for
//! has a deadline, and only requests to a route get further than the head. An [`Endpoint`] says what its routes are
//! and answers them; 404, 405, HEAD and the end of connections are decided here.

mod body;
pub mod health;
mod linger;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, StatusCode, Version, header};
use pingora_core::{
    apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream},
    protocols::http::ServerSession,
    server::ShutdownWatch,
    services::listening,
};
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_timeout::timeout;

pub use self::{
    body::{Refusal, read_body},
    linger::{Answered, Patience, linger},
};
use super::metrics::{IntGauge, METRICS};
use crate::config::Listen;

/// Connections at once to one endpoint.
const CONNECTIONS_MOST: usize = 128;
/// For a request's head, idle time before it included.
const HEAD: Duration = Duration::from_secs(60);
/// For a client to take an answer.
const WRITE: Duration = Duration::from_secs(10);
/// What a client that was answered may still send.
const LINGER: Patience =
    Patience { half_close: WRITE, longest: Duration::from_secs(2), most_bytes: 4 * 1024 * 1024 };

/// Whether the process is on its way to its end.
pub type Draining = Arc<dyn Fn() -> bool + Send + Sync>;

/// A path and what can be asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// GET includes HEAD.
    pub method: Method,
    pub path: String,
}

impl Route {
    pub fn new(method: Method, path: &str) -> Route {
        Route { method, path: path.to_owned() }
    }

    fn takes(&self, method: &Method) -> bool {
        self.method == *method || (self.method == Method::GET && *method == Method::HEAD)
    }
}

/// What is sent back.
pub struct Answer {
    pub head: ResponseHeader,
    pub body: Body,
}

/// An answer's body.
pub enum Body {
    Whole(Bytes),
    /// Sent as its pieces come; its connection serves nothing else after it.
    Stream(Box<dyn Pieces>),
}

impl From<Bytes> for Body {
    fn from(whole: Bytes) -> Body {
        Body::Whole(whole)
    }
}

/// A body whose end is not known yet.
#[async_trait]
pub trait Pieces: Send {
    /// Waits for the next piece, which is not empty; `None` = that was all. A client that has gone is noticed when a
    /// piece is sent, so they must not be too far apart.
    async fn next(&mut self) -> Option<Bytes>;
}

impl Answer {
    /// A plain text.
    pub fn text(status: StatusCode, text: impl Into<String>) -> Result<Answer> {
        let mut head = ResponseHeader::build(status, Some(6))?;
        head.insert_header(header::CONTENT_TYPE, "text/plain; charset=utf-8")?;
        // It may repeat what was sent: no browser shall take it for something else.
        head.insert_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")?;
        Ok(Answer { head, body: Bytes::from(text.into()).into() })
    }
}

/// What is served.
#[async_trait]
pub trait Endpoint: Send + Sync + 'static {
    /// Its label in metrics.
    fn name(&self) -> &'static str;

    fn routes(&self) -> &[Route];

    /// Answers a request that one of its routes takes. An error cuts the connection.
    async fn answer(&self, route: &Route, session: &mut ServerSession) -> Result<Answer>;
}

/// An endpoint as a Pingora app.
pub struct App<E> {
    endpoint: E,
    draining: Draining,
    open: Arc<AtomicUsize>,
    connections: IntGauge,
}

/// A Pingora service for an endpoint, with a thread of its own.
pub fn service<E: Endpoint>(endpoint: E, listen: &Listen, draining: Draining) -> listening::Service<App<E>> {
    let name = endpoint.name();
    let mut service = listening::Service::new(name.to_owned(), App::new(endpoint, draining));
    service.threads = Some(1);
    match listen {
        Listen::Tcp(address) => service.add_tcp(&address.to_string()),
        Listen::Unix(path) => service.add_uds(&path.to_string_lossy(), None),
    }
    service
}

/// A connection's place among [`CONNECTIONS_MOST`]; given back when dropped.
struct Place<'a> {
    open: &'a AtomicUsize,
    connections: &'a IntGauge,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Relaxed);
        self.connections.dec();
    }
}

impl<E: Endpoint> App<E> {
    fn new(endpoint: E, draining: Draining) -> App<E> {
        METRICS.limit("endpoint_connections", CONNECTIONS_MOST as u64);
        let connections = METRICS.endpoint_connections.with_label_values(&[endpoint.name()]);
        App { endpoint, draining, open: Arc::default(), connections }
    }

    fn place(&self) -> Option<Place<'_>> {
        let before = self.open.fetch_add(1, Relaxed);
        self.connections.inc();
        let place = Place { open: &self.open, connections: &self.connections };
        if before < CONNECTIONS_MOST {
            return Some(place);
        }
        METRICS.endpoint_refused.with_label_values(&[self.endpoint.name()]).inc();
        None
    }

    async fn serve(&self, session: &mut ServerSession) -> Result<()> {
        // A request with a body is its connection's last: nothing of it can be taken for the next one.
        let reusable = session.is_body_empty() && !(self.draining)();
        session.set_keepalive(reusable.then_some(HEAD.as_secs()));
        let Answer { mut head, body } = self.find(session).await?;
        match &body {
            Body::Whole(body) => head.insert_header(header::CONTENT_LENGTH, body.len())?,
            Body::Stream(_) => {
                session.set_keepalive(None);
                // To an older client its end is the connection's.
                if session.req_header().version == Version::HTTP_11 {
                    head.insert_header(header::TRANSFER_ENCODING, "chunked")?;
                }
            }
        }
        let name = self.endpoint.name();
        METRICS.endpoint_requests.with_label_values(&[name, head.status.as_str()]).inc();
        if !head.status.is_success() {
            log::debug!("{name}: {} answered {}", session.request_summary(), head.status);
        }
        let body = if session.req_header().method == Method::HEAD { Bytes::new().into() } else { body };
        in_time(timeout(WRITE, session.write_response_header(Box::new(head))).await)?;
        let last = match body {
            Body::Whole(body) => body,
            Body::Stream(mut pieces) => {
                while let Some(piece) = pieces.next().await {
                    in_time(timeout(WRITE, session.write_response_body(piece, false)).await)?;
                }
                Bytes::new()
            }
        };
        in_time(timeout(WRITE, session.write_response_body(last, true)).await)?;
        if !session.is_body_done() {
            linger(session, LINGER).await;
        }
        Ok(())
    }

    async fn find(&self, session: &mut ServerSession) -> Result<Answer> {
        let request = session.req_header();
        let path = request.uri.path();
        let here: Vec<&Route> = self.endpoint.routes().iter().filter(|route| route.path == path).collect();
        if let Some(route) = here.iter().find(|route| route.takes(&request.method)) {
            return self.endpoint.answer(route, session).await;
        }
        if here.is_empty() {
            let lines =
                self.endpoint.routes().iter().map(|route| format!("\n{} {}", route.method, route.path));
            let text = format!("There is nothing at this path. What there is:{}", lines.collect::<String>());
            return Answer::text(StatusCode::NOT_FOUND, text);
        }
        let allowed = here.iter().flat_map(|route| match route.method {
            Method::GET => vec!["GET", "HEAD"],
            _ => vec![route.method.as_str()],
        });
        let allowed = allowed.collect::<Vec<_>>().join(", ");
        let mut answer =
            Answer::text(StatusCode::METHOD_NOT_ALLOWED, format!("The methods here are: {allowed}"))?;
        answer.head.insert_header(header::ALLOW, allowed)?;
        Ok(answer)
    }
}

fn in_time(outcome: std::result::Result<Result<()>, pingora_timeout::Elapsed>) -> Result<()> {
    use pingora_error::{Error, ErrorType};
    outcome.unwrap_or_else(|_| Error::e_explain(ErrorType::WriteTimedout, "the client takes no answer"))
}

#[async_trait]
impl<E: Endpoint> HttpServerApp for App<E> {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        _: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let _place = self.place()?;
        let name = self.endpoint.name();
        match timeout(HEAD, session.read_request()).await {
            Ok(Ok(true)) => {}
            Ok(Err(error)) => {
                log::debug!("{name}: a request that cannot be read: {error}");
                // Whether the client hears it is its own affair.
                timeout(WRITE, session.respond_error(400)).await.map(drop).unwrap_or_default();
                return None;
            }
            Ok(Ok(false)) | Err(_) => return None,
        }
        if let Err(error) = self.serve(&mut session).await {
            log::debug!("{name}: a request that ended early: {error}");
            return None;
        }
        let settings = HttpPersistentSettings::for_session(&session);
        let stream = timeout(WRITE, session.finish()).await.ok()?.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }
}
