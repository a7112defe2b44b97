//! Following a request: the span that it has, if it is traced, and those of its exchanges.

use std::{sync::Arc, time::SystemTime};

use http::Method;
use pingora_proxy::Session;

use crate::{
    telemetry::{
        AccessEntry,
        tracing::{self, Trace, Tracing},
    },
    upstream::{Exchange, Observer},
};

/// A request that is traced. Its exchanges may outlive it.
#[derive(Debug, Clone)]
pub struct Followed {
    trace: Arc<Trace>,
    method: Method,
}

impl Followed {
    /// `None` when it is not traced.
    pub fn begin(tracing: &Tracing, session: &Session, started: SystemTime) -> Option<Followed> {
        let request = session.req_header();
        let trace = tracing.begin(&request.method, &request.headers, started)?;
        Some(Followed { trace: Arc::new(trace), method: request.method.clone() })
    }

    pub fn end(&self, entry: &AccessEntry) {
        self.trace.end(entry);
    }

    pub fn observer(&self) -> Arc<dyn Observer> {
        Arc::new(self.clone())
    }
}

impl Observer for Followed {
    fn ended(&self, exchange: Exchange) {
        self.trace.exchange(tracing::Exchange {
            backend: exchange.backend,
            method: &self.method,
            started: exchange.started,
            reused: exchange.reused,
            status: exchange.status.map(|status| status.as_u16()),
            failure: exchange.failure.map(str::to_owned),
        });
    }
}
