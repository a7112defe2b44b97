//! How an exchange with a backend can fail: which backend, in which phase, after how long, and why.
//!
//! The phase decides what may have happened at the backend. Before the end of the request was sent nothing
//! can have been stored; once the whole request has gone out and no final answer came, nobody knows.

use std::{fmt, sync::Arc, time::Duration};

use crate::{telemetry::metrics::BackendMetrics, topology::Backend};

/// The part of an exchange that was under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Waiting for one of `MaxConnsPerBackend` connections.
    Limit,
    /// The backend's name has no address.
    Resolve,
    Dial,
    /// Sending the request's head or body.
    Send,
    /// The whole request has gone out, the final answer's head has not come.
    Await,
    /// The answer's head is here, its body is not complete.
    Receive,
}

impl Phase {
    /// Its label in metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Phase::Limit => "limit",
            Phase::Resolve => "resolve",
            Phase::Dial => "dial",
            Phase::Send => "send",
            Phase::Await => "await",
            Phase::Receive => "receive",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Limit => "waiting for a free connection",
            Phase::Resolve => "resolving the name",
            Phase::Dial => "connecting",
            Phase::Send => "sending the request",
            Phase::Await => "waiting for the answer",
            Phase::Receive => "reading the answer's body",
        })
    }
}

/// Why it failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    #[error("{0} connections are in use, the limit")]
    Limit(usize),
    #[error("no address is known")]
    Unresolved,
    /// Found sick since it was chosen.
    #[error("it was ejected meanwhile")]
    Ejected,
    #[error("the deadline passed")]
    Deadline,
    /// End of stream or reset.
    #[error("the connection was closed ({0})")]
    Closed(String),
    #[error("{0}")]
    Io(String),
    /// What came is not a valid answer.
    #[error("invalid answer: {0}")]
    Invalid(String),
    #[error("the request cannot be sent: {0}")]
    Unsendable(String),
}

/// A failed exchange.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{url}: {cause} while {phase}, after {elapsed:?}")]
pub struct Failure {
    pub url: Arc<str>,
    pub phase: Phase,
    pub cause: Cause,
    pub elapsed: Duration,
    /// A reused connection died before any byte of an answer: the request may be sent once more on a fresh one.
    pub stale: bool,
}

impl Failure {
    pub fn new(backend: &Backend, phase: Phase, cause: Cause, elapsed: Duration) -> Self {
        Failure { url: Arc::from(backend.url.as_str()), phase, cause, elapsed, stale: false }
    }
}

impl Failure {
    /// Counts it and hands it on.
    pub(super) fn counted(self, metrics: &BackendMetrics) -> Self {
        let cause = if self.stale { "stale" } else { self.cause.label() };
        metrics.failed(self.phase.label(), cause);
        self
    }
}

impl Cause {
    /// Its label in metrics.
    fn label(&self) -> &'static str {
        match self {
            Cause::Limit(_) => "limit",
            Cause::Unresolved => "unresolved",
            Cause::Ejected => "ejected",
            Cause::Deadline => "deadline",
            Cause::Closed(_) => "closed",
            Cause::Io(_) => "io",
            Cause::Invalid(_) => "invalid",
            Cause::Unsendable(_) => "unsendable",
        }
    }
}

impl From<std::io::Error> for Cause {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind::*;
        match error.kind() {
            ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected | UnexpectedEof => {
                Cause::Closed(error.to_string())
            }
            TimedOut => Cause::Deadline,
            _ => Cause::Io(error.to_string()),
        }
    }
}

/// Reads a Pingora error. Its own text quotes whole peers and answers: what is kept is the cause.
pub(super) fn cause_of(error: &pingora_error::Error) -> Cause {
    use pingora_error::ErrorType::*;
    let io = error.root_cause().downcast_ref::<std::io::Error>();
    match error.etype() {
        ConnectionClosed => Cause::Closed("end of stream".into()),
        ReadTimedout | WriteTimedout | ConnectTimedout => Cause::Deadline,
        ConnectRefused => Cause::Io("connection refused".into()),
        InvalidHTTPHeader => Cause::Invalid("its head cannot be parsed".into()),
        other => match io {
            Some(io) => Cause::from(std::io::Error::new(io.kind(), io.to_string())),
            None => Cause::Io(other.as_str().to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::{CAUSES, PHASES};

    #[test]
    fn every_failure_is_counted_under_labels_that_metrics_know() {
        let phases = [Phase::Limit, Phase::Resolve, Phase::Dial, Phase::Send, Phase::Await, Phase::Receive];
        assert_eq!(phases.map(Phase::label), PHASES);
        let text = String::new;
        let causes = [
            Cause::Limit(1),
            Cause::Unresolved,
            Cause::Ejected,
            Cause::Deadline,
            Cause::Closed(text()),
            Cause::Io(text()),
            Cause::Invalid(text()),
            Cause::Unsendable(text()),
        ];
        // The last one is that of stale connections, whatever the cause.
        assert_eq!(causes.each_ref().map(Cause::label), CAUSES[..8]);
        assert_eq!(CAUSES[8], "stale");
    }
}
