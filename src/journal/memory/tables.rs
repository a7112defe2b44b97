//! What is in the journal in memory, and how it changes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::RangeInclusive,
    time::Duration,
};

use crate::journal::{
    Case, Dropped, Enrolled, Intent, Lease, Object, RECORDS_MOST, RECORDS_READ, Record, Standing, Unseen,
    WriteId,
    row::Back,
    rules::{Digest, KEPT_EVENTS, Part, are_many, millis, orphaned_again, stamped, superfluous},
};

#[derive(Default)]
pub struct Tables {
    pub gateways: Vec<Gateway>,
    pub intents: BTreeMap<Part, Intent>,
    pub under_way: BTreeMap<Digest, BTreeSet<WriteId>>,
    pub objects: BTreeMap<Digest, Entry>,
    pub dropped: Vec<Dropped>,
    pub events: VecDeque<Object>,
    /// Of all that there ever were, also those that are not kept.
    pub event_count: i64,
    pub tokens: i64,
    pub ids: i64,
    pub resolved: u64,
}

/// Its id is its place, beginning with 1.
pub struct Gateway {
    pub name: String,
    pub seen: i64,
    pub gone: bool,
    pub deaths: i64,
}

pub struct Entry {
    /// In the order in which they came.
    pub id: i64,
    pub object: Object,
    pub standing: Standing,
    pub records: Vec<Record>,
    pub attempts: u32,
    pub since: i64,
    pub due: i64,
    /// Before this nobody may decide, because of records of unknown outcome.
    pub calm: i64,
    pub lease: Option<Held>,
    pub unseen: Option<Unseen>,
    pub reason: String,
    /// A record has been replaced by another since the object was leased.
    pub replaced: bool,
}

pub struct Held {
    pub worker: String,
    pub token: i64,
    pub until: i64,
}

impl Entry {
    /// While it is leased, or was and may be worked at still.
    pub fn is_taken(&self, now: i64) -> bool {
        self.lease.is_some() && self.due > now
    }

    /// Leases it; what an earlier lease has left, which ran out or whose changes nobody has seen the end of, has come.
    pub fn lease(&mut self, held: Held, due: i64) {
        if let Some(lost) = self.lease.take() {
            self.is_unseen(lost.token);
        }
        if let Some(unseen) = &mut self.unseen {
            unseen.until = unseen.until.min(held.token);
        }
        self.lease = Some(held);
        self.due = due;
        self.replaced = false;
    }

    /// Nobody has seen the end of what was changed under a lease.
    fn is_unseen(&mut self, token: i64) {
        let since = self.unseen.map_or(token, |unseen| unseen.since);
        self.unseen = Some(Unseen { since, until: i64::MAX });
    }

    /// Gives it back.
    pub fn release(&mut self, back: Back) {
        if let Some(held) = self.lease.take().filter(|_| back.unseen) {
            self.is_unseen(held.token);
        }
        self.calm = self.calm.max(back.calm);
        self.due = back.due.max(self.calm);
    }

    /// More records than anybody reads.
    pub fn has_too_many(&self) -> bool {
        self.records.len() > RECORDS_MOST
    }

    /// Those with the least numbers, where there are too many.
    fn readable(&self) -> Vec<Record> {
        if !self.has_too_many() {
            return self.records.clone();
        }
        let mut ids: Vec<WriteId> = self.records.iter().map(Record::id).collect();
        ids.sort_unstable();
        let last = ids[RECORDS_READ - 1];
        self.records.iter().filter(|record| record.id() <= last).cloned().collect()
    }

    pub fn knows_only(&self, seen: &[WriteId]) -> bool {
        !self.replaced
            && !self.has_too_many()
            && self.records.iter().all(|record| seen.contains(&record.id()))
    }

    /// Gives it back with these records and no others, as if they had just come; false = it has none of them.
    pub fn keep_only(&mut self, sightings: &[WriteId], now: i64) -> bool {
        self.records.retain(|record| sightings.contains(&record.id()));
        self.since = now;
        self.attempts = 0;
        self.reason.clear();
        self.unseen = None;
        self.release(Back::at_once(now));
        !self.records.is_empty()
    }

    /// A new record, or another form of one. `begun` is the turn of its intent, `calm` = nothing happens any more because of it.
    pub fn add(&mut self, record: &Record, begun: Option<i64>, turn: i64, now: i64, calm: i64) {
        let known = self.records.iter_mut().find(|known| known.id() == record.id());
        let record = stamped(record, known.as_deref(), begun, turn);
        match known {
            Some(known) => {
                self.replaced |= *known != record;
                *known = record;
            }
            None => {
                self.records.push(record);
                if are_many(self.records.len()) {
                    let superfluous = superfluous(&self.records);
                    self.records.retain(|record| !superfluous.contains(&record.id()));
                }
            }
        }
        self.calm = self.calm.max(calm);
        let due = now.max(self.calm);
        self.due = if self.is_taken(now) { due.max(self.due) } else { due };
        if self.standing != Standing::Open {
            self.standing = Standing::Open;
            self.attempts = 0;
        }
    }
}

impl Tables {
    pub fn begin(&mut self, part: Part, intent: Intent, turn: Option<i64>) {
        // Of another one the first bytes may have been sent before.
        let intent = Intent { turn: turn.filter(|_| intent.strong), ..intent };
        self.under_way.entry(part.1).or_default().insert(part.0);
        self.intents.insert(part, intent);
    }

    pub fn end(&mut self, part: Part) -> Option<Intent> {
        let intent = self.intents.remove(&part)?;
        let (id, digest) = part;
        if let Some(ids) = self.under_way.get_mut(&digest) {
            ids.remove(&id);
            if ids.is_empty() {
                self.under_way.remove(&digest);
            }
        }
        Some(intent)
    }

    /// What is under way of these writes.
    pub fn parts(&self, ids: RangeInclusive<WriteId>) -> Vec<Part> {
        let parts = (*ids.start(), [0; 32])..=(*ids.end(), [u8::MAX; 32]);
        self.intents.range(parts).map(|(part, _)| *part).collect()
    }

    /// What a gateway has under way.
    pub fn parts_of(&self, gateway: i64) -> Vec<Part> {
        self.parts(WriteId { gateway, number: i64::MIN }..=WriteId { gateway, number: i64::MAX })
    }

    /// Whether a settled write must be kept as a record.
    pub fn is_contested(&self, record: &Record) -> bool {
        let digest = record.intent.object.digest();
        let is_another = |id: &WriteId| *id != record.id();
        self.objects.contains_key(&digest)
            || self.under_way.get(&digest).is_some_and(|ids| ids.iter().any(is_another))
    }

    pub fn turn(&mut self) -> i64 {
        self.tokens += 1;
        self.tokens
    }

    pub fn add(&mut self, record: &Record, turn: i64, now: i64, settle: Duration) {
        let part = (record.id(), record.intent.object.digest());
        let begun = self.intents.get(&part).map_or(record.intent.turn, |intent| intent.turn);
        let calm = if record.is_uncertain() { now + millis(settle) } else { now };
        let object = record.intent.object.clone();
        let ids = &mut self.ids;
        let entry = self.objects.entry(object.digest()).or_insert_with(|| {
            *ids += 1;
            Entry {
                id: *ids,
                object: object.clone(),
                standing: Standing::Open,
                records: Vec::new(),
                attempts: 0,
                since: now,
                due: now,
                calm: now,
                lease: None,
                unseen: None,
                reason: String::new(),
                replaced: false,
            }
        });
        entry.add(record, begun, turn, now, calm);
        self.tell(object);
    }

    pub fn tell(&mut self, object: Object) {
        self.events.push_back(object);
        self.event_count += 1;
        if self.events.len() as i64 > KEPT_EVENTS {
            self.events.pop_front();
        }
    }

    /// Intents of a gateway become records; how many.
    pub fn orphan(&mut self, gateway: i64, now: i64, settle: Duration) -> usize {
        if let Some(gateway) = self.gateway(gateway) {
            gateway.gone = true;
            gateway.deaths += 1;
        }
        let parts = self.parts_of(gateway);
        let orphans: Vec<Intent> = parts.iter().filter_map(|part| self.end(*part)).collect();
        let turn = self.turn();
        for intent in orphans {
            let entry = self.objects.get(&intent.object.digest());
            let known = entry.and_then(|entry| entry.records.iter().find(|record| record.id() == intent.id));
            let orphan = match known {
                Some(known) => orphaned_again(known, now),
                None => Some(Record::orphaned(intent, now)),
            };
            orphan.into_iter().for_each(|orphan| self.add(&orphan, turn, now, settle));
        }
        parts.len()
    }

    pub fn gateway(&mut self, id: i64) -> Option<&mut Gateway> {
        let at = usize::try_from(id).ok()?.checked_sub(1)?;
        self.gateways.get_mut(at)
    }

    pub fn enrolled(&mut self, gateway: &Enrolled) -> Option<&mut Gateway> {
        self.gateway(gateway.number).filter(|known| known.name == gateway.name)
    }

    pub fn leased(&mut self, lease: &Lease, now: i64) -> Option<&mut Entry> {
        self.objects.get_mut(&lease.object.digest()).filter(|entry| {
            let held = entry.lease.as_ref();
            held.is_some_and(|held| {
                held.token == lease.token && held.worker == lease.worker && held.until > now
            })
        })
    }

    pub fn case(&self, digest: &Digest, entry: &Entry) -> Case {
        Case {
            object: entry.object.clone(),
            standing: entry.standing,
            records: entry.readable(),
            more: entry.records.len().saturating_sub(RECORDS_READ) as u64,
            under_way: self.under_way.get(digest).map_or(0, BTreeSet::len),
            unseen: entry.unseen,
            attempts: entry.attempts,
            since: entry.since,
            due: entry.due,
            reason: entry.reason.clone(),
        }
    }
}
