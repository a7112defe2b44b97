//! The configuration in force, as a text that may be shown: what was read, without what is secret.
//!
//! Made of the tree and not of the file: comments may hold anything, so they are left out. A value from the
//! environment stands there as `${NAME}`. What belongs to a key that is known to be secret is [`HIDDEN`], and so are
//! the headers that are added for backends, since tokens are what such headers are for.

use std::{
    fmt::{self, Write},
    sync::Arc,
};

use super::tree::{Entry, Node, Scalar, Value};

/// What stands where a secret was.
const HIDDEN: &str = "(hidden)";

/// Parts of the names of keys whose values are secret.
const SECRET: [&str; 5] = ["password", "secret", "token", "passphrase", "credential"];

/// The text: YAML that would be read as the file was, but for what is hidden.
#[derive(Clone)]
pub struct InForce(Arc<str>);

impl InForce {
    pub(super) fn of(root: &Node) -> InForce {
        let mut text = String::new();
        // Writing to a String cannot fail.
        write_node(&mut text, root, 0).unwrap_or_default();
        InForce(text.trim_start_matches('\n').into())
    }

    pub fn text(&self) -> &Arc<str> {
        &self.0
    }
}

impl Default for InForce {
    fn default() -> InForce {
        InForce("".into())
    }
}

/// It says nothing that the other fields of a configuration do not say.
impl fmt::Debug for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InForce")
    }
}

/// Writes a value behind its key or its dash, the end of the line included.
fn write_node(text: &mut String, node: &Node, depth: usize) -> fmt::Result {
    match &node.value {
        Value::Null | Value::Unknown => writeln!(text),
        Value::Scalar(scalar) => writeln!(text, " {}", scalar_text(scalar)),
        Value::List(items) if items.is_empty() => writeln!(text, " []"),
        Value::Map(entries) if entries.is_empty() => writeln!(text, " {{}}"),
        Value::List(items) => {
            writeln!(text)?;
            items.iter().try_for_each(|item| {
                write!(text, "{:depth$}-", "")?;
                write_item(text, item, depth + 2)
            })
        }
        Value::Map(entries) => {
            writeln!(text)?;
            entries.iter().try_for_each(|entry| write_entry(text, entry, depth))
        }
    }
}

/// A mapping begins behind its dash, everything else as behind a key.
fn write_item(text: &mut String, item: &Node, depth: usize) -> fmt::Result {
    let Value::Map(entries) = &item.value else { return write_node(text, item, depth) };
    let Some((first, rest)) = entries.split_first() else { return writeln!(text, " {{}}") };
    text.push(' ');
    write_pair(text, first, depth)?;
    rest.iter().try_for_each(|entry| write_entry(text, entry, depth))
}

fn write_entry(text: &mut String, entry: &Entry, depth: usize) -> fmt::Result {
    write!(text, "{:depth$}", "")?;
    write_pair(text, entry, depth)
}

fn write_pair(text: &mut String, entry: &Entry, depth: usize) -> fmt::Result {
    write!(text, "{}:", key_text(&entry.key))?;
    if is_secret(&entry.key) && !is_variable(&entry.node) {
        return writeln!(text, " {HIDDEN}");
    }
    match &entry.node.value {
        Value::Map(headers) if entry.key == "AdditionalRequestHeaders" => {
            writeln!(text)?;
            headers.iter().try_for_each(|header| {
                writeln!(text, "{:1$}{2}: {HIDDEN}", "", depth + 2, key_text(&header.key))
            })
        }
        _ => write_node(text, &entry.node, depth + 2),
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET.iter().any(|part| key.contains(part))
}

/// Whether a value is the name of a variable and nothing else.
fn is_variable(node: &Node) -> bool {
    let Value::Scalar(Scalar { source: Some(source), .. }) = &node.value else { return false };
    let name = source.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| !name.contains(['$', '{', '}']))
}

fn key_text(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    if !key.is_empty() && key.chars().all(plain) { key.to_owned() } else { quoted(key) }
}

/// As it stood in the file, on one line: what was quoted stays so, for it may look like a number.
fn scalar_text(scalar: &Scalar) -> String {
    let shown = scalar.shown();
    if scalar.plain && !shown.contains(char::is_control) { shown.to_owned() } else { quoted(shown) }
}

/// JSON's texts are YAML's, too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
