//! What holds for the tables of all engines, whatever they keep them in.
//!
//! All changes of a call happen at one moment: what begins is there first, then come the records of what diverged;
//! then it is seen which settled writes must be kept as records, by intents of others as they were before; at last the
//! intents of all that ended go.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Change, Enrolled, Intent, JournalError, Record, Said, What, WriteId};

/// Milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Objects with so many records, or twice as many, and so on, are looked through for records that say nothing any more.
const MANY: usize = 64;

/// Changes are kept for those that follow them; who is further behind asks for everything.
pub const KEPT_EVENTS: i64 = 10_000;

/// The time of this machine.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        millis(since)
    })
}

pub fn millis(duration: Duration) -> i64 {
    // An age of the earth is enough for a hold, and sums of a few of them are numbers still.
    const MOST: u128 = i64::MAX as u128 / 8;
    i64::try_from(duration.as_millis().min(MOST)).unwrap_or(i64::MAX / 8)
}

/// See [`Object::digest`](super::Object::digest).
pub type Digest = [u8; 32];

/// How intents and records are found. Gateways give the write of each object an id of its own; engines would take one for
/// several.
pub type Part = (WriteId, Digest);

/// The changes of a call, by what they need.
#[derive(Debug, Default)]
pub struct Batch {
    pub begun: BTreeMap<Part, Arc<Intent>>,
    /// Of these there may be no intents any more.
    pub still: BTreeMap<Part, Arc<Intent>>,
    pub diverged: BTreeMap<Part, Record>,
    pub settled: BTreeMap<Part, Record>,
    /// What is not under way any more: on one object, or on whichever.
    pub ended: BTreeSet<(WriteId, Option<Digest>)>,
}

impl Batch {
    /// Of several records of a write to an object the last one counts.
    pub fn of(changes: Vec<Change>) -> Batch {
        let mut batch = Batch::default();
        for change in changes {
            match change {
                Change::Begin(intent) => {
                    batch.begun.insert((intent.id, intent.object.digest()), intent);
                }
                Change::Still(intent) => {
                    batch.still.insert((intent.id, intent.object.digest()), intent);
                }
                Change::Diverged(record) => {
                    let part = batch.end(&record);
                    batch.settled.remove(&part);
                    batch.diverged.insert(part, record);
                }
                Change::Settled(record) => {
                    let part = batch.end(&record);
                    batch.diverged.remove(&part);
                    batch.settled.insert(part, record);
                }
                Change::Void(id) => {
                    batch.ended.insert((id, None));
                }
            }
        }
        batch
    }

    fn end(&mut self, record: &Record) -> Part {
        let digest = record.intent.object.digest();
        self.ended.insert((record.id(), Some(digest)));
        (record.id(), digest)
    }

    /// Gateways that have writes under way, and so live.
    pub fn gateways(&self) -> BTreeSet<i64> {
        self.begun.keys().chain(self.still.keys()).map(|(id, _)| id.gateway).collect()
    }
}

/// Whether a gateway may tell of its writes, by how often it was taken for dead; `None` = it is not known. Each time
/// intents of it became records: what it has to say next must be what it says knowing that.
pub fn may_tell(gateway: &Enrolled, deaths: Option<i64>) -> Result<(), JournalError> {
    match deaths {
        None => Err(JournalError::Stranger(gateway.number)),
        Some(deaths) if deaths != gateway.deaths => Err(JournalError::TakenForDead(gateway.number)),
        Some(_) => Ok(()),
    }
}

/// A record as it is kept: with the turns at which its write began and ended. `begun` is that of its intent, where there
/// is one; `known` is what is there of the same write, whose end stays where it was unless there is more to say.
///
/// A strong write of which there is neither was in the journal once: since then the gateway was taken for dead and what
/// stood for the write resolved, or the journal was replaced. Records of later writes may have come and gone meanwhile, so
/// what backends said of this one must not win over what they hold. It is kept as one whose gateway died.
pub fn stamped(record: &Record, known: Option<&Record>, begun: Option<i64>, turn: i64) -> Record {
    let mut record = record.clone();
    record.intent.turn = known.map_or(begun, |known| known.intent.turn);
    if record.intent.strong && record.intent.turn.is_none() {
        record.intent.strong = false;
        (record.commit, record.replies) = (None, Vec::new());
    }
    record.turn = known.and_then(|known| known.turn);
    if known != Some(&record) {
        record.turn = Some(turn);
    }
    record
}

/// A write that is a record already, and whose gateway died while it was under way; `None` = it stays as it is, because
/// backends' answers are known. Else it was recorded when its gateway was taken for dead and yet lived on: until now
/// something may have been sent. Never the same as before, so that whoever works at its object hears of it.
pub fn orphaned_again(known: &Record, now: i64) -> Option<Record> {
    let ended = now.max(known.ended + 1);
    known.replies.is_empty().then(|| Record::orphaned(known.intent.clone(), ended))
}

/// Whether a record says that backends may not agree; if not, it only says that the object is not at home.
pub fn is_divergence(record: &Record) -> bool {
    !matches!(record.intent.what, What::Misplaced(_))
}

/// Whether it is time to look for records that say nothing any more.
pub fn are_many(records: usize) -> bool {
    records >= MANY && records.is_power_of_two()
}

/// Of an object's records those that another makes worthless. An older write is, if its outcome is known and a
/// later one through the same gateway, which replaced or deleted the object, was taken by every backend that took the
/// older one. A sighting is, if a later one says the same.
pub fn superfluous(records: &[Record]) -> Vec<WriteId> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for record in records.iter().rev() {
        if matches!(record.intent.what, What::Seen | What::Misplaced(_))
            && !seen.insert((record.intent.what.clone(), format!("{:?}", record.replies)))
        {
            found.push(record.id());
        }
    }
    let mut ordered: Vec<(i64, i64, &Record)> = records
        .iter()
        .filter(|record| matches!(record.intent.what, What::Put | What::Delete | What::Attribute(_)))
        .filter_map(|record| Some((record.id().gateway, record.commit?, record)))
        .collect();
    ordered.sort_by_key(|(gateway, commit, _)| (*gateway, std::cmp::Reverse(*commit)));
    // Sets of backends that took a later write; there are few different ones.
    let mut covers: (i64, Vec<BTreeSet<&str>>) = (0, Vec::new());
    for (gateway, _, record) in ordered {
        if covers.0 != gateway {
            covers = (gateway, Vec::new());
        }
        let good = good(record);
        let is_covered = covers.1.iter().any(|cover| good.is_subset(cover));
        if is_covered && !record.is_uncertain() {
            found.push(record.id());
        } else if !is_covered && matches!(record.intent.what, What::Put | What::Delete) {
            covers.1.push(good);
        }
    }
    found
}

/// The backends that took the write.
fn good(record: &Record) -> BTreeSet<&str> {
    let replies = record.replies.iter();
    replies.filter(|(_, said)| matches!(said, Said::Good { .. })).map(|(name, _)| name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Object;

    fn record(number: i64, commit: Option<i64>, what: What, replies: &[(&str, bool)]) -> Record {
        let object = Object { cluster: "main".into(), bucket: b"b".into(), key: b"k".into() };
        let intent = Intent {
            id: WriteId { gateway: 1, number },
            object,
            what,
            region: "r".into(),
            req_id: "q".into(),
            length: None,
            begun: 0,
            strong: true,
            turn: None,
        };
        let said = |good: bool| match good {
            true => Said::Good { etag: None, version: None },
            false => Said::NotApplied,
        };
        let replies = replies.iter().map(|(name, good)| ((*name).to_owned(), said(*good))).collect();
        Record { intent, commit, ended: 0, turn: None, replies }
    }

    fn numbers(records: &[Record]) -> Vec<i64> {
        let mut numbers: Vec<i64> = superfluous(records).iter().map(|id| id.number).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn an_older_write_goes_if_all_that_took_it_took_a_later_one() {
        let a = [("a", true), ("b", false)];
        let both = [("a", true), ("b", true)];
        let put = |number, replies: &[(&str, bool)]| record(number, Some(number), What::Put, replies);
        assert_eq!(numbers(&[put(1, &a), put(2, &a), put(3, &a)]), [1, 2]);
        assert_eq!(numbers(&[put(1, &both), put(2, &a)]), [0; 0]);
        assert_eq!(numbers(&[put(1, &a), record(2, Some(2), What::Delete, &both)]), [1]);
        assert_eq!(numbers(&[put(1, &a), record(2, None, What::Put, &both)]), [0; 0]);
        let attribute = |number| record(number, Some(number), What::Attribute("acl".into()), &a);
        assert_eq!(numbers(&[attribute(1), put(2, &a), attribute(3)]), [1]);
        assert_eq!(numbers(&[record(1, Some(1), What::Version("v".into()), &a), put(2, &a)]), [0; 0]);
        let mut unknown = put(1, &a);
        unknown.replies[1].1 = Said::Unknown;
        assert_eq!(numbers(&[unknown, put(2, &both)]), [0; 0]);
        let mut elsewhere = put(2, &both);
        elsewhere.intent.id.gateway = 2;
        assert_eq!(numbers(&[put(1, &a), elsewhere]), [0; 0]);
    }

    #[test]
    fn a_sighting_goes_if_a_later_one_says_the_same() {
        let seen = |number, replies: &[(&str, bool)]| record(number, None, What::Seen, replies);
        assert_eq!(
            numbers(&[seen(1, &[("a", true)]), seen(2, &[("b", true)]), seen(3, &[("a", true)])]),
            [1]
        );
    }
}
