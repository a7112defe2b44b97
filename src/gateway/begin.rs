//! What comes before a write goes to backends: the journal is told of it, and its client to send the body.

use http::Method;
use pingora_core::protocols::http::v1::common::is_expect_continue_req;
use pingora_error::Result;
use pingora_proxy::Session;
use pingora_timeout::timeout;

use super::{
    Gateway,
    body::{ClientBody, Gathered},
    context::Context,
    journaling::{Begun, Writing},
    respond,
    route::Route,
    write::Plan,
};
use crate::{
    config::Config,
    journal::Refused,
    s3::{Operation, S3Error, delete_objects::doomed},
};

/// Of a body that the journal must know before the request begins. S3 takes a thousand keys of a kilobyte.
const GATHERED_MOST: u64 = 2 << 20;

/// A write that may go to backends.
pub struct Beginning {
    /// As the journal knows it.
    pub begun: Option<Begun>,
    /// What has been read of its body.
    pub gathered: Gathered,
}

impl Gateway {
    /// Lets a write begin; `None` = it may not, and its client has been told.
    pub(super) async fn begin_write(
        &self,
        session: &mut Session,
        context: &mut Context,
        route: &Route,
        plan: &Plan,
    ) -> Result<Option<Beginning>> {
        let config = context.snapshot.config.clone();
        let many = self.names_many(route, &session.req_header().method);
        let mut gathered = Gathered::default();
        if many {
            continue_if_expected(session, &config).await?;
            let body = ClientBody::new(session, config.body_max_size, gathered);
            gathered = match body.gather(GATHERED_MOST).await {
                Ok(gathered) => gathered,
                Err(error) => return self.broken_off(session, context, error).await.map(|()| None),
            };
        }
        let begun = match self.tell_journal(session, context, route, plan, &gathered).await {
            Ok(begun) => begun,
            Err(Refused) => {
                let body_read = session.downstream_session.is_body_done();
                let refusal = S3Error::service_unavailable("the journal is unavailable");
                return self.responder(session, context).refuse(&refusal, body_read).await.map(|()| None);
            }
        };
        if !many && let Err(error) = continue_if_expected(session, &config).await {
            begun.map(Begun::nothing_was_sent).unwrap_or_default();
            return Err(error);
        }
        Ok(Some(Beginning { begun, gathered }))
    }

    async fn tell_journal(
        &self,
        session: &Session,
        context: &Context,
        route: &Route,
        plan: &Plan,
        gathered: &Gathered,
    ) -> std::result::Result<Option<Begun>, Refused> {
        let Some(journaling) = self.journaling.as_ref().filter(|_| plan.recorded) else { return Ok(None) };
        let method = &session.req_header().method;
        let mut writing = Writing::new(route, method, &context.id, &plan.clusters);
        if self.names_many(route, method) {
            writing.doomed = gathered.whole().and_then(|body| doomed(&body)).unwrap_or_default();
        }
        journaling.begin(&writing).await.map(Some)
    }

    /// Whether the journal must know what stands in the body of a request before that begins: it is about many objects.
    fn names_many(&self, route: &Route, method: &Method) -> bool {
        self.journaling.is_some()
            && method == Method::POST
            && route.request.operation == Operation::BucketWrite
            && route.request.sub_resource.as_deref() == Some("delete")
    }
}

async fn continue_if_expected(session: &mut Session, config: &Config) -> Result<()> {
    if is_expect_continue_req(session.req_header()) {
        let written = session.downstream_session.write_continue_response();
        respond::in_time(timeout(config.client_write_timeout, written).await)?;
    }
    Ok(())
}
