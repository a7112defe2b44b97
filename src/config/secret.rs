//! A value that no message may show.

use std::fmt;

use super::reader::At;

/// Shows nothing of itself unless it is asked to.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: String) -> Secret {
        Secret(value)
    }

    /// For the one who needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A bearer token (RFC 6750): what can stand in a header, and is not guessed.
pub fn token(at: &At) -> Option<Secret> {
    const LEAST: usize = 16;
    let value = at.text()?.value;
    if value.len() < LEAST || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return at.error(format!(
            "not usable as a token; write {LEAST} or more ASCII characters without blanks, best as ${{NAME}} from the \
             environment"
        ));
    }
    Some(Secret(value))
}
