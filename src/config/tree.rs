//! YAML text to a small tree that knows its lines.
//!
//! The parser gives events with positions; this file builds the tree from them without recursion,
//! bounded in depth, so that no input can exhaust the stack. Anchors, aliases and tags are refused: a
//! configuration is clearer without them, and without aliases a short text cannot unfold into a huge
//! tree. A key that stands twice in a mapping is an error, never a silent "last one wins".

use std::{collections::HashMap, fmt};

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::errors::{Report, join, printable, quoted};

/// Deepest nesting; the deepest key of ours stands at 6.
const MAX_DEPTH: usize = 32;

/// A value and where it stands.
#[derive(Debug)]
pub struct Node {
    /// A scalar's own line; for mappings, lists and nothing, the line of the key that leads to it.
    pub line: usize,
    pub value: Value,
}

impl Node {
    /// Whether anything in here is not known. As deep as trees are, which is bounded.
    pub fn holds_unknown(&self) -> bool {
        match &self.value {
            Value::Unknown => true,
            Value::Null | Value::Scalar(_) => false,
            Value::List(items) => items.iter().any(Node::holds_unknown),
            Value::Map(entries) => entries.iter().any(|entry| entry.node.holds_unknown()),
        }
    }
}

#[derive(Debug)]
pub enum Value {
    /// Nothing after the key, `~` or `null`: as if the key were not there.
    Null,
    /// A value that is not known, but whose error is already reported: nobody complains again.
    Unknown,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a mapping and its value, in the order of the file.
#[derive(Debug)]
pub struct Entry {
    pub key: String,
    pub line: usize,
    pub node: Node,
}

/// A text, which may mean a number or a truth value when it is not quoted.
pub struct Scalar {
    pub text: String,
    /// Neither quoted nor a block.
    pub plain: bool,
    /// As written in the file, if the text came in through `${NAME}`.
    pub source: Option<String>,
}

impl Scalar {
    /// What messages may show.
    pub fn shown(&self) -> &str {
        self.source.as_deref().unwrap_or(&self.text)
    }

    /// Whether it may mean something else than text. What comes from the environment has no quotes of
    /// its own, and `"${NAME}"` is how people write it.
    pub fn is_bare(&self) -> bool {
        self.plain || self.source.is_some()
    }
}

/// Never shows what came from the environment.
impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted(self.shown()))
    }
}

/// Parses a text of one YAML document. `None`: the reason is in the report.
pub fn parse(yaml: &str, report: &Report) -> Option<Node> {
    let mut builder = Builder { frames: Vec::new(), root: None, report };
    for event in Parser::new_from_str(yaml.strip_prefix('\u{feff}').unwrap_or(yaml)) {
        match event {
            Ok((event, span)) => builder.on_event(event, span)?,
            Err(error) => {
                let message = format!("not valid YAML: {}", printable(error.info()));
                report.error(&builder.path(), error.marker().line(), message);
                return None;
            }
        }
    }
    match builder.root {
        Some(Node { value: Value::Null, .. }) | None => {
            report.error("", 0, "the configuration is empty; write at least Listen, Clusters and Regions");
            None
        }
        root => root,
    }
}

/// A mapping or list that is not finished yet.
enum Frame {
    List { line: usize, items: Vec<Node> },
    Map { line: usize, entries: Vec<Entry>, seen: HashMap<String, usize>, key: Option<(String, usize)> },
}

struct Builder<'a> {
    frames: Vec<Frame>,
    root: Option<Node>,
    report: &'a Report,
}

impl Builder<'_> {
    /// `None` stops the parser.
    fn on_event(&mut self, event: Event<'_>, span: Span) -> Option<()> {
        let line = span.start.line();
        let (anchor, tagged) = match &event {
            Event::Scalar(_, _, anchor, tag) => (*anchor, tag.is_some()),
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => (*anchor, tag.is_some()),
            Event::Alias(anchor) => (*anchor, false),
            _ => (0, false),
        };
        if anchor != 0 {
            self.report.error(
                &self.path(),
                line,
                "anchors and aliases are not supported; write the value out",
            );
        }
        if tagged {
            self.report.error(&self.path(), line, "tags (!...) are not supported; leave it out");
        }
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                self.report.error("", line, "a second document; write one document per file");
                None
            }
            Event::Scalar(text, style, ..) => self.on_scalar(text.into_owned(), style, line),
            Event::Alias(_) => self.add(Node { line, value: Value::Unknown }),
            Event::SequenceStart(..) => self.open(Frame::List { line, items: Vec::new() }, line),
            Event::MappingStart(..) => {
                let frame = Frame::Map { line, entries: Vec::new(), seen: HashMap::new(), key: None };
                self.open(frame, line)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            _ => Some(()),
        }
    }

    fn on_scalar(&mut self, text: String, style: ScalarStyle, line: usize) -> Option<()> {
        if let Some(Frame::Map { seen, key: key @ None, .. }) = self.frames.last_mut() {
            let first = seen.get(&text).copied();
            seen.entry(text.clone()).or_insert(line);
            *key = Some((text, line));
            if let Some(first) = first {
                let message = format!("this key already stands in line {first}; keep one of the two");
                self.report.error(&self.path(), line, message);
            }
            return Some(());
        }
        let plain = style == ScalarStyle::Plain;
        let value = if plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
            Value::Null
        } else {
            Value::Scalar(Scalar { text, plain, source: None })
        };
        self.add(Node { line, value })
    }

    fn open(&mut self, frame: Frame, line: usize) -> Option<()> {
        if let Some(Frame::Map { key: None, .. }) = self.frames.last() {
            self.report.error(&self.path(), line, "a key must be a plain text");
            return None;
        }
        if self.frames.len() >= MAX_DEPTH {
            self.report.error(&self.path(), line, format!("nested deeper than {MAX_DEPTH} levels"));
            return None;
        }
        self.frames.push(frame);
        Some(())
    }

    fn close(&mut self) -> Option<()> {
        let node = match self.frames.pop()? {
            Frame::List { line, items } => Node { line, value: Value::List(items) },
            Frame::Map { line, entries, .. } => Node { line, value: Value::Map(entries) },
        };
        self.add(node)
    }

    /// Puts a finished value where it belongs.
    fn add(&mut self, mut node: Node) -> Option<()> {
        match self.frames.last_mut() {
            None => self.root = Some(node),
            Some(Frame::List { items, .. }) => items.push(node),
            Some(Frame::Map { entries, key, .. }) => {
                let Some((key, line)) = key.take() else {
                    self.report.error(&self.path(), node.line, "a key must be a plain text");
                    return None;
                };
                if !matches!(node.value, Value::Scalar(_)) {
                    node.line = line;
                }
                entries.push(Entry { key, line, node });
            }
        }
        Some(())
    }

    /// Where we are, for messages.
    fn path(&self) -> String {
        let mut path = String::new();
        for frame in &self.frames {
            match frame {
                Frame::List { items, .. } => path = format!("{path}[{}]", items.len()),
                Frame::Map { key: Some((key, _)), .. } => path = join(&path, key),
                Frame::Map { key: None, .. } => {}
            }
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(yaml: &str) -> Vec<(usize, String)> {
        let report = Report::default();
        parse(yaml, &report);
        let errors = report.finish().map_or_else(|errors| errors.errors, |_| Vec::new());
        errors.into_iter().map(|error| (error.line, format!("{}: {}", error.path, error.message))).collect()
    }

    #[test]
    fn values_know_their_lines() {
        let report = Report::default();
        let root = parse("\u{feff}# c\na: 1\nb:\n  - x\n  - 'y'\nc:\n", &report).unwrap();
        let Value::Map(entries) = &root.value else { panic!("{root:?}") };
        let lines: Vec<_> =
            entries.iter().map(|entry| (entry.key.as_str(), entry.line, entry.node.line)).collect();
        assert_eq!(lines, [("a", 2, 2), ("b", 3, 3), ("c", 6, 6)]);
        let Value::List(items) = &entries[1].node.value else { panic!("{root:?}") };
        assert_eq!(items.iter().map(|item| item.line).collect::<Vec<_>>(), [4, 5]);
        assert!(matches!(entries[2].node.value, Value::Null));
    }

    #[test]
    fn what_is_not_one_plain_document_is_refused_with_its_line() {
        let cases = [
            ("", 0, "empty"),
            ("# only a comment\n", 0, "empty"),
            ("---\n", 0, "empty"),
            ("a: 1\n---\nb: 2\n", 2, "second document"),
            ("a: &x 1\nb: *x\n", 1, "a: anchors and aliases"),
            ("a: &x 1\nb: *x\n", 2, "b: anchors and aliases"),
            ("a: !secret x\n", 1, "a: tags"),
            ("a:\n  b: 1\n  c: 2\n  b: 3\n", 4, "a.b: this key already stands in line 2"),
            ("a: {b: 1, b: 2}", 1, "a.b: this key already stands in line 1"),
            ("? [a]\n: 1\n", 1, "a key must be a plain text"),
            ("a:\n\t- b\n", 2, "not valid YAML"),
            ("a: [1\n", 2, "not valid YAML"),
            ("a: \"open\n", 1, "not valid YAML"),
        ];
        for (yaml, line, message) in cases {
            let found = errors(yaml);
            assert!(
                found.iter().any(|(at, text)| *at == line && text.contains(message)),
                "{yaml:?}: {found:?}"
            );
        }
    }

    #[test]
    fn depth_is_bounded() {
        assert!(errors(&format!("{}{}", "[".repeat(33), "]".repeat(33)))[0].1.contains("nested deeper"));
        assert!(errors(&"[".repeat(100_000))[0].1.contains("not valid YAML"));
        assert!(errors(&"- ".repeat(50_000))[0].1.contains("nested deeper"));
    }
}
