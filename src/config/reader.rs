//! Typed reading of the tree: each value is asked for by key and type, and what is wrong goes to the
//! report with path and line while reading goes on.
//!
//! A [`MapReader`] remembers which keys it was asked for: so the code that reads the keys is the only
//! list of them, and [`MapReader::finish`] knows the unknown ones.

use std::time::Duration;

use super::{
    errors::{Report, join, quoted},
    suggest,
    tree::{Entry, Node, Scalar, Value},
    units,
};

/// Longest duration a setting accepts: far from where the clock's arithmetic overflows.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// A value in the file.
#[derive(Clone)]
pub struct At<'a> {
    pub node: &'a Node,
    pub path: String,
    pub report: &'a Report,
}

/// A text of the file that later checks may have something to say about.
#[derive(Clone)]
pub struct Text {
    pub value: String,
    /// What messages may show instead of `value`.
    pub shown: String,
    pub path: String,
    pub line: usize,
}

impl<'a> At<'a> {
    /// Reports an error; `None`, so that it can end a reader.
    pub fn error<T>(&self, message: impl Into<String>) -> Option<T> {
        self.report.error(&self.path, self.node.line, message);
        None
    }

    pub fn warning(&self, message: &str) {
        self.report.warning(&self.path, self.node.line, message);
    }

    fn expected<T>(&self, what: &str) -> Option<T> {
        let found = match &self.node.value {
            Value::Unknown => return None,
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        };
        self.error(format!("found {found}; write {what}"))
    }

    fn scalar(&self, what: &str) -> Option<&'a Scalar> {
        match &self.node.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => self.expected(what),
        }
    }

    /// A scalar that must not be quoted to mean what it should.
    fn bare(&self, what: &str) -> Option<&'a Scalar> {
        let scalar = self.scalar(what)?;
        if scalar.is_bare() {
            return Some(scalar);
        }
        self.error(format!(
            "{} is quoted, which makes it a text; write {what}, without quotes",
            quoted(scalar.shown())
        ))
    }

    pub fn text(&self) -> Option<Text> {
        let scalar = self.scalar("a text")?;
        Some(Text {
            value: scalar.text.clone(),
            shown: quoted(scalar.shown()),
            path: self.path.clone(),
            line: self.node.line,
        })
    }

    /// A text; `None` without an error if it is empty, as the original's defaults are.
    pub fn nonempty(&self) -> Option<String> {
        self.text().map(|text| text.value).filter(|value| !value.is_empty())
    }

    pub fn boolean(&self) -> Option<bool> {
        let scalar = self.bare("true or false")?;
        match scalar.text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => self.error(format!("{} is not a truth value; write true or false", quoted(scalar.shown()))),
        }
    }

    pub fn count(&self) -> Option<usize> {
        let scalar = self.bare("a whole number")?;
        match scalar.text.parse() {
            Ok(count) => Some(count),
            Err(_) => self
                .error(format!("{} is not a count; write a whole number from 0 up", quoted(scalar.shown()))),
        }
    }

    pub fn positive(&self, zero: &str) -> Option<usize> {
        match self.count()? {
            0 => self.error(zero),
            count => Some(count),
        }
    }

    /// A number from 0 to 1.
    pub fn fraction(&self) -> Option<f64> {
        const RIGHT: &str = "write a number from 0 to 1";
        let scalar = self.bare("a number from 0 to 1")?;
        match scalar.text.parse::<f64>() {
            Ok(number) if (0.0..=1.0).contains(&number) => Some(number),
            Ok(_) => self.error(format!("{} is outside 0..1; {RIGHT}", scalar.shown())),
            Err(_) => self.error(format!("{} is not a number; {RIGHT}", quoted(scalar.shown()))),
        }
    }

    pub fn duration(&self) -> Option<Duration> {
        const RIGHT: &str = "write a duration such as 5s, 250ms or 1h30m";
        let scalar = self.scalar("a duration such as 5s, 250ms or 1h30m")?;
        match units::parse_duration(&scalar.text) {
            Ok(duration) if duration <= MAX_DURATION => Some(duration),
            Ok(_) => self.error(format!("{} is more than a year; {RIGHT}", quoted(scalar.shown()))),
            Err(error) => {
                self.error(format!("{} is not a duration ({error}); {RIGHT}", quoted(scalar.shown())))
            }
        }
    }

    /// A duration that bounds a wait.
    pub fn timeout(&self) -> Option<Duration> {
        match self.duration()? {
            Duration::ZERO => {
                self.error("0 would end every wait at once; write a positive duration such as 5s")
            }
            duration => Some(duration),
        }
    }

    pub fn size(&self) -> Option<u64> {
        const RIGHT: &str = "write a size such as 100M, 256KiB or 1GiB";
        let scalar = self.scalar("a size such as 100M, 256KiB or 1GiB")?;
        match units::parse_size(&scalar.text) {
            Ok(size) => Some(size),
            Err(error) => self.error(format!("{} is not a size ({error}); {RIGHT}", quoted(scalar.shown()))),
        }
    }

    /// A size of something that is held in memory. `least` and `most` are bytes and their text.
    pub fn buffer(&self, least: (usize, &str), most: (usize, &str)) -> Option<usize> {
        let size = usize::try_from(self.size()?).unwrap_or(usize::MAX);
        if (least.0..=most.0).contains(&size) {
            return Some(size);
        }
        let shown = self.text()?.shown;
        self.error(format!("{shown} is outside {}..{}", least.1, most.1))
    }

    /// One of a few words.
    pub fn one_of<T: Copy>(&self, words: &[(&'static str, T)]) -> Option<T> {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let list = names.join(", ");
        let scalar = self.scalar(&format!("one of {list}"))?;
        match words.iter().find(|(name, _)| *name == scalar.text) {
            Some((_, value)) => Some(*value),
            None => self.error(format!("{} is not known; write one of {list}", quoted(scalar.shown()))),
        }
    }

    pub fn map(&self) -> Option<MapReader<'a>> {
        match &self.node.value {
            Value::Map(entries) => Some(MapReader::new(self.clone(), entries)),
            _ => self.expected("a mapping of keys"),
        }
    }

    pub fn items(&self) -> Option<Vec<At<'a>>> {
        let Value::List(items) = &self.node.value else {
            return self.expected("a list, one \"- item\" per line");
        };
        let at = |(index, node)| At { node, path: format!("{}[{index}]", self.path), report: self.report };
        Some(items.iter().enumerate().map(at).collect())
    }
}

/// A mapping, of which each key is asked for once.
pub struct MapReader<'a> {
    pub at: At<'a>,
    entries: &'a [Entry],
    asked: Vec<&'static str>,
}

impl<'a> MapReader<'a> {
    fn new(at: At<'a>, entries: &'a [Entry]) -> Self {
        MapReader { at, entries, asked: Vec::new() }
    }

    /// The value of a key, `~` included.
    pub fn get_or_null(&mut self, key: &'static str) -> Option<At<'a>> {
        self.asked.push(key);
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(self.entry(entry))
    }

    /// The value of a key that has one.
    pub fn get(&mut self, key: &'static str) -> Option<At<'a>> {
        self.get_or_null(key).filter(|at| !matches!(at.node.value, Value::Null | Value::Unknown))
    }

    /// As [`get`](Self::get); that there is none is an error.
    pub fn require(&mut self, key: &'static str, right: &str) -> Option<At<'a>> {
        match self.get_or_null(key) {
            Some(At { node: Node { value: Value::Unknown, .. }, .. }) => None,
            Some(at) if !matches!(at.node.value, Value::Null) => Some(at),
            _ => {
                let path = join(&self.at.path, key);
                self.at.report.error(&path, self.at.node.line, format!("missing; {right}"));
                None
            }
        }
    }

    /// Whether a key stands here whose value nobody knows.
    pub fn is_unknown(&self, key: &str) -> bool {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        entry.is_some_and(|entry| matches!(entry.node.value, Value::Unknown))
    }

    /// The value of a key, or its default.
    pub fn read<T>(&mut self, key: &'static str, default: T, read: impl FnOnce(&At<'a>) -> Option<T>) -> T {
        self.get(key).and_then(|at| read(&at)).unwrap_or(default)
    }

    /// The keys and values of a mapping whose keys are names.
    pub fn entries(&self) -> Vec<(&'a str, At<'a>)> {
        self.entries.iter().map(|entry| (entry.key.as_str(), self.entry(entry))).collect()
    }

    /// Reports the keys that nobody asked for.
    pub fn finish(self) {
        for entry in self.entries.iter().filter(|entry| !self.asked.contains(&entry.key.as_str())) {
            if self.at.report.is_full() {
                self.at.report.error("", 0, "");
                continue;
            }
            let message = match entry.key.as_str() {
                "<<" => "merge keys are not supported; write the keys out".to_owned(),
                key => format!("unknown key{}", suggest::hint(key, self.asked.iter().copied())),
            };
            self.at.report.error(&join(&self.at.path, &entry.key), entry.line, message);
        }
    }

    fn entry(&self, entry: &'a Entry) -> At<'a> {
        At { node: &entry.node, path: join(&self.at.path, &entry.key), report: self.at.report }
    }
}
