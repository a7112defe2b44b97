//! Which objects of the journal somebody means: by name, or by what the options say of them.

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use percent_encoding::percent_decode_str;

use super::names;
use crate::{
    config::Config,
    journal::{Filter, Journal, Object, Standing},
    topology::Topology,
};

#[derive(Args)]
pub struct Filters {
    /// Where they stand: to be repaired, waiting for a human, tried too often
    #[arg(long, value_enum)]
    standing: Option<Stands>,
    /// The objects' cluster
    #[arg(long)]
    pub cluster: Option<String>,
    /// Percent-encoded
    #[arg(long)]
    bucket: Option<String>,
    /// What keys begin with, percent-encoded
    #[arg(long)]
    prefix: Option<String>,
    /// The URL of a backend that has not taken a write
    #[arg(long, value_name = "URL")]
    backend: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Stands {
    Open,
    Parked,
    Dead,
}

#[derive(Args)]
pub struct Named {
    /// The object's cluster
    #[arg(long)]
    pub cluster: Option<String>,
    /// /bucket/key, percent-encoded as clients send it
    pub path: String,
}

/// The objects that the options describe.
pub fn filter(config: &Config, filters: &Filters) -> anyhow::Result<Filter> {
    let decoded = |text: &String| percent_decode_str(text).collect::<Vec<u8>>();
    if let Some(cluster) = &filters.cluster {
        known_cluster(config, cluster)?;
    }
    let behind = match &filters.backend {
        Some(url) => Some(backend(config, url)?),
        None => None,
    };
    // Of another cluster's objects it has taken nothing, and is not meant to.
    let (backend, clusters) = behind.unzip();
    let clusters = match (&filters.cluster, clusters) {
        (Some(cluster), Some(having)) if !having.contains(cluster) => {
            bail!("cluster {cluster:?} does not have this backend; it is one of {}", having.join(", "))
        }
        (Some(cluster), _) => Some(vec![cluster.clone()]),
        (None, having) => having,
    };
    Ok(Filter {
        standing: filters.standing.map(|standing| match standing {
            Stands::Open => Standing::Open,
            Stands::Parked => Standing::Parked,
            Stands::Dead => Standing::Dead,
        }),
        clusters,
        bucket: filters.bucket.as_ref().map(decoded),
        prefix: filters.prefix.as_ref().map(decoded),
        backend,
    })
}

/// A cluster that has gone from the configuration may still have objects in the journal; a name that is none is told.
fn known_cluster(config: &Config, name: &str) -> anyhow::Result<()> {
    let names: Vec<&str> = config.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
    if !names.contains(&name) {
        let names = names.iter().map(|name| names::printable(name)).collect::<Vec<_>>().join(", ");
        eprintln!("akubra: the configuration has no cluster {name:?}; it has {names}");
    }
    Ok(())
}

/// A backend's endpoint, and the clusters that have it.
fn backend(config: &Config, url: &str) -> anyhow::Result<(String, Vec<String>)> {
    let topology = Topology::new(config);
    let unknown = || {
        let known: Vec<&str> = topology.backends.iter().map(|backend| backend.url.as_str()).collect();
        format!("{url:?} is no backend of the configuration, which has {}", known.join(", "))
    };
    let backend = topology.backend(url).with_context(unknown)?;
    let clusters = topology.regions.iter().flat_map(|region| &region.clusters);
    let having = clusters.filter(|cluster| cluster.backends.iter().any(|one| one.id == backend.id));
    Ok((backend.endpoint(), having.map(|cluster| cluster.name.clone()).collect()))
}

/// The object that is named. Without a cluster it is the only one with this name in the journal.
pub async fn object(config: &Config, journal: &dyn Journal, named: &Named) -> anyhow::Result<Object> {
    let mut clusters: Vec<&str> = config.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
    if let Some(cluster) = &named.cluster {
        clusters = vec![cluster];
    }
    let mut found = Vec::new();
    for cluster in &clusters {
        let object = names::object(cluster, &named.path)?;
        if journal.show(&object).await?.is_some() {
            found.push(object);
        }
    }
    match found.len() {
        0 => Err(anyhow!("the journal has no {} on {}", named.path, clusters.join(", "))),
        1 => Ok(found.remove(0)),
        _ => {
            let clusters = found.iter().map(|object| object.cluster.as_str()).collect::<Vec<_>>().join(", ");
            Err(anyhow!("it is in the journal for the clusters {clusters}; name one with --cluster"))
        }
    }
}
