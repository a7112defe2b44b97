//! `inserttmpl`: the statement that puts a record into a database, with `{{.field}}` where a value goes.
//!
//! The original pasted values into the text, so that a key with a quote in it was SQL. Here the text is translated
//! once, and values are bound: a literal that holds fields, `'{{.path}}'` as well as `'s3:{{.path}}'`, becomes one
//! parameter, and a field outside quotes becomes one too. The quotes belong to the parameter: it is given to the
//! database as text of no type, as a literal is, and so takes the type that its place or its cast asks for.
//!
//! A field anywhere else (in a name, in a comment, in a literal with rules of its own) is an error, as is whatever
//! Go's templates could do beyond that. A pure function on text.

mod problem;

use self::problem::Problem;
pub use self::problem::TemplateError;

/// What a record has to give.
pub const FIELDS: [&str; 19] = [
    "id",
    "method",
    "failedhost",
    "path",
    "successhost",
    "useragent",
    "content-length",
    "error",
    "reqID",
    "ts",
    "region",
    "cluster",
    "bucket",
    "key",
    "status",
    "outcome",
    "etag",
    "version",
    "subresource",
];

/// What a statement may begin with: nothing that would end or begin a transaction, which is ours.
const VERBS: [&str; 5] = ["INSERT", "WITH", "MERGE", "UPDATE", "SELECT"];
/// Words behind which a value can stand by itself. Any other is taken for the name of a type.
const BEFORE_VALUES: [&str; 24] = [
    "select",
    "distinct",
    "all",
    "and",
    "or",
    "not",
    "in",
    "is",
    "like",
    "ilike",
    "to",
    "between",
    "case",
    "when",
    "then",
    "else",
    "where",
    "having",
    "returning",
    "by",
    "from",
    "for",
    "values",
    "escape",
];

/// For the table of `conf/postgres/001-synclog.sql`.
pub const DEFAULT: &str = "\
INSERT INTO akubra_synclog (id, ts, reqid, method, region, cluster, failedhost, successhost, path, bucket, key,
  version, subresource, status, outcome, error, etag, content_length, useragent)
VALUES ('{{.id}}', '{{.ts}}', '{{.reqID}}', '{{.method}}', '{{.region}}', '{{.cluster}}', '{{.failedhost}}',
  '{{.successhost}}', '{{.path}}', '{{.bucket}}', '{{.key}}', '{{.version}}', '{{.subresource}}', '{{.status}}',
  '{{.outcome}}', '{{.error}}', '{{.etag}}', '{{.content-length}}', '{{.useragent}}')
ON CONFLICT (id) DO NOTHING";

/// A statement and what its parameters are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insert {
    pub sql: String,
    /// `$1` and so on.
    pub parameters: Vec<Vec<Piece>>,
}

/// A part of a parameter's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    /// One of [`FIELDS`].
    Field(&'static str),
}

/// Translates a template.
pub fn translate(template: &str) -> Result<Insert, TemplateError> {
    let mut translation =
        Translation { template, at: 0, sql: String::new(), parameters: Vec::new(), ended: false };
    match translation.run() {
        Ok(()) => Ok(Insert { sql: translation.sql, parameters: translation.parameters }),
        Err(problem) => {
            let before = template.as_bytes().iter().take(translation.at);
            Err(TemplateError { line: 1 + before.filter(|byte| **byte == b'\n').count(), problem })
        }
    }
}

struct Translation<'a> {
    template: &'a str,
    /// How far it is read.
    at: usize,
    sql: String,
    parameters: Vec<Vec<Piece>>,
    /// Behind the semicolon.
    ended: bool,
}

impl Translation<'_> {
    fn run(&mut self) -> Result<(), Problem> {
        let mut verb = None;
        while let Some(c) = self.rest().chars().next() {
            let word = c.is_ascii_alphabetic();
            let blank = c.is_whitespace()
                || c == ';'
                || self.rest().starts_with("--")
                || self.rest().starts_with("/*");
            if self.ended && !blank {
                return Err(Problem::SecondStatement);
            }
            if verb.is_none() && !blank && c != '(' {
                verb = Some(self.check_verb()?);
            }
            match c {
                '\0' => return Err(Problem::Nul),
                '\'' => self.literal()?,
                '"' => self.identifier()?,
                ';' => {
                    self.at += 1;
                    self.ended = true;
                }
                '-' if self.rest().starts_with("--") => {
                    let end = self.rest().find('\n').unwrap_or(self.rest().len());
                    self.copy_without_fields(end, "a comment")?;
                }
                '/' if self.rest().starts_with("/*") => self.comment()?,
                '$' if !self.follows_word() => self.dollar()?,
                '{' if self.rest().starts_with("{{") => self.bare_field()?,
                _ if word => self.word(),
                _ => self.copy(c.len_utf8()),
            }
        }
        match verb {
            None => Err(Problem::NoStatement),
            Some(()) if self.parameters.is_empty() => Err(Problem::NoField),
            Some(()) => Ok(()),
        }
    }

    fn rest(&self) -> &str {
        &self.template[self.at..]
    }

    fn copy(&mut self, length: usize) {
        self.sql.push_str(&self.template[self.at..self.at + length]);
        self.at += length;
    }

    fn copy_without_fields(&mut self, length: usize, place: &'static str) -> Result<(), Problem> {
        if let Some(field) = self.rest()[..length].find("{{") {
            self.at += field;
            return Err(Problem::Misplaced(place));
        }
        self.copy(length);
        Ok(())
    }

    fn word(&mut self) {
        let rest = self.rest();
        let end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
        self.copy(end);
    }

    fn check_verb(&self) -> Result<(), Problem> {
        let rest = self.rest();
        let verb = &rest[..rest.find(|c| !in_word(c)).unwrap_or(rest.len())];
        if VERBS.iter().any(|known| known.eq_ignore_ascii_case(verb)) {
            return Ok(());
        }
        if verb.is_empty() { Err(Problem::NoStatement) } else { Err(Problem::Verb(verb.to_owned())) }
    }

    /// Whether the last character belongs to a name or a number.
    fn follows_word(&self) -> bool {
        self.sql.ends_with(in_word)
    }

    /// A field outside quotes.
    fn bare_field(&mut self) -> Result<(), Problem> {
        if self.follows_word() {
            return Err(Problem::Misplaced("a name"));
        }
        let field = self.field()?;
        if self.rest().starts_with(in_word) || self.rest().starts_with("{{") {
            return Err(Problem::Misplaced("a name"));
        }
        self.parameter(vec![Piece::Field(field)]);
        Ok(())
    }

    fn parameter(&mut self, pieces: Vec<Piece>) {
        self.parameters.push(pieces);
        self.sql.push_str(&format!("${}", self.parameters.len()));
    }

    /// Reads `{{.field}}`.
    fn field(&mut self) -> Result<&'static str, Problem> {
        let inner = self.rest().get(2..).unwrap_or_default();
        let Some(end) = inner.find("}}") else { return Err(Problem::Unterminated) };
        let action = inner[..end].trim();
        let name = action.strip_prefix('.').filter(|name| name.chars().all(|c| in_word(c) || c == '-'));
        let Some(name) = name else { return Err(Problem::Action(action.to_owned())) };
        let Some(field) = FIELDS.iter().find(|field| **field == name) else {
            return Err(Problem::UnknownField(name.to_owned()));
        };
        self.at += 2 + end + 2;
        Ok(field)
    }

    /// From a quote to the one that closes it.
    fn literal(&mut self) -> Result<(), Problem> {
        let prefix: String = self.sql.chars().rev().take_while(|c| in_word(*c) || *c == '&').collect();
        let special = matches!(prefix.to_ascii_lowercase().as_str(), "e" | "b" | "x" | "n" | "&u");
        let escapes = prefix.eq_ignore_ascii_case("e");
        let (start, mut text, mut pieces) = (self.at, String::new(), Vec::new());
        self.at += 1;
        loop {
            let Some(c) = self.rest().chars().next() else {
                self.at = start;
                return Err(Problem::Open("a literal"));
            };
            match c {
                '\'' if self.rest().starts_with("''") => {
                    text.push('\'');
                    self.at += 2;
                }
                '\'' => break,
                '\\' if escapes => self.at += 1 + self.rest().chars().nth(1).map_or(0, char::len_utf8),
                '{' if self.rest().starts_with("{{") => {
                    if special {
                        return Err(Problem::Misplaced("a literal with a prefix"));
                    }
                    pieces.extend(piece(&mut text));
                    pieces.push(Piece::Field(self.field()?));
                }
                c => {
                    text.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
        self.at += 1;
        if let Err(problem) = self.check_before(!pieces.is_empty()) {
            self.at = start;
            return Err(problem);
        }
        if pieces.is_empty() {
            self.sql.push_str(&self.template[start..self.at]);
        } else if self.follows_word() {
            self.at = start;
            return Err(Problem::Misplaced("a literal with a prefix"));
        } else {
            pieces.extend(piece(&mut text));
            self.parameter(pieces);
        }
        Ok(())
    }

    /// Whether what stands before a literal lets a parameter stand in its place.
    fn check_before(&self, has_fields: bool) -> Result<(), Problem> {
        let blanks = self.sql.len() - self.sql.trim_end().len();
        let before = self.sql.trim_end();
        let word = &before[before.rfind(|c| !in_word(c)).map_or(0, |at| at + 1)..];
        if word.starts_with('$') || (has_fields && before.ends_with('\'')) {
            return Err(Problem::Continued);
        }
        // Directly behind a word it is a prefix, of which its reader knows more.
        let typed = has_fields && blanks > 0 && word.starts_with(|c: char| c.is_alphabetic());
        match typed && !BEFORE_VALUES.iter().any(|known| known.eq_ignore_ascii_case(word)) {
            true => Err(Problem::Typed(word.to_owned())),
            false => Ok(()),
        }
    }

    fn identifier(&mut self) -> Result<(), Problem> {
        // A doubled quote ends one and begins the next.
        match self.rest()[1..].find('"') {
            Some(end) => self.copy_without_fields(end + 2, "a quoted name"),
            None => Err(Problem::Open("a quoted name")),
        }
    }

    /// C's comments, which nest here.
    fn comment(&mut self) -> Result<(), Problem> {
        let (mut depth, mut end) = (0, 0);
        loop {
            let rest = &self.rest()[end..];
            if rest.starts_with("/*") {
                (depth, end) = (depth + 1, end + 2);
            } else if rest.starts_with("*/") {
                (depth, end) = (depth - 1, end + 2);
            } else if let Some(c) = rest.chars().next() {
                end += c.len_utf8();
            } else {
                return Err(Problem::Open("a comment"));
            }
            if depth == 0 {
                return self.copy_without_fields(end, "a comment");
            }
        }
    }

    /// `$1`, or `$tag$ text $tag$`.
    fn dollar(&mut self) -> Result<(), Problem> {
        let after = &self.rest()[1..];
        if after.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(Problem::Parameter);
        }
        let tag = after.find(|c| c == '$' || !in_word(c)).filter(|end| after[*end..].starts_with('$'));
        let Some(tag) = tag else {
            self.copy(1);
            return Ok(());
        };
        let delimiter = &self.rest()[..tag + 2];
        match self.rest()[delimiter.len()..].find(delimiter) {
            Some(end) => self.copy_without_fields(end + 2 * delimiter.len(), "a literal between dollars"),
            None => Err(Problem::Open("a literal between dollars")),
        }
    }
}

/// The text so far, if there is any.
fn piece(text: &mut String) -> Option<Piece> {
    (!text.is_empty()).then(|| Piece::Text(std::mem::take(text)))
}

/// What names and numbers are made of.
fn in_word(c: char) -> bool {
    c == '_' || c == '$' || c.is_alphanumeric()
}

#[cfg(test)]
#[path = "tests/insert.rs"]
mod tests;
