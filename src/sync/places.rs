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

    /// A cluster's name as this has it.
    pub fn named(&self, cluster: &str) -> Option<&str> {
        self.clusters.get_key_value(cluster).map(|(name, _)| name.as_str())
    }

    /// Clusters that have one of these backends.
    pub fn sharing<'a>(&self, backends: impl Iterator<Item = &'a String>) -> Vec<&str> {
        let backends: HashSet<&String> = backends.collect();
        let shares = |place: &Place| place.backends.iter().any(|backend| backends.contains(backend));
        self.all().into_iter().filter(|(_, place)| shares(place)).map(|(name, _)| name).collect()
    }

    /// The other clusters on which a region looks for an object whose home there is that of the object.
    pub fn looked_on(&self, object: &Object) -> Vec<&str> {
        let mut names = Vec::new();
        for (region, home) in self.homes(object) {
            let mut chain = region.chain(home).map(|cluster| cluster.name.as_str());
            if chain.next() == Some(object.cluster.as_str()) {
                names.extend(chain.filter(|name| !names.contains(name)).collect::<Vec<_>>());
            }
        }
        names
    }

    /// Whether a region looks for the object on a newer cluster before it does so on the object's.
    pub fn is_hidden(&self, object: &Object) -> bool {
        self.homes(object)
            .into_iter()
            .any(|(region, home)| region.chain(home).skip(1).any(|cluster| cluster.name == object.cluster))
    }

    /// Why an object must stay on a backend that is none of its home; `None` = it may go. It must, if a region has it
    /// as a home there, or would look for it there and on no backend of its home.
    pub fn is_needed(&self, backend: &String, object: &Object) -> Option<String> {
        let at_home = self.get(&object.cluster).map_or(&[][..], |place| &place.backends);
        for (region, home) in self.homes(object) {
            let places = || region.chain(home).filter_map(|cluster| self.get(&cluster.name));
            if places().next().is_some_and(|place| place.backends.contains(backend)) {
                return Some(format!("{backend} is of its home in region {}", region.name));
            }
            let is_there = places().any(|place| place.backends.contains(backend));
            let finds_it = places().any(|place| place.backends.iter().any(|one| at_home.contains(one)));
            if is_there && !finds_it {
                let (region, cluster) = (&region.name, &object.cluster);
                return Some(format!("region {region} looks for it on {backend} and not on {cluster}"));
            }
        }
        None
    }

    /// The home of an object in each region, by its place there; two, where it may be either.
    fn homes(&self, object: &Object) -> Vec<(&Region, usize)> {
        let of = |region: &Arc<Region>| {
            ring_keys(region, object).into_iter().map(|key| region.home(&key)).collect::<Vec<_>>()
        };
        let all = self.regions.iter().map(|region| (region, of(region)));
        all.flat_map(|(region, homes)| homes.into_iter().map(move |home| (&**region, home))).collect()
    }
}

/// The backends of several clusters, each once.
pub fn backends_of(places: &[&Place]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for backend in places.iter().flat_map(|place| &place.backends) {
        if !all.contains(backend) {
            all.push(backend.clone());
        }
    }
    all
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
            Places::new(&topology, |_| true).is_needed(&"http://old:80".to_owned(), &object("new"))
        };
        let moving = || fixture::region("moving", &[("old", 0.0), ("new", 1.0)], &[]);
        assert_eq!(needed(vec![moving()]), None);
        let alone = fixture::region("alone", &[("old", 1.0)], &["d"]);
        assert!(needed(vec![moving(), alone]).unwrap().contains("of its home in region alone"));
        let elsewhere = fixture::region("elsewhere", &[("old", 0.0), ("other", 1.0)], &["d"]);
        assert!(
            needed(vec![moving(), elsewhere])
                .unwrap()
                .contains("looks for it on http://old:80 and not on new")
        );
        let mut shared = clusters();
        shared.push(fixture::cluster("again", &["old", "other"]));
        let regions = vec![moving(), fixture::region("again", &[("again", 1.0)], &["d"])];
        let places = Places::new(&Topology::new(&fixture::config(shared, regions)), |_| true);
        // By another name.
        let needed_again = places.is_needed(&"http://old:80".to_owned(), &object("new"));
        assert!(needed_again.unwrap().contains("of its home in region again"));
        assert_eq!(places.sharing(["http://old:80".to_owned()].iter()), ["again", "old"]);
        assert_eq!(places.looked_on(&object("new")), ["old"]);
        assert!(places.is_hidden(&object("old")) && !places.is_hidden(&object("new")));
        let behind = fixture::region("behind", &[("other", 1.0), ("old", 0.0)], &["d"]);
        assert_eq!(needed(vec![moving(), behind]), None);
    }
}
