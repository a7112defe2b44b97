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
    write::{self, Plan},
};
use crate::{
    config::Config,
    journal::Refused,
    s3::{S3Error, delete_objects::doomed},
    upstream::Framing,
};

/// Of a body that is read before its request begins. S3 takes a thousand keys of a kilobyte.
const GATHERED_MOST: u64 = 2 << 20;

/// A write that may go to backends.
pub struct Beginning {
    /// As the journal knows it.
    pub begun: Option<Begun>,
    /// What has been read of its body.
    pub gathered: Gathered,
}

impl Gateway {
    /// Reads what is read of a body before anything of its request goes anywhere; `None` = it cannot be, and its client
    /// has been told.
    ///
    /// A body that a storage may do without is read whole, and handed on as one piece. So its request goes out as one
    /// without a body does: head and body together, when its turn has come. A head that left before might be obeyed
    /// before a write that is earlier in line, or though the client breaks off.
    pub(super) async fn gather(
        &self,
        session: &mut Session,
        context: &mut Context,
        route: &mut Route,
    ) -> Result<Option<Gathered>> {
        let method = &session.req_header().method;
        let whole = write::can_do_without_body(&route.request, method);
        if route.framing == Framing::Length(0) || !(whole || self.names_many(route, method)) {
            return Ok(Some(Gathered::default()));
        }
        let too_large = S3Error::entity_too_large(GATHERED_MOST);
        if whole && matches!(route.framing, Framing::Length(length) if length > GATHERED_MOST) {
            return self.responder(session, context).refuse(&too_large, false).await.map(|()| None);
        }
        let config = context.snapshot.config.clone();
        continue_if_expected(session, &config).await?;
        let mut body = ClientBody::new(session, config.body_max_size, Gathered::default());
        let gathered = body.gather(GATHERED_MOST).await;
        context.bytes_in = body.received;
        let gathered = match gathered {
            Ok(gathered) if !whole => return Ok(Some(gathered)),
            Ok(gathered) if gathered.whole().is_some() => gathered,
            Ok(_) => {
                return self.responder(session, context).refuse(&too_large, false).await.map(|()| None);
            }
            Err(error) => return self.broken_off(session, context, error).await.map(|()| None),
        };
        // The end of chunks is a piece of its own: the head might leave before it.
        if gathered.received > 0 {
            route.framing = Framing::Length(gathered.received);
        }
        Ok(Some(gathered))
    }

    /// Lets a write begin; `None` = it may not, and its client has been told.
    pub(super) async fn begin_write(
        &self,
        session: &mut Session,
        context: &mut Context,
        route: &Route,
        plan: &Plan,
        gathered: Gathered,
    ) -> Result<Option<Beginning>> {
        let begun = match self.tell_journal(session, context, route, plan, &gathered).await {
            Ok(begun) => begun,
            Err(Refused) => {
                let body_read = session.downstream_session.is_body_done();
                let refusal = S3Error::service_unavailable("the journal is unavailable");
                return self.responder(session, context).refuse(&refusal, body_read).await.map(|()| None);
            }
        };
        if !gathered.is_asked_for()
            && let Err(error) = continue_if_expected(session, &context.snapshot.config).await
        {
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
            writing.doomed = gathered.whole().and_then(doomed).unwrap_or_default();
        }
        journaling.begin(&writing).await.map(Some)
    }

    /// Whether the journal must know what stands in the body of a request before that begins: it is about many objects.
    fn names_many(&self, route: &Route, method: &Method) -> bool {
        self.journaling.is_some() && write::is_delete_of_many(&route.request, method)
    }
}

async fn continue_if_expected(session: &mut Session, config: &Config) -> Result<()> {
    if is_expect_continue_req(session.req_header()) {
        let written = session.downstream_session.write_continue_response();
        respond::in_time(timeout(config.client_write_timeout, written).await)?;
    }
    Ok(())
}
