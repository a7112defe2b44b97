//! `Clusters` and `Regions` as they stand in the file: drafts that still know their lines, for
//! [`validate`](super::validate) to compare with each other.

use super::{
    BackendUrl, ClusterConfig, Consistency, ReadPolicy, RegionConfig, VirtualHostStyle,
    address::parse_domain,
    credentials::{self, CredentialsDraft},
    journal::CONSISTENCIES,
    reader::{At, MapReader, Text},
};

pub struct ClusterDraft<'a> {
    pub name: &'a str,
    pub at: At<'a>,
    pub backends: Vec<(BackendUrl, Text)>,
    /// Whether all of them could be read.
    pub complete: bool,
    pub credentials: Vec<CredentialsDraft>,
}

pub struct RegionDraft<'a> {
    pub name: &'a str,
    pub at: At<'a>,
    pub members: Vec<Member<'a>>,
    /// Lower-cased, and as written.
    pub domains: Vec<(String, Text)>,
    pub default: bool,
    /// Whether everything could be read: if not, what follows from the whole is not judged.
    pub complete: bool,
    read_policy: ReadPolicy,
    virtual_host_style: VirtualHostStyle,
    allow_unmerged_listings: bool,
    pub consistency: Option<(At<'a>, Consistency)>,
}

/// A cluster's place in a region.
pub struct Member<'a> {
    pub at: At<'a>,
    pub cluster: Text,
    /// 1 where it could not be read: the cluster's name is judged all the same.
    pub weight: f64,
    weighed: bool,
}

impl From<ClusterDraft<'_>> for ClusterConfig {
    fn from(draft: ClusterDraft) -> Self {
        ClusterConfig {
            name: draft.name.to_owned(),
            credentials: credentials::of_backends(&draft),
            backends: draft.backends.into_iter().map(|(backend, _)| backend).collect(),
        }
    }
}

impl From<RegionDraft<'_>> for RegionConfig {
    fn from(draft: RegionDraft) -> Self {
        RegionConfig {
            name: draft.name.to_owned(),
            clusters: draft.members.into_iter().map(|member| (member.cluster.value, member.weight)).collect(),
            domains: draft.domains.into_iter().map(|(domain, _)| domain).collect(),
            default: draft.default,
            read_policy: draft.read_policy,
            virtual_host_style: draft.virtual_host_style,
            allow_unmerged_listings: draft.allow_unmerged_listings,
            consistency: draft.consistency.map(|(_, consistency)| consistency).unwrap_or_default(),
        }
    }
}

/// `look` = files that it names may be read.
pub fn read_clusters<'a>(top: &mut MapReader<'a>, look: bool) -> Vec<ClusterDraft<'a>> {
    named(top, "Clusters", "write at least one cluster with its Backends")
        .into_iter()
        .map(|(name, at)| {
            let mut credentials = Vec::new();
            let backends = at.map().and_then(|mut map| {
                let backends = map.require("Backends", "write a list of http:// URLs");
                credentials = credentials::read(&mut map, look);
                map.finish();
                backends.and_then(|at| match at.items()?.len() {
                    0 => at.error("empty; a cluster needs at least one backend"),
                    listed => Some((read_backends(&at), listed)),
                })
            });
            let complete = backends.as_ref().is_some_and(|(read, listed)| read.len() == *listed);
            let backends = backends.map(|(read, _)| read).unwrap_or_default();
            ClusterDraft { name, at, backends, complete, credentials }
        })
        .collect()
}

/// A list of backends.
pub fn read_backends(at: &At) -> Vec<(BackendUrl, Text)> {
    let read = |item: &At| {
        let text = item.text()?;
        match BackendUrl::parse(&text.value) {
            Ok(backend) => Some((backend, text)),
            Err(error) => item.error(error.to_string()),
        }
    };
    at.items().unwrap_or_default().iter().filter_map(read).collect()
}

pub fn read_regions<'a>(top: &mut MapReader<'a>) -> Vec<RegionDraft<'a>> {
    named(top, "Regions", "write at least one region with its Clusters and Domains")
        .into_iter()
        .filter_map(|(name, at)| read_region(name, at))
        .collect()
}

/// The named mappings of a block that must have at least one.
fn named<'a>(top: &mut MapReader<'a>, key: &'static str, right: &str) -> Vec<(&'a str, At<'a>)> {
    let Some(at) = top.require(key, right) else { return Vec::new() };
    let Some(map) = at.map() else { return Vec::new() };
    let entries = map.entries();
    if entries.is_empty() {
        at.report.error(&at.path, at.node.line, format!("empty; {right}"));
    }
    for (_, at) in entries.iter().filter(|(name, _)| name.is_empty()) {
        at.report.error(&at.path, at.node.line, "the name is empty; write one");
    }
    entries
}

fn read_region<'a>(name: &'a str, at: At<'a>) -> Option<RegionDraft<'a>> {
    let mut map = at.map()?;
    let members =
        map.require("Clusters", "write a list of \"- Cluster: NAME\" with a Weight").and_then(|at| {
            let items = at.items()?;
            if items.is_empty() {
                at.error("empty; a region needs at least one cluster")
            } else {
                Some(items)
            }
        });
    let expected = members.as_ref().map(Vec::len);
    let members: Vec<Member> = members.unwrap_or_default().into_iter().filter_map(read_member).collect();
    let listed = map.get("Domains").and_then(|at| at.items());
    let domains: Vec<_> = listed.iter().flatten().filter_map(read_domain).collect();
    let draft = RegionDraft {
        name,
        complete: expected == Some(members.iter().filter(|member| member.weighed).count())
            && listed.as_ref().map_or(0, Vec::len) == domains.len()
            && !map.is_unknown("Domains")
            && !map.is_unknown("Default"),
        members,
        domains,
        default: map.read("Default", false, At::boolean),
        read_policy: map.read("ReadPolicy", ReadPolicy::One, |at| {
            at.one_of(&[("one", ReadPolicy::One), ("race", ReadPolicy::Race)])
        }),
        virtual_host_style: map.read("VirtualHostStyle", VirtualHostStyle::Unified, |at| {
            at.one_of(&[("unified", VirtualHostStyle::Unified), ("original", VirtualHostStyle::Original)])
        }),
        allow_unmerged_listings: map
            .read("UnmergedListings", false, |at| at.one_of(&[("refuse", false), ("allow", true)])),
        consistency: map
            .get("Consistency")
            .and_then(|at| at.one_of(&CONSISTENCIES).map(|consistency| (at, consistency))),
        at,
    };
    map.finish();
    Some(draft)
}

fn read_member(at: At) -> Option<Member> {
    let mut map = at.map()?;
    let cluster = map.require("Cluster", "write the name of a cluster").and_then(|at| at.text());
    let weight = map.require("Weight", "write a number from 0 to 1").and_then(|at| at.fraction());
    map.finish();
    Some(Member { at, cluster: cluster?, weight: weight.unwrap_or(1.0), weighed: weight.is_some() })
}

fn read_domain(at: &At) -> Option<(String, Text)> {
    let text = at.text()?;
    match parse_domain(&text.value) {
        Ok(domain) => Some((domain, text)),
        Err(error) => at.error(format!("{} is {error}; a domain has no port", text.shown)),
    }
}
