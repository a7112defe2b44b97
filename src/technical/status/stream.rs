//! `GET /status/events`: what changes, as server-sent events (the HTML standard, section 9.2).
//!
//! | event | data |
//! |---|---|
//! | `whole` | the first: what `/status.json` says |
//! | `status` | every two seconds: what of it changes |
//! | `configuration` | the text, when another one is in force |
//! | `divergence`, `misplacement` | as they come, but not more than a hundred each quarter of a second |
//!
//! Nothing is kept for a viewer: each looks at what is there now, and one that does not take it for long is cut off.
//! A stream ends by itself after some minutes, and the page asks for another one: so a viewer that went away without
//! a word does not keep its place.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep, sleep_until},
};

use super::sampler::Latest;
use crate::{
    synclog::feed::Feed,
    telemetry::{
        endpoint::Pieces,
        line,
        metrics::{IntGauge, METRICS},
    },
};

/// Viewers at once.
pub const VIEWERS_MOST: usize = 16;
/// Something is sent at least this often.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Between two looks at the feed.
const PACE: Duration = Duration::from_millis(250);
/// A stream's life.
const LIFE: Duration = Duration::from_secs(300);
/// What the first piece tells a browser: when to try again where a stream breaks off.
const RETRY: &str = "retry: 2000\n";

/// What streams are made of.
pub struct Streams {
    latest: Arc<Latest>,
    news: watch::Receiver<u64>,
    feed: Feed,
    places: Arc<Semaphore>,
}

impl Streams {
    pub fn new(latest: Arc<Latest>, news: watch::Receiver<u64>, feed: Feed) -> Streams {
        METRICS.limit("status_viewers", VIEWERS_MOST as u64);
        Streams { latest, news, feed, places: Arc::new(Semaphore::new(VIEWERS_MOST)) }
    }

    /// A stream for one more viewer; `None` where there are too many.
    pub fn open(&self) -> Option<Viewer> {
        let place = Place::take(self.places.clone().try_acquire_owned().ok()?);
        let now = Instant::now();
        Some(Viewer {
            latest: self.latest.clone(),
            news: self.news.clone(),
            feed: self.feed.clone(),
            coming: self.feed.watch(),
            configuration: None,
            seen: 0,
            next_look: now,
            ends: now + LIFE,
            _place: place,
        })
    }
}

/// A place among [`VIEWERS_MOST`], given back when dropped.
struct Place {
    _permit: OwnedSemaphorePermit,
    viewers: IntGauge,
}

impl Place {
    fn take(permit: OwnedSemaphorePermit) -> Place {
        let viewers = METRICS.status_viewers.clone();
        viewers.inc();
        Place { _permit: permit, viewers }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.viewers.dec();
    }
}

/// One viewer's stream.
pub struct Viewer {
    latest: Arc<Latest>,
    news: watch::Receiver<u64>,
    feed: Feed,
    coming: watch::Receiver<u64>,
    /// The one that it was told last; `None` = nothing was told yet.
    configuration: Option<Arc<str>>,
    /// The number of the last event that it was told.
    seen: u64,
    next_look: Instant,
    ends: Instant,
    _place: Place,
}

enum Due {
    Status,
    Events,
    Heartbeat,
    End,
}

#[async_trait]
impl Pieces for Viewer {
    async fn next(&mut self) -> Option<Bytes> {
        if self.configuration.is_none() {
            return self.whole();
        }
        loop {
            let piece = match self.due().await {
                Due::Status => self.status()?,
                Due::Events => self.events(),
                Due::Heartbeat => Bytes::from_static(b": nothing is new\n\n"),
                Due::End => return None,
            };
            if !piece.is_empty() {
                return Some(piece);
            }
        }
    }
}

impl Viewer {
    async fn due(&mut self) -> Due {
        let (coming, next_look) = (&mut self.coming, self.next_look);
        let events = async {
            sleep_until(next_look).await;
            coming.changed().await
        };
        tokio::select! {
            news = self.news.changed() => if news.is_ok() { Due::Status } else { Due::End },
            coming = events => if coming.is_ok() { Due::Events } else { Due::End },
            () = sleep_until(self.ends) => Due::End,
            () = sleep(HEARTBEAT) => Due::Heartbeat,
        }
    }

    fn whole(&mut self) -> Option<Bytes> {
        // Marked as seen before it is looked at: what comes in between is told again, not lost.
        self.news.mark_unchanged();
        self.configuration = Some(self.latest.event()?.1);
        let (json, newest) = self.latest.whole(&self.feed)?;
        self.seen = newest;
        Some([RETRY.as_bytes(), b"event: whole\ndata: ", &json, b"\n"].concat().into())
    }

    fn status(&mut self) -> Option<Bytes> {
        let (event, configuration) = self.latest.event()?;
        if self.configuration.as_ref() == Some(&configuration) {
            return Some(event);
        }
        let changed = self::event("configuration", &*configuration);
        self.configuration = Some(configuration);
        Some([event, changed].concat().into())
    }

    fn events(&mut self) -> Bytes {
        self.next_look = Instant::now() + PACE;
        let events = self.feed.after(self.seen);
        self.seen = events.last().map_or(self.seen, |event| event.number);
        let pieces: Vec<Bytes> =
            events.iter().map(|event| self::event(event.what.kind(), &**event)).collect();
        pieces.concat().into()
    }
}

/// One event; its data is one line, whatever is in it.
pub fn event<T: Serialize + ?Sized>(name: &str, data: &T) -> Bytes {
    let mut text = format!("event: {name}\ndata: ").into_bytes();
    match line::push_json(&data, &mut text) {
        Ok(()) => text.push(b'\n'),
        // Nothing that is told here cannot be written; an event without data is ignored.
        Err(error) => {
            log::error!("a status event cannot be written: {error}");
            text = b": an event is missing\n\n".to_vec();
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{
        super::{State, sampler::tests::sampler},
        *,
    };
    use crate::{synclog::Misplacement, telemetry::metrics::reading::Reading};

    /// The events of a piece: names and data.
    fn events(piece: &[u8]) -> Vec<(String, Value)> {
        let text = std::str::from_utf8(piece).unwrap().trim_start_matches(RETRY);
        let event = |event: &str| {
            let (name, data) = event.strip_prefix("event: ")?.split_once("\ndata: ")?;
            Some((name.to_owned(), serde_json::from_str(data).unwrap()))
        };
        text.split_terminator("\n\n").filter_map(event).collect()
    }

    fn names(piece: &[u8]) -> Vec<String> {
        events(piece).into_iter().map(|(name, _)| name).collect()
    }

    fn misplaced(feed: &Feed, count: usize) {
        for _ in 0..count {
            feed.misplaced(&Misplacement {
                key: "/b/k\n\ndata: x".into(),
                expected: "a".into(),
                actual: "b".into(),
            });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_viewer_is_told_all_and_then_what_changes() {
        let (fake, mut sampler, latest) = sampler(false);
        let feed = Feed::default();
        let streams = Streams::new(latest, sampler.news(), feed.clone());
        assert!(streams.open().unwrap().next().await.is_none(), "there is no sample yet");
        sampler.sample(Reading::default());
        misplaced(&feed, 1);
        let mut viewer = streams.open().unwrap();
        let first = events(&viewer.next().await.unwrap());
        assert_eq!((first.len(), first[0].0.as_str()), (1, "whole"));
        assert_eq!(
            (&first[0].1["events"][0]["number"], &first[0].1["configuration"]),
            (&1.into(), &"a: 1".into())
        );

        sampler.sample(Reading::default());
        assert_eq!(names(&viewer.next().await.unwrap()), ["status"]);
        *fake.0.lock().unwrap() = (State::Healthy, "b: 2");
        sampler.sample(Reading::default());
        let changed = events(&viewer.next().await.unwrap());
        assert_eq!(
            (changed[0].0.as_str(), &changed[1]),
            ("status", &("configuration".into(), "b: 2".into()))
        );

        // What came in a burst is told together, and then nothing for a moment.
        misplaced(&feed, 3);
        assert_eq!(names(&viewer.next().await.unwrap()), ["misplacement"; 3]);
        let told = Instant::now();
        misplaced(&feed, 120);
        let burst = events(&viewer.next().await.unwrap());
        assert_eq!((burst.len(), &burst[0].1["number"], told.elapsed()), (100, &25.into(), PACE));

        let told = Instant::now();
        assert_eq!(viewer.next().await.unwrap(), ": nothing is new\n\n");
        assert_eq!(told.elapsed(), HEARTBEAT);
        drop(sampler);
        assert!(viewer.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_and_gives_its_place_back() {
        let (_fake, mut sampler, latest) = sampler(false);
        sampler.sample(Reading::default());
        let streams = Streams::new(latest, sampler.news(), Feed::default());
        let mut viewers: Vec<_> = (0..VIEWERS_MOST).map(|_| streams.open().unwrap()).collect();
        assert!(streams.open().is_none());
        let started = Instant::now();
        while viewers[0].next().await.is_some() {}
        assert_eq!(started.elapsed(), LIFE);
        viewers.pop();
        let _again = streams.open().unwrap();
        assert!(streams.open().is_none());
    }
}
