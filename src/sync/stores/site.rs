//! One backend: requests to it, and what has been found out about it.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header::CONTENT_LENGTH};
use pingora_http::RequestHeader;
use tokio::time::timeout;

use super::{
    condition::Form,
    error::{self, Broken},
    lacks::Lacks,
    least::{Account, Least},
    pace::Pace,
    request,
};
use crate::{
    s3::error::error_code,
    sync::{StoreError, sign},
    topology::Backend,
    upstream::{Answer, Body, Cause, Connection, Failure, Framing, Head, Phase, Reuse, Sent, Upstream},
};

/// The longest answer that is read whole: ACLs and error documents are far shorter.
const LONGEST_ANSWER: usize = 1 << 20;
/// For the last bytes of a change and its answer, or for the rest of an answer. Storages that put large objects
/// together send blanks for minutes meanwhile.
const ANSWERING: Duration = Duration::from_secs(600);

pub struct Site {
    upstream: Arc<Upstream>,
    backend: Arc<Backend>,
    /// Clusters that have this backend, for humans.
    clusters: String,
    pub pace: Pace,
    least: Least,
    /// No form of a condition, and the one with quotes.
    unconditional: Lacks,
    unquoted: Lacks,
    untagged: Lacks,
}

/// An answer that was read whole.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// S3's name of the error, if there is one.
    pub fn code(&self) -> &str {
        error_code(&self.body).unwrap_or_default()
    }

    /// The answer of who does not implement something: the conditions of a change, perhaps.
    pub fn is_not_implemented(&self) -> bool {
        self.status == StatusCode::NOT_IMPLEMENTED
            || (self.status == StatusCode::BAD_REQUEST && self.code() == "NotImplemented")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Site {
    pub fn new(
        upstream: Arc<Upstream>,
        backend: Arc<Backend>,
        clusters: String,
        bandwidth: u64,
        least: Least,
    ) -> Site {
        let pace = Pace::new(bandwidth);
        Site {
            upstream,
            backend,
            clusters,
            pace,
            least,
            unconditional: Lacks::default(),
            unquoted: Lacks::default(),
            untagged: Lacks::default(),
        }
    }

    pub fn url(&self) -> &str {
        &self.backend.url
    }

    pub fn authority(&self) -> String {
        self.backend.authority()
    }

    pub fn endpoint(&self) -> String {
        self.backend.endpoint()
    }

    pub fn clusters(&self) -> &str {
        &self.clusters
    }

    /// Of who moves an object's bytes from or to it.
    pub fn account(&self) -> Account {
        Account::open(self.least)
    }

    /// The form in which changes have conditions.
    pub fn form(&self) -> Form {
        let now = Instant::now();
        match (self.unconditional.lasts(now), self.unquoted.lasts(now)) {
            (true, _) => Form::None,
            (false, true) => Form::Bare,
            (false, false) => Form::Quoted,
        }
    }

    /// It has refused a change under a condition in another form, and done the same in this.
    pub fn keep_form(&self, form: Form) {
        let (now, url) = (Instant::now(), self.url());
        match form {
            Form::Quoted => {}
            Form::Bare => {
                if self.unquoted.note(now) {
                    log::info!("{url}: it wants no quotes in If-Match");
                }
            }
            Form::None => {
                if self.unconditional.note(now) {
                    log::info!("{url}: it knows no conditions of changes, it is asked before them instead");
                }
            }
        }
    }

    pub fn knows_tags(&self) -> bool {
        !self.untagged.lasts(Instant::now())
    }

    pub fn forget_tags(&self) {
        self.untagged.note(Instant::now());
    }

    /// A request without body that changes nothing, and its whole answer.
    pub async fn ask(&self, header: RequestHeader) -> Result<Reply, Failure> {
        let answer = self.open(header).await?;
        self.collect(answer).await
    }

    /// A request without body that changes nothing, and the head of its answer.
    pub async fn open(&self, header: RequestHeader) -> Result<Answer, Failure> {
        let head = self.head(header, 0)?;
        self.upstream.ask(&self.backend, &head, self.patience()).await
    }

    /// A request that changes something, with a body that is known whole. A dead connection is only replaced if
    /// nothing can have happened.
    pub async fn commit(&self, header: RequestHeader, body: Bytes) -> Result<Reply, StoreError> {
        let mut header = header;
        request::set(&mut header, sign::CONTENT_SHA256, request::sha256(&body))?;
        if !matches!(header.method, Method::DELETE) {
            request::set(&mut header, CONTENT_LENGTH, body.len().to_string())?;
        }
        let mut outcome = self.commit_once(header.clone(), body.clone(), Reuse::Allowed).await;
        if matches!(outcome, Err(Broken::Stale(_))) {
            outcome = self.commit_once(header, body, Reuse::Fresh).await;
        }
        match outcome {
            Err(Broken::Answered(reply, _)) => Ok(*reply),
            outcome => Ok(outcome?),
        }
    }

    async fn commit_once(&self, header: RequestHeader, body: Bytes, reuse: Reuse) -> Result<Reply, Broken> {
        let connection = self.connect(header, body.len() as u64, reuse).await?;
        self.complete(connection, body).await
    }

    /// A connection with the head queued on it.
    pub async fn connect(
        &self,
        header: RequestHeader,
        length: u64,
        reuse: Reuse,
    ) -> Result<Connection, StoreError> {
        let head = self.head(header, length).map_err(error::before)?;
        self.upstream.connect(&self.backend, &head, reuse, self.patience()).await.map_err(error::before)
    }

    /// Sends the bytes that complete a request, and reads its answer.
    pub async fn complete(&self, connection: Connection, last: Bytes) -> Result<Reply, Broken> {
        let completed = timeout(ANSWERING, self.completed(connection, last)).await;
        completed.unwrap_or_else(|_| Err(error::after(self.overdue(Phase::Await))))
    }

    async fn completed(&self, mut connection: Connection, last: Bytes) -> Result<Reply, Broken> {
        if connection.answers_early().await.map_err(error::unfinished)? {
            return Err(self.early(connection).await);
        }
        connection.push_body(last);
        connection.push_end();
        let detached = AtomicBool::new(false);
        let answer = match connection.send().await.map_err(error::unfinished)? {
            Sent::All => connection.answer(Phase::Await, &detached).await,
            // Nobody knows to how much of it.
            Sent::Answering => {
                connection.early_answer(&detached).await.map_err(|failure| match failure.stale {
                    true => failure,
                    false => Failure { phase: Phase::Await, ..failure },
                })
            }
        };
        self.collect(answer.map_err(error::after)?).await.map_err(error::after)
    }

    /// What a backend says to a request that is not complete. One that says it is done may have stored what it had.
    pub async fn early(&self, connection: Connection) -> Broken {
        let answer = match connection.early_answer(&AtomicBool::new(false)).await {
            Ok(answer) => answer,
            Err(failure) => return error::unfinished(failure),
        };
        let status = answer.head.status;
        if status.is_success() {
            let said = format!("{}: it answered {status} before the request's end", self.url());
            return StoreError::Unknown(said).into();
        }
        match self.collect(answer).await {
            Ok(reply) => {
                let error = error::of_reply(self, error::End::Target, &Method::PUT, &reply);
                Broken::Answered(Box::new(reply), error)
            }
            Err(failure) => error::unfinished(failure),
        }
    }

    pub async fn collect(&self, answer: Answer) -> Result<Reply, Failure> {
        let too_long = || {
            let cause = Cause::Invalid("longer than 1 MiB".into());
            Failure::new(&self.backend, Phase::Receive, cause, Duration::ZERO)
        };
        self.collect_short(answer).await?.ok_or_else(too_long)
    }

    /// `None` = it is longer than any that is read whole.
    pub async fn collect_short(&self, answer: Answer) -> Result<Option<Reply>, Failure> {
        let Answer { head, body } = answer;
        let body = timeout(ANSWERING, body.collect(LONGEST_ANSWER)).await;
        match body.map_err(|_| self.overdue(Phase::Receive))? {
            Body::Whole(body) => Ok(Some(Reply { status: head.status, headers: head.headers.clone(), body })),
            Body::Broken(_, failure) => Err(failure),
            Body::Long(..) => Ok(None),
        }
    }

    fn head(&self, mut header: RequestHeader, length: u64) -> Result<Head, Failure> {
        let failure = |cause| Failure::new(&self.backend, Phase::Send, cause, Duration::ZERO);
        if !header.headers.contains_key(sign::CONTENT_SHA256) {
            // Of a body that is known whole, which is none.
            let hash = request::sha256(b"");
            request::set(&mut header, sign::CONTENT_SHA256, hash).map_err(failure)?;
        }
        let shared = Head::new(&header, Framing::Length(length)).map_err(failure)?;
        self.upstream.head(&self.backend, &header, &shared)
    }

    fn overdue(&self, phase: Phase) -> Failure {
        Failure::new(&self.backend, phase, Cause::Deadline, ANSWERING)
    }

    /// For a connection.
    fn patience(&self) -> Duration {
        self.upstream.dial_timeout()
    }
}
