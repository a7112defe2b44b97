//! The text of elements of an XML document, wherever its names come from: what S3 clients and storages write is simple.

use quick_xml::{
    Reader,
    events::{BytesRef, Event},
};

/// Deeper than any document of S3.
const DEEPEST: usize = 16;

/// Tells of each element when it ends: its path of local names, the root's first, and its text. False = what was told is
/// not the whole of a document.
pub fn walk(xml: &[u8], mut tell: impl FnMut(&[Vec<u8>], String)) -> bool {
    let mut reader = Reader::from_reader(xml);
    let (mut path, mut text, mut ended) = (Vec::new(), String::new(), false);
    loop {
        let Ok(event) = reader.read_event() else { return false };
        let part = match event {
            Event::Start(start) if path.len() < DEEPEST => {
                path.push(start.local_name().as_ref().to_vec());
                text.clear();
                continue;
            }
            Event::Start(_) => return false,
            Event::End(_) => {
                tell(&path, std::mem::take(&mut text));
                ended |= path.pop().is_some() && path.is_empty();
                continue;
            }
            Event::Empty(start) => {
                ended |= path.is_empty();
                path.push(start.local_name().as_ref().to_vec());
                tell(&path, String::new());
                path.pop();
                continue;
            }
            Event::Eof => return ended && path.is_empty(),
            Event::Text(part) => part.xml10_content().ok(),
            Event::CData(part) => part.decode().ok(),
            Event::GeneralRef(reference) => {
                resolved(&reference).map(|character| character.to_string().into())
            }
            _ => continue,
        };
        let Some(part) = part else { return false };
        text.push_str(&part);
    }
}

fn resolved(reference: &BytesRef) -> Option<char> {
    if let Some(character) = reference.resolve_char_ref().ok()? {
        return Some(character);
    }
    match &reference.decode().ok()?[..] {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => None,
    }
}

/// Whether there is nothing, or a document whose root's name begins so: storages do not agree on how it ends. Blanks alone
/// keep the connection until the outcome is known, and tell none.
pub fn is_empty_or(xml: &[u8], name: &str) -> bool {
    xml.is_empty() || root(xml.trim_ascii()).is_some_and(|root| root.starts_with(name.as_bytes()))
}

/// The local name of a document's root; what follows its tag does not matter.
fn root(xml: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::from_reader(xml);
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) | Event::Empty(start) => return Some(start.local_name().as_ref().to_vec()),
            Event::Text(text) if text.trim_ascii().is_empty() => {}
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) | Event::DocType(_) => {}
            _ => return None,
        }
    }
}

/// The ETag in the result of CopyObject or CompleteMultipartUpload.
pub fn etag(result: &[u8]) -> Option<String> {
    let mut etag = None;
    let whole = walk(result, |path, text| match path {
        [_, name] if name == b"ETag" => etag = Some(text).filter(|etag| !etag.is_empty()),
        _ => {}
    });
    etag.filter(|_| whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_known_by_its_root() {
        for xml in [
            &b""[..],
            b"<CopyObjectResult/>",
            b"  \n<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n  <CopyObjectResult xmlns=\"y\"><ETag>",
            b"\xef\xbb\xbf<?xml version=\"1.0\"?><!-- y --><x:CopyObjectResponse xmlns:x='y'>",
        ] {
            assert!(is_empty_or(xml, "CopyObject"), "{}", xml.escape_ascii());
        }
        for xml in
            [&b" \r\n"[..], b"<html></html>", b"{}", b"OK", b"OK <CopyObjectResult/>", b"<Copy", b"<!--"]
        {
            assert!(!is_empty_or(xml, "CopyObject"), "{}", xml.escape_ascii());
        }
    }

    #[test]
    fn the_etag_of_a_result_is_read_as_a_header_would_have_it() {
        let result = b"  <?xml version=\"1.0\"?><CopyObjectResult><ETag>&quot;9e10&quot;</ETag><X/></CopyObjectResult>";
        assert_eq!(etag(&result[2..]).as_deref(), Some("\"9e10\""));
        assert_eq!(etag(b"<R><Part><ETag>x</ETag></Part></R>"), None);
        assert_eq!(etag(b"<R><ETag>x</ETag>"), None);
        assert_eq!(etag("<a>".repeat(1000).as_bytes()), None);
    }
}
