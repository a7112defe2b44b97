//! How a batch gets into the journal, and what is said in it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Token, Writer, life::Enrolment};
use crate::journal::{Change, Journal, JournalError, batch};

impl Writer {
    pub(super) async fn flush(
        &self,
        engine: &Arc<dyn Journal>,
        enrolment: Enrolment,
        batch: batch::Batch<Token>,
    ) -> Result<Duration, JournalError> {
        let start = Instant::now();
        let mut outcome = self.apply(engine, enrolment, &batch).await;
        if let Err(JournalError::TakenForDead(_)) = outcome {
            // Nothing of it was done: it is said again in the words of a process that knows.
            outcome = match self.is_alive(engine, enrolment).await {
                Ok(()) => self.apply(engine, self.enrolment(), &batch).await,
                Err(error) => Err(error),
            };
        }
        let took = start.elapsed();
        let histogram = if outcome.is_ok() { &self.metrics.taken } else { &self.metrics.failed };
        histogram.observe(took.as_secs_f64());
        if outcome.is_ok() {
            self.is_there();
        }
        let tokens = self.ended(batch, outcome.is_ok());
        self.taken.notify_waiters();
        for token in tokens {
            // Whoever waits no longer has withdrawn it.
            token.send(()).unwrap_or_default();
        }
        outcome.map(|()| took)
    }

    async fn apply(
        &self,
        engine: &Arc<dyn Journal>,
        enrolment: Enrolment,
        batch: &batch::Batch<Token>,
    ) -> Result<(), JournalError> {
        let itself = self.itself(enrolment);
        let changes: Vec<Change> =
            batch.changes().cloned().map(|change| self.named(change, itself.number)).collect();
        let told = Told::of(&changes);
        engine.apply(&itself, changes, self.settle).await?;
        self.count(&told);
        Ok(())
    }

    /// A change as the journal gets it: one that is older than the process's number there has that one. Writes keep
    /// their own numbers: the process gives none twice.
    fn named(&self, change: Change, gateway: i64) -> Change {
        let mut change = match change {
            // It waited while the journal lost the intents beside which it would be kept.
            Change::Settled(record) if self.was_taken_for_dead(record.id()) => Change::Diverged(record),
            change => change,
        };
        if change.id().gateway != gateway {
            let id = match &mut change {
                Change::Begin(intent) | Change::Still(intent) => &mut Arc::make_mut(intent).id,
                Change::Settled(record) | Change::Diverged(record) => &mut record.intent.id,
                Change::Void(id) => id,
            };
            id.gateway = gateway;
        }
        change
    }

    /// A batch is on its way no more. Gives who waits for what is in the journal now: they are told when others may use
    /// the queue again, as waking them takes a while.
    fn ended(&self, batch: batch::Batch<Token>, well: bool) -> Vec<Token> {
        let mut queue = self.queue();
        let mut tokens = Vec::new();
        match well {
            true => tokens = queue.waiting.done(batch),
            false => drop(queue.waiting.give_back(batch)),
        }
        self.metrics.waiting.set(queue.waiting.len() as i64);
        tokens
    }

    fn count(&self, told: &Told) {
        self.metrics.begun.inc_by(told.begun);
        self.metrics.settled.inc_by(told.settled);
        self.metrics.diverged.inc_by(told.diverged);
        self.metrics.void.inc_by(told.void);
    }
}

/// How many changes the journal is told, as it is told of them.
#[derive(Default)]
struct Told {
    begun: u64,
    settled: u64,
    diverged: u64,
    void: u64,
}

impl Told {
    fn of(changes: &[Change]) -> Told {
        let mut told = Told::default();
        for change in changes {
            match change {
                Change::Begin(_) => told.begun += 1,
                Change::Still(_) => {}
                Change::Settled(_) => told.settled += 1,
                Change::Diverged(_) => told.diverged += 1,
                Change::Void(_) => told.void += 1,
            }
        }
        told
    }
}
