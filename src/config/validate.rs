//! What no single value shows: names that must exist, that must not meet twice, sums that must not be 0.
//!
//! Pure checks over what was read. Errors are what cannot work or would lose data; warnings are what
//! works and is hardly meant.

use std::collections::{HashMap, HashSet};

use super::{
    BackendUrl, Consistency, Listen,
    errors::{Report, printable, quoted},
    reader::Text,
    regions::{ClusterDraft, RegionDraft},
    suggest,
};

/// Labels that a cluster with the average weight has on the ring.
const LABELS: u64 = 40;

/// An address of ours.
pub struct Listener {
    /// Its key.
    pub name: &'static str,
    pub address: Listen,
    pub text: Text,
    /// Whether it will be bound.
    pub in_use: bool,
}

pub fn listeners(listeners: &[Listener], report: &Report) {
    for (index, later) in listeners.iter().enumerate() {
        for earlier in
            listeners.iter().take(index).filter(|earlier| earlier.address.conflicts_with(&later.address))
        {
            let both = format!("{} and {} are the same address", later.text.shown, earlier.name);
            if later.in_use && earlier.in_use {
                report.error(&later.text.path, later.text.line, format!("{both}; write another port"));
            } else {
                let message = format!("{both}; this one is not in use now");
                report.warning(&later.text.path, later.text.line, &message);
            }
        }
    }
}

pub fn clusters(clusters: &[ClusterDraft], regions: &[RegionDraft], report: &Report) {
    let used: HashSet<&str> = regions
        .iter()
        .flat_map(|region| &region.members)
        .map(|member| member.cluster.value.as_str())
        .collect();
    let all_known = regions.iter().all(|region| region.complete);
    let mut owners: HashMap<(String, u16), &str> = HashMap::new();
    for cluster in clusters {
        if all_known && !used.contains(cluster.name) {
            cluster.at.warning("no region uses this cluster");
        }
        let mut own = HashSet::new();
        for (backend, text) in &cluster.backends {
            if !own.insert(backend.endpoint()) {
                let message =
                    format!("{} already stands in this cluster; write each backend once", text.shown);
                report.error(&text.path, text.line, message);
            } else if let Some(other) = owners.insert(backend.endpoint(), cluster.name) {
                let message = format!("{} is a backend of cluster {} too", text.shown, printable(other));
                report.warning(&text.path, text.line, &message);
            }
        }
    }
}

pub fn regions(regions: &[RegionDraft], clusters: &[ClusterDraft], report: &Report) {
    let known: HashSet<&str> = clusters.iter().map(|cluster| cluster.name).collect();
    let mut domains: HashMap<&str, &RegionDraft> = HashMap::new();
    let mut default: Option<&RegionDraft> = None;
    for region in regions {
        members(region, &known, report);
        for (domain, text) in &region.domains {
            if let Some(owner) = domains.insert(domain, region) {
                let message =
                    format!("{} is a domain of region {} already", text.shown, printable(owner.name));
                report.error(&text.path, text.line, message);
            }
        }
        let (path, line) = (&region.at.path, region.at.node.line);
        if region.complete && region.domains.is_empty() && !region.default {
            report.error(path, line, "no request can reach this region; write Domains or Default: true");
        }
        if region.default {
            if let Some(first) = default {
                let message = format!("region {} is the default already; keep one", printable(first.name));
                report.error(&format!("{path}.Default"), line, message);
            }
            default = default.or(Some(region));
        }
    }
}

/// Where no journal is, none can be told of a write.
pub fn consistencies(regions: &[RegionDraft]) {
    for (at, consistency) in regions.iter().filter_map(|region| region.consistency.as_ref()) {
        if *consistency != Consistency::None {
            at.error::<()>("there is no Journal to tell of writes; write Journal: {}, or none here");
        }
    }
}

fn members(region: &RegionDraft, known: &HashSet<&str>, report: &Report) {
    let mut seen = HashSet::new();
    for member in &region.members {
        let Text { value, shown, path, line } = &member.cluster;
        if !known.contains(value.as_str()) {
            // A suggestion for what came from the environment would say too much about it.
            let near = if report.is_full() || *shown != quoted(value) {
                String::new()
            } else {
                suggest::hint(value, known.iter().copied())
            };
            report.error(path, *line, format!("{shown} is not in Clusters{near}"));
        }
        if !seen.insert(value.as_str()) {
            report.error(path, *line, format!("{shown} stands twice in this region; keep one"));
        }
    }
    if region.complete {
        weights(region, seen.len(), report);
    }
}

/// What the ring will make of the weights: the same arithmetic, on purpose.
fn weights(region: &RegionDraft, distinct: usize, report: &Report) {
    let integer = |weight: f64| (weight * 100.0).floor() as u64;
    let total: u64 = region.members.iter().map(|member| integer(member.weight)).sum();
    if total == 0 {
        let message = "all weights come to 0, so no cluster would take objects; give one at least 0.01";
        report.error(&format!("{}.Clusters", region.at.path), region.at.node.line, message);
        return;
    }
    for member in region.members.iter().filter(|member| member.weight > 0.0) {
        if LABELS * distinct as u64 * integer(member.weight) / total == 0 {
            member
                .at
                .warning("the weight is so small beside the others that this cluster gets no new objects");
        }
    }
}

/// The backends under maintenance, spelled as their clusters spell them.
pub fn maintained(
    maintained: &[(BackendUrl, Text)],
    clusters: &[ClusterDraft],
    report: &Report,
) -> Vec<BackendUrl> {
    let mut known: HashMap<(String, u16), Vec<&BackendUrl>> = HashMap::new();
    let mut spelled = HashSet::new();
    for (backend, _) in clusters.iter().flat_map(|cluster| &cluster.backends) {
        if spelled.insert(backend) {
            known.entry(backend.endpoint()).or_default().push(backend);
        }
    }
    let all_known = clusters.iter().all(|cluster| cluster.complete);
    let mut found = Vec::new();
    for (backend, text) in maintained {
        match known.get_mut(&backend.endpoint()) {
            // Taken out, so that each is found once.
            Some(spellings) => found.extend(std::mem::take(spellings).into_iter().cloned()),
            None if all_known => {
                // A mistyped name would leave the backend that was meant at work.
                report.error(&text.path, text.line, format!("{} is a backend of no cluster", text.shown));
            }
            None => {}
        }
    }
    let distinct: HashSet<&BackendUrl> = found.iter().collect();
    for cluster in clusters.iter().filter(|cluster| !cluster.backends.is_empty()) {
        if cluster.complete && cluster.backends.iter().all(|(backend, _)| distinct.contains(backend)) {
            cluster.at.warning("all backends of this cluster are in MaintainedBackends");
        }
    }
    found
}
