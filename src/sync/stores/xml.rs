//! The little that is to be understood of XML answers: elements without children, in their order.

use quick_xml::{
    events::{BytesRef, Event},
    reader::Reader,
};

/// Local name and text of each element that has no children; `None` = it is no XML.
pub fn leaves(body: &[u8]) -> Option<Vec<(String, String)>> {
    let mut reader = Reader::from_reader(body);
    let mut found = Vec::new();
    let mut text = String::new();
    // Whether the element that was opened last is the innermost one.
    let mut is_leaf = false;
    let mut depth = 0_usize;
    loop {
        match reader.read_event().ok()? {
            Event::Start(_) => {
                text.clear();
                is_leaf = true;
                depth += 1;
            }
            Event::Text(part) => text.push_str(&part.xml10_content().ok()?),
            Event::CData(part) => text.push_str(&part.decode().ok()?),
            Event::GeneralRef(name) => text.push_str(&resolved(&name)?),
            Event::Empty(element) => {
                found.push((name(element.local_name().as_ref())?, String::new()));
                is_leaf = false;
            }
            Event::End(element) => {
                if is_leaf {
                    found.push((name(element.local_name().as_ref())?, std::mem::take(&mut text)));
                }
                is_leaf = false;
                depth = depth.checked_sub(1)?;
            }
            // An answer that was cut is no XML.
            Event::Eof => return (depth == 0).then_some(found),
            _ => {}
        }
    }
}

/// The text of the first such element of this name.
pub fn leaf(body: &[u8], name: &str) -> Option<String> {
    leaves(body)?.into_iter().find(|(found, _)| found == name).map(|(_, text)| text)
}

fn name(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

fn resolved(reference: &BytesRef) -> Option<String> {
    match reference.resolve_char_ref().ok()? {
        Some(character) => Some(character.into()),
        None => quick_xml::escape::resolve_xml_entity(&reference.decode().ok()?).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_without_children_are_found() {
        let xml = b"<?xml version=\"1.0\"?>\n<a xmlns=\"x\"> <b><Key>k&amp;&#x31;</Key>\n<Value/></b><c:d> e </c:d></a>";
        let found = leaves(xml).unwrap();
        let expected = [("Key", "k&1"), ("Value", ""), ("d", " e ")];
        assert_eq!(found, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
        assert_eq!(leaf(b"<r><ETag>&quot;e&quot;</ETag></r>", "ETag").unwrap(), "\"e\"");
        for bad in ["<a></b>", "<a>&nope;</a>", "<a><", "<a><b>1</b>", "<a"] {
            assert_eq!(leaves(bad.as_bytes()), None, "{bad}");
        }
    }
}
