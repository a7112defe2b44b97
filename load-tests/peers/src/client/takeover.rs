//! Many clients that go on while one gateway takes over from another; every request is accounted for.
//!
//! Clients keep their connections for 1 to 40 requests. A reused connection may be closed under a client at any
//! time; if that happens before the first byte of an answer, the request is sent once more on a fresh connection, as
//! every S3 client does. On a fresh one nothing may fail. *Held* connections are those that are opened before the old
//! gateway is told to hand over, and used only after that.

use std::{
    cell::{Cell, RefCell},
    fs::File,
    io::{self, BufWriter, Write},
    rc::Rc,
    time::Duration,
};

use serde::Serialize;
use tokio::{task::JoinSet, time::timeout};

use super::{Complaints, Failure, Target};
use crate::wire::Connection;

/// The most requests that a client sends on one connection.
const LONGEST_LIFE: usize = 40;
/// An exchange that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between the signal and the heads of held connections.
const HELD_FOR: Duration = Duration::from_millis(100);

/// Requests by what their connection was when they were first sent.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Count {
    pub good: usize,
    pub failed: usize,
    /// Sent once more after a reused connection was closed before an answer.
    pub sent_again: usize,
}

#[derive(Debug, Default, Clone, Serialize)]
pub struct Tally {
    pub fresh: Count,
    pub reused: Count,
    pub held: Count,
    pub complaints: Vec<String>,
}

/// The clients, while they run.
pub struct Clients {
    shared: Rc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    target: Target,
    stopped: Cell<bool>,
    left: Cell<usize>,
    tally: RefCell<Tally>,
    complaints: RefCell<Complaints>,
    /// Gets the path of each object whose PUT was answered 200.
    paths: RefCell<BufWriter<File>>,
}

#[derive(Clone, Copy)]
enum Kind {
    Fresh,
    Reused,
    Held,
}

impl Clients {
    /// So many clients, with so many requests between them at most. Needs a `LocalSet`.
    #[must_use]
    pub fn start(target: Target, clients: usize, requests: usize, paths: File) -> Self {
        let shared = Rc::new(Shared {
            target,
            stopped: Cell::new(false),
            left: Cell::new(requests),
            tally: RefCell::default(),
            complaints: RefCell::default(),
            paths: RefCell::new(BufWriter::new(paths)),
        });
        let mut tasks = JoinSet::new();
        for client in 0..clients {
            let shared = shared.clone();
            tasks.spawn_local(async move { shared.work(client).await });
        }
        Clients { shared, tasks }
    }

    /// Connections on which nothing is sent yet.
    ///
    /// # Errors
    /// When one is refused.
    pub async fn hold(&self, connections: usize) -> io::Result<Vec<Connection>> {
        let mut held = Vec::with_capacity(connections);
        for _ in 0..connections {
            held.push(self.shared.target.connect().await?);
        }
        Ok(held)
    }

    /// Uses held connections, all at once, a while from now.
    pub async fn use_held(&self, held: Vec<Connection>, name: &str) {
        tokio::time::sleep(HELD_FOR).await;
        let mut tasks = JoinSet::new();
        for (number, mut connection) in held.into_iter().enumerate() {
            let shared = self.shared.clone();
            let path = shared.target.path(format_args!("held-{name}-{number}"));
            tasks.spawn_local(async move {
                let done = shared.exchange(&mut connection, &path).await;
                shared.count(Kind::Held, &path, &done);
            });
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Lets the clients finish what they are at, and sums up.
    ///
    /// # Errors
    /// When the paths cannot be written.
    pub async fn stop(mut self) -> io::Result<Tally> {
        self.shared.stopped.set(true);
        while self.tasks.join_next().await.is_some() {}
        self.shared.paths.borrow_mut().flush()?;
        let mut tally = self.shared.tally.borrow().clone();
        tally.complaints = self.shared.complaints.borrow().shown().to_vec();
        Ok(tally)
    }
}

impl Shared {
    async fn work(&self, client: usize) {
        let life = 1 + client % LONGEST_LIFE;
        let mut kept: Option<(Connection, usize)> = None;
        for number in 0.. {
            if self.stopped.get() || self.left.get() == 0 {
                return;
            }
            self.left.set(self.left.get() - 1);
            let path = self.target.path(format_args!("{client}-{number}"));
            let (kind, done) = match kept.take() {
                Some((mut connection, uses)) => {
                    let first = self.exchange(&mut connection, &path).await;
                    let done = match first {
                        Err(failure) if failure.unanswered => {
                            self.tally.borrow_mut().reused.sent_again += 1;
                            self.fresh(&path).await
                        }
                        first => first.map(|again| again.then_some((connection, uses + 1))),
                    };
                    (Kind::Reused, done)
                }
                None => (Kind::Fresh, self.fresh(&path).await),
            };
            self.count(kind, &path, &done);
            // A gateway that refuses connections would be asked in a tight loop otherwise.
            if done.is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            kept = done.ok().flatten().filter(|(_, uses)| *uses < life);
        }
    }

    async fn fresh(&self, path: &str) -> Result<Option<(Connection, usize)>, Failure> {
        let mut connection = self.target.connect().await.map_err(Failure::before)?;
        let again = self.exchange(&mut connection, path).await?;
        Ok(again.then_some((connection, 1)))
    }

    async fn exchange(&self, connection: &mut Connection, path: &str) -> Result<bool, Failure> {
        match timeout(PATIENCE, self.target.exchange(connection, path)).await {
            Ok(done) => done,
            // Not sent again: what hangs is no closed connection.
            Err(_) => Err(Failure::within(io::ErrorKind::TimedOut.into())),
        }
    }

    fn count<T>(&self, kind: Kind, path: &str, done: &Result<T, Failure>) {
        let mut tally = self.tally.borrow_mut();
        let (count, name) = match kind {
            Kind::Fresh => (&mut tally.fresh, "fresh"),
            Kind::Reused => (&mut tally.reused, "reused"),
            Kind::Held => (&mut tally.held, "held"),
        };
        match done {
            Ok(_) => {
                count.good += 1;
                // What cannot be written shows as a short count.
                writeln!(self.paths.borrow_mut(), "{path}").ok();
            }
            Err(failure) => {
                count.failed += 1;
                self.complaints.borrow_mut().add(&format!("{name} {path}"), failure);
            }
        }
    }
}
