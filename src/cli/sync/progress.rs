//! What the sync process tells on stdout: a status line on a terminal, else JSON lines.
//!
//! A thread of its own writes, so that no repair waits for whoever reads. It is bounded: what does not fit is counted
//! and left out; the journal and the metrics know it all the same.

use std::{
    io::{IsTerminal, Write, stdout},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

use super::super::names;
use crate::{
    journal::{Counts, Journal},
    sync::job::Told,
    telemetry::line::push_json,
};

/// Lines that wait to be written.
const WAITING_MOST: usize = 10_000;
/// Lines are written together that come within so long, and are not much longer than this: to wake the thread for each of
/// them costs a repair more than the line.
const GATHERING: Duration = Duration::from_millis(10);
const CHUNK: usize = 64 << 10;
const SUMMARY: Duration = Duration::from_secs(10);
/// For the journal to be counted at the end.
pub const COUNTING: Duration = Duration::from_secs(2);
/// For what waits to be written then.
pub const LAST_WORDS: Duration = Duration::from_secs(5);
const STATUS: Duration = Duration::from_secs(2);

/// How many objects ended how.
#[derive(Debug, Default)]
struct Totals {
    resolved: AtomicU64,
    failed: AtomicU64,
    parked: AtomicU64,
    waiting: AtomicU64,
    left_out: AtomicU64,
    /// Lines that are still to be written.
    unwritten: watch::Sender<u64>,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Progress {
    totals: Arc<Totals>,
    lines: SyncSender<Vec<u8>>,
    on_terminal: bool,
}

impl Progress {
    /// With the thread that writes.
    pub fn start() -> std::io::Result<Progress> {
        let (lines, waiting) = sync_channel(WAITING_MOST);
        let on_terminal = stdout().is_terminal();
        let totals = Arc::<Totals>::default();
        let counted = totals.clone();
        let write = move || write(&waiting, &counted);
        thread::Builder::new().name("sync progress".to_owned()).spawn(write)?;
        Ok(Progress { totals, lines, on_terminal })
    }

    /// Tells of an object.
    pub fn tell(&self, told: &Told) {
        let totals = &self.totals;
        let total = match told.outcome {
            "resolved" => &totals.resolved,
            "failed" => &totals.failed,
            "parked" | "dead" => &totals.parked,
            _ => &totals.waiting,
        };
        total.fetch_add(1, Relaxed);
        if told.outcome == "parked" || told.outcome == "dead" {
            log::warn!("{}: {}: {}", names::name(&told.object), told.outcome, told.why);
        }
        if !self.on_terminal {
            self.offer(line(told));
        }
    }

    fn offer(&self, line: Vec<u8>) {
        self.totals.unwritten.send_modify(|lines| *lines += 1);
        if self.lines.try_send(line).is_err() {
            self.totals.unwritten.send_modify(|lines| *lines -= 1);
            self.totals.left_out.fetch_add(1, Relaxed);
        }
    }

    /// Tells how it goes, for ever.
    pub async fn run(self, journal: Arc<dyn Journal>) {
        let mut since = Instant::now();
        let mut before = 0;
        loop {
            tokio::time::sleep(if self.on_terminal { STATUS } else { SUMMARY }).await;
            let done = self.totals.resolved.load(Relaxed);
            let rate = (done - before) as f64 / since.elapsed().as_secs_f64();
            (since, before) = (Instant::now(), done);
            let counts = journal.counts().await.ok();
            self.summary(counts.as_ref(), rate);
        }
    }

    fn summary(&self, counts: Option<&Counts>, rate: f64) {
        let total = |total: &AtomicU64| total.load(Relaxed);
        let totals = &self.totals;
        let (done, failed, parked) = (total(&totals.resolved), total(&totals.failed), total(&totals.parked));
        let drain = counts.filter(|_| rate > 0.0).map(|counts| (counts.open as f64 / rate) as u64);
        if self.on_terminal {
            let open = counts.map_or("?".to_owned(), |counts| counts.open.to_string());
            let drain = drain.map_or("?".to_owned(), span);
            let line = format!(
                "\r\x1b[K{done} done, {failed} failed, {parked} parked, {open} open, {rate:.0}/s, {drain} to drain"
            );
            return self.offer(line.into_bytes());
        }
        let line = json!({
            "ts": now(),
            "event": "summary",
            "done": done,
            "failed": failed,
            "parked": parked,
            "waiting": total(&totals.waiting),
            "open": counts.map(|counts| counts.open),
            "parked_in_all": counts.map(|counts| counts.parked),
            "dead_in_all": counts.map(|counts| counts.dead),
            "per_second": (rate * 10.0).round() / 10.0,
            "seconds_to_drain": drain,
            "lines_left_out": total(&totals.left_out),
        });
        self.offer(json_line(&line));
    }

    /// The last words.
    pub async fn end(self, journal: &dyn Journal) {
        let counts = timeout(COUNTING, journal.counts()).await;
        self.summary(counts.ok().and_then(Result::ok).as_ref(), 0.0);
        let mut unwritten = self.totals.unwritten.subscribe();
        // Where nobody reads, what waits is given up.
        timeout(LAST_WORDS, unwritten.wait_for(|lines| *lines == 0)).await.map(drop).unwrap_or_default();
        if self.on_terminal {
            writeln!(stdout()).unwrap_or_default();
        }
    }
}

fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Nothing in it is obeyed by a terminal.
fn json_line(value: &Value) -> Vec<u8> {
    let mut line = Vec::new();
    // What cannot be written as JSON is no line; there is nothing such in a value.
    push_json(value, &mut line).unwrap_or_default();
    line
}

fn line(told: &Told) -> Vec<u8> {
    let line = json!({
        "ts": now(),
        "event": "object",
        "cluster": told.object.cluster,
        "path": names::path(&told.object),
        "outcome": told.outcome,
        "why": told.why,
        "changed": told.changed,
        "attempts": told.attempts,
        "seconds": (told.took.as_secs_f64() * 1000.0).round() / 1000.0,
        "next_try_in": told.pause.map(|pause| pause.as_secs()),
    });
    json_line(&line)
}

/// A time as people say it.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Where stdout cannot be written to nobody reads: the lines are dropped.
fn write(lines: &Receiver<Vec<u8>>, totals: &Totals) {
    while let Ok(line) = lines.recv() {
        thread::sleep(GATHERING);
        let (mut text, mut count) = (line, 1);
        while text.len() < CHUNK
            && let Ok(line) = lines.try_recv()
        {
            text.extend(line);
            count += 1;
        }
        let mut out = stdout().lock();
        out.write_all(&text).and_then(|()| out.flush()).unwrap_or_default();
        totals.unwritten.send_modify(|lines| *lines -= count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Object;

    #[test]
    fn an_object_is_a_line_whatever_its_key_is() {
        let told = Told {
            object: Object { cluster: "c".into(), bucket: b"b".into(), key: b"k\n\xff".into() },
            outcome: "failed",
            why: "refused\n\u{7f}\u{9b}2J\u{202e}".into(),
            changed: 1,
            attempts: 2,
            took: Duration::from_millis(1234),
            pause: Some(Duration::from_secs(9)),
        };
        let line = String::from_utf8(line(&told)).unwrap();
        assert!(line.is_ascii() && line.ends_with('\n'), "{line:?}");
        assert!(!line.trim_end_matches('\n').contains(char::is_control), "{line:?}");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["path"], &line["outcome"]), (&json!("/b/k%0A%FF"), &json!("failed")));
        assert_eq!(line["why"], told.why);
        assert_eq!((&line["seconds"], &line["next_try_in"]), (&json!(1.234), &json!(9)));
    }

    #[test]
    fn times_are_told_in_their_unit() {
        assert_eq!([0, 59, 60, 7200, 1_000_000].map(span), ["0 s", "59 s", "1 min", "2 h", "11 days"]);
    }
}
