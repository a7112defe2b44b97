//! What is counted of clients' requests.

use std::time::Duration;

use http::{Method, StatusCode};
use pingora_prometheus::prometheus::{Histogram, IntCounter, IntCounterVec};

use super::{
    cells::{Cells, METHODS, STATUSES, method_at, status_at, status_label},
    families::Families,
};

/// The codes of the errors that the gateway answers with; a test compares them with those that there are.
pub(super) const CODES: [&str; 14] = [
    "EntityTooLarge",
    "InternalError",
    "InvalidArgument",
    "InvalidRequest",
    "InvalidURI",
    "MethodNotAllowed",
    "NoSuchKey",
    "NoSuchRegion",
    "NotImplemented",
    "RequestHeaderSectionTooLarge",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "other",
];

/// The values of the label `by`, in the order of [`BrokenBy`].
pub(super) const BREAKERS: [&str; 3] = ["client", "backend", "gateway"];

/// Who made it necessary to cut a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokenBy {
    Client,
    Backend,
    Gateway,
}

/// How the rest of a request ended whose sender had been answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linger {
    /// The client stopped, or had no more.
    Ended,
    /// It sent more than is discarded.
    Bytes,
    /// It still sent when the time was over.
    Time,
}

#[derive(Debug)]
pub struct Requests {
    pub(super) family: IntCounterVec,
    /// By method, then by status.
    counts: Cells,
    /// By method.
    pub(super) durations: [Histogram; METHODS.len()],
    pub(super) broken: [IntCounter; 3],
    pub(super) refusals: [IntCounter; CODES.len()],
    lingers: [IntCounter; 3],
}

impl Requests {
    pub(super) fn new(f: &mut Families) -> Requests {
        let family = f.counters(
            "akubra_requests_total",
            "Client requests that have ended, but for the health path; status none = no answer was sent.",
            &["method", "status"],
        );
        let durations = f.histograms(
            "akubra_request_duration_seconds",
            "Time from a request's head to the end of its answer.",
            &["method"],
        );
        let broken = f.counters(
            "akubra_requests_broken_total",
            "Client requests that ended without a whole answer, by who broke off.",
            &["by"],
        );
        let refusals = f.counters(
            "akubra_refusals_total",
            "Errors that the gateway answered with itself, by S3's code.",
            &["code"],
        );
        let lingers = f.counters(
            "akubra_lingering_closes_total",
            "Clients that were answered before the end of their request, by how the rest of it ended.",
            &["end"],
        );
        Requests {
            family,
            counts: Cells::new(METHODS.len() * STATUSES),
            durations: METHODS.map(|method| durations.with_label_values(&[method])),
            broken: BREAKERS.map(|by| broken.with_label_values(&[by])),
            refusals: CODES.map(|code| refusals.with_label_values(&[code])),
            lingers: ["ended", "bytes", "time"].map(|end| lingers.with_label_values(&[end])),
        }
    }

    /// A request has ended. `status` is that of the answer, if one was sent.
    pub fn ended(&self, method: &Method, status: Option<StatusCode>, duration: Duration) {
        let (method, status) = (method_at(method), status_at(status));
        self.counts.count(method * STATUSES + status, || {
            self.family.with_label_values(&[METHODS[method], &status_label(status)])
        });
        self.durations[method].observe(duration.as_secs_f64());
    }

    pub fn broken(&self, by: BrokenBy) {
        self.broken[by as usize].inc();
    }

    /// The gateway answered with an error of this code.
    pub fn refused(&self, code: &str) {
        let at = CODES.iter().position(|known| *known == code).unwrap_or(CODES.len() - 1);
        self.refusals[at].inc();
    }

    pub fn lingered(&self, end: Linger) {
        self.lingers[end as usize].inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_gateways_errors_is_known() {
        let source = include_str!("../../s3/error.rs");
        let source = &source[..source.find("#[cfg(test)]").unwrap()];
        // Constructors name their code behind a status, on the same line or the next.
        let compact: String = source.split_whitespace().collect();
        let mut found: Vec<&str> = Vec::new();
        for rest in compact.split("StatusCode::").skip(1) {
            let Some((_, code)) = rest.split_once(",\"") else { continue };
            let code = code.split('"').next().unwrap();
            if rest.starts_with(|c: char| c.is_ascii_uppercase()) && rest.find(',') == rest.find(",\"") {
                found.push(code);
            }
        }
        found.sort_unstable();
        found.dedup();
        assert!(found.len() >= 13, "{found:?}");
        for code in &found {
            assert!(CODES.contains(code), "{code} is not counted by its name");
        }
        for code in &CODES[..CODES.len() - 1] {
            assert!(found.contains(code), "there is no {code}");
        }
    }
}
