//! Whether somebody may change something: `TechnicalEndpointToken` as a bearer token (RFC 6750).
//!
//! A browser sends no such header by itself, and asks before it sends one to another site, which is not allowed here: so
//! no page of others can have changes made by who has this one open.

use std::hint::black_box;

use http::{HeaderMap, StatusCode, header};
use pingora_error::Result;

use crate::{
    config::Secret,
    telemetry::endpoint::{Answer, Refusal},
};

/// What changes take; none are made without one.
#[derive(Clone)]
pub struct Token(Option<Secret>);

impl Token {
    pub fn new(token: Option<Secret>) -> Token {
        Token(token)
    }

    /// Whether changes can be made at all.
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }

    pub fn check(&self, headers: &HeaderMap) -> std::result::Result<(), Refusal> {
        let Some(token) = &self.0 else {
            let text = "Changes are off here: the configuration has no TechnicalEndpointToken.";
            return Err(Refusal(StatusCode::FORBIDDEN, text.into()));
        };
        let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let given = given.and_then(|value| {
            let (scheme, rest) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then(|| rest.trim_ascii())
        });
        match given {
            Some(given) if equal(given, token.reveal().as_bytes()) => Ok(()),
            Some(_) => Err(Refusal(StatusCode::UNAUTHORIZED, "This is not the token.".into())),
            None => {
                let text = "Send the token: Authorization: Bearer TOKEN.";
                Err(Refusal(StatusCode::UNAUTHORIZED, text.into()))
            }
        }
    }
}

/// The answer to a change that was refused.
pub fn refused(refusal: Refusal) -> Result<Answer> {
    let unauthorized = refusal.0 == StatusCode::UNAUTHORIZED;
    let mut answer = refusal.answer()?;
    if unauthorized {
        answer.head.insert_header(header::WWW_AUTHENTICATE, "Bearer realm=\"akubra\"")?;
    }
    Ok(answer)
}

/// In a time that tells nothing of where they differ.
fn equal(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |differences, (a, b)| black_box(differences | (a ^ b)));
    one.len() == other.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorized(token: Option<&str>, header: Option<&str>) -> u16 {
        let token = Token::new(token.map(|token| Secret::new(token.to_owned())));
        let headers = header.map(|value| (header::AUTHORIZATION, value.parse().unwrap()));
        token.check(&HeaderMap::from_iter(headers)).map_or_else(|refusal| refusal.0.as_u16(), |()| 200)
    }

    #[test]
    fn changes_take_the_token() {
        let token = Some("0123456789abcdef");
        assert_eq!(authorized(token, Some("Bearer 0123456789abcdef")), 200);
        assert_eq!(authorized(token, Some("bearer  0123456789abcdef ")), 200);
        for wrong in
            ["Bearer 0123456789abcdeF", "Bearer 0123456789abcde", "Bearer ", "Basic 0123456789abcdef", "B"]
        {
            assert_eq!(authorized(token, Some(wrong)), 401, "{wrong}");
        }
        assert_eq!(authorized(token, None), 401);
        assert_eq!(authorized(None, Some("Bearer 0123456789abcdef")), 403);
        assert_eq!(authorized(None, Some("Bearer ")), 403);
    }
}
