//! Every placement vector of the original library, and what follows from the rules.

use std::fmt::Write;

use proptest::prelude::*;

use super::*;
use crate::topology::fixture::{VectorRing, hex, vectors};

fn build(ring: &VectorRing) -> Ring {
    Ring::new(ring.nodes.iter().map(String::as_str).zip(ring.weights.iter().copied()))
}

/// The vectors name a cluster by one base-36 digit; `-` is none.
fn digit(cluster: Option<usize>) -> String {
    cluster.map_or("-".into(), |i| char::from_digit(i as u32, 36).unwrap().to_string())
}

#[test]
fn weights_round_down_to_hundredths_as_in_go() {
    let vectors = vectors();
    for (hundredths, expected) in vectors.floor_hundredths.iter().enumerate() {
        let weight: f64 = format!("{}.{:02}", hundredths / 100, hundredths % 100).parse().unwrap();
        assert_eq!(integer_weight(weight), *expected, "{weight}");
    }
    for (weight, expected) in &vectors.floor_extra {
        assert_eq!(integer_weight(*weight), *expected, "{weight}");
    }
}

#[test]
fn weights_outside_their_range_are_clamped() {
    for (weight, expected) in
        [(-1.0, 0), (f64::NAN, 0), (f64::NEG_INFINITY, 0), (1.01, 100), (f64::INFINITY, 100)]
    {
        assert_eq!(integer_weight(weight), expected, "{weight}");
    }
}

#[test]
fn a_label_gives_three_points() {
    for sample in &vectors().label_samples {
        let digest = Md5::digest(&sample.label);
        assert_eq!(hex(&sample.md5), digest.to_vec());
        assert_eq!(words(&digest).take(3).collect::<Vec<_>>(), sample.points);
    }
}

#[test]
fn keys_hash_as_in_go() {
    let vectors = vectors();
    for (key, expected) in vectors.keys.iter().zip(&vectors.key_hash) {
        assert_eq!(hash(key.as_bytes()), *expected, "{key:?}");
    }
    for (key, expected) in vectors.keys_hex.iter().zip(&vectors.keys_hex_hash) {
        assert_eq!(hash(&hex(key)), *expected, "{key}");
    }
}

#[test]
fn circles_have_the_points_of_the_original() {
    let vectors = vectors();
    assert_eq!(vectors.rings.len(), 20);
    for expected in &vectors.rings {
        let ring = build(expected);
        let weights: Vec<(&str, u64)> =
            expected.nodes.iter().zip(&expected.int_weights).map(|(n, w)| (n.as_str(), *w)).collect();
        assert_eq!(label_counts(&weights).collect::<Vec<_>>(), expected.labels, "{}", expected.name);

        let points: Vec<(u32, u32)> = ring.points().iter().map(|p| (p.position, p.cluster)).collect();
        assert_eq!(points.len(), expected.count, "{}", expected.name);
        assert!(points.starts_with(&expected.first20), "{}", expected.name);
        assert_eq!(points.last().map_or(vec![], |&(p, c)| vec![p, c]), expected.last, "{}", expected.name);

        let mut text = String::new();
        for (position, cluster) in points {
            let name = &expected.nodes[cluster as usize];
            writeln!(text, "{position} {name}").unwrap();
        }
        assert_eq!(
            <sha2::Sha256 as sha2::Digest>::digest(text).to_vec(),
            hex(&expected.sha256),
            "{}",
            expected.name
        );
    }
}

#[test]
fn keys_are_placed_as_by_the_original() {
    let vectors = vectors();
    let mut picks = 0;
    for expected in &vectors.rings {
        let ring = build(expected);
        let placed: String = vectors.keys.iter().map(|key| digit(ring.pick(key.as_bytes()))).collect();
        assert_eq!(placed, expected.picks, "{}", expected.name);
        let placed_hex: String = vectors.keys_hex.iter().map(|key| digit(ring.pick(&hex(key)))).collect();
        assert_eq!(placed_hex, expected.picks_hex, "{}", expected.name);
        picks += placed.len() + placed_hex.len();
        for (key, node) in expected.equal_keys.iter().chain(&expected.wrap_keys).chain(&expected.low_keys) {
            assert_eq!(digit(ring.pick(key.as_bytes())), *node, "{}: {key}", expected.name);
            picks += 1;
        }
    }
    assert_eq!(picks, 6571);
}

#[test]
fn the_cluster_listed_last_wins_a_shared_point() {
    let collision = &vectors().collision;
    let [first, second] = [collision.nodes[0].as_str(), collision.nodes[1].as_str()];
    for nodes in [[first, second], [second, first]] {
        let ring = Ring::new(nodes.map(|name| (name, 1.0)));
        assert_eq!(ring.points().len(), collision.count_including_duplicate);
        assert_eq!(ring.points().iter().filter(|p| p.position == collision.point).count(), 2);
        assert_eq!(ring.pick(collision.key.as_bytes()), Some(1), "{nodes:?}");
    }
}

#[test]
fn shares_are_those_of_the_arcs() {
    let even = Ring::new([("a", 1.0), ("b", 1.0), ("spare", 0.0)]);
    let shares = even.shares();
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    assert!((0.4..0.6).contains(&shares[0]), "{shares:?}");
    assert_eq!(shares[2], 0.0);
    assert_eq!(Ring::new([("one", 0.01)]).shares(), [1.0]);
    assert_eq!(Ring::new([("one", 0.0)]).shares(), [0.0]);
    assert_eq!(Ring::new([]).pick(b"/b/k"), None);
}

proptest! {
    #[test]
    fn the_binary_search_agrees_with_a_scan(hash: u32, weights in prop::collection::vec(0.0f64..=1.0, 1..6)) {
        let names: Vec<String> = (0..weights.len()).map(|i| format!("c{i}")).collect();
        let ring = Ring::new(names.iter().map(String::as_str).zip(weights));
        let scanned = ring.points().iter().find(|p| p.position > hash).or(ring.points().first());
        prop_assert_eq!(ring.pick_hash(hash), scanned.map(|p| p.cluster as usize));
    }

    #[test]
    fn the_order_of_the_list_does_not_move_a_key(key: Vec<u8>) {
        let forward = Ring::new([("a", 0.3), ("b", 1.0), ("c", 0.7)]).pick(&key);
        let backward = Ring::new([("c", 0.7), ("b", 1.0), ("a", 0.3)]).pick(&key);
        prop_assert_eq!(forward, backward.map(|i| 2 - i));
    }
}
