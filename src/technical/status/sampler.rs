//! Looks at everything every two seconds, whether somebody watches or not: whoever opens the page sees the last minutes
//! at once. A sample costs the thread that also hears signals a tenth of a millisecond for each backend, unoptimised, and
//! the threads of requests nothing.
//!
//! What a viewer is told is made here, once for all of them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    history::History,
    installation::{Condition, Installation},
    report::{News, Points, Process, Report, Span, Whole},
    stream,
};
use crate::{
    synclog::feed::Feed,
    telemetry::{
        endpoint::Draining,
        line,
        metrics::reading::{self, Reading},
    },
};

/// Between two samples.
pub const PERIOD: Duration = Duration::from_secs(2);
/// So many samples back the numbers reach: ten seconds.
pub const WINDOW: usize = 5;

/// The last sample. Locked for as long as it takes to write it down.
#[derive(Default)]
pub struct Latest(Mutex<Option<Sample>>);

struct Sample {
    report: Report,
    history: History,
    configuration: Arc<str>,
    /// The report as an event.
    event: Bytes,
}

impl Latest {
    /// All there is, as JSON; `None` before the first sample. Also the number of the last event of the feed in it.
    pub fn whole(&self, feed: &Feed) -> Option<(Vec<u8>, u64)> {
        let kept = feed.after(0);
        let newest = kept.last().map_or(0, |event| event.number);
        let events = kept.iter().rev().map(|event| &**event).collect();
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Sample { report, history, configuration, .. } = latest.as_ref()?;
        let mut json = Vec::new();
        line::push_json(&Whole { report, history, events, configuration }, &mut json).ok()?;
        Some((json, newest))
    }

    /// The last report as an event, and the configuration that was in force then.
    pub fn event(&self) -> Option<(Bytes, Arc<str>)> {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latest.as_ref().map(|sample| (sample.event.clone(), sample.configuration.clone()))
    }
}

/// Takes samples until the process ends.
pub struct Sampler {
    installation: Arc<dyn Installation>,
    draining: Draining,
    latest: Arc<Latest>,
    /// Counts samples; its end is the viewers' end.
    news: watch::Sender<u64>,
    started: (DateTime<Utc>, Instant),
    /// Oldest first, one more than [`WINDOW`].
    readings: VecDeque<(Instant, Reading)>,
    conditions: HashMap<String, Condition>,
}

impl Sampler {
    pub fn new(installation: Arc<dyn Installation>, draining: Draining, latest: Arc<Latest>) -> Sampler {
        Sampler {
            installation,
            draining,
            latest,
            news: watch::Sender::new(0),
            started: (Utc::now(), Instant::now()),
            readings: VecDeque::new(),
            conditions: HashMap::new(),
        }
    }

    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Takes the first sample, and then one after the other until `end`. To be called where there is a runtime, and
    /// no other process to become.
    pub fn start(mut self, end: impl Future<Output = ()> + Send + 'static) {
        self.started = (Utc::now(), Instant::now());
        self.sample(reading::read());
        tokio::spawn(async move {
            tokio::select! {
                () = end => {}
                () = self.run() => {}
            }
        });
    }

    async fn run(&mut self) {
        let mut tick = interval(PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first is at once.
        tick.tick().await;
        loop {
            tick.tick().await;
            self.sample(reading::read());
        }
    }

    pub(super) fn sample(&mut self, reading: Reading) {
        self.readings.push_back((Instant::now(), reading));
        if self.readings.len() > WINDOW + 1 {
            self.readings.pop_front();
        }
        let Some(report) = self.report() else { return };
        let Some(last) = self.points(&report) else { return };
        let configuration = self.installation.configuration();
        let mut latest = self.latest.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut history = latest.take().map(|sample| sample.history).unwrap_or_default();
        history.push(&last);
        let event = stream::event("status", &News { report: &report, last });
        *latest = Some(Sample { report, history, configuration, event });
        drop(latest);
        self.news.send_modify(|count| *count += 1);
    }

    /// From a reading to the last one.
    fn span(&self, from: usize) -> Option<Span<'_>> {
        let ((then, earlier), (now_at, now)) = (self.readings.get(from)?, self.readings.back()?);
        Some(Span { earlier, now, time: now_at.duration_since(*then) })
    }

    /// Of the last period.
    fn points(&self, report: &Report) -> Option<Points> {
        let span = self.span(self.readings.len().saturating_sub(2))?;
        let backends =
            report.backends.iter().map(|backend| (backend.url.clone(), span.backend(&backend.url)));
        Some(Points { requests: span.clients(), backends: backends.collect() })
    }

    fn report(&mut self) -> Option<Report> {
        let now = Utc::now();
        let known = std::mem::take(&mut self.conditions);
        let mut conditions = HashMap::new();
        let span = self.span(0)?;
        let backends: Vec<_> = self
            .installation
            .backends()
            .into_iter()
            .map(|backend| {
                let condition = since(backend.condition, known.get(&backend.url), now);
                conditions.insert(backend.url.clone(), condition.clone());
                span.status_of(backend.url, condition)
            })
            .collect();
        let report = Report {
            generated: now,
            period_seconds: PERIOD.as_secs(),
            window_seconds: PERIOD.as_secs() * WINDOW as u64,
            process: Process {
                version: env!("CARGO_PKG_VERSION"),
                pid: std::process::id(),
                started: self.started.0,
                uptime_seconds: self.started.1.elapsed().as_secs(),
                draining: (self.draining)(),
                viewers: span.now.clients.viewers,
            },
            requests: span.requests(),
            writes: span.writes(&backends),
            journal: self.installation.journal().map(|seen| span.journal(seen)),
            regions: self.installation.regions(),
            backends,
        };
        self.conditions = conditions;
        Some(report)
    }
}

/// A condition that does not say since when it holds, holds since it was first seen.
fn since(condition: Condition, before: Option<&Condition>, now: DateTime<Utc>) -> Condition {
    let same = before.filter(|before| before.state == condition.state);
    let since = condition.since.or_else(|| same.and_then(|before| before.since)).unwrap_or(now);
    Condition { since: Some(since), ..condition }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::Value;

    use super::{
        super::{
            installation::{Backend, Cluster, Region, State},
            journal::Seen,
        },
        *,
    };

    /// One region of one backend, whose state and configuration tests change.
    pub struct Fake(pub Mutex<(State, &'static str)>);

    impl Installation for Fake {
        fn regions(&self) -> Vec<Region> {
            let backends = vec!["http://sampled.test".to_owned()];
            let cluster = Cluster { name: "c".into(), weight: 1.0, share: 1.0, backends };
            vec![Region { name: "r".into(), default: true, domains: vec![], clusters: vec![cluster] }]
        }

        fn backends(&self) -> Vec<Backend> {
            let condition = Condition { state: self.0.lock().unwrap().0, reason: "why".into(), since: None };
            vec![Backend { url: "http://sampled.test".into(), condition }]
        }

        fn journal(&self) -> Option<Seen> {
            Some(Seen { open: 7, ..Seen::default() })
        }

        fn configuration(&self) -> Arc<str> {
            self.0.lock().unwrap().1.into()
        }
    }

    pub fn sampler(draining: bool) -> (Arc<Fake>, Sampler, Arc<Latest>) {
        let fake = Arc::new(Fake(Mutex::new((State::Healthy, "a: 1"))));
        let latest = Arc::new(Latest::default());
        (fake.clone(), Sampler::new(fake, Arc::new(move || draining), latest.clone()), latest)
    }

    fn whole(latest: &Latest) -> Value {
        serde_json::from_slice(&latest.whole(&Feed::default()).unwrap().0).unwrap()
    }

    /// So many requests have been answered well.
    fn reading(ended: u64) -> Reading {
        let clients = reading::Clients { by_class: [("2xx", ended)].into(), ..Default::default() };
        Reading { clients, ..Reading::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn numbers_are_of_the_window_and_points_of_one_period() {
        let (_fake, mut sampler, latest) = sampler(false);
        assert!(latest.whole(&Feed::default()).is_none() && latest.event().is_none());
        // 10 a second, then 100 a second for one period.
        for second in [0, 2, 4, 6, 8, 10, 12] {
            tokio::time::sleep_until(sampler.started.1 + Duration::from_secs(second)).await;
            sampler.sample(reading(if second < 12 { second * 10 } else { 300 }));
        }
        let status = whole(&latest);
        assert_eq!(status["requests"]["per_second"], 28.0);
        assert_eq!(
            status["history"]["requests"]["per_second"].to_string(),
            "[0.0,10.0,10.0,10.0,10.0,10.0,100.0]"
        );
        assert_eq!(
            (&status["process"]["uptime_seconds"], &status["process"]["draining"]),
            (&12.into(), &false.into())
        );
        assert_eq!((sampler.readings.len(), *sampler.news().borrow()), (WINDOW + 1, 7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_lasts_from_when_it_was_first_seen() {
        let (fake, mut sampler, latest) = sampler(true);
        let mut since = |state: State| {
            *fake.0.lock().unwrap() = (state, "b: 2");
            sampler.sample(Reading::default());
            let backend = whole(&latest)["backends"][0].clone();
            (backend["state"].as_str().unwrap().to_owned(), backend["since"].as_str().unwrap().to_owned())
        };
        let (name, first) = since(State::Healthy);
        assert_eq!(name, "healthy");
        // The time in the answer has milliseconds.
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(since(State::Healthy).1, first);
        let (name, later) = since(State::Ejected);
        assert!(name == "ejected" && later > first);
        let status = whole(&latest);
        assert_eq!(
            (&status["configuration"], &status["process"]["draining"]),
            (&"b: 2".into(), &true.into())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_until_the_end() {
        let (_fake, sampler, latest) = sampler(false);
        let mut news = sampler.news();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        sampler.start(async { ended.await.unwrap() });
        assert!(latest.event().is_some());
        let started = Instant::now();
        news.wait_for(|count| *count == 4).await.unwrap();
        assert_eq!(started.elapsed(), 3 * PERIOD);
        end.send(()).unwrap();
        while news.changed().await.is_ok() {}
    }
}
