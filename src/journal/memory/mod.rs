//! The journal in memory: what the tables of the other engines are, as maps, for simulations and tests.
//!
//! No method ever waits, [`Journal::news`] neither, so that it runs under any executor; its clock is given to it.
//! What it holds outlives the gateways and workers of a simulation, as a database does.

mod tables;

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use self::tables::{Entry, Gateway, Held, Tables};
use super::{
    Case, Change, Clock, Counts, Dropped, Enrolled, Filter, Journal, JournalError, Known, Later, Lease, Mark,
    News, Object, PAGE, Record, Resolution, Standing, Unresolved, Wanted, WriteId,
    row::Back,
    rules::{Batch, Digest, is_divergence, may_tell, millis},
};

pub struct Memory {
    clock: Clock,
    tables: Mutex<Tables>,
}

impl Memory {
    pub fn new(clock: Clock) -> Memory {
        Memory { clock, tables: Mutex::new(Tables::default()) }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> i64 {
        (self.clock)()
    }
}

#[async_trait]
impl Journal for Memory {
    async fn enrol(&self, name: &str) -> Result<i64, JournalError> {
        let seen = self.now();
        let mut tables = self.tables();
        tables.gateways.push(Gateway { name: name.to_owned(), seen, gone: false, deaths: 0 });
        Ok(tables.gateways.len() as i64)
    }

    async fn alive(&self, gateway: &Enrolled) -> Result<Option<i64>, JournalError> {
        let now = self.now();
        let mut tables = self.tables();
        let deaths = tables.enrolled(gateway).map(|gateway| {
            (gateway.seen, gateway.gone) = (now, false);
            gateway.deaths
        });
        Ok(deaths)
    }

    async fn leave(&self, gateway: &Enrolled, settle: Duration) -> Result<(), JournalError> {
        let now = self.now();
        let mut tables = self.tables();
        if tables.enrolled(gateway).is_some() {
            tables.orphan(gateway.number, now, settle);
        }
        Ok(())
    }

    async fn adopt(&self, silent: Duration, settle: Duration) -> Result<usize, JournalError> {
        let now = self.now();
        let mut tables = self.tables();
        let mut adopted = 0;
        for id in 1..=tables.gateways.len() as i64 {
            let has_intents = !tables.parts_of(id).is_empty();
            let is_silent = |gateway: &&mut Gateway| gateway.seen <= now - millis(silent);
            let gateway = tables.gateway(id).filter(is_silent);
            if gateway.is_some_and(|gateway| !gateway.gone || has_intents) {
                adopted += tables.orphan(id, now, settle);
            }
        }
        Ok(adopted)
    }

    async fn apply(
        &self,
        gateway: &Enrolled,
        changes: Vec<Change>,
        settle: Duration,
    ) -> Result<(), JournalError> {
        let now = self.now();
        let batch = Batch::of(changes);
        let mut tables = self.tables();
        let deaths = tables.enrolled(gateway).map(|gateway| gateway.deaths);
        may_tell(gateway, deaths)?;
        for id in batch.gateways() {
            if let Some(gateway) = tables.gateway(id) {
                gateway.seen = now;
            }
        }
        let turn = tables.turn();
        for (part, intent) in batch.begun {
            tables.begin(part, Arc::unwrap_or_clone(intent), Some(turn));
        }
        for (part, intent) in batch.still {
            if !tables.intents.contains_key(&part) {
                tables.begin(part, Arc::unwrap_or_clone(intent), None);
            }
        }
        for record in batch.diverged.into_values() {
            tables.add(&record, turn, now, settle);
        }
        let settled = batch.settled.into_values();
        let kept: Vec<Record> = settled.filter(|record| tables.is_contested(record)).collect();
        for record in kept {
            tables.add(&record, turn, now, settle);
        }
        for (id, digest) in batch.ended {
            let parts = digest.map_or_else(|| tables.parts(id..=id), |digest| vec![(id, digest)]);
            for part in parts {
                tables.end(part);
            }
        }
        Ok(())
    }

    async fn lease(
        &self,
        worker: &str,
        wanted: Wanted,
        most: usize,
        hold: Duration,
        settle: Duration,
    ) -> Result<Vec<(Lease, Case)>, JournalError> {
        let now = self.now();
        let mut tables = self.tables();
        let is_wanted = |entry: &Entry| {
            entry.standing == Standing::Open
                && entry.due <= now
                && (wanted == Wanted::Misplaced || entry.records.iter().any(is_divergence))
        };
        let due = tables.objects.iter().filter(|(_, entry)| is_wanted(entry));
        let mut due: Vec<(i64, i64, Digest)> =
            due.map(|(digest, entry)| (entry.due, entry.id, *digest)).collect();
        due.sort_unstable();
        due.truncate(most);
        let token = tables.turn();
        let mut leases = Vec::with_capacity(due.len());
        for (_, _, digest) in due {
            let Some(entry) = tables.objects.get_mut(&digest) else { continue };
            let until = now + millis(hold);
            entry.lease(Held { worker: worker.to_owned(), token, until }, until + millis(settle));
            let lease = Lease { object: entry.object.clone(), worker: worker.to_owned(), token };
            if let Some(entry) = tables.objects.get(&digest) {
                leases.push((lease, tables.case(&digest, entry)));
            }
        }
        Ok(leases)
    }

    async fn renew(&self, lease: &Lease, hold: Duration, settle: Duration) -> Result<bool, JournalError> {
        let now = self.now();
        let mut tables = self.tables();
        let Some(entry) = tables.leased(lease, now) else { return Ok(false) };
        let until = now + millis(hold);
        if let Some(held) = &mut entry.lease {
            held.until = until;
        }
        entry.due = (until + millis(settle)).max(entry.calm);
        Ok(true)
    }

    async fn resolve(
        &self,
        lease: &Lease,
        seen: &[WriteId],
        sightings: &[WriteId],
    ) -> Result<Resolution, JournalError> {
        let now = self.now();
        let mut tables = self.tables();
        let digest = lease.object.digest();
        let is_under_way = tables.under_way.contains_key(&digest);
        let Some(entry) = tables.leased(lease, now) else { return Ok(Resolution::Lost) };
        if is_under_way || !entry.knows_only(seen) {
            return Ok(Resolution::Changed);
        }
        if !entry.keep_only(sightings, now) {
            tables.objects.remove(&digest);
        }
        tables.resolved += 1;
        tables.tell(lease.object.clone());
        Ok(Resolution::Resolved)
    }

    async fn postpone(&self, lease: &Lease, later: Later, why: &str) -> Result<(), JournalError> {
        let now = self.now();
        let mut tables = self.tables();
        if let Some(entry) = tables.leased(lease, now) {
            entry.attempts += u32::from(later.failed);
            why.clone_into(&mut entry.reason);
            entry.release(Back::later(later, now));
        }
        Ok(())
    }

    async fn set_aside(
        &self,
        lease: &Lease,
        standing: Standing,
        unsettled: Option<Duration>,
        seen: &[WriteId],
        why: &str,
    ) -> Result<(), JournalError> {
        let now = self.now();
        let mut tables = self.tables();
        if let Some(entry) = tables.leased(lease, now) {
            if entry.has_too_many() || entry.knows_only(seen) {
                entry.standing = standing;
                why.clone_into(&mut entry.reason);
            }
            entry.release(Back::aside(unsettled, now));
        }
        Ok(())
    }

    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Object>,
        most: usize,
    ) -> Result<Vec<Case>, JournalError> {
        let after = after.map(Object::digest);
        let tables = self.tables();
        let entries = tables.objects.iter().filter(|(digest, _)| after.is_none_or(|after| **digest > after));
        let cases = entries.map(|(digest, entry)| tables.case(digest, entry));
        Ok(cases.filter(|case| filter.takes(case)).take(most).collect())
    }

    async fn aside(&self, most: usize) -> Result<Vec<Case>, JournalError> {
        let tables = self.tables();
        let aside = tables.objects.iter().filter(|(_, entry)| entry.standing != Standing::Open);
        let mut aside: Vec<(&Digest, &Entry)> = aside.collect();
        aside.sort_unstable_by_key(|(_, entry)| Reverse(entry.id));
        Ok(aside.into_iter().take(most).map(|(digest, entry)| tables.case(digest, entry)).collect())
    }

    async fn show(&self, object: &Object) -> Result<Option<Case>, JournalError> {
        let digest = object.digest();
        let tables = self.tables();
        Ok(tables.objects.get(&digest).map(|entry| tables.case(&digest, entry)))
    }

    async fn known(&self, object: &Object) -> Result<Option<Known>, JournalError> {
        let tables = self.tables();
        Ok(tables.objects.get(&object.digest()).map(|entry| Known::of(&entry.records)))
    }

    async fn retry(&self, object: &Object) -> Result<bool, JournalError> {
        let now = self.now();
        let mut tables = self.tables();
        let Some(entry) = tables.objects.get_mut(&object.digest()) else { return Ok(false) };
        entry.standing = Standing::Open;
        entry.attempts = 0;
        entry.reason.clear();
        if !entry.is_taken(now) {
            entry.release(Back { due: now, calm: 0, unseen: entry.lease.is_some() });
        }
        Ok(true)
    }

    async fn drop_object(&self, object: &Object, reason: &str) -> Result<bool, JournalError> {
        let now = self.now();
        let mut tables = self.tables();
        let digest = object.digest();
        let is_free = tables.objects.get(&digest).is_some_and(|entry| !entry.is_taken(now));
        if !is_free || tables.under_way.contains_key(&digest) {
            return Ok(false);
        }
        let records = tables.objects.remove(&digest).map(|entry| entry.records);
        let number = tables.dropped.len() as i64 + 1;
        let (object, reason) = (object.clone(), reason.to_owned());
        tables.tell(object.clone());
        tables.dropped.push(Dropped { number, object, at: now, reason, records });
        Ok(true)
    }

    async fn dropped(&self, before: Option<i64>, most: usize) -> Result<Vec<Dropped>, JournalError> {
        let tables = self.tables();
        let last_first = tables.dropped.iter().rev();
        let found = last_first.filter(|dropped| before.is_none_or(|before| dropped.number < before));
        Ok(found.take(most).cloned().collect())
    }

    async fn counts(&self) -> Result<Counts, JournalError> {
        let now = self.now();
        let tables = self.tables();
        let mut counts = Counts {
            intents: tables.intents.len() as u64,
            resolved: tables.resolved,
            oldest: tables.objects.values().filter(|e| e.standing == Standing::Open).map(|e| e.since).min(),
            ..Counts::default()
        };
        for entry in tables.objects.values() {
            match entry.standing {
                Standing::Open => counts.open += 1,
                Standing::Parked => counts.parked += 1,
                Standing::Dead => counts.dead += 1,
            }
            counts.leased += u64::from(entry.lease.as_ref().is_some_and(|held| held.until > now));
        }
        Ok(counts)
    }

    async fn unresolved(&self, after: Option<&Object>, most: usize) -> Result<Unresolved, JournalError> {
        let (after, most) = (after.map(Object::digest), most.min(PAGE));
        let tables = self.tables();
        let behind = tables.objects.iter().filter(|(digest, _)| after.is_none_or(|after| **digest > after));
        let known = |(_, entry): (&Digest, &Entry)| (entry.object.clone(), Known::of(&entry.records));
        let objects: Vec<_> = behind.take(most).map(known).collect();
        Ok(Unresolved { is_last: objects.len() < most, objects, mark: Mark(tables.event_count) })
    }

    async fn news(&self, mark: Mark, _patience: Duration) -> Result<News, JournalError> {
        let tables = self.tables();
        let new = tables.event_count - mark.0;
        if new < 0 || new > tables.events.len() as i64 {
            return Ok(News::Reload);
        }
        let changed = tables.events.iter().rev().take(usize::try_from(new).unwrap_or(0));
        let changed: BTreeMap<Digest, &Object> = changed.map(|object| (object.digest(), object)).collect();
        let known = |digest| tables.objects.get(digest).map(|entry: &Entry| Known::of(&entry.records));
        let changed = changed.iter().map(|(digest, object)| ((*object).clone(), known(digest))).collect();
        Ok(News::Changed(changed, Mark(tables.event_count)))
    }
}
