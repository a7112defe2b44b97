//! Why a template of an insert cannot be translated, in words.

use super::FIELDS;
use crate::config::{errors, suggest};

/// Why a template cannot be translated, and in which of its lines.
#[derive(Debug, PartialEq, Eq)]
pub struct TemplateError {
    pub line: usize,
    pub(super) problem: Problem,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    Unterminated,
    Action(String),
    UnknownField(String),
    /// In this, which can hold no value.
    Misplaced(&'static str),
    /// Behind this word, which makes a literal a constant of a type.
    Typed(String),
    /// Beside a literal that it would be one with.
    Continued,
    Parameter,
    Open(&'static str),
    SecondStatement,
    Verb(String),
    NoStatement,
    NoField,
    Nul,
}

impl TemplateError {
    /// What is wrong and what would be right; without a word of the template unless `quoting` it is allowed.
    pub fn message(&self, quoting: bool) -> String {
        let quoted = |text: &str| if quoting { errors::quoted(text) } else { "this".to_owned() };
        let fields = || FIELDS.join(", ");
        let what = match &self.problem {
            Problem::Unterminated => "\"{{\" without \"}}\"; write {{.path}}".to_owned(),
            Problem::Action(action) => {
                format!("{} is no field; only fields are filled in, such as {{{{.path}}}}", quoted(action))
            }
            Problem::UnknownField(name) => {
                let near = if quoting { suggest::hint(name, FIELDS) } else { String::new() };
                format!("{} is no field{near}; there are {}", quoted(name), fields())
            }
            Problem::Misplaced(place) => {
                format!("a field stands in {place}, which can hold no value; write '{{{{.path}}}}'")
            }
            Problem::Typed(word) => format!(
                "a field stands in a literal behind {}, which takes constants only; write '{{{{.ts}}}}'::timestamp",
                quoted(word)
            ),
            Problem::Continued => {
                "a literal with a field stands beside another one; write one literal, or || between them"
                    .to_owned()
            }
            Problem::Parameter => "\"$\" and a number; write {{.path}} where a value goes".to_owned(),
            Problem::Open(what) => format!("{what} does not end"),
            Problem::SecondStatement => "more than one statement; write one".to_owned(),
            Problem::Verb(verb) => format!("{} begins no insert; write INSERT", quoted(verb)),
            Problem::NoStatement => "there is no statement; write INSERT".to_owned(),
            Problem::NoField => {
                "every record would be the same row; write fields, such as '{{.path}}'".to_owned()
            }
            Problem::Nul => "a NUL character; a statement cannot hold one".to_owned(),
        };
        format!("line {} of the template: {what}", self.line)
    }
}
