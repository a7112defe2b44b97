//! Keeps what the gateway remembers of the journal as the journal is, and the journal told that it lives.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use super::Journaling;
use crate::journal::{Journal, JournalError, News, unresolved};

/// How long the journal waits for news before it says that there are none.
const PATIENCE: Duration = Duration::from_secs(1);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// Where there was no room for all, all is asked for again after so long: there may be by then.
const ROOM: Duration = Duration::from_secs(30);
/// Objects that are asked for one by one between two looks for news.
const ASKED_AGAIN: usize = 100;
/// For a journal that answers to be there at the start; then the gateway serves all the same.
const AT_START: Duration = Duration::from_secs(2);

impl Journaling {
    /// Starts what the journal needs, and waits for it a little.
    pub async fn start(self: Arc<Self>) {
        let (writing, keeping, following) = (self.clone(), self.clone(), self.clone());
        tokio::spawn(async move { writing.writer.run().await });
        tokio::spawn(async move { keeping.writer.keep().await });
        tokio::spawn(async move { following.follow().await });
        let mut loaded = self.loaded.subscribe();
        if timeout(AT_START, loaded.wait_for(|loaded| *loaded)).await.is_err() {
            log::error!("journal: starting although it is not there after {AT_START:?}");
        }
    }

    async fn follow(&self) {
        self.writer.known().await;
        loop {
            let Some(engine) = self.writer.engine() else { return };
            if self.follow_on(engine).await.is_err() {
                sleep(PAUSE).await;
            }
        }
    }

    /// From everything to the next time that everything is needed.
    async fn follow_on(&self, engine: &Arc<dyn Journal>) -> Result<(), JournalError> {
        let enrolment = self.writer.enrolment();
        let is_same = || self.writer.enrolment().is_in_that_of(enrolment);
        let remembered = &self.overview.remembered;
        // That takes a while, in which others' records are not heard of.
        remembered.doubt();
        // Before it is asked: a journal that is replaced meanwhile is doubted, whatever the old one says.
        let mut asking = remembered.asking(self.writer.taken_up_to());
        let learn = |objects| remembered.learn_some(objects, &mut asking);
        let (whole, mark) = unresolved(&**engine, self.remembered_most, learn).await?;
        let News::Changed(meanwhile, mut mark) = engine.news(mark, Duration::ZERO).await? else {
            return Ok(());
        };
        if !is_same() {
            return Ok(());
        }
        remembered.learn_changes(meanwhile, &mut asking);
        remembered.learnt(whole, asking);
        self.loaded.send_replace(true);
        let since = Instant::now();
        while is_same() && (remembered.is_whole() || since.elapsed() < ROOM) {
            let taken = self.writer.taken_up_to();
            match engine.news(mark, PATIENCE).await {
                // What is here is still true as far as anybody can know. The news wait.
                Err(_) => sleep(PAUSE).await,
                Ok(News::Reload) => {
                    // It may be one that was put back to an earlier state.
                    self.overview.untold.store(true, Relaxed);
                    return Ok(());
                }
                // They may be those of the old one.
                Ok(_) if !is_same() => return Ok(()),
                Ok(News::Changed(objects, next)) => {
                    for (object, known) in objects {
                        remembered.learn(&object, known, taken);
                    }
                    mark = next;
                    self.ask_again(engine, is_same).await;
                }
            }
        }
        Ok(())
    }

    /// Of objects of which there may be no more news. What cannot be asked now is the next time.
    async fn ask_again(&self, engine: &Arc<dyn Journal>, is_same: impl Fn() -> bool) {
        let taken = self.writer.taken_up_to();
        for object in self.overview.remembered.unanswered(taken, ASKED_AGAIN) {
            match engine.known(&object).await {
                Ok(known) if is_same() => _ = self.overview.remembered.learn(&object, known, taken),
                _ => return,
            }
        }
    }
}
