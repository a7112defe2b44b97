//! Who is told of each exchange of a request when it has ended: a request that is followed has an observer in its
//! [`Head`](super::Head), and any other pays for nothing.

use std::{
    fmt::Debug,
    sync::{Arc, OnceLock},
    time::Instant,
};

use http::StatusCode;

use super::failure::Failure;

/// One exchange that has ended, well or not.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The backend's URL.
    pub backend: &'a str,
    pub started: Instant,
    /// On a connection that had been used before.
    pub reused: bool,
    /// Of the final answer, if its head came.
    pub status: Option<StatusCode>,
    pub failure: Option<&'a str>,
}

pub trait Observer: Debug + Send + Sync {
    fn ended(&self, exchange: Exchange);
}

/// An exchange that somebody wants to hear of; told when dropped.
#[derive(Debug)]
pub(super) struct Observed {
    observer: Arc<dyn Observer>,
    backend: String,
    started: Instant,
    reused: bool,
    status: OnceLock<StatusCode>,
    failure: OnceLock<String>,
}

impl Observed {
    pub fn new(observer: &Arc<dyn Observer>, backend: &str, started: Instant, reused: bool) -> Observed {
        Observed {
            observer: observer.clone(),
            backend: backend.to_owned(),
            started,
            reused,
            status: OnceLock::new(),
            failure: OnceLock::new(),
        }
    }

    pub fn answered(&self, status: StatusCode) {
        self.status.get_or_init(|| status);
    }

    /// The first failure is the one that is told.
    pub fn failed(&self, failure: &Failure) {
        self.failure.get_or_init(|| failure.to_string());
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        let cut_off = self.status.get().is_none().then_some("ended before an answer came");
        self.observer.ended(Exchange {
            backend: &self.backend,
            started: self.started,
            reused: self.reused,
            status: self.status.get().copied(),
            failure: self.failure.get().map(String::as_str).or(cut_off),
        });
    }
}
