//! Where objects are: their ids by their digests.
//!
//! Digests come in no order. An index that takes each object as it comes changes a page anywhere for each one: in a large
//! journal that page is read, written to the log and copied into the file for one object alone. So the table `digests`
//! stays behind: what has been added to `objects` and removed from it since is here in memory, and goes into the table when
//! there is much of it, in the order of digests, so that what is on a page is changed together.
//!
//! Each connection has its own, and reads in each transaction what others have done since its last one: objects have ever
//! greater ids, and what was removed is in `removed` until the table has it. What holds at any time:
//!
//! - an object is in `digests`, or its id is greater than `counters.indexed`;
//! - what is in `digests` and has no object any more is in `removed`, with a number greater than `counters.swept`: an entry
//!   says only where to look, and the object's own digest decides.
//!
//! Several processes may move at once. All of what they do can be done twice; who sees that another was through first
//! begins anew.

use std::{
    cell::{RefCell, RefMut},
    collections::BTreeMap,
    ops::{Bound, Deref},
};

use rusqlite::{OptionalExtension, Result, Row, Transaction, params};

/// What `digests` has of a digest: nearly always enough, and a third of a page less for each object.
type Prefix = [u8; PREFIX];
const PREFIX: usize = 6;
/// At most 2 MiB, or double of that while it is moved.
const AMOUNTS: Amounts = Amounts { least: 4 << 10, most: 64 << 10, step: 512 };
/// The part of all objects that is left behind: about ten changes share a page then.
const LEFT: usize = 16;
/// The part of all that goes with a transaction where it is more than a step: so that large transactions do not leave more
/// here than they take along.
const PART: usize = 64;
/// For each change that goes, so many rows of `removed` go at most: there is one for each removal.
const SWEEP: usize = 4;

/// A transaction, and where its objects are.
pub struct Tables<'a> {
    transaction: &'a Transaction<'a>,
    index: RefCell<&'a mut Index>,
}

/// What a connection knows of changes that `digests` may not have.
#[derive(Debug)]
pub struct Index {
    amounts: Amounts,
    /// Whether it has seen what this transaction sees.
    is_current: bool,
    /// `None` = nothing was read yet.
    bounds: Option<Bounds>,
    /// How many objects there are.
    objects: usize,
    /// Greatest id of an object, and greatest number of `removed`, that it knows.
    seen: Bounds,
    late: BTreeMap<(Prefix, i64), Late>,
    moving: Option<Moving>,
}

#[derive(Debug, Clone, Copy)]
struct Amounts {
    /// Changes that are left here before they go into the table, whatever there is.
    least: usize,
    most: usize,
    /// So many go with one transaction.
    step: usize,
}

/// `counters.indexed` and `counters.swept`, or other numbers of the two kinds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    indexed: i64,
    swept: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    Added,
    /// With this number.
    Removed(i64),
}

/// Changes that go into the table.
#[derive(Debug, Clone, Copy)]
struct Moving {
    /// All up to these, and of what comes meanwhile what is further behind.
    until: Bounds,
    /// How far, in the order of digests.
    moved: (Prefix, i64),
}

impl<'a> Deref for Tables<'a> {
    type Target = Transaction<'a>;

    fn deref(&self) -> &Transaction<'a> {
        self.transaction
    }
}

impl<'a> Tables<'a> {
    pub fn of(transaction: &'a Transaction<'a>, index: &'a mut Index) -> Tables<'a> {
        index.is_current = false;
        Tables { transaction, index: RefCell::new(index) }
    }

    /// The id of the object with this digest.
    pub fn find(&self, digest: &[u8; 32]) -> Result<Option<i64>> {
        let prefix = prefix(digest);
        let index = self.current()?;
        let late = index.late.range((prefix, i64::MIN)..=(prefix, i64::MAX));
        for id in late.filter(|(_, late)| **late == Late::Added).map(|((_, id), _)| *id) {
            if self.digest(id)?.as_deref() == Some(digest) {
                return Ok(Some(id));
            }
        }
        let mut statement = self.prepare_cached("SELECT object FROM digests WHERE prefix = ?1")?;
        let mut rows = statement.query([prefix])?;
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            if self.digest(id)?.as_deref() == Some(digest) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// An object that has come with this transaction, and was not found before.
    pub fn added(&self, digest: &[u8; 32], id: i64) -> Result<()> {
        let mut index = self.current()?;
        index.late.insert((prefix(digest), id), Late::Added);
        index.seen.indexed = index.seen.indexed.max(id);
        Ok(())
    }

    /// Ids of objects whose digests come after this one (with nothing, of all), in the order of digests: so many, if there
    /// are so many.
    pub fn behind(&self, after: &[u8], most: usize) -> Result<Vec<i64>> {
        let first = prefix(after);
        let index = self.current()?;
        let mut late = index.late.range((first, i64::MIN)..).map(|(place, _)| *place).peekable();
        let sql = "SELECT prefix, object FROM digests WHERE prefix >= ?1 ORDER BY prefix, object";
        let mut statement = self.prepare_cached(sql)?;
        let mut rows = statement.query([first])?;
        let mut early = place(rows.next()?)?;
        let (mut last, mut found) = (first, Vec::new());
        while let Some(next) = least(early, late.peek().copied()) {
            // Those of one prefix are in no order.
            if found.len() >= most && next.0 != last {
                break;
            }
            last = next.0;
            if early == Some(next) {
                early = place(rows.next()?)?;
            }
            late.next_if_eq(&next);
            // What is gone is in `late` as long as it is in the table.
            if !matches!(index.late.get(&next), Some(Late::Removed(_))) {
                let digest = self.digest(next.1)?.filter(|digest| &digest[..] > after);
                found.extend(digest.map(|digest| (digest, next.1)));
            }
        }
        found.sort_unstable();
        found.truncate(most);
        Ok(found.into_iter().map(|(_, id)| id).collect())
    }

    /// Moves a part of what is late into the table, where that is much.
    pub fn advance(&self) -> Result<()> {
        let mut index = self.index.borrow_mut();
        // Nobody asked where an object is: there is nothing new.
        if !index.is_current {
            return Ok(());
        }
        let Some(moving) = index.moving() else { return Ok(()) };
        let from = (Bound::Excluded(moving.moved), Bound::Unbounded);
        let most = index.amounts.step.max(index.late.len() / PART);
        let part: Vec<_> = index.late.range(from).take(most).map(|(place, late)| (*place, *late)).collect();
        for (place, late) in &part {
            let sql = match late {
                Late::Added => "INSERT OR IGNORE INTO digests (prefix, object) VALUES (?1, ?2)",
                Late::Removed(_) => "DELETE FROM digests WHERE prefix = ?1 AND object = ?2",
            };
            self.prepare_cached(sql)?.execute(params![place.0, place.1])?;
            index.late.remove(place);
        }
        // Those of earlier moves, and never the newest: so none gets the number of another.
        let sql = "DELETE FROM removed WHERE id < (SELECT swept FROM counters)
            AND id < (SELECT min(id) FROM removed) + ?1";
        self.prepare_cached(sql)?.execute([(most * SWEEP) as i64])?;
        match part.last() {
            Some((place, _)) if part.len() == most => index.moving = Some(Moving { moved: *place, ..moving }),
            _ => {
                let sql = "UPDATE counters SET indexed = ?1, swept = ?2";
                self.prepare_cached(sql)?.execute([moving.until.indexed, moving.until.swept])?;
                index.begin(moving.until);
            }
        }
        Ok(())
    }

    /// What it knows may be of changes that are undone.
    pub fn forget(&self) {
        self.index.borrow_mut().forget();
    }

    /// As it is: one that is damaged concerns its object alone.
    fn digest(&self, id: i64) -> Result<Option<Vec<u8>>> {
        let sql = "SELECT digest FROM objects WHERE id = ?1";
        self.prepare_cached(sql)?.query_row([id], |row| row.get(0)).optional()
    }

    /// With what others have done.
    fn current(&self) -> Result<RefMut<'_, &'a mut Index>> {
        let mut index = self.index.borrow_mut();
        if index.is_current {
            return Ok(index);
        }
        let sql = "SELECT indexed, swept, open + parked + dead FROM counters";
        let (bounds, objects): (_, i64) = self
            .prepare_cached(sql)?
            .query_row([], |row| Ok((Bounds { indexed: row.get(0)?, swept: row.get(1)? }, row.get(2)?)))?;
        index.objects = usize::try_from(objects).unwrap_or(0);
        if index.bounds != Some(bounds) {
            index.begin(bounds);
        }
        let mut statement = self.prepare_cached("SELECT id, digest FROM objects WHERE id > ?1")?;
        let mut rows = statement.query([index.seen.indexed])?;
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            index.late.insert((prefix(row.get_ref(1)?.as_blob()?), id), Late::Added);
            index.seen.indexed = id;
        }
        let mut statement = self.prepare_cached("SELECT id, object, prefix FROM removed WHERE id > ?1")?;
        let mut rows = statement.query([index.seen.swept])?;
        while let Some(row) = rows.next()? {
            let (number, id) = (row.get(0)?, row.get(1)?);
            index.late.insert((prefix(row.get_ref(2)?.as_blob()?), id), Late::Removed(number));
            index.seen.swept = number;
            // It may have come and gone since it was looked: nothing but this tells that there was one.
            index.seen.indexed = index.seen.indexed.max(id);
        }
        index.is_current = true;
        Ok(index)
    }
}

impl Default for Index {
    fn default() -> Index {
        Index::gathering(AMOUNTS)
    }
}

impl Index {
    fn gathering(amounts: Amounts) -> Index {
        Index {
            amounts,
            is_current: false,
            bounds: None,
            objects: 0,
            seen: Bounds::default(),
            late: BTreeMap::new(),
            moving: None,
        }
    }

    /// What it knows may be of changes that are undone.
    pub fn forget(&mut self) {
        *self = Index::gathering(self.amounts);
    }

    /// The table has all up to these.
    fn begin(&mut self, bounds: Bounds) {
        self.late.retain(|(_, id), late| match late {
            Late::Added => *id > bounds.indexed,
            Late::Removed(number) => *number > bounds.swept,
        });
        self.seen.indexed = self.seen.indexed.max(bounds.indexed);
        self.seen.swept = self.seen.swept.max(bounds.swept);
        self.bounds = Some(bounds);
        self.moving = None;
    }

    /// What is to be moved, if there is enough.
    fn moving(&self) -> Option<Moving> {
        let Amounts { least, most, .. } = self.amounts;
        let is_much = self.late.len() >= (self.objects / LEFT).clamp(least, most);
        self.moving.or(is_much.then_some(Moving { until: self.seen, moved: ([0; PREFIX], i64::MIN) }))
    }
}

fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn place(row: Option<&Row<'_>>) -> Result<Option<(Prefix, i64)>> {
    row.map(|row| Ok((prefix(row.get_ref(0)?.as_blob()?), row.get(1)?))).transpose()
}

fn prefix(digest: &[u8]) -> Prefix {
    let mut prefix = [0; PREFIX];
    prefix.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
    prefix
}

#[cfg(test)]
mod tests;
