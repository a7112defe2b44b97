//! `akubra locate -c FILE --host H /bucket/key`: where an object lives, and in which order it would be sought.
//!
//! Answers the questions of an operator who wonders why an object is where it is, from the configuration alone:
//! no backend is asked. It goes through the very functions that the gateway uses, so it cannot tell another
//! story. What it prints of keys is escaped: a terminal would obey control characters in them.

use std::{fmt::Write as _, io::Write};

use anyhow::{Context, anyhow};
use http::{HeaderMap, Method};

use crate::{
    config::{Config, ReadPolicy, VirtualHostStyle},
    s3::{Operation, S3Request, Target, request::classify},
    topology::{Cluster, Region, RegionMatch, Topology, host_name, ring},
};

/// Explains where the object (or bucket) of a request would be stored and sought.
///
/// `host` is a Host header value, `None` is a Host of no known domain; `target` is a request target as a client
/// sends it, percent-encoded.
pub fn run(config: &Config, host: Option<&str>, target: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let topology = Topology::new(config);
    let host = match host {
        Some(raw) => Some(host_name(raw.as_bytes()).ok_or_else(|| anyhow!("{raw:?} is not a host"))?),
        None => None,
    };
    let found = topology.region_for(host.as_deref()).context("no region found for this domain")?;
    let ask = |method: Method| {
        classify(&method, target.as_bytes(), &HeaderMap::new(), found.bucket, found.region.virtual_host_style)
            .with_context(|| format!("{method} {}", printable(target.as_bytes())))
    };
    let get = ask(Method::GET)?;

    write_region(out, &found)?;
    write_target(out, &get, &found)?;
    match get.target {
        Target::Object { .. } => write_placement(out, found.region, &get.ring_key)?,
        Target::Bucket { .. } | Target::Service => write_all_clusters(out, found.region)?,
    }
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let request = ask(method.clone())?;
        let fate = fate(&request, found.region);
        writeln!(out, "{:<12} {fate}", method.as_str())?;
    }
    Ok(())
}

fn write_region(out: &mut impl Write, found: &RegionMatch) -> anyhow::Result<()> {
    let why = match (found.domain, found.bucket) {
        (Some(domain), None) => format!("the Host is its domain {}", printable(domain.as_bytes())),
        (Some(domain), Some(bucket)) => format!(
            "virtual-host style: bucket {} before its domain {}",
            printable(bucket.as_bytes()),
            printable(domain.as_bytes())
        ),
        (None, _) => "the default region: no domain matches the Host".to_owned(),
    };
    writeln!(out, "region       {} ({why})", printable(found.region.name.as_bytes()))?;
    Ok(())
}

fn write_target(out: &mut impl Write, request: &S3Request, found: &RegionMatch) -> anyhow::Result<()> {
    match &request.target {
        Target::Service => writeln!(out, "service      (no bucket is named)")?,
        Target::Bucket { bucket } => writeln!(out, "bucket       {}", printable(bucket))?,
        Target::Object { bucket, key } => {
            writeln!(out, "bucket       {}", printable(bucket))?;
            writeln!(out, "key          {}", printable(key))?;
        }
    }
    if let Some(sub_resource) = &request.sub_resource {
        writeln!(out, "sub-resource {sub_resource}")?;
    }
    if let Some(version) = &request.version_id {
        writeln!(out, "version      {}", printable(version.as_bytes()))?;
    }
    if found.bucket.is_some() && found.region.virtual_host_style == VirtualHostStyle::Original {
        writeln!(out, "note         VirtualHostStyle is original: the bucket is not part of the ring key")?;
    }
    Ok(())
}

/// Ring key, hash, shares, and the clusters in the order of a search.
fn write_placement(out: &mut impl Write, region: &Region, ring_key: &[u8]) -> anyhow::Result<()> {
    let hash = ring::hash(ring_key);
    let home = region.home(ring_key);
    writeln!(out, "ring key     {}", printable(ring_key))?;
    writeln!(out, "hash         {hash:#010x} ({hash})")?;
    writeln!(out)?;
    writeln!(out, "clusters of the region and their shares of the ring:")?;
    for (index, (cluster, share)) in region.clusters.iter().zip(region.ring.shares()).enumerate() {
        let mark = if index == home { "  <- home" } else { "" };
        writeln!(out, "  {:>6.2} %  {}{mark}", share * 100.0, printable(cluster.name.as_bytes()))?;
    }
    writeln!(out)?;
    writeln!(out, "sought in this order:")?;
    for (place, cluster) in region.chain(home).enumerate() {
        let role = if place == 0 { "home" } else { "backtrack" };
        writeln!(out, "  {}. {} ({role})", place + 1, printable(cluster.name.as_bytes()))?;
        write_backends(out, cluster)?;
    }
    writeln!(out)?;
    Ok(())
}

/// Bucket and service requests are not hashed.
fn write_all_clusters(out: &mut impl Write, region: &Region) -> anyhow::Result<()> {
    writeln!(out)?;
    writeln!(out, "not hashed; clusters of the region:")?;
    for cluster in &region.clusters {
        writeln!(out, "  {}", printable(cluster.name.as_bytes()))?;
        write_backends(out, cluster)?;
    }
    writeln!(out)?;
    Ok(())
}

fn write_backends(out: &mut impl Write, cluster: &Cluster) -> anyhow::Result<()> {
    for backend in &cluster.backends {
        let mark = if backend.maintained { "  (under maintenance: gets nothing)" } else { "" };
        writeln!(out, "       {}{mark}", printable(backend.url.as_bytes()))?;
    }
    Ok(())
}

/// What would happen to a request, in one sentence.
fn fate(request: &S3Request, region: &Region) -> String {
    let mut chain =
        region.chain(region.home(&request.ring_key)).map(|cluster| printable(cluster.name.as_bytes()));
    let home = chain.next().unwrap_or_default();
    let others: Vec<String> = chain.collect();
    let several = region.clusters.len() > 1;
    match &request.operation {
        Operation::Read => {
            let asks = match region.read_policy {
                ReadPolicy::One => format!("asks one backend of {home} after the other"),
                ReadPolicy::Race => format!("asks all backends of {home} at once"),
            };
            if request.home_only || others.is_empty() {
                format!("{asks}; no other cluster is asked")
            } else {
                format!("{asks}, then backtracks to {}", others.join(", then "))
            }
        }
        Operation::Write | Operation::Copy { .. } => {
            format!("goes to every backend of {home} at once; no other cluster is asked")
        }
        Operation::Multipart(_) => format!("goes to one backend of {home}"),
        Operation::Delete | Operation::BucketWrite => {
            "goes to every backend of every cluster of the region".to_owned()
        }
        Operation::BucketRead { listing: true } if several && !region.allow_unmerged_listings => {
            "is refused with 501: a listing over several clusters is not merged yet".to_owned()
        }
        Operation::BucketRead { .. } if several => {
            "asks one healthy backend of each cluster; the first good answer counts".to_owned()
        }
        Operation::BucketRead { .. } => "asks one healthy backend of the cluster".to_owned(),
        Operation::FormPost => "is refused with 501".to_owned(),
        Operation::Options => "is answered by the gateway, or asked as HEAD".to_owned(),
    }
}

/// Bytes from outside as one line of text that a terminal shows and does not obey.
fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\'' => text.push(c),
                c => text.extend(c.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            write!(text, "\\x{byte:02x}").unwrap_or_default();
        }
    }
    text
}

#[cfg(test)]
mod tests;
