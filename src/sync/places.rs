//! Which backends an object's cluster has, and who would look for it where: what a worker needs of the topology.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use arc_swap::ArcSwap;

use crate::{
    config::VirtualHostStyle,
    journal::Object,
    topology::{Backend, Region, Topology},
};

/// The clusters of one configuration.
pub struct Places {
    clusters: HashMap<String, Place>,
    regions: Vec<Arc<Region>>,
    /// Backends under maintenance, by endpoint.
    maintained: ArcSwap<HashSet<String>>,
}

/// A cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// By endpoint, in the order of the configuration.
    pub backends: Vec<String>,
    /// Those of them that cannot be asked, because there are no credentials for them.
    pub closed: Vec<String>,
}

impl Places {
    /// `opens` = whether there are credentials for a backend.
    pub fn new(topology: &Topology, opens: impl Fn(&Backend) -> bool) -> Places {
        let mut clusters = HashMap::new();
        for cluster in topology.regions.iter().flat_map(|region| &region.clusters) {
            clusters.entry(cluster.name.clone()).or_insert_with(|| {
                let closed = cluster.backends.iter().filter(|backend| !opens(backend));
                Place {
                    closed: closed.map(|backend| backend.endpoint()).collect(),
                    backends: cluster.backends.iter().map(|backend| backend.endpoint()).collect(),
                }
            });
        }
        Places { clusters, regions: topology.regions.clone(), maintained: ArcSwap::default() }
    }

    /// Which backends get nothing from now on, by endpoint.
    pub fn maintain(&self, backends: HashSet<String>) {
        self.maintained.store(Arc::new(backends));
    }

    /// A backend of a cluster that gets nothing now.
    pub fn maintained<'a>(&self, place: &'a Place) -> Option<&'a String> {
        let maintained = self.maintained.load();
        place.backends.iter().find(|backend| maintained.contains(*backend))
    }

    pub fn get(&self, cluster: &str) -> Option<&Place> {
        self.clusters.get(cluster)
    }

    /// Clusters and what they are, by name.
    pub fn all(&self) -> Vec<(&str, &Place)> {
        let mut all: Vec<_> = self.clusters.iter().map(|(name, place)| (name.as_str(), place)).collect();
        all.sort_unstable_by_key(|(name, _)| *name);
        all
    }

    /// Why an object must stay on a cluster where it was found, although another is its home; `None` = it may go.
    /// It must, if a region would look for it there and not in its home.
    pub fn is_needed(&self, found_on: &str, object: &Object) -> Option<String> {
        for region in &self.regions {
            for ring_key in ring_keys(region, object) {
                let home = region.home(&ring_key);
                let mut chain = region.chain(home).map(|cluster| cluster.name.as_str());
                if region.clusters.get(home).is_some_and(|cluster| cluster.name == found_on) {
                    return Some(format!("{found_on} is its home in region {}", region.name));
                }
                let (mut there, mut at_home) = (false, false);
                for name in chain.by_ref() {
                    there |= name == found_on;
                    at_home |= name == object.cluster;
                }
                if there && !at_home {
                    let (region, cluster) = (&region.name, &object.cluster);
                    return Some(format!("region {region} looks for it on {found_on} and not on {cluster}"));
                }
            }
        }
        None
    }
}

/// What the ring of a region may hash for an object: by the style of its clients' requests.
fn ring_keys(region: &Region, object: &Object) -> Vec<Vec<u8>> {
    let unified = [b"/", object.bucket.as_slice(), b"/", &object.key].concat();
    match region.virtual_host_style {
        VirtualHostStyle::Unified => vec![unified],
        VirtualHostStyle::Original => vec![unified, [b"/", object.key.as_slice()].concat()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::fixture;

    fn object(cluster: &str) -> Object {
        Object { cluster: cluster.into(), bucket: b"bucket".into(), key: b"key".into() }
    }

    #[test]
    fn a_cluster_has_its_backends_and_those_without_credentials() {
        let config = fixture::config(
            vec![fixture::cluster("c", &["A:1", "b:2"])],
            vec![fixture::region("r", &[("c", 1.0)], &[])],
        );
        let places = Places::new(&Topology::new(&config), |backend| backend.port == 1);
        let backends = vec!["http://a:1".to_owned(), "http://b:2".to_owned()];
        assert_eq!(places.get("c"), Some(&Place { closed: vec![backends[1].clone()], backends }));
        assert_eq!(places.get("d"), None);
    }

    #[test]
    fn an_object_stays_where_a_region_needs_it() {
        let clusters = || ["old", "new", "other"].map(|name| fixture::cluster(name, &[name])).to_vec();
        let needed = |regions: Vec<crate::config::RegionConfig>| {
            let topology = Topology::new(&fixture::config(clusters(), regions));
            Places::new(&topology, |_| true).is_needed("old", &object("new"))
        };
        let moving = || fixture::region("moving", &[("old", 0.0), ("new", 1.0)], &[]);
        assert_eq!(needed(vec![moving()]), None);
        let alone = fixture::region("alone", &[("old", 1.0)], &["d"]);
        assert!(needed(vec![moving(), alone]).unwrap().contains("its home in region alone"));
        let elsewhere = fixture::region("elsewhere", &[("old", 0.0), ("other", 1.0)], &["d"]);
        assert!(needed(vec![moving(), elsewhere]).unwrap().contains("looks for it on old and not on new"));
        let behind = fixture::region("behind", &[("other", 1.0), ("old", 0.0)], &["d"]);
        assert_eq!(needed(vec![moving(), behind]), None);
    }
}
