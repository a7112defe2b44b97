//! Regions by Host, the order of clusters, and the identity of backends.

use http::{HeaderMap, Method};

use super::{fixture::*, *};
use crate::s3::{Operation, request::classify};

fn two_regions() -> Topology {
    Topology::new(&config(
        vec![cluster("c1", &["b1", "b2:9000"]), cluster("c2", &["b3", "b1"])],
        vec![
            region("near", &[("c1", 1.0)], &["s3.example.com", "::1"]),
            region("deep", &[("c2", 1.0), ("c1", 0.0)], &["deep.s3.example.com", "example.com"]),
            region("rest", &[("c1", 1.0)], &[]),
        ],
    ))
}

/// Region and bucket of a host.
fn found<'a>(topology: &'a Topology, host: &'a str) -> (&'a str, Option<&'a str>) {
    let found = topology.region_for(Some(host)).unwrap();
    (&found.region.name, found.bucket)
}

#[test]
fn a_host_chooses_the_longest_domain() {
    let topology = two_regions();
    for (host, expected) in [
        ("s3.example.com", ("near", None)),
        ("::1", ("near", None)),
        ("photos.s3.example.com", ("near", Some("photos"))),
        ("my.photos.s3.example.com", ("near", Some("my.photos"))),
        ("deep.s3.example.com", ("deep", None)),
        ("photos.deep.s3.example.com", ("deep", Some("photos"))),
        ("photos.example.com", ("deep", Some("photos"))),
        ("s3xexample.com", ("rest", None)),
        (".s3.example.com", ("rest", None)),
        ("", ("rest", None)),
        ("...", ("rest", None)),
    ] {
        assert_eq!(found(&topology, host), expected, "{host}");
    }
    assert_eq!(topology.region_for(None).unwrap().region.name, "rest");
}

#[test]
fn without_a_default_region_a_strange_host_finds_nothing() {
    let topology = Topology::new(&config(
        vec![cluster("c", &["b"])],
        vec![region("r", &[("c", 1.0)], &["s3.example.com"])],
    ));
    assert!(topology.region_for(Some("elsewhere.example.com")).is_none());
    assert!(topology.region_for(None).is_none());
    assert_eq!(topology.region_for(Some("b.s3.example.com")).unwrap().domain, Some("s3.example.com"));
}

#[test]
fn equal_endpoints_share_a_backend() {
    let mut config = config(
        vec![cluster("c1", &["One", "two:9000", "one:80"]), cluster("c2", &["one", "two:9001"])],
        vec![region("r", &[("c1", 1.0), ("c2", 1.0)], &[])],
    );
    config.maintained_backends = vec![url("one"), url("unused")];
    let topology = Topology::new(&config);

    let urls: Vec<&str> = topology.backends.iter().map(|b| b.url.as_str()).collect();
    assert_eq!(urls, ["http://One", "http://two:9000", "http://two:9001"]);
    assert!(topology.backends.iter().enumerate().all(|(id, backend)| backend.id == id));
    let maintained: Vec<bool> = topology.backends.iter().map(|b| b.maintained).collect();
    assert_eq!(maintained, [true, false, false]);

    let [c1, c2] = topology.regions[0].clusters.as_slice() else { panic!("two clusters") };
    assert_eq!(c1.backends.len(), 2);
    assert!(Arc::ptr_eq(&c1.backends[0], &c2.backends[0]));
}

#[test]
fn clusters_are_shared_between_regions() {
    let topology = two_regions();
    assert!(Arc::ptr_eq(&topology.regions[0].clusters[0], &topology.regions[1].clusters[1]));
}

#[test]
fn the_chain_goes_backwards_from_home_and_never_around() {
    let topology = Topology::new(&config(
        ["c1", "c2", "c3"].map(|name| cluster(name, &[name])).into(),
        vec![region("r", &[("c1", 1.0), ("c2", 1.0), ("c3", 1.0)], &[])],
    ));
    let region = &topology.regions[0];
    let vectors = vectors();
    for walk in &vectors.regression.v2018 {
        let method: Method = walk.method.parse().unwrap();
        let request =
            classify(&method, walk.path.as_bytes(), &HeaderMap::new(), None, region.virtual_host_style)
                .unwrap();
        let everywhere = matches!(
            request.operation,
            Operation::Delete | Operation::BucketWrite | Operation::BucketRead { .. }
        );
        assert_eq!(everywhere, walk.all_clusters, "{} {}", walk.method, walk.path);
        if everywhere {
            continue;
        }
        let home = region.home(&request.ring_key);
        assert_eq!(Some(&region.clusters[home].name), walk.picked.as_ref(), "{}", walk.path);
        let chain: Vec<&String> = region.chain(home).map(|cluster| &cluster.name).collect();
        let tried: Vec<&String> = walk.tried.iter().collect();
        assert!(chain.starts_with(&tried), "{}: {tried:?} of {chain:?}", walk.path);
    }
    for walk in vectors.regression.master.iter().filter(|walk| !walk.all_clusters) {
        let home = region.home(walk.path.as_bytes());
        assert_eq!(Some(&region.clusters[home].name), walk.picked.as_ref(), "{}", walk.path);
    }
}

#[test]
fn nothing_panics_on_a_topology_without_clusters() {
    let topology = Topology::new(&config(vec![], vec![region("r", &[("gone", 1.0)], &[])]));
    let region = &topology.regions[0];
    assert_eq!(region.chain(region.home(b"/b/k")).count(), 0);
    assert_eq!(region.chain(usize::MAX).count(), 0);
}
