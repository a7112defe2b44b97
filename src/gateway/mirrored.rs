//! A write: to all its backends at once, to its client as soon as that can be answered, and to the logs and the journal
//! when all replies are in.

use std::sync::Arc;

use pingora_error::Result;
use pingora_proxy::Session;

use super::{
    Gateway,
    begin::Beginning,
    body::{BodyError, ClientBody},
    context::Context,
    copied::Doubt,
    cut_off,
    journaling::Begun,
    route::Route,
    write::{self, Plan, Recorder},
};
use crate::{
    mirror::{BrokenOff, Job, Kind, Outcome, Reply, Rest},
    s3::S3Error,
    topology::Backend,
    upstream::Head,
};

impl Gateway {
    /// All backends at once.
    pub(super) async fn write(
        &self,
        session: &mut Session,
        context: &mut Context,
        mut route: Route,
    ) -> Result<()> {
        let gathered = tokio::select! {
            biased;
            gathered = self.gather(session, context, &mut route) => gathered?,
            () = self.activity.stop.wait() => return cut_off(context),
        };
        let Some(gathered) = gathered else { return Ok(()) };
        let config = context.snapshot.config.clone();
        let method = session.req_header().method.clone();
        let header = self.header(session, context, method, route.framing)?;
        let head = match Head::new(&header, route.framing) {
            Ok(head) => head.observed_by(context.observer()),
            Err(cause) => return self.unsendable(session, context, cause).await,
        };
        let (plan, doubt) = self.plan(session, &route).await;
        context.cluster = plan.clusters.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(",");
        if plan.targets.is_empty() {
            let why = "the backend of the upload does not have the newest version of the copy's source yet";
            let body_read = session.downstream_session.is_body_done();
            let refusal = S3Error::service_unavailable(why);
            return self.responder(session, context).refuse(&refusal, body_read).await;
        }
        let beginning = self.begin_write(session, context, &route, &plan, gathered).await?;
        let Some(Beginning { begun, gathered }) = beginning else { return Ok(()) };
        context.asked = plan.targets.len();
        let object = write::object_name(&route.request.target);
        let left_out = plan.left_out.clone();
        let mut recorder = self.recorder(session, context, route, plan.clusters, plan.left_out);
        recorder.recorded = plan.recorded;
        recorder.begun = begun;
        recorder.doubt = doubt;
        let job = Job {
            id: context.id.as_str().into(),
            header: Arc::new(header),
            head,
            targets: plan.targets,
            rule: plan.rule,
            judge: plan.judge,
            object: object.clone().filter(|_| plan.ordered),
            whole_object: plan.whole_object,
            reuse: plan.reuse,
            config: config.mirror.clone(),
        };
        let mut body = ClientBody::new(session, config.body_max_size, gathered);
        let outcome = self.mirror.run(job, &mut body).await;
        context.bytes_in = body.received;
        match outcome {
            Ok(outcome) => {
                recorder.doubt.iter_mut().for_each(|doubt| doubt.answered_by = outcome.answered_by);
                context.good = outcome.rest.replies().filter(|reply| reply.kind == Kind::Good).count();
                let applied = outcome.rest.replies().any(|reply| reply.kind != Kind::NotApplied);
                if let (true, Some(object), Some(number)) = (applied, &object, outcome.rest.committed()) {
                    let order = self.mirror.order();
                    left_out.iter().for_each(|backend| order.missed(object, backend.id, number));
                }
                self.answer_write(session, context, outcome, recorder).await
            }
            Err(BrokenOff { error, replies }) => {
                // Nobody has seen the end of the request. But who has answered, or begun to, may have done it all the
                // same.
                let has_acted = |reply: &Reply| reply.status.is_some() || reply.kind != Kind::NotApplied;
                let recording = async {
                    match replies.iter().any(has_acted) {
                        true => recorder.write(&replies, None).await,
                        false => recorder.begun.take().map(Begun::nothing_was_sent).unwrap_or_default(),
                    }
                };
                tokio::join!(self.broken_off(session, context, error), recording).0
            }
        }
    }

    /// Where a write goes: not to backends that have an older version of what it copies.
    async fn plan(&self, session: &Session, route: &Route) -> (Plan, Option<Doubt>) {
        let request = session.req_header();
        let usable = |backend: &Backend| self.upstream.is_usable(backend);
        let mut plan = write::plan(&route.request, &request.method, &request.headers, &route.region, usable);
        let doubt = self.doubt(route, &plan.clusters[0]).await;
        plan.leave_out(doubt.as_ref().map_or(&[], Doubt::left_out));
        (plan, doubt)
    }

    /// Ends a request whose body did not end properly.
    pub(super) async fn broken_off(
        &self,
        session: &mut Session,
        context: &mut Context,
        error: BodyError,
    ) -> Result<()> {
        match error {
            BodyError::Refused(refusal) => self.responder(session, context).refuse(&refusal, false).await,
            BodyError::Broken(error) => Err(error.into_down()),
        }
    }

    /// Answers a write and records what its replies say, each without waiting for the other.
    async fn answer_write(
        &self,
        session: &mut Session,
        context: &mut Context,
        outcome: Outcome,
        recorder: Recorder,
    ) -> Result<()> {
        let Outcome { answer, body_read, rest, .. } = outcome;
        let done = rest.is_done();
        let recording = self.record_write(rest, recorder);
        let mut responder = self.responder(session, context);
        let answering = async {
            match answer {
                Some(answer) => responder.backend(answer, body_read).await,
                None => {
                    let refusal = S3Error::service_unavailable("no backend took the request");
                    responder.refuse(&refusal, body_read).await
                }
            }
        };
        if done {
            return tokio::join!(answering, recording).0;
        }
        // What still runs goes on while the client takes its answer, and after.
        tokio::spawn(recording);
        answering.await
    }

    /// Waits for the replies that are still to come and records what they say.
    fn record_write(&self, rest: Rest, recorder: Recorder) -> impl Future<Output = ()> + Send + use<> {
        let running = self.activity.background();
        async move {
            let committed = rest.committed();
            let replies = rest.finish().await;
            recorder.write(&replies, committed).await;
            drop(running);
        }
    }
}
