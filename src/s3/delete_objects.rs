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
    let (_, objects) = entries(body, b"Object")?;
    let doomed = |entry: Entry| Doomed { key: entry.key, version: entry.version };
    let doomed: Vec<_> = objects.into_iter().map(doomed).collect();
    (!doomed.is_empty() && doomed.len() <= MOST).then_some(doomed)
}

/// What an answer says was not deleted; `None` = it is no such answer.
pub fn survivors(answer: &[u8]) -> Option<Survivors> {
    let (_, errors) = entries(answer, b"Error").filter(|(root, _)| root == b"DeleteResult")?;
    let errors = errors.into_iter().filter(|error| error.code != "NoSuchKey");
    // What is not versioned has the version "null".
    let version = |id: Option<String>| id.filter(|id| id != "null");
    Some(Survivors(errors.map(|error| (error.key, version(error.version))).collect()))
}

/// Objects that were not deleted, and versions of such.
#[derive(Debug, PartialEq, Eq)]
pub struct Survivors(HashSet<(Vec<u8>, Option<String>)>);

impl Survivors {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object, or one version of it, was not deleted. An error that names no version is about all of them.
    pub fn has(&self, key: &[u8], version: Option<&str>) -> bool {
        let version = version.filter(|id| *id != "null").map(str::to_owned);
        let about = |version| self.0.contains(&(key.to_vec(), version));
        about(None) || (version.is_some() && about(version))
    }
}

#[derive(Default)]
struct Entry {
    key: Vec<u8>,
    version: Option<String>,
    code: String,
}

/// The name of the root, and the elements of this name below it.
fn entries(xml: &[u8], name: &[u8]) -> Option<(Vec<u8>, Vec<Entry>)> {
    let (mut root, mut entries, mut entry) = (Vec::new(), Vec::new(), Entry::default());
    let whole = walk(xml, |path, text| match path {
        [_, parent, child] if parent == name => match &child[..] {
            b"Key" => entry.key = text.into_bytes(),
            b"VersionId" => entry.version = Some(text).filter(|id| !id.is_empty()),
            b"Code" => entry.code = text,
            _ => {}
        },
        [_, own] if own == name => entries.push(std::mem::take(&mut entry)),
        [own] => root.clone_from(own),
        _ => {}
    });
    (whole && entries.iter().all(|entry| !entry.key.is_empty())).then_some((root, entries))
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
        let found = survivors(answer).unwrap();
        assert!(found.has(b"b", None) && !found.has(b"a", None) && !found.has(b"c", None));
        assert!(survivors(b"<DeleteResult></DeleteResult>").unwrap().is_empty());
        let named = b"<x:DeleteResult xmlns:x='y'><x:Error><x:Key>b</x:Key></x:Error></x:DeleteResult>";
        assert!(survivors(named).unwrap().has(b"b", None));
        for other in [
            &b"<DeleteResult><Error>"[..],
            b"<DeleteResult><Error><Code>InternalError</Code></Error></DeleteResult>",
            b"<Error><Code>InternalError</Code><Key>b</Key></Error>",
            b"<Error><Error><Key>b</Key></Error></Error>",
            b"<html/>",
            b"",
        ] {
            assert_eq!(survivors(other), None, "{}", other.escape_ascii());
        }
    }

    #[test]
    fn an_error_about_one_version_is_not_about_others() {
        let answer = b"<DeleteResult><Error><Key>a</Key><VersionId>1</VersionId></Error>
            <Error><Key>b</Key><VersionId>null</VersionId></Error></DeleteResult>";
        let found = survivors(answer).unwrap();
        assert!(found.has(b"a", Some("1")) && !found.has(b"a", Some("2")) && !found.has(b"a", None));
        assert!(found.has(b"b", None) && found.has(b"b", Some("null")));
    }
}
