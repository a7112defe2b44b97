//! The weighted circle that maps an object's key to its home cluster.
//!
//! Objects that the original Go program placed must be found where it put them, so this is its circle bit for
//! bit: serialx/hashring as it was before July 2020 (later versions build another one). Each cluster owns a
//! number of labels in proportion to its weight, each label gives three points (the first three little-endian
//! words of its MD5), and a key belongs to the cluster of the first point strictly greater than its hash.
//! Proven by `tests/data/ring-vectors.json`, which the original library itself has written.

use std::cmp::Reverse;

use md5::{Digest, Md5};

/// Labels per cluster on a ring of equal weights.
const LABELS_PER_CLUSTER: u64 = 40;

/// One point of the circle and the cluster that owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    pub position: u32,
    /// Index in the list that [`Ring::new`] was given.
    pub cluster: u32,
}

/// The circle: all points, ascending.
#[derive(Debug, Clone)]
pub struct Ring {
    points: Box<[Point]>,
    clusters: usize,
}

impl Ring {
    /// Builds the circle of clusters, given as name and weight (0 to 1) in configuration order.
    ///
    /// A cluster of weight 0 owns nothing, but its presence gives the others more points. The circle is empty
    /// when every weight rounds to 0. Names must be distinct; validation sees to that.
    pub fn new<'a>(clusters: impl IntoIterator<Item = (&'a str, f64)>) -> Ring {
        let clusters: Vec<(&str, u64)> =
            clusters.into_iter().map(|(name, weight)| (name, integer_weight(weight))).collect();
        let mut points = Vec::new();
        for (&(name, _), (labels, cluster)) in clusters.iter().zip(label_counts(&clusters).zip(0u32..)) {
            for label in 0..labels {
                let digest = Md5::digest(format!("{name}-{label}"));
                points.extend(words(&digest).take(3).map(|position| Point { position, cluster }));
            }
        }
        // Two clusters may own one position. The original then let chance decide, at each start anew; here the
        // one that is listed last wins, because the lookup takes the first of equals.
        points.sort_unstable_by_key(|point| (point.position, Reverse(point.cluster)));
        Ring { points: points.into_boxed_slice(), clusters: clusters.len() }
    }

    /// The home cluster of a key, as an index in configuration order; `None` on an empty circle.
    pub fn pick(&self, key: &[u8]) -> Option<usize> {
        self.pick_hash(hash(key))
    }

    /// The cluster that owns a position: that of the first point strictly after it, around the circle.
    pub fn pick_hash(&self, hash: u32) -> Option<usize> {
        let next = self.points.partition_point(|point| point.position <= hash);
        let point = self.points.get(next).or(self.points.first())?;
        usize::try_from(point.cluster).ok()
    }

    /// All points, ascending by position.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The part of all hashes that each cluster owns (0 to 1), in configuration order.
    pub fn shares(&self) -> Vec<f64> {
        let mut owned = vec![0u64; self.clusters];
        let circle = u64::from(u32::MAX) + 1;
        let Some(last) = self.points.last() else { return vec![0.0; self.clusters] };
        // The first point also owns the arc that wraps around from the last.
        let mut previous = None;
        for point in &self.points {
            let arc = match previous {
                Some(previous) => u64::from(point.position) - previous,
                None => u64::from(point.position) + circle - u64::from(last.position),
            };
            previous = Some(u64::from(point.position));
            if let Some(owned) = usize::try_from(point.cluster).ok().and_then(|i| owned.get_mut(i)) {
                *owned += arc;
            }
        }
        owned.into_iter().map(|arc| arc as f64 / circle as f64).collect()
    }
}

/// Where a key stands on the circle.
pub fn hash(key: &[u8]) -> u32 {
    words(&Md5::digest(key)).next().unwrap_or_default()
}

/// A weight of 0 to 1 in hundredths, rounded down after a binary64 product as the original does: 0.29 is 28.
/// What is outside 0..=1 is clamped; validation refuses it.
pub fn integer_weight(weight: f64) -> u64 {
    (weight * 100.0).floor().clamp(0.0, 100.0) as u64
}

/// How many labels each cluster gets: in proportion to its weight, rounded down, and possibly none.
fn label_counts(clusters: &[(&str, u64)]) -> impl Iterator<Item = u64> {
    let total: u64 = clusters.iter().map(|(_, weight)| weight).sum();
    let labels = LABELS_PER_CLUSTER * clusters.len() as u64;
    clusters.iter().map(move |(_, weight)| (labels * weight).checked_div(total).unwrap_or(0))
}

/// The little-endian words of a digest.
fn words(digest: &[u8]) -> impl Iterator<Item = u32> {
    digest.as_chunks().0.iter().map(|bytes: &[u8; 4]| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests;
