//! `GET /status`: one page that needs nothing else, and may load nothing else.
//!
//! Style and script stand in files of their own and are put into the page at the start. The policy names their hashes,
//! taken of the very bytes: nothing but them runs, whatever the names of objects look like (CSP Level 3, 6.7.2.3).

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("status.html");
const STYLE: &str = include_str!("status.css");
const SCRIPT: &str = concat!(
    "\n\"use strict\";\n(() => {\n",
    include_str!("tools.js"),
    include_str!("journal.js"),
    include_str!("status.js"),
    "})();\n"
);

/// The page and its policy.
pub struct Page {
    pub html: Bytes,
    pub policy: String,
}

impl Page {
    pub fn new() -> Page {
        let html = PAGE.replacen("{style}", STYLE, 1).replacen("{script}", SCRIPT, 1);
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            source_hash(SCRIPT),
            source_hash(STYLE)
        );
        Page { html: html.into(), policy }
    }
}

fn source_hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands between the tags, as a browser hashes it.
    fn element<'a>(html: &'a str, name: &str) -> &'a str {
        let start = html.find(&format!("<{name}>")).unwrap() + name.len() + 2;
        &html[start..start + html[start..].find(&format!("</{name}>")).unwrap()]
    }

    #[test]
    fn the_policy_allows_what_is_in_the_page_and_nothing_else() {
        let Page { html, policy } = Page::new();
        let html = std::str::from_utf8(&html).unwrap();
        for (name, directive) in [("script", "script-src"), ("style", "style-src")] {
            assert_eq!(html.matches(&format!("<{name}")).count(), 1);
            assert!(
                policy.contains(&format!("{directive} '{}';", source_hash(element(html, name)))),
                "{policy}"
            );
        }
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"));
        for forbidden in ["style=", "onclick", "onload", "http://", "https://", "src=", "@import", "url("] {
            assert!(!html.replace("http://www.w3.org/2000/svg", "").contains(forbidden), "{forbidden}");
        }
    }

    #[test]
    fn the_script_knows_how_much_is_kept() {
        use super::super::history::POINTS;
        use crate::synclog::feed::KEPT;
        assert!(SCRIPT.contains(&format!("const POINTS = {POINTS};")));
        assert!(SCRIPT.contains(&format!("const EVENTS = {KEPT},")));
        assert!(SCRIPT.contains(&format!("0 0 {} 30", POINTS - 1)));
    }

    #[test]
    fn text_stays_text() {
        for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("] {
            assert!(!SCRIPT.contains(sink), "{sink}");
        }
    }
}
