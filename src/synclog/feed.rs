//! The last divergences and misplacements, for whoever watches: a bounded list that the status page shows.
//!
//! It gets what the synclog gets, printed or not, and costs something only where something diverged: a short lock and
//! a copy. Texts that a client chose or a backend said are cut at [`LONGEST`] bytes, and then the event says so; no
//! value of a header is among them. Nobody is waited for: who looks too late misses what has left the list.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::sync::watch;

use super::record::{Misplacement, Outcome, Record};
use crate::telemetry::line;

/// Events that are kept.
pub const KEPT: usize = 100;
/// Longest text of an event, in bytes: half of the longest key that S3 knows.
const LONGEST: usize = 512;

/// Something that is not as it should be with one object.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// From 1 at the start of the process, without gaps.
    pub number: u64,
    #[serde(serialize_with = "line::timestamp")]
    pub ts: DateTime<Utc>,
    #[serde(flatten)]
    pub what: What,
    /// Whether a text was cut.
    pub cut: bool,
}

/// The fields are named as in the logs, the misplacement's in lower case.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum What {
    Divergence {
        #[serde(rename = "reqID")]
        req_id: String,
        method: String,
        region: String,
        cluster: String,
        bucket: String,
        key: String,
        failedhost: String,
        successhost: String,
        status: u16,
        outcome: Outcome,
        error: String,
    },
    Misplacement {
        key: String,
        expected: String,
        actual: String,
    },
}

impl What {
    /// The name of its kind, as in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            What::Divergence { .. } => "divergence",
            What::Misplacement { .. } => "misplacement",
        }
    }
}

/// The list. Cheap to clone; all clones are one list.
#[derive(Debug, Clone)]
pub struct Feed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Oldest first.
    events: Mutex<VecDeque<Arc<Event>>>,
    /// The number of the newest; 0 = none yet.
    newest: watch::Sender<u64>,
}

impl Default for Feed {
    fn default() -> Feed {
        Feed(Arc::new(Shared { events: Mutex::default(), newest: watch::Sender::new(0) }))
    }
}

impl Feed {
    pub fn diverged(&self, record: &Record) {
        let mut cut = false;
        let mut text = |text: &str| clipped(text, &mut cut);
        let what = What::Divergence {
            req_id: text(&record.req_id),
            method: text(&record.method),
            region: text(&record.region),
            cluster: text(&record.cluster),
            bucket: text(&record.bucket),
            key: text(&record.key),
            failedhost: text(&record.failedhost),
            successhost: text(&record.successhost),
            status: record.status,
            outcome: record.outcome,
            error: text(&record.error),
        };
        self.push(record.ts, what, cut);
    }

    pub fn misplaced(&self, found: &Misplacement) {
        let mut cut = false;
        let mut text = |text: &str| clipped(text, &mut cut);
        let what = What::Misplacement {
            key: text(&found.key),
            expected: text(&found.expected),
            actual: text(&found.actual),
        };
        self.push(Utc::now(), what, cut);
    }

    fn push(&self, ts: DateTime<Utc>, what: What, cut: bool) {
        let mut events = self.0.events.lock().unwrap_or_else(PoisonError::into_inner);
        let number = events.back().map_or(0, |last| last.number) + 1;
        if events.len() == KEPT {
            events.pop_front();
        }
        events.push_back(Arc::new(Event { number, ts, what, cut }));
        drop(events);
        // Numbers may come in another order than they were given in: the newest is what counts.
        self.0.newest.send_if_modified(|newest| {
            let newer = number > *newest;
            *newest = number.max(*newest);
            newer
        });
    }

    /// Those that came after the one with this number and are still kept, oldest first.
    pub fn after(&self, number: u64) -> Vec<Arc<Event>> {
        let events = self.0.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().filter(|event| event.number > number).cloned().collect()
    }

    /// Tells when there are newer ones.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.newest.subscribe()
    }
}

/// The text, or as much of it as is shown.
fn clipped(text: &str, cut: &mut bool) -> String {
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    *cut = true;
    let end = text.floor_char_boundary(LONGEST);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(key: &str) -> Misplacement {
        Misplacement { key: key.into(), expected: "new".into(), actual: "old".into() }
    }

    fn numbers(events: &[Arc<Event>]) -> Vec<u64> {
        events.iter().map(|event| event.number).collect()
    }

    #[tokio::test]
    async fn the_last_ones_are_kept_and_told() {
        let feed = Feed::default();
        let mut news = feed.watch();
        assert!(feed.after(0).is_empty() && !news.has_changed().unwrap());
        for _ in 0..KEPT + 20 {
            feed.misplaced(&found("/b/k"));
        }
        let kept = numbers(&feed.after(0));
        assert_eq!((kept.len(), kept[0], kept[KEPT - 1]), (KEPT, 21, 120));
        assert_eq!(numbers(&feed.clone().after(118)), [119, 120]);
        news.changed().await.unwrap();
        assert_eq!(*news.borrow_and_update(), 120);
    }

    #[test]
    fn long_texts_are_cut_between_characters_and_it_says_so() {
        let feed = Feed::default();
        feed.misplaced(&found(&"ż".repeat(256)));
        feed.misplaced(&found(&format!("a{}", "ż".repeat(256))));
        let events = feed.after(0);
        let json = |at: usize| serde_json::to_value(&*events[at]).unwrap();
        assert_eq!((json(0)["cut"].as_bool(), json(0)["key"].as_str().unwrap().len()), (Some(false), 512));
        let cut = json(1);
        assert_eq!(cut["key"].as_str().unwrap(), format!("a{}…", "ż".repeat(255)));
        assert_eq!((cut["cut"].as_bool(), cut["kind"].as_str()), (Some(true), Some("misplacement")));
        assert_eq!(events[1].what.kind(), "misplacement");
    }
}
