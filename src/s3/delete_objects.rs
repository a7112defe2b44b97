//! DeleteObjects (POST `?delete`): which objects its body names, and which of them an answer says are still there.

use std::collections::HashSet;

use super::xml::walk;

/// S3 takes so many in one request.
const MOST: usize = 1000;

/// An object that is to be deleted, or one version of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Doomed {
    pub key: Vec<u8>,
    pub version: Option<String>,
}

/// The objects that a request names; `None` = it is no request that S3 would take.
pub fn doomed(body: &[u8]) -> Option<Vec<Doomed>> {
    let doomed =
        entries(body, b"Object")?.into_iter().map(|entry| Doomed { key: entry.key, version: entry.version });
    let doomed: Vec<_> = doomed.collect();
    (!doomed.is_empty() && doomed.len() <= MOST).then_some(doomed)
}

/// The keys that an answer says were not deleted; `None` = it is no such answer.
pub fn kept(answer: &[u8]) -> Option<HashSet<Vec<u8>>> {
    let errors = entries(answer, b"Error")?.into_iter();
    Some(errors.filter(|error| error.code != "NoSuchKey").map(|error| error.key).collect())
}

#[derive(Default)]
struct Entry {
    key: Vec<u8>,
    version: Option<String>,
    code: String,
}

/// The elements of this name below the root.
fn entries(xml: &[u8], name: &[u8]) -> Option<Vec<Entry>> {
    let (mut entries, mut entry) = (Vec::new(), Entry::default());
    let whole = walk(xml, |path, text| match path {
        [_, parent, child] if parent == name => match &child[..] {
            b"Key" => entry.key = text.into_bytes(),
            b"VersionId" => entry.version = Some(text).filter(|id| !id.is_empty()),
            b"Code" => entry.code = text,
            _ => {}
        },
        [_, own] if own == name => entries.push(std::mem::take(&mut entry)),
        _ => {}
    });
    (whole && entries.iter().all(|entry| !entry.key.is_empty())).then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objects_of_a_request_are_found_however_they_are_written() {
        let body = br#"<?xml version="1.0"?>
            <x:Delete xmlns:x="http://s3.amazonaws.com/doc/2006-03-01/"><x:Object><x:Key> a &amp;&#x62;&lt;</x:Key></x:Object>
            <Object><VersionId>v1</VersionId><Key><![CDATA[<c>]]></Key></Object><Quiet>true</Quiet></x:Delete>"#;
        let expected = [
            Doomed { key: b" a &b<".into(), version: None },
            Doomed { key: b"<c>".into(), version: Some("v1".into()) },
        ];
        assert_eq!(doomed(body).unwrap(), expected);
        for body in [
            &b""[..],
            b"<Delete/>",
            b"<Delete><Object><Key>a</Key></Object>",
            b"<Delete><Object></Object></Delete>",
            b"<Delete><Object><Key>&nothing;</Key></Object></Delete>",
            b"5;chunk-signature=0\r\n<Delete>",
        ] {
            assert_eq!(doomed(body), None, "{}", body.escape_ascii());
        }
        let many = "<Object><Key>k</Key></Object>".repeat(MOST + 1);
        assert_eq!(doomed(format!("<Delete>{many}</Delete>").as_bytes()), None);
    }

    #[test]
    fn an_answer_names_those_that_are_still_there() {
        let answer = b"<DeleteResult><Deleted><Key>a</Key></Deleted>
            <Error><Key>b</Key><Code>AccessDenied</Code></Error><Error><Key>c</Key><Code>NoSuchKey</Code></Error></DeleteResult>";
        assert_eq!(kept(answer).unwrap(), HashSet::from([b"b".to_vec()]));
        assert_eq!(kept(b"<DeleteResult></DeleteResult>").unwrap(), HashSet::new());
        assert_eq!(kept(b"<DeleteResult><Error>"), None);
    }
}
