//! What the clients asked for and were told, object by object, and what may therefore be there.

use std::{collections::HashMap, sync::Arc};

use tokio::time::{Duration, Instant};

/// What `Sync.ClockBound` is in these runs, with something for the time that a request takes.
const CLOCK_BOUND: Duration = Duration::from_millis(1500);
/// After its answer a write goes on for no longer than this on backends that have not answered: to be connected to, to
/// wait for the write before it, and for an answer.
const LINGERS: Duration = Duration::from_secs(4);

/// A process of a gateway. Those of one place follow each other; places serve at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Through {
    pub place: usize,
    pub process: u64,
}

/// The bytes of one write, by how they are made: no two writes have the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub name: Arc<str>,
    pub length: usize,
}

impl Version {
    pub fn bytes(&self) -> Vec<u8> {
        self.name.bytes().cycle().take(self.length).collect()
    }

    fn is(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.length
            && bytes.chunks(self.name.len()).all(|chunk| self.name.as_bytes().starts_with(chunk))
    }
}

/// What a write makes of an object.
#[derive(Debug, Clone)]
pub enum Made {
    /// One of these, with one of these tags: more than one where it is a copy of something that changes.
    Object {
        versions: Vec<Version>,
        tags: Vec<String>,
    },
    Nothing,
    Tags(String),
}

#[derive(Debug, Clone)]
pub struct Write {
    /// PUT, DELETE, `?delete`, ...
    pub kind: &'static str,
    pub made: Made,
    pub acknowledged: bool,
    pub through: Through,
    pub begun: Instant,
    pub ended: Instant,
    /// When it began, in milliseconds since 1970: as the journal has it.
    pub clock: i64,
}

impl Write {
    pub fn is_of_tags(&self) -> bool {
        matches!(self.made, Made::Tags(_))
    }

    fn may_have_made(&self, found: Option<&[u8]>) -> bool {
        match (&self.made, found) {
            (Made::Object { versions, .. }, Some(bytes)) => versions.iter().any(|version| version.is(bytes)),
            (Made::Nothing, None) => true,
            _ => false,
        }
    }

    fn told(&self) -> String {
        let made = match &self.made {
            Made::Object { versions, tags } => {
                let version = |version: &Version| format!("{}of {} bytes", version.name, version.length);
                format!("{:?} tagged {tags:?}", versions.iter().map(version).collect::<Vec<_>>())
            }
            Made::Nothing => "nothing".to_owned(),
            Made::Tags(tags) => format!("tags {tags:?}"),
        };
        let answered = if self.acknowledged { "acknowledged" } else { "not acknowledged" };
        format!("{} ({answered}, gateway {:?}) makes {made}", self.kind, self.through)
    }
}

/// What is known of the order of writes through different gateways.
#[derive(Debug, Default)]
pub struct Order {
    /// When the place of a process that was killed served again: by then what it had under way was recorded.
    pub killed: HashMap<u64, Instant>,
}

impl Order {
    /// Whether a write is certainly before one that the same client asked for later. Through one place they always are.
    fn before(&self, one: &Write, later: &Write) -> bool {
        let over = one.ended + LINGERS;
        let over = self.killed.get(&one.through.process).map_or(over, |killed| over.max(*killed));
        one.through.place == later.through.place || over + CLOCK_BOUND < later.begun
    }
}

/// What a read has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    Right,
    /// What an acknowledged write had replaced.
    Older,
    /// What nobody wrote there.
    Alien,
}

/// The writes to one object, in the order in which its client asked for them.
#[derive(Debug, Clone, Default)]
pub struct History(Vec<Write>);

impl History {
    pub fn push(&mut self, write: Write) {
        self.0.push(write);
    }

    pub fn writes(&self) -> &[Write] {
        &self.0
    }

    /// All that the object may have been so far.
    pub fn versions(&self) -> Vec<Version> {
        let versions = |write: &Write| match &write.made {
            Made::Object { versions, .. } => versions.clone(),
            _ => Vec::new(),
        };
        distinct(self.0.iter().flat_map(versions).collect())
    }

    /// All tags that it may have had so far.
    pub fn tags(&self) -> Vec<String> {
        let tags = |write: &Write| match &write.made {
            Made::Object { tags, .. } => tags.clone(),
            Made::Tags(tags) => vec![tags.clone()],
            Made::Nothing => Vec::new(),
        };
        distinct(self.0.iter().flat_map(tags).collect())
    }

    /// The writes of this sort over which no acknowledged one of the sort has certainly come.
    fn last(&self, of_tags: bool, order: &Order) -> Vec<usize> {
        let is_one = |at: &usize| self.0[*at].is_of_tags() == of_tags;
        let passes =
            |at: usize, other: usize| self.0[other].acknowledged && order.before(&self.0[at], &self.0[other]);
        let all = (0..self.0.len()).filter(is_one);
        all.filter(|at| !(at + 1..self.0.len()).filter(is_one).any(|other| passes(*at, other))).collect()
    }

    /// What is wrong with what a backend holds, bytes and tags, if anything is.
    pub fn wrong(&self, held: Option<(&[u8], &str)>, order: &Order) -> Option<String> {
        let found = held.map(|(bytes, _)| bytes);
        if !self.may_be(found, order) {
            return Some(format!("holds {}", excerpt(found)));
        }
        let (bytes, tags) = held?;
        let last = self.last(false, order).into_iter();
        let is_right = last
            .filter(|at| self.0[*at].may_have_made(found))
            .any(|at| self.tags_after(at, order).iter().any(|right| right == tags));
        (!is_right).then(|| format!("holds {} with the tags {tags:?}", excerpt(Some(bytes))))
    }

    /// Whether these bytes may be what the object is, whatever its tags are; or nothing, where it may be gone.
    pub fn may_be(&self, found: Option<&[u8]>, order: &Order) -> bool {
        let is_untouched = !self.0.iter().any(|write| !write.is_of_tags() && write.acknowledged);
        (found.is_none() && is_untouched)
            || self.last(false, order).into_iter().any(|at| self.0[at].may_have_made(found))
    }

    /// The tags that an object may have if this write made it.
    fn tags_after(&self, write: usize, order: &Order) -> Vec<String> {
        let (made, last) = (&self.0[write], self.last(true, order));
        let is_after = |at: usize| if at > write { true } else { !order.before(&self.0[at], made) };
        let replaces = |at: usize| {
            let other = &self.0[at];
            at > write && other.is_of_tags() && other.acknowledged && order.before(made, other)
        };
        let mut tags = Vec::new();
        if let (Made::Object { tags: own, .. }, false) = (&made.made, (0..self.0.len()).any(replaces)) {
            tags.extend(own.iter().cloned());
        }
        for at in last.into_iter().filter(|at| is_after(*at)) {
            if let Made::Tags(of) = &self.0[at].made {
                tags.push(of.clone());
            }
        }
        tags
    }

    /// What a read has found, of which the client knows all writes. Here those through different gateways count as ordered.
    pub fn reading(&self, found: Option<&[u8]>) -> Reading {
        let last = self.0.iter().rposition(|write| write.acknowledged && !write.is_of_tags());
        let is_untold = last.is_none() && found.is_none();
        let made = |from: usize| self.0[from..].iter().any(|write| write.may_have_made(found));
        match is_untold || made(last.unwrap_or(0)) {
            true => Reading::Right,
            // Before the first write there was nothing.
            false if found.is_none() || made(0) => Reading::Older,
            false => Reading::Alien,
        }
    }

    /// The end of the history, for whoever has to find out what went wrong.
    pub fn told(&self) -> Vec<String> {
        let last = self.0.iter().rposition(|write| write.acknowledged && !write.is_of_tags());
        let from = last.unwrap_or(0).saturating_sub(3);
        let at = |write: &Write| {
            let since = |time: Instant| time.duration_since(self.0[from].begun).as_millis();
            format!("{} to {} ms: {}", since(write.begun), since(write.ended), write.told())
        };
        self.0[from..].iter().map(at).collect()
    }
}

fn distinct<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort_unstable();
    all.dedup();
    all
}

pub fn excerpt(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else { return "nothing".to_owned() };
    format!("{:?}, {} bytes", String::from_utf8_lossy(&bytes[..bytes.len().min(40)]), bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Through = Through { place: 0, process: 0 };
    const THERE: Through = Through { place: 1, process: 1 };

    /// Writes that follow each other, a millisecond each, but for those that say how long after all others.
    fn history(writes: &[(&str, bool, Through, u64)]) -> History {
        let start = Instant::now();
        let write = |(at, (made, acknowledged, through, pause)): (usize, &(&str, bool, Through, u64))| {
            let begun = start + Duration::from_millis(2 * at as u64) + Duration::from_secs(*pause);
            let made = match made.strip_prefix('?') {
                Some(tags) => Made::Tags(tags.to_owned()),
                None if made.is_empty() => Made::Nothing,
                None => Made::Object { versions: vec![version(made)], tags: vec![format!("of={made}")] },
            };
            let ended = begun + Duration::from_millis(1);
            Write {
                kind: "PUT",
                made,
                acknowledged: *acknowledged,
                through: *through,
                begun,
                ended,
                clock: 0,
            }
        };
        History(writes.iter().enumerate().map(write).collect())
    }

    fn version(name: &str) -> Version {
        Version { name: format!("{name} ").into(), length: 10 }
    }

    fn is_right(history: &History, held: Option<(&str, &str)>) -> bool {
        let bytes = held.map(|(name, tags)| (version(name).bytes(), tags));
        history.wrong(bytes.as_ref().map(|(bytes, tags)| (&bytes[..], *tags)), &Order::default()).is_none()
    }

    #[test]
    fn the_last_acknowledged_write_holds_or_one_after_it() {
        let all = history(&[("a", true, HERE, 0), ("b", true, HERE, 0), ("c", false, HERE, 0)]);
        for (held, right) in [
            (Some(("a", "of=a")), false),
            (Some(("b", "of=b")), true),
            (Some(("c", "of=c")), true),
            (Some(("d", "of=d")), false),
            (Some(("b", "of=a")), false),
            (None, false),
        ] {
            assert_eq!(is_right(&all, held), right, "{held:?}");
        }
        let untold = history(&[("a", false, HERE, 0)]);
        assert!(is_right(&untold, None) && is_right(&untold, Some(("a", "of=a"))));
        let deleted = history(&[("a", true, HERE, 0), ("", true, HERE, 0)]);
        assert!(is_right(&deleted, None) && !is_right(&deleted, Some(("a", "of=a"))));
    }

    #[test]
    fn tags_are_those_of_the_object_or_of_what_came_after_it() {
        let all = history(&[("a", true, HERE, 0), ("?x=1", true, HERE, 0), ("?x=2", false, HERE, 0)]);
        for (tags, right) in [("of=a", false), ("x=1", true), ("x=2", true), ("", false)] {
            assert_eq!(is_right(&all, Some(("a", tags))), right, "{tags}");
        }
        let again = history(&[("a", true, HERE, 0), ("?x=1", true, HERE, 0), ("b", false, HERE, 0)]);
        assert!(is_right(&again, Some(("a", "x=1"))) && is_right(&again, Some(("b", "of=b"))));
        assert!(!is_right(&again, Some(("b", "x=1"))) && !is_right(&again, Some(("a", "of=a"))));
    }

    #[test]
    fn through_two_gateways_only_what_is_over_for_long_is_before() {
        let at_once = history(&[("a", true, HERE, 0), ("b", true, THERE, 0)]);
        assert!(is_right(&at_once, Some(("a", "of=a"))) && is_right(&at_once, Some(("b", "of=b"))));
        let later = history(&[("a", true, HERE, 0), ("b", true, THERE, 6)]);
        assert!(!is_right(&later, Some(("a", "of=a"))) && is_right(&later, Some(("b", "of=b"))));
        let killed = Order { killed: [(0, later.0[0].begun + Duration::from_secs(5))].into() };
        assert_eq!(later.wrong(Some((&version("a").bytes(), "of=a")), &killed), None);
    }

    #[test]
    fn a_read_gives_something_whole_that_was_written() {
        let all = history(&[("a", true, HERE, 0), ("b", true, HERE, 0), ("c", false, HERE, 0)]);
        let reading = |name: &str| all.reading(Some(&version(name).bytes()));
        assert_eq!(
            [reading("a"), reading("b"), reading("c")],
            [Reading::Older, Reading::Right, Reading::Right]
        );
        assert_eq!((reading("d"), all.reading(None)), (Reading::Alien, Reading::Older));
        assert_eq!(all.reading(Some(b"b b")), Reading::Alien);
    }
}
