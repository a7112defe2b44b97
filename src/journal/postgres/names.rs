//! Names of objects, as columns.

use crate::journal::Object;

pub struct Names<'a> {
    pub digests: Vec<Vec<u8>>,
    pub clusters: Vec<&'a str>,
    pub buckets: Vec<&'a [u8]>,
    pub keys: Vec<&'a [u8]>,
}

impl<'a> Names<'a> {
    pub fn of(objects: impl Iterator<Item = &'a Object> + Clone) -> Names<'a> {
        Names {
            digests: objects.clone().map(|object| object.digest().to_vec()).collect(),
            clusters: objects.clone().map(|object| object.cluster.as_str()).collect(),
            buckets: objects.clone().map(|object| object.bucket.as_slice()).collect(),
            keys: objects.map(|object| object.key.as_slice()).collect(),
        }
    }
}
