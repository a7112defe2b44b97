//! Objects on the command line and in what it prints: `/bucket/key`, percent-encoded as clients send it; and clusters.
//!
//! So every key can be named, also one that is no text, and none can spoil a terminal.

use anyhow::anyhow;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::{
    journal::{
        Object,
        survey::{Backend, Cluster},
    },
    s3::target::{RawTarget, bucket_and_key},
    topology::Topology,
};

/// Everything but what RFC 3986 calls unreserved, and the slash.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// `/bucket/key`, or `/bucket` where the key is empty.
pub fn path(object: &Object) -> String {
    let bucket = percent_encode(&object.bucket, ESCAPED);
    match object.key.is_empty() {
        true => format!("/{bucket}"),
        false => format!("/{bucket}/{}", percent_encode(&object.key, ESCAPED)),
    }
}

/// `cluster:/bucket/key`
pub fn name(object: &Object) -> String {
    format!("{}:{}", printable(&object.cluster), path(object))
}

/// The other way.
pub fn object(cluster: &str, path: &str) -> anyhow::Result<Object> {
    if !path.starts_with('/') || path.contains(['?', '#']) {
        return Err(anyhow!("{path:?} is no path; write /bucket/key, percent-encoded: \"?\" is %3F"));
    }
    let raw = RawTarget::parse(path.as_bytes()).map_err(|error| anyhow!("{path:?}: {error}"))?;
    let decoded = raw.decoded_path().map_err(|error| anyhow!("{path:?}: {error}"))?;
    let (bucket, key) = bucket_and_key(&decoded);
    if bucket.is_empty() {
        return Err(anyhow!("{path:?} names no bucket; write /bucket/key"));
    }
    Ok(Object { cluster: cluster.to_owned(), bucket: bucket.to_vec(), key: key.unwrap_or_default().to_vec() })
}

/// The clusters of all regions, each once, as the journal's numbers are told of them.
pub fn clusters(topology: &Topology) -> Vec<Cluster> {
    let mut clusters: Vec<Cluster> = Vec::new();
    for cluster in topology.regions.iter().flat_map(|region| &region.clusters) {
        // Regions may share it.
        if clusters.iter().all(|known| known.name != cluster.name) {
            let backends = cluster.backends.iter();
            let backends =
                backends.map(|backend| Backend { endpoint: backend.endpoint(), url: backend.url.clone() });
            clusters.push(Cluster { name: cluster.name.clone(), backends: backends.collect() });
        }
    }
    clusters
}

/// A text of others on one line, which a terminal shows and does not obey.
pub fn printable(text: &str) -> String {
    let escaped = text.chars().flat_map(|c| match c {
        '"' | '\'' | '\\' => vec![c],
        c => c.escape_debug().collect(),
    });
    escaped.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_has_a_name_that_leads_back_to_it() {
        for key in [b"key".as_slice(), b"a b/\xff\n\x1b[2J?#%41", b"//x/", "\u{e9}".as_bytes(), b""] {
            let named = Object { cluster: "c".into(), bucket: b"buck.et".into(), key: key.into() };
            let name = path(&named);
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name}");
            assert_eq!(object("c", &name).unwrap(), named);
        }
        for wrong in ["bucket", "/", "/b/k?x", "/b/k%"] {
            assert!(object("c", wrong).is_err(), "{wrong}");
        }
        assert_eq!(printable("\u{1b}[2J\"\n\u{202e}"), "\\u{1b}[2J\"\\n\\u{202e}");
    }
}
