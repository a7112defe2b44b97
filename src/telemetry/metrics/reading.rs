//! Metrics as numbers, for what shows them itself: the status page.
//!
//! Only the families that it needs are read, and only children that exist: looking a child up would make it, and
//! then it would be exported. What is counted here only grows; differences between two readings are rates.

use std::collections::{BTreeMap, HashMap};

use pingora_prometheus::prometheus::{
    core::Collector,
    proto::{Histogram, Metric},
};

use super::{
    METRICS, Metrics, WAITING_CHANGES,
    backend::{CAUSES, OUTCOMES, PHASES},
    cells::CLASSES,
    families::LATENCY_BUCKETS,
    requests::{BREAKERS, CODES},
};

/// Everything, at one moment, more or less: families are read one after the other.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    pub clients: Clients,
    pub journal: Journal,
    /// By URL.
    pub backends: HashMap<String, Backend>,
}

/// What is counted of clients, and of objects.
#[derive(Debug, Clone, Default)]
pub struct Clients {
    /// Requests that have ended, by the class of their status.
    pub by_class: Counts,
    pub duration: Durations,
    pub broken: Counts,
    pub refused: Counts,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub in_flight: u64,
    pub connections: u64,
    pub unfinished_writes: u64,
    pub missed_writes: u64,
    pub misplacements: u64,
    pub viewers: u64,
}

/// What is counted of the journal by this process.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    pub unavailable: bool,
    /// Steps of writes that wait, and how many may.
    pub waiting: u64,
    pub waiting_most: u64,
    pub dropped: u64,
    pub refused: u64,
    /// Writes that it put there because backends may not agree.
    pub records: u64,
    pub remembered: u64,
    pub remembered_whole: bool,
}

/// What is counted of one backend.
#[derive(Debug, Clone, Default)]
pub struct Backend {
    pub replies: Counts,
    /// The same replies by the class of the answer's status.
    pub by_class: Counts,
    /// By phase and cause.
    pub errors: BTreeMap<(&'static str, &'static str), u64>,
    /// Why sub-requests were ended from outside.
    pub cuts: Counts,
    pub answer_wait: Durations,
    pub divergences: u64,
    pub busy_connections: u64,
    pub idle_connections: u64,
    pub background_requests: u64,
    pub background_bytes: u64,
    pub waiting_bytes: u64,
}

/// Counts by the value of a label, without those that are 0.
pub type Counts = BTreeMap<&'static str, u64>;

/// How many durations were observed in each bucket. The last bucket is what is longer than [`Durations::BOUNDS`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Durations(pub Vec<u64>);

impl Durations {
    /// Upper bounds of the buckets, in seconds.
    pub const BOUNDS: &'static [f64] = LATENCY_BUCKETS;

    fn add(&mut self, histogram: &Histogram) {
        self.0.resize(Self::BOUNDS.len() + 1, 0);
        let mut below = 0;
        let ends = histogram.get_bucket().iter().map(|bucket| bucket.cumulative_count());
        for (count, end) in self.0.iter_mut().zip(ends.chain([histogram.get_sample_count()])) {
            *count += end.saturating_sub(below);
            below = below.max(end);
        }
    }

    /// What was observed since an earlier reading.
    pub fn since(&self, earlier: &Durations) -> Durations {
        let before = earlier.0.iter().copied().chain(std::iter::repeat(0));
        Durations(self.0.iter().zip(before).map(|(now, before)| now.saturating_sub(before)).collect())
    }
}

impl Metrics {
    pub fn read(&self) -> Reading {
        let (clients, journal) = (self.clients(), self.read_journal());
        let mut reading = Reading { clients, journal, backends: HashMap::new() };
        self.read_exchanges(&mut reading.backends);
        self.read_replicas(&mut reading.backends);
        reading
    }

    fn clients(&self) -> Clients {
        let mut clients = Clients {
            broken: counts(&BREAKERS, self.requests.broken.each_ref().map(|counter| counter.get())),
            refused: counts(&CODES, self.requests.refusals.each_ref().map(|counter| counter.get())),
            received_bytes: self.client_received_bytes.get(),
            sent_bytes: self.client_sent_bytes.get(),
            in_flight: natural(self.requests_in_flight.get()),
            connections: natural(self.client_connections.get()),
            unfinished_writes: natural(self.unfinished_writes.get()),
            missed_writes: natural(self.missed_writes.get()),
            misplacements: self.misplacements.get(),
            viewers: natural(self.status_viewers.get()),
            ..Clients::default()
        };
        each(&self.requests.family, |child| {
            count(&mut clients.by_class, class_of(child.label("status")), child.counted());
        });
        for durations in &self.requests.durations {
            each(durations, |child| clients.duration.add(child.0.get_histogram()));
        }
        clients
    }

    fn read_journal(&self) -> Journal {
        let (metrics, mut waiting_most) = (&self.journal, 0);
        each(&self.limits, |child| {
            if child.label("bound") == WAITING_CHANGES {
                waiting_most = child.gauged();
            }
        });
        Journal {
            unavailable: metrics.unavailable.get() != 0,
            waiting: natural(metrics.waiting.get()),
            waiting_most,
            dropped: metrics.dropped.get(),
            refused: metrics.refused.get(),
            records: metrics.diverged.get(),
            remembered: natural(metrics.remembered.get()),
            remembered_whole: metrics.whole.get() != 0,
        }
    }

    fn read_exchanges(&self, backends: &mut HashMap<String, Backend>) {
        each(&self.exchanges.replies, |child| {
            let (backend, counted) = (child.backend(backends), child.counted());
            count(&mut backend.by_class, known(&CLASSES, child.label("status")), counted);
            count(&mut backend.replies, known(&OUTCOMES, child.label("outcome")), counted);
        });
        each(&self.exchanges.errors, |child| {
            let names = (known(&PHASES, child.label("phase")), known(&CAUSES, child.label("cause")));
            if let (Some(phase), Some(cause)) = names {
                *child.backend(backends).errors.entry((phase, cause)).or_default() += child.counted();
            }
        });
        each(&self.exchanges.answer_wait, |child| {
            child.backend(backends).answer_wait.add(child.0.get_histogram());
        });
        each(&self.connections.connections, |child| match child.label("state") {
            "busy" => child.backend(backends).busy_connections = child.gauged(),
            _ => child.backend(backends).idle_connections = child.gauged(),
        });
    }

    fn read_replicas(&self, backends: &mut HashMap<String, Backend>) {
        let replicas = &self.replicas;
        each(&replicas.divergences, |child| child.backend(backends).divergences += child.counted());
        each(&replicas.cuts, |child| {
            let reason = known(&["slow", "background", "superseded", "stopping"], child.label("reason"));
            count(&mut child.backend(backends).cuts, reason, child.counted());
        });
        each(&replicas.replica_buffer_bytes, |child| {
            child.backend(backends).waiting_bytes = child.gauged();
        });
        each(&replicas.background_requests, |child| {
            child.backend(backends).background_requests = child.gauged();
        });
        each(&replicas.background_bytes, |child| {
            child.backend(backends).background_bytes = child.gauged();
        });
    }
}

/// All metrics that the status page shows.
pub fn read() -> Reading {
    METRICS.read()
}

/// One child of a family.
struct Child<'a>(&'a Metric);

impl Child<'_> {
    fn label(&self, name: &str) -> &str {
        self.0.label.iter().find(|label| label.name() == name).map_or("", |label| label.value())
    }

    fn backend<'b>(&self, backends: &'b mut HashMap<String, Backend>) -> &'b mut Backend {
        backends.entry(self.label("backend").to_owned()).or_default()
    }

    fn counted(&self) -> u64 {
        self.0.get_counter().value() as u64
    }

    fn gauged(&self) -> u64 {
        natural(self.0.get_gauge().value() as i64)
    }
}

fn each(family: &impl Collector, mut read: impl FnMut(Child)) {
    for family in family.collect() {
        family.metric.iter().for_each(|metric| read(Child(metric)));
    }
}

/// The class of a status of three digits.
fn class_of(status: &str) -> Option<&'static str> {
    let class = status.get(..1).and_then(|digit| CLASSES.iter().find(|class| class.starts_with(digit)));
    if status.len() == 3 { class.copied() } else { known(&CLASSES, status) }
}

fn known(names: &[&'static str], name: &str) -> Option<&'static str> {
    names.iter().find(|known| **known == name).copied()
}

fn count(counts: &mut Counts, name: Option<&'static str>, counted: u64) {
    if let (Some(name), 1..) = (name, counted) {
        *counts.entry(name).or_default() += counted;
    }
}

fn counts<const N: usize>(names: &[&'static str; N], counted: [u64; N]) -> Counts {
    names.iter().copied().zip(counted).filter(|(_, counted)| *counted > 0).collect()
}

/// A gauge that two threads change may be read below 0 for a moment.
fn natural(gauge: i64) -> u64 {
    u64::try_from(gauge).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};

    use super::{
        super::{BackendMetrics, Cut, ReplyCounters, ReplyOutcome, gather},
        *,
    };

    #[test]
    fn the_journal_is_read() {
        METRICS.limit(WAITING_CHANGES, 7);
        METRICS.journal.waiting.set(3);
        METRICS.journal.unavailable.set(1);
        let journal = read().journal;
        assert_eq!((journal.waiting, journal.waiting_most, journal.unavailable), (3, 7, true));
    }

    #[test]
    fn what_was_counted_is_read() {
        let url = "http://read.test";
        let (metrics, replies) = (BackendMetrics::of(url), ReplyCounters::of(url));
        metrics.failed("dial", "closed");
        metrics.cut(Cut::Slow);
        metrics.busy_connections.set(2);
        metrics.idle_connections.set(-1);
        metrics.answer_wait.observe(0.003);
        metrics.answer_wait.observe(1000.0);
        replies.count(&Method::PUT, Some(StatusCode::OK), ReplyOutcome::Good);
        replies.count(&Method::GET, Some(StatusCode::OK), ReplyOutcome::Good);
        replies.count(&Method::PUT, None, ReplyOutcome::NotApplied);
        replies.diverged(&Method::PUT);
        let reading = read();
        let backend = &reading.backends[url];
        assert_eq!(backend.replies, Counts::from([("good", 2), ("not applied", 1)]));
        assert_eq!(backend.by_class, Counts::from([("2xx", 2), ("none", 1)]));
        assert_eq!(backend.errors, BTreeMap::from([(("dial", "closed"), 1)]));
        assert_eq!(backend.cuts, Counts::from([("slow", 1)]));
        assert_eq!((backend.busy_connections, backend.idle_connections, backend.divergences), (2, 0, 1));
        let Durations(waits) = &backend.answer_wait;
        assert_eq!((waits.len(), waits[3], waits[18]), (19, 1, 1));
        assert_eq!(waits.iter().sum::<u64>(), 2);
        // Reading has made no child.
        let errors = gather().into_iter().find(|family| family.name() == "akubra_backend_errors_total");
        let of_url = |metric: &&Metric| metric.label.iter().any(|label| label.value() == url);
        assert_eq!(errors.unwrap().metric.iter().filter(of_url).count(), 1);
    }

    #[test]
    fn statuses_have_their_class() {
        assert_eq!(
            ["200", "404", "503", "none", "other"].map(|status| class_of(status).unwrap()),
            ["2xx", "4xx", "5xx", "none", "other"]
        );
        assert_eq!((class_of(""), class_of("999")), (None, None));
    }

    #[test]
    fn a_difference_is_what_came_in_between() {
        let (now, earlier) = (Durations(vec![3, 2, 1]), Durations(vec![1, 2, 0]));
        assert_eq!(now.since(&earlier), Durations(vec![2, 0, 1]));
        assert_eq!(now.since(&Durations::default()), now);
    }
}
