//! What is wrong with a configuration: every finding with its path in the file and its line.
//!
//! A configuration is judged whole: whoever writes one wants all mistakes at once, not one per
//! attempt. So the readers report here and go on with a default; only at the end the presence of
//! an error decides. Messages show values as they stand in the file: what came in through
//! `${NAME}` is shown as `${NAME}`, because it may be a secret.

use std::{cell::RefCell, fmt};

/// Past this many errors only their number is kept: the file is not a configuration at all.
const MAX_ERRORS: usize = 100;

/// Longest part of a value or a key that a message repeats, in characters.
const SHOWN_CHARS: usize = 60;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Path in the file, `Regions.myregion.Clusters[1].Weight`; empty = the file as a whole.
    pub path: String,
    /// Line in the file, counted from 1; 0 = no particular line.
    pub line: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Everything that is wrong, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file's name; `None` = the text did not come from a file.
    pub file: Option<String>,
    /// Never empty.
    pub errors: Vec<ConfigError>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match (&self.file, error.line) {
                (Some(file), 0) => write!(f, "{file}: ")?,
                (Some(file), line) => write!(f, "{file}:{line}: ")?,
                (None, 0) => {}
                (None, line) => write!(f, "line {line}: ")?,
            }
            if !error.path.is_empty() {
                write!(f, "{}: ", error.path)?;
            }
            f.write_str(&error.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Collects findings while the file is read.
///
/// Shared by reference between all readers, which live one after another on one thread: hence the
/// `RefCell`, whose borrows never outlast one method.
#[derive(Default)]
pub struct Report {
    findings: RefCell<Findings>,
}

#[derive(Default)]
struct Findings {
    errors: Vec<ConfigError>,
    dropped: usize,
    warnings: Vec<String>,
}

impl Report {
    pub fn error(&self, path: &str, line: usize, message: impl Into<String>) {
        let mut findings = self.findings.borrow_mut();
        if findings.errors.len() < MAX_ERRORS {
            findings.errors.push(ConfigError { path: path.to_owned(), line, message: message.into() });
        } else {
            findings.dropped += 1;
        }
    }

    pub fn warning(&self, path: &str, line: usize, message: &str) {
        let mut findings = self.findings.borrow_mut();
        if findings.warnings.len() < MAX_ERRORS {
            findings.warnings.push(format!("line {line}: {path}: {message}"));
        }
    }

    /// Whether further errors would only be counted: time to stop thinking about suggestions.
    pub fn is_full(&self) -> bool {
        self.findings.borrow().errors.len() >= MAX_ERRORS
    }

    /// The warnings, if nothing is wrong.
    pub fn finish(self) -> Result<Vec<String>, ConfigErrors> {
        let Findings { mut errors, dropped, warnings } = self.findings.into_inner();
        if errors.is_empty() {
            return Ok(warnings);
        }
        errors.sort_by_key(|error| error.line);
        if dropped > 0 {
            let message = format!("and {dropped} more errors");
            errors.push(ConfigError { path: String::new(), line: 0, message });
        }
        Err(ConfigErrors { file: None, errors })
    }
}

/// A value as a message shows it: quoted, control characters escaped, not endless.
pub fn quoted(value: &str) -> String {
    format!("\"{}\"", printable(value))
}

/// A key as a path shows it.
pub fn printable(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        shown.push_str("...");
    }
    shown
}

/// The path of `key` inside `parent`.
pub fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() { printable(key) } else { format!("{parent}.{}", printable(key)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_is_one_line_with_file_line_path_and_message() {
        let report = Report::default();
        report.error("Regions.r.Clusters[1].Weight", 12, "1.5 is outside 0..1");
        report.error("Listen", 0, "missing");
        let mut errors = report.finish().unwrap_err();
        assert_eq!(
            errors.to_string(),
            "Listen: missing\nline 12: Regions.r.Clusters[1].Weight: 1.5 is outside 0..1"
        );
        errors.file = Some("conf.yaml".into());
        assert_eq!(
            errors.to_string(),
            "conf.yaml: Listen: missing\nconf.yaml:12: Regions.r.Clusters[1].Weight: 1.5 is outside 0..1"
        );
    }

    #[test]
    fn a_flood_of_errors_is_counted_not_kept() {
        let report = Report::default();
        for line in 0..1000 {
            report.error("x", line, "wrong");
        }
        assert!(report.is_full());
        let errors = report.finish().unwrap_err().errors;
        assert_eq!(errors.len(), MAX_ERRORS + 1);
        assert_eq!(errors[MAX_ERRORS].message, "and 900 more errors");
    }

    #[test]
    fn shown_values_are_bounded_and_on_one_line() {
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
        assert_eq!(printable(&"x".repeat(61)), format!("{}...", "x".repeat(60)));
    }
}
