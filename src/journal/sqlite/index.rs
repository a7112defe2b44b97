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
//! - what is in `digests` and has no object any more is in `removed`, with a number greater than `counters.swept`, or goes
//!   with what is moved next. So an entry says only where to look: the object's own digest decides.
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
/// Changes that are left in memory before they go into the table: the more there are, the more of them share a page.
const LATE: usize = 64 << 10;
/// So many go into the table with one transaction, or a part of all: so that a large transaction does not leave more here
/// than it takes along.
const STEP: usize = 512;
const PART: usize = 64;
/// So many rows of `removed` at most go with them.
const SWEEP: i64 = 2048;

/// A transaction, and where its objects are.
pub struct Tables<'a> {
    transaction: &'a Transaction<'a>,
    index: RefCell<&'a mut Index>,
}

/// What a connection knows of changes that `digests` may not have.
#[derive(Debug, Default)]
pub struct Index {
    /// Whether it has seen what this transaction sees.
    is_current: bool,
    /// `None` = nothing was read yet.
    bounds: Option<Bounds>,
    /// Greatest id of an object, and greatest number of `removed`, that it knows.
    seen: Bounds,
    late: BTreeMap<(Prefix, i64), Late>,
    moving: Option<Moving>,
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
    /// All up to these.
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
        let late = self.current()?.added((prefix, i64::MIN)).take_while(|place| place.0 == prefix).collect::<Vec<_>>();
        for (_, id) in late {
            if self.digest(id)?.as_ref() == Some(digest) {
                return Ok(Some(id));
            }
        }
        let mut statement = self.prepare_cached("SELECT object FROM digests WHERE prefix = ?1")?;
        let mut rows = statement.query([prefix])?;
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            if self.digest(id)?.as_ref() == Some(digest) {
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
        let mut late = index.added((first, i64::MIN)).peekable();
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
            found.extend(self.digest(next.1)?.filter(|digest| &digest[..] > after).map(|digest| (digest, next.1)));
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
        let most = STEP.max(index.late.len() / PART);
        let part: Vec<_> = index.late.range(from).take(most).map(|(place, late)| (*place, *late)).collect();
        for (place, late) in &part {
            let sql = match late {
                Late::Added if place.1 <= moving.until.indexed => {
                    "INSERT OR IGNORE INTO digests (prefix, object) VALUES (?1, ?2)"
                }
                Late::Removed(number) if *number <= moving.until.swept => {
                    "DELETE FROM digests WHERE prefix = ?1 AND object = ?2"
                }
                _ => continue,
            };
            self.prepare_cached(sql)?.execute(params![place.0, place.1])?;
            index.late.remove(place);
        }
        // Those of earlier moves, and never the newest: so none gets the number of another.
        let sql = "DELETE FROM removed WHERE id < (SELECT swept FROM counters)
            AND id < (SELECT min(id) FROM removed) + ?1";
        self.prepare_cached(sql)?.execute([SWEEP])?;
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
        **self.index.borrow_mut() = Index::default();
    }

    fn digest(&self, id: i64) -> Result<Option<[u8; 32]>> {
        let sql = "SELECT digest FROM objects WHERE id = ?1";
        self.prepare_cached(sql)?.query_row([id], |row| row.get(0)).optional()
    }

    /// With what others have done.
    fn current(&self) -> Result<RefMut<'_, &'a mut Index>> {
        let mut index = self.index.borrow_mut();
        if index.is_current {
            return Ok(index);
        }
        let bounds = self.prepare_cached("SELECT indexed, swept FROM counters")?.query_row([], |row| {
            Ok(Bounds { indexed: row.get(0)?, swept: row.get(1)? })
        })?;
        if index.bounds != Some(bounds) {
            index.begin(bounds);
        }
        let mut statement = self.prepare_cached("SELECT id, digest FROM objects WHERE id > ?1")?;
        let mut rows = statement.query([index.seen.indexed])?;
        while let Some(row) = rows.next()? {
            let (id, digest): (_, [u8; 32]) = (row.get(0)?, row.get(1)?);
            index.late.insert((prefix(&digest), id), Late::Added);
            index.seen.indexed = id;
        }
        let mut statement = self.prepare_cached("SELECT id, object, prefix FROM removed WHERE id > ?1")?;
        let mut rows = statement.query([index.seen.swept])?;
        while let Some(row) = rows.next()? {
            let (number, id) = (row.get(0)?, row.get(1)?);
            index.late.insert((row.get(2)?, id), Late::Removed(number));
            index.seen.swept = number;
            // It may have come and gone since it was looked: nothing but this tells that there was one.
            index.seen.indexed = index.seen.indexed.max(id);
        }
        index.is_current = true;
        Ok(index)
    }
}

impl Index {
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
        let is_much = self.late.len() >= LATE;
        self.moving.or(is_much.then_some(Moving { until: self.seen, moved: ([0; PREFIX], i64::MIN) }))
    }

    /// Where objects are that may not be in the table, from this one on.
    fn added(&self, from: (Prefix, i64)) -> impl Iterator<Item = (Prefix, i64)> {
        self.late.range(from..).filter(|(_, late)| **late == Late::Added).map(|(place, _)| *place)
    }
}

fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn place(row: Option<&Row<'_>>) -> Result<Option<(Prefix, i64)>> {
    row.map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
}

fn prefix(digest: &[u8]) -> Prefix {
    let mut prefix = [0; PREFIX];
    prefix.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
    prefix
}
