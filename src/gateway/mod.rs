//! The gateway: the Pingora `ProxyHttp` service that clients talk to.
//!
//! The spine of a request, each step one call into one module:
//! admit ([`admit`]) -> region and operation ([`route`]) -> home cluster -> read ([`read`]) or mirror ([`mirrored`],
//! [`crate::mirror`]) -> verdict -> respond ([`respond`]) -> record ([`write::Recorder`], access log).
//!
//! Everything happens in `request_filter`, which then tells Pingora that the answer was sent. An `Err` from there
//! means that the client's connection must be cut: nothing may end as if it were complete.

mod admit;
mod begin;
mod body;
mod client_address;
pub mod connection;
mod context;
mod copied;
pub mod drain;
mod find;
mod follow;
mod head;
pub mod journaling;
mod mirrored;
mod read;
mod respond;
mod route;
mod search;
pub mod snapshot;
mod write;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, header};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorSource, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use self::{
    context::Context, drain::Activity, follow::Followed, journaling::Journaling, respond::Responder,
    route::Route, snapshot::Current, write::Recorder,
};
use crate::{
    config::Config,
    mirror::Mirror,
    s3::{Operation, S3Error},
    telemetry::{
        Logs,
        endpoint::health::health,
        metrics::{BrokenBy, METRICS},
    },
    topology::{Backend, Cluster},
    upstream::{Body, Cause, Framing, Head, Upstream},
};

/// Everything a request needs. One per process.
pub struct Gateway {
    current: Arc<Current>,
    upstream: Arc<Upstream>,
    mirror: Arc<Mirror>,
    logs: Logs,
    activity: Arc<Activity>,
    journaling: Option<Arc<Journaling>>,
}

impl Gateway {
    pub fn new(
        current: Arc<Current>,
        upstream: Arc<Upstream>,
        mirror: Arc<Mirror>,
        logs: Logs,
        activity: Arc<Activity>,
        journaling: Option<Arc<Journaling>>,
    ) -> Self {
        Gateway { current, upstream, mirror, logs, activity, journaling }
    }

    fn responder<'a>(&'a self, session: &'a mut Session, context: &'a mut Context) -> Responder<'a> {
        Responder { session, context, activity: &self.activity }
    }

    /// Serves a request from admission to answer.
    async fn serve(&self, session: &mut Session, context: &mut Context) -> Result<()> {
        let config = &context.snapshot.config.clone();
        prepare(session, config)?;
        if is_health_check(session, config) {
            context.unlogged = true;
            let (head, body) = health(self.activity.is_draining())?;
            let body_read = session.downstream_session.is_body_done();
            return self.responder(session, context).whole(head, body, body_read).await;
        }
        context.followed = Followed::begin(&self.logs.tracing, session, context.ts.into());
        match self.route(session, context) {
            Ok(route) => self.dispatch(session, context, route).await,
            Err(refusal) => {
                let body_read = session.downstream_session.is_body_done();
                self.responder(session, context).refuse(&refusal, body_read).await
            }
        }
    }

    /// Admits a request and finds out what it is about and where it belongs.
    fn route(&self, session: &mut Session, context: &mut Context) -> Result<Route, S3Error> {
        let config = &context.snapshot.config;
        let admitted = self.activity.admit(config.max_concurrent_requests);
        context.admitted = Some(admitted.ok_or_else(S3Error::slow_down)?);
        let route = route::find(&context.snapshot.topology, session)?;
        context.region = Some(route.region.clone());
        match (route.framing, config.body_max_size) {
            (Framing::Length(length), Some(limit)) if length > limit => Err(S3Error::entity_too_large(limit)),
            _ => Ok(route),
        }
    }

    async fn dispatch(&self, session: &mut Session, context: &mut Context, route: Route) -> Result<()> {
        let region = route.region.clone();
        let refusal = match &route.request.operation {
            Operation::Read => return self.read(session, context, route).await,
            Operation::BucketRead { listing: true }
                if region.clusters.len() > 1 && !region.allow_unmerged_listings =>
            {
                S3Error::listing_not_merged()
            }
            Operation::BucketRead { .. } => return self.read(session, context, route).await,
            Operation::Options if context.snapshot.answers_cors => {
                let head = ResponseHeader::build(200, Some(8))?;
                let body_read = session.downstream_session.is_body_done();
                return self.responder(session, context).whole(head, Bytes::new(), body_read).await;
            }
            Operation::Options => return self.read(session, context, route).await,
            Operation::FormPost => S3Error::form_post(),
            _ if route.copies_between_clusters() => S3Error::copy_between_clusters(),
            _ => return self.write(session, context, route).await,
        };
        let body_read = session.downstream_session.is_body_done();
        self.responder(session, context).refuse(&refusal, body_read).await
    }

    /// A read, cut off when the process may wait no longer: the client sees an answer that broke off.
    async fn read(&self, session: &mut Session, context: &mut Context, route: Route) -> Result<()> {
        tokio::select! {
            biased;
            () = self.activity.stop.wait() => {}
            outcome = self.search(session, context, route) => return outcome,
        }
        cut_off(context)
    }

    /// One backend after another, home first.
    async fn search(&self, session: &mut Session, context: &mut Context, route: Route) -> Result<()> {
        let framing = Framing::Length(0);
        let method = match (&route.request.operation, session.req_header().method.clone()) {
            (Operation::Options, _) => Method::HEAD,
            (_, method) => method,
        };
        let header = self.header(session, context, method, framing)?;
        let head = match Head::new(&header, framing) {
            Ok(head) => head.observed_by(context.observer()),
            Err(cause) => return self.unsendable(session, context, cause).await,
        };
        let clusters = route.clusters_to_read();
        let read = read::Read {
            gateway: self,
            target: &route.request.target,
            header: &header,
            head: &head,
            id: &context.id,
            policy: route.region.read_policy,
        };
        let found = read.run(&clusters).await;
        context.asked = found.asked;
        context.good = usize::from(found.good);
        context.error.clone_from(&found.error);
        if let Some((cluster, _)) = &found.by {
            context.cluster.clone_from(&clusters[*cluster].name);
        }
        let body_read = session.downstream_session.is_body_done();
        let mut responder = self.responder(session, context);
        let outcome = match found.answer {
            // Like the answer to HEAD, but with a body: an empty one.
            Some((mut head, _)) if route.request.operation == Operation::Options => {
                head.remove_header(&header::CONTENT_LENGTH);
                responder.backend((head, Body::Whole(Bytes::new())), body_read).await
            }
            Some(answer) => responder.backend(answer, body_read).await,
            None => {
                let refusal = S3Error::service_unavailable("no backend could answer");
                responder.refuse(&refusal, body_read).await
            }
        };
        if let (Some(by), true) = (found.by, found.good) {
            let recorder = self.recorder(session, context, route, clusters, Vec::new());
            self.record_find(&recorder, by, &found.absent_at_home, found.known_at_home.as_ref()).await;
        }
        outcome
    }

    async fn unsendable(&self, session: &mut Session, context: &mut Context, cause: Cause) -> Result<()> {
        let body_read = session.downstream_session.is_body_done();
        let refusal = S3Error::bad_request(cause.to_string());
        self.responder(session, context).refuse(&refusal, body_read).await
    }

    fn header(
        &self,
        session: &Session,
        context: &Context,
        method: Method,
        framing: Framing,
    ) -> Result<pingora_http::RequestHeader> {
        head::for_backends(
            session.req_header(),
            method,
            framing,
            &context.snapshot.config.additional_request_headers,
            &context.id,
        )
    }

    /// It outlives the request, and is made for each write though hardly any leaves a record: so it shares what it
    /// can, and makes text of it only when there is something to record.
    fn recorder(
        &self,
        session: &Session,
        context: &Context,
        route: Route,
        clusters: Vec<Arc<Cluster>>,
        left_out: Vec<Arc<Backend>>,
    ) -> Recorder {
        let request = session.req_header();
        Recorder {
            synclog: self.logs.synclog.clone(),
            upstream: self.upstream.clone(),
            method: request.method.clone(),
            uri: request.uri.clone(),
            useragent: request.headers.get(header::USER_AGENT).cloned(),
            req_id: context.id.clone(),
            ts: context.ts,
            route,
            clusters,
            snapshot: context.snapshot.clone(),
            left_out,
            recorded: true,
            begun: None,
            doubt: None,
        }
    }
}

/// Ends a request that the process may not wait for any more.
fn cut_off(context: &mut Context) -> Result<()> {
    context.error = "cut off: the gateway is stopping".to_owned();
    Error::e_explain(ErrorType::InternalError, "the gateway is stopping")
}

fn prepare(session: &mut Session, config: &Config) -> Result<()> {
    session.set_read_timeout(Some(config.client_read_timeout));
    session.set_write_timeout(Some(config.client_write_timeout));
    // Whether an answer comes before the end of the body is known here; Pingora would also close after 100.
    session.downstream_session.set_close_on_response_before_downstream_finish(false);
    let head = session.req_header_mut();
    head.remove_header(&header::UPGRADE);
    if let Some(target) = head::origin_form(head.raw_path()) {
        head.set_raw_path(&target)?;
    }
    Ok(())
}

fn is_health_check(session: &Session, config: &Config) -> bool {
    let path = session.req_header().uri.path();
    config.health_check_endpoint.as_deref() == Some(path)
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(self.current.pin())
    }

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        self.serve(session, context).await.map(|()| true)
    }

    /// Never asked for: `request_filter` answers every request.
    async fn upstream_peer(&self, _: &mut Session, _: &mut Context) -> Result<Box<HttpPeer>> {
        Error::e_explain(ErrorType::InternalError, "the gateway's own road to backends was not taken")
    }

    /// The connection is cut: after an error in the middle of an answer nothing more may be written, and before
    /// one the client has gone or is beyond help.
    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        context: &mut Context,
    ) -> FailToProxy {
        if context.error.is_empty() {
            context.error = error.to_string();
        }
        let error_code = session.response_written().map_or(0, |answer| answer.status.as_u16());
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    /// Such errors are in the access log; the main log would repeat them for every client that goes away.
    fn suppress_error_log(&self, _: &Session, _: &Context, error: &Error) -> bool {
        matches!(error.esource(), ErrorSource::Downstream)
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, context: &mut Context) {
        if context.unlogged {
            return;
        }
        let entry = context.entry(session);
        context.followed.take().iter().for_each(|followed| followed.end(&entry));
        context::account(&self.logs, entry);
        if let Some(error) = error {
            METRICS.requests.broken(match error.esource() {
                ErrorSource::Downstream => BrokenBy::Client,
                ErrorSource::Upstream => BrokenBy::Backend,
                _ => BrokenBy::Gateway,
            });
        }
    }
}
