//! A destination for tests, which fails, hangs and recovers on command.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use super::destination::Destination;

/// The longest wait for something that shall happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct Scripted(Arc<(Mutex<State>, Condvar)>);

struct State {
    mood: Mood,
    taken: Vec<u8>,
    writes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Takes,
    /// Takes so many bytes at a time, and fails every other time.
    Stutters(usize),
    Fails,
    Hangs,
}

impl Scripted {
    pub fn takes() -> Scripted {
        Scripted::new(Mood::Takes)
    }

    pub fn stutters(bytes: usize) -> Scripted {
        Scripted::new(Mood::Stutters(bytes))
    }

    pub fn fails() -> Scripted {
        Scripted::new(Mood::Fails)
    }

    pub fn hangs() -> Scripted {
        Scripted::new(Mood::Hangs)
    }

    fn new(mood: Mood) -> Scripted {
        Scripted(Arc::new((Mutex::new(State { mood, taken: Vec::new(), writes: 0 }), Condvar::new())))
    }

    pub fn destination(&self) -> Destination {
        Destination::Scripted(Box::new(self.clone()))
    }

    /// Recovers.
    pub fn take(&self) {
        self.0.0.lock().unwrap().mood = Mood::Takes;
        self.0.1.notify_all();
    }

    /// Everything taken so far.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.0.lock().unwrap().taken.clone()).unwrap()
    }

    /// Waits until so many writes have been tried.
    pub async fn wait_for_writes(&self, writes: usize) {
        eventually("a write is tried", || self.0.0.lock().unwrap().writes >= writes).await;
    }

    /// Waits until so many lines have been taken.
    pub async fn wait_for_lines(&self, lines: usize) {
        eventually("lines are written", || self.text().lines().count() >= lines).await;
    }
}

impl Write for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        state.writes += 1;
        state = changed.wait_while(state, |state| state.mood == Mood::Hangs).unwrap();
        let most = match state.mood {
            Mood::Stutters(most) if state.writes % 2 == 1 => most,
            Mood::Stutters(_) | Mood::Fails => return Err(io::ErrorKind::StorageFull.into()),
            Mood::Takes | Mood::Hangs => usize::MAX,
        };
        let n = most.min(bytes.len());
        state.taken.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits for a condition, failing with `what` after a while; lets the runtime's other tasks run.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::task::yield_now().await;
    }
}
