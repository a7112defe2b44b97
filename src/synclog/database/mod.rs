//! The synclog's records on their way from the spool into PostgreSQL.
//!
//! A thread with a runtime of its own delivers while this process owns the spool: in order, some hundred records in a
//! transaction, and moves the position when that is committed. What fails is tried again, after 100 ms, doubling to
//! 5 s; every failure is counted, and an error in the main log now and then.
//!
//! **A record that the database refuses** must not stop those behind it. Whether it is the record or the database is
//! told by the error's class ([`session`]), and then by a second trial: a made-up record, in a transaction that is
//! rolled back, which a sound statement takes. Where it does not, as after a change of the table that lets nothing
//! in, records wait. Where it does, the one that was refused goes to `rejected.jsonl` of the spool.
//!
//! **Takeover.** The predecessor gives the spool up when its successor serves, so that the new configuration holds,
//! and tries to get it back after some seconds: that succeeds only where the successor has no database. A transaction
//! under way is always waited for. Two processes never deliver at once, and what an owner has delivered its follower
//! does not deliver again.
//!
//! **Twice** a record is delivered where the process or the connection dies between the commit and the position:
//! nobody knows then whether it was committed. The default statement leaves out an id that is there already.

mod session;
mod values;

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use self::session::{Failure, Session};
use super::spool::{Reader, Spool, Stored};
use crate::{
    config::Database,
    telemetry::{SYNCLOG, report::Report},
};

/// Records in a transaction.
const BATCH: usize = 512;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// How often a process that is not the owner tries to be.
const OWN_RETRY: Duration = Duration::from_millis(100);
/// A predecessor's first try after it gave the spool up.
const AFTER_YIELDING: Duration = Duration::from_secs(5);
/// What other processes have appended is looked for as often.
const LOOK: Duration = Duration::from_millis(250);
/// Deliveries begin for so long after the end was asked for; what is left is safe in the spool.
const LAST_DELIVERIES: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Deliver,
    /// Leave the spool to a successor.
    Yield,
    Finish,
}

/// The handle of the thread.
#[derive(Debug)]
pub struct Delivery {
    wish: watch::Sender<Wish>,
    /// Its sender is the thread's: gone when that has ended.
    ended: watch::Receiver<()>,
    task: Mutex<Option<Task>>,
}

impl Delivery {
    pub fn new(spool: Arc<Spool>, database: Arc<Database>) -> Delivery {
        let (wish, wishes) = watch::channel(Wish::Deliver);
        let (alive, ended) = watch::channel(());
        let trouble = Report::new(SYNCLOG);
        let rejections = Report::new(SYNCLOG);
        let task = Task {
            spool,
            database,
            wishes,
            _alive: alive,
            yielded: false,
            failing_since: None,
            pause: FIRST_RETRY,
            trouble,
            rejections,
        };
        Delivery { wish, ended, task: Mutex::new(Some(task)) }
    }

    /// Starts the thread, once; later calls do nothing.
    pub fn start(&self) -> io::Result<()> {
        let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(());
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new()
            .name(format!("{SYNCLOG} database"))
            .spawn(move || runtime.block_on(task.run()))?;
        Ok(())
    }

    /// Lets a successor deliver from now on; returns at once.
    pub fn leave_to_successor(&self) {
        self.wish.send_replace(Wish::Yield);
    }

    /// Ends the thread: what can be delivered at once is, and what is under way is waited for until `deadline`.
    pub async fn finish(&self, deadline: Instant) {
        self.wish.send_replace(Wish::Finish);
        if self.task.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            return;
        }
        let mut ended = self.ended.clone();
        if timeout_at(deadline, ended.changed()).await.is_err() {
            log::warn!(
                "{SYNCLOG}: the database does not answer in time: records that it just got may come again"
            );
        }
    }
}

/// What the thread does.
struct Task {
    spool: Arc<Spool>,
    database: Arc<Database>,
    wishes: watch::Receiver<Wish>,
    _alive: watch::Sender<()>,
    /// The spool was given up once: from then on whoever gets it keeps it.
    yielded: bool,
    failing_since: Option<Instant>,
    /// Before the next try after a failure.
    pause: Duration,
    trouble: Report,
    rejections: Report,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Task")
    }
}

impl Task {
    async fn run(mut self) {
        while !self.finishing() {
            match Reader::own(&self.spool) {
                Ok(Some(reader)) => {
                    self.spool.metrics.owner.set(1);
                    let yielded = self.deliver(reader).await;
                    self.spool.metrics.owner.set(0);
                    self.spool.metrics.connected.set(0);
                    if yielded {
                        self.rest(AFTER_YIELDING).await;
                    }
                }
                Ok(None) => self.rest(OWN_RETRY).await,
                Err(error) => self.fail(&format!("the spool cannot be read: {error}")).await,
            }
        }
    }

    /// Until somebody else shall, which it says, or the spool cannot be read: its directory may have been replaced
    /// under the reader.
    async fn deliver(&mut self, mut reader: Reader) -> bool {
        let mut session = None;
        let mut most = BATCH;
        let mut last_start = None;
        while !self.overdue(&mut last_start) {
            if self.shall_yield() {
                return true;
            }
            let records = match reader.next(most) {
                Ok(records) => records,
                Err(error) => {
                    self.fail(&format!("the spool cannot be read: {error}")).await;
                    break;
                }
            };
            if records.is_empty() && self.finishing() {
                break;
            }
            // Also where there is nothing to deliver: what is wrong shows at the start.
            match self.connected(&mut session).await {
                Some(_) if records.is_empty() => self.wait_for_records().await,
                Some(session) => most = self.insert(session, &mut reader, &records, most).await,
                None if self.finishing() => break,
                None => {}
            }
        }
        false
    }

    /// Whether the end was asked for long enough ago.
    fn overdue(&self, last_start: &mut Option<Instant>) -> bool {
        self.finishing()
            && *last_start.get_or_insert_with(|| Instant::now() + LAST_DELIVERIES) < Instant::now()
    }

    /// Delivers what may be delivered of these, which are not none; how many to take the next time.
    async fn insert(
        &mut self,
        session: &mut Session,
        reader: &mut Reader,
        records: &[Stored],
        most: usize,
    ) -> usize {
        match session.insert(records).await {
            Ok(()) => {
                reader.acknowledge(&records[records.len() - 1]);
                self.spool.metrics.delivered.inc_by(records.len() as u64);
                self.well();
                (most * 2).min(BATCH)
            }
            // Those before it are to be delivered first.
            Err(Failure::Refused { index, .. }) if index > 0 => index,
            Err(Failure::Refused { error, .. }) => {
                self.refused(reader, session, &records[0], &error).await;
                1
            }
            Err(Failure::Broken(error)) => {
                session.broken = true;
                self.fail(&error).await;
                most
            }
            Err(Failure::Late(error)) => {
                self.fail(&error).await;
                (records.len() / 2).max(1)
            }
        }
    }

    /// The connection that is there, or a new one; none after a failure, or when the spool is to be left.
    async fn connected<'a>(&mut self, session: &'a mut Option<Session>) -> Option<&'a mut Session> {
        if session.as_ref().is_none_or(Session::is_useless) {
            *session = None;
            self.spool.metrics.connected.set(0);
            if self.finishing() {
                return None;
            }
            let (database, mut wishes) = (self.database.clone(), self.wishes.clone());
            let opened = tokio::select! {
                opened = Session::open(&database) => opened,
                // What it was to be used for is not to be begun any more.
                () = changed(&mut wishes) => return None,
            };
            match opened {
                Ok(opened) => {
                    self.spool.metrics.connected.set(opened.fits().into());
                    *session = Some(opened);
                }
                Err(error) => {
                    self.fail(&error).await;
                    return None;
                }
            }
        }
        session.as_mut()
    }

    /// The first of the records was refused, alone.
    async fn refused(&mut self, reader: &mut Reader, session: &mut Session, record: &Stored, error: &str) {
        let proven = match session.is_proven().await {
            Ok(proven) => proven,
            Err(error) => {
                session.broken = true;
                return self.fail(&error).await;
            }
        };
        if !proven {
            return self.fail(&format!("the statement takes no record at all: {error}")).await;
        }
        match reader.reject(record, error) {
            Ok(()) => {
                let (id, folder) = (&record.id, self.spool.folder().display());
                self.rejections.error(format_args!(
                    "{SYNCLOG}: the database refuses the record {id}, which is set aside in {folder}/rejected.jsonl: {error}"
                ));
            }
            Err(failure) => {
                self.fail(&format!("it refuses a record that cannot be set aside: {failure}")).await
            }
        }
    }

    /// Tells of a failure and rests.
    async fn fail(&mut self, error: &str) {
        self.spool.metrics.failures.inc();
        self.spool.metrics.connected.set(0);
        self.failing_since.get_or_insert_with(Instant::now);
        let (database, folder) = (&self.database, self.spool.folder().display());
        self.trouble.error(format_args!(
            "{SYNCLOG}: nothing is delivered to the database {}@{}:{}/{}: {error}; records wait in {folder}",
            database.login.user, database.login.host, database.login.port, database.login.dbname
        ));
        self.rest(self.pause).await;
        self.pause = (self.pause * 2).min(LAST_RETRY);
    }

    fn well(&mut self) {
        self.spool.metrics.connected.set(1);
        self.pause = FIRST_RETRY;
        if let Some(since) = self.failing_since.take() {
            let seconds = since.elapsed().as_secs();
            self.trouble.over(format_args!(
                "{SYNCLOG}: records are delivered to the database again after {seconds} s"
            ));
        }
    }

    /// Waits, unless something else is wished for meanwhile.
    async fn rest(&mut self, pause: Duration) {
        if self.finishing() {
            return;
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = changed(&mut self.wishes) => {}
        }
    }

    async fn wait_for_records(&mut self) {
        tokio::select! {
            () = self.spool.appended.notified() => {}
            () = sleep(LOOK) => {}
            () = changed(&mut self.wishes) => {}
        }
    }

    fn finishing(&self) -> bool {
        *self.wishes.borrow() == Wish::Finish
    }

    /// Once, where that was wished for.
    fn shall_yield(&mut self) -> bool {
        // Seen with that, so that no rest is cut short by it.
        let first = !self.yielded && *self.wishes.borrow_and_update() == Wish::Yield;
        self.yielded |= first;
        first
    }
}

/// Never where nobody can wish for anything any more.
async fn changed(wishes: &mut watch::Receiver<Wish>) {
    if wishes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
