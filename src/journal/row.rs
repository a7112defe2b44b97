//! What an engine with tables keeps of an object and of a write, apart from their names.

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Intent, Known, Later, Object, RECORDS_MOST, Record, Said, Standing, Unseen, What, WriteId,
    rules::{is_divergence, millis, orphaned_again},
};

/// The columns of an object that a new record changes.
#[derive(Debug, Clone)]
pub struct Row {
    pub id: i64,
    pub standing: Standing,
    /// Whether a record says that backends may not agree.
    pub diverged: bool,
    pub due: i64,
    /// Before this nobody may decide, because of records of unknown outcome.
    pub calm: i64,
    /// It has been leased, and not given back.
    pub leased: bool,
    /// A record was replaced by another since then.
    pub replaced: bool,
    pub attempts: u32,
    pub records: i64,
    /// How many there ever were.
    pub appended: i64,
    /// What they say to gateways; `retold` = one of them has taken another form, and they are to be asked again.
    pub known: Known,
    pub retold: bool,
}

impl Row {
    /// Of an object that is not in the journal yet, and has no record.
    pub fn new(now: i64) -> Row {
        Row {
            id: 0,
            standing: Standing::Open,
            diverged: false,
            due: now,
            calm: now,
            leased: false,
            replaced: false,
            attempts: 0,
            records: 0,
            appended: 0,
            known: Known::default(),
            retold: false,
        }
    }

    /// A record has come; `known` is what is there of the same write.
    pub fn add(&mut self, record: &Record, known: Option<&Record>, now: i64, settle: i64) {
        match known {
            Some(known) => {
                self.replaced |= known != record;
                self.retold |= known != record;
            }
            None => {
                self.records += 1;
                self.appended += 1;
            }
        }
        self.known.add(record);
        self.diverged |= is_divergence(record);
        let calm = if record.is_uncertain() { now + settle } else { now };
        self.calm = self.calm.max(calm);
        let due = now.max(self.calm);
        let is_taken = self.leased && self.due > now;
        self.due = if is_taken { due.max(self.due) } else { due };
        if self.standing != Standing::Open {
            self.standing = Standing::Open;
            self.attempts = 0;
        }
    }
}

impl Row {
    /// Whether its records are to be asked what they say to gateways, and can all be read.
    pub fn is_to_be_asked(&self) -> bool {
        self.retold && usize::try_from(self.records).is_ok_and(|records| records <= RECORDS_MOST)
    }
}

/// How an object is given back.
#[derive(Debug, Clone, Copy)]
pub struct Back {
    pub due: i64,
    /// Before this nobody may decide.
    pub calm: i64,
    /// Nobody has seen the end of what the worker sent.
    pub unseen: bool,
}

impl Back {
    pub fn later(later: Later, now: i64) -> Back {
        let due = now + millis(later.pause);
        Back { due, calm: if later.calm { due } else { 0 }, unseen: later.unseen }
    }

    /// Nothing is to be waited for.
    pub fn at_once(now: i64) -> Back {
        Back { due: now, calm: 0, unseen: false }
    }

    /// `unsettled`: for so long may happen what the worker sent.
    pub fn aside(unsettled: Option<Duration>, now: i64) -> Back {
        let calm = unsettled.map_or(0, |unsettled| now + millis(unsettled));
        Back { due: now, calm, unseen: unsettled.is_some() }
    }
}

/// From its columns.
pub fn unseen(since: Option<i64>, until: Option<i64>) -> Option<Unseen> {
    since.map(|since| Unseen { since, until: until.unwrap_or(i64::MAX) })
}

pub fn code(standing: Standing) -> i16 {
    match standing {
        Standing::Open => 0,
        Standing::Parked => 1,
        Standing::Dead => 2,
    }
}

pub fn standing(code: i64) -> Standing {
    match code {
        1 => Standing::Parked,
        2 => Standing::Dead,
        _ => Standing::Open,
    }
}

/// A write but for what has columns of its own: the object and the id. Borrowed where it is written: each write has its
/// payload made while its client waits.
#[derive(Debug, Serialize, Deserialize)]
struct Payload<'a> {
    what: Cow<'a, What>,
    region: Cow<'a, str>,
    req_id: Cow<'a, str>,
    length: Option<u64>,
    begun: i64,
    strong: bool,
    /// At which it began, and ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    turn: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_turn: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    commit: Option<i64>,
    #[serde(default)]
    ended: i64,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    replies: Cow<'a, [(String, Said)]>,
}

impl<'a> Payload<'a> {
    fn of(intent: &'a Intent, turn: Option<i64>) -> Payload<'a> {
        Payload {
            what: Cow::Borrowed(&intent.what),
            region: Cow::Borrowed(&intent.region),
            req_id: Cow::Borrowed(&intent.req_id),
            length: intent.length,
            begun: intent.begun,
            strong: intent.strong,
            turn,
            ended_turn: None,
            commit: None,
            ended: 0,
            replies: Cow::Borrowed(&[]),
        }
    }
}

/// JSON. Only a strong intent was there before anything was sent, so only its turn says something; `None` = it may have
/// been sent before.
pub fn intent_payload(intent: &Intent, turn: Option<i64>) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Payload::of(intent, turn.filter(|_| intent.strong)))
}

/// JSON.
pub fn record_payload(record: &Record) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Payload {
        ended_turn: record.turn,
        commit: record.commit,
        ended: record.ended,
        replies: Cow::Borrowed(&record.replies),
        ..Payload::of(&record.intent, record.intent.turn)
    })
}

/// JSON.
pub fn known_payload(known: &Known) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(known)
}

/// `None` = its records must be asked: the row is of the first version of the tables, or damaged.
pub fn known(payload: Option<&[u8]>) -> Option<Known> {
    serde_json::from_slice(payload?).ok()
}

/// A row whose payload is not what this program writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what is kept of write {} of gateway {} cannot be read: {why}", id.number, id.gateway)]
pub struct Unreadable {
    id: WriteId,
    /// Without anything of the payload.
    why: String,
}

impl Unreadable {
    fn new(id: WriteId, error: &serde_json::Error) -> Unreadable {
        let kind = if error.is_data() { "no write" } else { "no JSON" };
        Unreadable { id, why: format!("{kind}, at line {}, column {}", error.line(), error.column()) }
    }

    /// Stands for the row where records are looked at: a write that may have been any, with any outcome, at any time.
    pub fn stand_in(&self, object: Object) -> Record {
        let (region, req_id) = (String::new(), String::new());
        let what = What::Put;
        let intent = Intent {
            id: self.id,
            object,
            what,
            region,
            req_id,
            length: None,
            begun: 0,
            strong: false,
            turn: None,
        };
        Record::orphaned(intent, 0)
    }
}

pub fn intent(id: WriteId, object: Object, payload: &[u8]) -> Result<Intent, Unreadable> {
    Ok(record(id, object, payload)?.intent)
}

pub fn record(id: WriteId, object: Object, payload: &[u8]) -> Result<Record, Unreadable> {
    let payload: Payload<'_> =
        serde_json::from_slice(payload).map_err(|error| Unreadable::new(id, &error))?;
    let intent = Intent {
        id,
        object,
        what: payload.what.into_owned(),
        region: payload.region.into_owned(),
        req_id: payload.req_id.into_owned(),
        length: payload.length,
        begun: payload.begun,
        strong: payload.strong,
        turn: payload.turn,
    };
    let Payload { ended_turn: turn, commit, ended, replies, .. } = payload;
    Ok(Record { intent, commit, ended, turn, replies: replies.into_owned() })
}

/// The record, or what stands for it.
pub fn record_or_stand_in(id: WriteId, object: Object, payload: &[u8]) -> Record {
    record(id, object.clone(), payload).unwrap_or_else(|unreadable| unreadable.stand_in(object))
}

/// What is left of a write whose gateway died.
#[derive(Debug)]
pub struct Orphan {
    pub record: Record,
    /// Its intent could not be read: that stays as it was found, in place of the record, which stands for it.
    pub unreadable: Option<Vec<u8>>,
}

/// From the payloads of its intent, and of the record that is there of it; `None` = that stays as it is.
pub fn orphan(id: WriteId, object: Object, begun: &[u8], known: Option<&[u8]>, now: i64) -> Option<Orphan> {
    let readable = |record| Orphan { record, unreadable: None };
    if let Some(known) = known {
        // One that cannot be read is parked when it is due.
        return orphaned_again(&record(id, object, known).ok()?, now).map(readable);
    }
    Some(match intent(id, object.clone(), begun) {
        Ok(intent) => readable(Record::orphaned(intent, now)),
        Err(why) => Orphan { record: why.stand_in(object), unreadable: Some(begun.to_vec()) },
    })
}

/// Records of an object, in the order in which they came.
#[derive(Debug, Default)]
pub struct Records {
    /// Those that cannot be read have stand-ins.
    pub all: Vec<Record>,
    /// The first of those. As long as there is one, nobody can decide.
    pub unreadable: Option<Unreadable>,
}

impl Records {
    /// From positions, writes and payloads.
    pub fn of(mut rows: Vec<(i64, WriteId, Vec<u8>)>, object: &Object) -> Records {
        rows.sort_unstable_by_key(|(position, write, _)| (*position, *write));
        let mut records = Records::default();
        rows.iter().for_each(|(_, write, payload)| records.add(*write, object.clone(), payload));
        records
    }

    fn add(&mut self, id: WriteId, object: Object, payload: &[u8]) {
        let record = record(id, object.clone(), payload).unwrap_or_else(|unreadable| {
            let stand_in = unreadable.stand_in(object);
            self.unreadable.get_or_insert(unreadable);
            stand_in
        });
        self.all.push(record);
    }
}

/// Records of an object that is dropped: for whoever wants to know what was known.
pub fn records_payload(records: &[Record]) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(records)
}
