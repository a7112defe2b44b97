//! One object, from its lease to the hand-over: a place among those that are repaired at once, the repair, and what
//! the journal is told of it.
//!
//! The lease is renewed meanwhile. When it is lost everything that is under way is dropped, and nothing more is said
//! of the object. A journal that cannot be asked gets the outcome later, as long as the lease lasts; after that it will
//! be found out anew.

use std::{iter, sync::Arc, time::Duration};

use rand::Rng;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    backoff::Backoff,
    hold::{Asked, Hold},
    limits::{Limited, Pass},
    misplaced::{Elsewhere, Move, Moved, Sent, found_on},
    places::{Place, Places, backends_of},
    repair::{Attempt, Outcome, Repair, Rules},
    slots::{Slot, Slots},
    worker::{Trouble, Wishes},
};
use crate::{
    journal::{Case, Journal, JournalError, Later, Lease, Object, Standing, Wanted},
    telemetry::metrics::SyncMetrics,
};

/// Objects of a backend that is left alone come back spread over this time.
const SPREAD: Duration = Duration::from_secs(30);
/// Until it is looked again whether a backend is under maintenance still.
const MAINTENANCE: Duration = Duration::from_secs(30);
/// For a DELETE that is under way behind a copy: so many looks, so long apart.
const UNDER_WAY: (u32, Duration) = (120, Duration::from_millis(500));
/// What a DELETE has overtaken: so many tries, so long apart.
const TAKING_BACK: (u32, Duration) = (20, Duration::from_secs(3));
/// Before the journal is told again.
const RETRY: Duration = Duration::from_millis(500);

/// What all jobs of a process share.
pub struct Shop {
    /// Of this worker, unique.
    pub name: String,
    pub journal: Arc<dyn Journal>,
    pub stores: Limited,
    pub places: Places,
    pub rules: Rules,
    pub wanted: Wanted,
    pub hold: Duration,
    pub backoff: Backoff,
    pub max_attempts: Option<u32>,
    pub metrics: SyncMetrics,
    /// Told of every object. Must not block.
    pub tell: Box<dyn Fn(&Told) + Send + Sync>,
    /// What runs is to be dropped now.
    pub given_up: watch::Sender<bool>,
    pub trouble: Trouble,
}

/// What became of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub object: Object,
    /// One of [`OUTCOMES`](crate::telemetry::metrics::OUTCOMES).
    pub outcome: &'static str,
    pub why: String,
    /// Backends that were written to.
    pub changed: usize,
    /// Failed tries, this one included.
    pub attempts: u32,
    /// How long the repair took.
    pub took: Duration,
    /// Until the next try.
    pub pause: Option<Duration>,
}

impl Shop {
    pub fn trouble(&self, why: &str) {
        self.metrics.journal_failures.inc();
        self.trouble.tell(why);
    }

    pub fn well(&self) {
        self.trouble.is_over();
    }
}

pub struct Job {
    shop: Arc<Shop>,
    lease: Lease,
    case: Case,
    hold: Hold,
    attempt: Attempt,
}

/// How the work on an object ended.
enum End {
    Repair(Outcome),
    /// Nobody was asked: it has to wait.
    Postponed(Duration, String),
    /// The journal failed, in the middle.
    Journal(JournalError),
    /// The process ends or is paused, before it began.
    Untouched(&'static str),
    /// The process ends, in the middle.
    GivenUp,
}

/// What the journal is to be told.
enum Word {
    Postpone(Later),
    /// With how long what was sent may still happen.
    SetAside(Standing, Option<Duration>),
    Nothing,
}

impl Word {
    /// With what is to be said of what was sent before.
    fn after(self, attempt: &Attempt, settle: Duration) -> Word {
        match self {
            Word::Postpone(later) => Word::Postpone(attempt.postponed(later, settle)),
            Word::SetAside(standing, unsettled) => {
                Word::SetAside(standing, attempt.set_aside(unsettled, settle))
            }
            Word::Nothing => Word::Nothing,
        }
    }
}

impl Job {
    pub fn new(shop: Arc<Shop>, lease: Lease, case: Case, asked: Asked) -> Job {
        let hold = Hold::new(asked, shop.hold);
        Job { shop, lease, case, hold, attempt: Attempt::default() }
    }

    pub async fn run(self, slots: Arc<Slots>, wishes: Wishes) {
        let mut given_up = self.shop.given_up.subscribe();
        let begun = Instant::now();
        let end = tokio::select! {
            biased;
            _ = given_up.wait_for(|given_up| *given_up) => End::GivenUp,
            end = self.work(&slots, wishes) => end,
            () = self.hold.keep(&*self.shop.journal, &self.lease, self.shop.rules.settle) => {
                End::Repair(Outcome::Lost)
            }
        };
        self.hand_over(end, begun.elapsed()).await;
    }

    /// What has not begun when the process is to end, or is paused, does not begin: the next worker gets it at once.
    async fn work(&self, slots: &Slots, mut wishes: Wishes) -> End {
        let slot = tokio::select! {
            biased;
            _ = wishes.stop.wait_for(|stop| *stop) => return End::Untouched("the worker ends"),
            Ok(_) = wishes.paused.wait_for(|paused| *paused) => return End::Untouched("the worker is paused"),
            slot = slots.take() => slot,
        };
        self.repair(slot).await
    }

    async fn repair(&self, mut slot: Slot<'_>) -> End {
        let (shop, object) = (&self.shop, &self.lease.object);
        let Some(home) = shop.places.get(&object.cluster) else {
            let why = format!("the configuration has no cluster {:?} in a region", object.cluster);
            return End::Repair(Outcome::Parked { why });
        };
        let is_elsewhere_only = self.case.records.iter().all(|record| found_on(record).is_some());
        let is_to_move = is_elsewhere_only && shop.wanted == Wanted::Misplaced;
        let elsewhere = match is_to_move {
            true => Elsewhere::of(&shop.places, home, object, &self.case),
            false => Elsewhere::default(),
        };
        let places: Vec<&Place> = iter::once(home).chain(elsewhere.places()).collect();
        let backends = backends_of(&places);
        let pass = match self.admit(&places, &backends) {
            Ok(pass) => pass,
            Err((pause, why)) => return End::Postponed(pause, why),
        };
        let repair = Repair {
            journal: &*shop.journal,
            stores: &shop.stores,
            backends: &home.backends,
            hidden: shop.places.is_hidden(object),
            rules: &shop.rules,
            gate: &self.hold,
            attempt: &self.attempt,
        };
        let outcome = match is_to_move {
            true => self.bring_home(&repair, &elsewhere, pass, &mut slot).await,
            false => {
                let outcome = repair.run(&self.lease, &self.case).await;
                if matches!(outcome, Ok(Outcome::Resolved)) {
                    pass.end();
                }
                outcome
            }
        };
        outcome.map_or_else(End::Journal, End::Repair)
    }

    /// Whether the backends of these clusters may be asked now; else after which pause, and why.
    fn admit<'a>(
        &'a self,
        places: &[&Place],
        backends: &'a [String],
    ) -> Result<Pass<'a>, (Duration, String)> {
        let shop = &self.shop;
        let spread = |pause: Duration| pause + SPREAD.mul_f64(rand::thread_rng().gen_range(0.0..1.0));
        if let Some(backend) = places.iter().find_map(|place| place.closed.first()) {
            return Err((shop.backoff.max, format!("{backend}: there are no credentials for it")));
        }
        if let Some(backend) = places.iter().find_map(|place| shop.places.maintained(place)) {
            return Err((spread(MAINTENANCE), format!("{backend} is under maintenance")));
        }
        let left_alone =
            |(pause, why)| (spread(pause), format!("a backend is left alone for a while: {why}"));
        shop.stores.admit(backends).map_err(left_alone)
    }

    /// What has to be waited for is waited for without a place, and without keeping others from a backend.
    async fn bring_home(
        &self,
        repair: &Repair<'_>,
        elsewhere: &Elsewhere<'_>,
        pass: Pass<'_>,
        slot: &mut Slot<'_>,
    ) -> Result<Outcome, JournalError> {
        match (Move { repair, elsewhere }).run(&self.lease, &self.case).await? {
            Moved::Ended(outcome) => {
                if outcome == Outcome::Resolved {
                    pass.end();
                }
                Ok(outcome)
            }
            Moved::Sent(sent) => {
                drop(pass);
                let mut case = slot.aside(self.calm(&sent)).await;
                for _ in 0..TAKING_BACK.0 {
                    match self.look_back(&sent, repair, case).await {
                        Ok(outcome) => return Ok(outcome),
                        Err(why) => log::debug!("{}: not looked back at yet: {why}", self.lease.object),
                    }
                    case = slot.aside(self.looked_at_later()).await;
                }
                let why = "whether a DELETE has overtaken a copy could not be found out, or the copy not taken back";
                Ok(Outcome::Unsettled { why: why.into() })
            }
        }
    }

    async fn look_back(
        &self,
        sent: &Sent,
        repair: &Repair<'_>,
        case: Result<Option<Case>, JournalError>,
    ) -> Result<Outcome, String> {
        let case = case.map_err(|error| error.to_string())?;
        let looked = sent.look_back(repair, &self.lease.object, &self.case.ids(), case.as_ref()).await;
        looked.map_err(|error| error.to_string())
    }

    async fn looked_at_later(&self) -> Result<Option<Case>, JournalError> {
        sleep(TAKING_BACK.1).await;
        self.shop.journal.show(&self.lease.object).await
    }

    /// The object's records once no copy can arrive any more and no write is under way, or a long time has passed.
    async fn calm(&self, sent: &Sent) -> Result<Option<Case>, JournalError> {
        if sent.may_arrive() {
            sleep(self.shop.rules.settle).await;
        }
        let show = || self.shop.journal.show(&self.lease.object);
        let mut case = show().await?;
        for _ in 0..UNDER_WAY.0 {
            if case.as_ref().is_none_or(|case| case.under_way == 0) {
                break;
            }
            sleep(UNDER_WAY.1).await;
            case = show().await?;
        }
        Ok(case)
    }

    /// Tells the journal and everybody else.
    async fn hand_over(self, end: End, took: Duration) {
        let (shop, case) = (&self.shop, &self.case);
        let mut told = Told {
            object: self.lease.object.clone(),
            outcome: "again",
            why: String::new(),
            changed: 0,
            attempts: case.attempts,
            took,
            pause: None,
        };
        let word = self.word(end, &mut told);
        if let Word::Postpone(later) = word {
            told.pause = Some(later.pause);
        }
        self.say(&word, &told.why).await;
        shop.metrics.ended(told.outcome);
        (shop.tell)(&told);
    }

    /// What is to be said of how it ended.
    fn word(&self, end: End, told: &mut Told) -> Word {
        let shop = &self.shop;
        let (word, outcome, why) = match end {
            End::Repair(Outcome::Resolved) => {
                told.changed = self.attempt.changed();
                (Word::Nothing, "resolved", String::new())
            }
            End::Repair(Outcome::Lost) => {
                (Word::Nothing, "lost", "the lease ran out, or another worker has it".to_owned())
            }
            End::Repair(Outcome::Again { pause, why }) => (Word::Postpone(Later::again(pause)), "again", why),
            End::Repair(Outcome::Parked { why }) => (Word::SetAside(Standing::Parked, None), "parked", why),
            End::Repair(Outcome::Failed { why }) => self.failed(told, true, why),
            End::Repair(Outcome::Unsettled { why }) => self.failed(told, false, why),
            End::Postponed(pause, why) => (Word::Postpone(Later::waits(pause)), "postponed", why),
            End::Journal(error) => {
                shop.trouble(&error.to_string());
                (Word::Postpone(Later::again(shop.backoff.min)), "again", error.to_string())
            }
            End::Untouched(why) => (Word::Postpone(Later::waits(Duration::ZERO)), "again", why.to_owned()),
            // What was sent may still be on its way.
            End::GivenUp => {
                let pause = shop.rules.settle;
                (
                    Word::Postpone(Later::broken_off(pause)),
                    "again",
                    "the worker ended in the middle".to_owned(),
                )
            }
        };
        told.outcome = outcome;
        told.why = why;
        word.after(&self.attempt, shop.rules.settle)
    }

    /// One try more that failed: when the next is, or that there is none.
    fn failed(&self, told: &mut Told, is_settled: bool, why: String) -> (Word, &'static str, String) {
        let shop = &self.shop;
        told.attempts = self.case.attempts.saturating_add(1);
        if shop.max_attempts.is_some_and(|most| told.attempts >= most) {
            let why = format!("{} tries failed, the last: {why}", told.attempts);
            let unsettled = (!is_settled).then_some(shop.rules.settle);
            return (Word::SetAside(Standing::Dead, unsettled), "dead", why);
        }
        shop.metrics.backoffs.inc();
        let pause = shop.backoff.pause(told.attempts, rand::thread_rng().gen_range(0.0..=1.0));
        let later =
            if is_settled { Later::failed(pause) } else { Later::unsettled(pause.max(shop.rules.settle)) };
        (Word::Postpone(later), "failed", why)
    }

    /// Says it to the journal, as long as the lease lasts.
    async fn say(&self, word: &Word, why: &str) {
        let (shop, lease) = (&self.shop, &self.lease);
        let seen = self.case.ids();
        loop {
            let said = async {
                match word {
                    Word::Nothing => Ok(()),
                    Word::Postpone(later) => shop.journal.postpone(lease, *later, why).await,
                    Word::SetAside(standing, unsettled) => {
                        shop.journal.set_aside(lease, *standing, *unsettled, &seen, why).await
                    }
                }
            };
            match timeout(self.hold.left(), said).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => shop.trouble(&error.to_string()),
                Err(_) => return log::warn!("{}: the journal was not told in time: {why}", lease.object),
            }
            sleep(RETRY).await;
        }
    }
}
