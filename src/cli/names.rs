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
    s3::target::RawTarget,
    topology::Topology,
};

/// Everything but what RFC 3986 calls unreserved, and the slash.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// `/bucket/key`, or `/bucket` where the key is empty; `/` for the service itself, which a client may ask to write, too.
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

/// The other way. What is named is in the journal already: unlike a client's path it is taken as it is written, so that
/// the slashes of a bucket or a key that begins or ends with some are not taken for others.
pub fn object(cluster: &str, path: &str) -> anyhow::Result<Object> {
    if !path.starts_with('/') || path.contains(['?', '#']) {
        return Err(anyhow!("{path:?} is no path; write /bucket/key, percent-encoded: \"?\" is %3F"));
    }
    let raw = RawTarget::parse(path.as_bytes()).map_err(|error| anyhow!("{path:?}: {error}"))?;
    let decoded = raw.decoded_path().map_err(|error| anyhow!("{path:?}: {error}"))?;
    let mut parts = decoded.splitn(3, |&byte| byte == b'/').skip(1).map(<[u8]>::to_vec);
    let (bucket, key) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    Ok(Object { cluster: cluster.to_owned(), bucket, key })
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
        let keys =
            [b"key".as_slice(), b"a b/\xff\n\x1b[2J?#%41", b"//x/", "\u{e9}".as_bytes(), b"", b"/", b"//"];
        // Without a bucket: a write on the service.
        let buckets = [b"buck.et".as_slice(), b""];
        for (bucket, key) in buckets.iter().flat_map(|bucket| keys.map(|key| (bucket, key))) {
            let named = Object { cluster: "c".into(), bucket: bucket.to_vec(), key: key.into() };
            let name = path(&named);
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name}");
            assert_eq!(object("c", &name).unwrap(), named);
        }
        for wrong in ["", "bucket", "/b/k?x", "/b/k%"] {
            assert!(object("c", wrong).is_err(), "{wrong}");
        }
        assert_eq!(printable("\u{1b}[2J\"\n\u{202e}"), "\\u{1b}[2J\"\\n\\u{202e}");
    }
}
