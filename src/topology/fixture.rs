//! What tests of placement share: configurations built by hand, and the original's vectors.

use std::time::Duration;

use serde::Deserialize;

use crate::config::{
    BackendUrl, ClusterConfig, Config, Listen, Logging, MirrorConfig, ReadPolicy, RegionConfig, Transport,
    VirtualHostStyle,
};

/// A configuration of these clusters and regions, everything else at its default.
pub fn config(clusters: Vec<ClusterConfig>, regions: Vec<RegionConfig>) -> Config {
    Config {
        technical: None,
        metrics: None,
        listen: Listen::Tcp(([127, 0, 0, 1], 0).into()),
        state_directory: "/nonexistent".into(),
        health_check_endpoint: None,
        tracing: None,
        additional_request_headers: vec![],
        additional_response_headers: vec![],
        transport: Transport {
            max_idle_conns: 0,
            max_idle_conns_per_host: 100,
            idle_conn_timeout: None,
            disable_keep_alives: false,
            dial_timeout: Duration::from_secs(1),
            response_header_timeout: Duration::from_secs(5),
            max_conns_per_backend: 0,
        },
        body_max_size: None,
        max_concurrent_requests: 0,
        maintained_backends: vec![],
        sync_log_methods: None,
        clusters,
        regions,
        logging: Logging::default(),
        mirror: MirrorConfig {
            replica_buffer: 1 << 20,
            replay_buffer: 256 << 10,
            slow_backend_timeout: Duration::from_secs(5),
            background_timeout: Duration::from_secs(60),
            background_requests: 100,
            background_bytes: 1 << 20,
            compare_etags: true,
        },
        sync: Default::default(),
        health_check: Default::default(),
        ejection: Default::default(),
        max_client_connections: 0,
        client_header_timeout: Duration::from_secs(10),
        client_idle_timeout: Duration::from_secs(75),
        client_read_timeout: Duration::from_secs(60),
        client_write_timeout: Duration::from_secs(60),
        trusted_proxies: Default::default(),
        proxy_protocol: false,
        server: Default::default(),
        journal: None,
        warnings: Vec::new(),
        in_force: Default::default(),
    }
}

/// `host[:port]` as a backend's URL.
pub fn url(authority: &str) -> BackendUrl {
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
    BackendUrl { url: format!("http://{authority}"), host: host.into(), port: port.parse().unwrap() }
}

pub fn cluster(name: &str, backends: &[&str]) -> ClusterConfig {
    let backends: Vec<_> = backends.iter().map(|b| url(b)).collect();
    ClusterConfig { name: name.into(), credentials: vec![None; backends.len()], backends }
}

pub fn region(name: &str, clusters: &[(&str, f64)], domains: &[&str]) -> RegionConfig {
    RegionConfig {
        name: name.into(),
        clusters: clusters.iter().map(|(name, weight)| (name.to_string(), *weight)).collect(),
        domains: domains.iter().map(|domain| domain.to_string()).collect(),
        default: domains.is_empty(),
        read_policy: ReadPolicy::One,
        virtual_host_style: VirtualHostStyle::Unified,
        allow_unmerged_listings: false,
        consistency: Default::default(),
    }
}

/// `tests/data/ring-vectors.json`; its `about` explains the fields.
#[derive(Deserialize)]
pub struct Vectors {
    pub label_samples: Vec<LabelSample>,
    pub floor_hundredths: Vec<u64>,
    pub floor_extra: Vec<(f64, u64)>,
    pub keys: Vec<String>,
    pub key_hash: Vec<u32>,
    pub keys_hex: Vec<String>,
    pub keys_hex_hash: Vec<u32>,
    pub rings: Vec<VectorRing>,
    pub collision: Collision,
    pub is_bucket_path: Vec<(String, bool)>,
    pub targets: Vec<VectorTarget>,
    pub regression: Regression,
}

#[derive(Deserialize)]
pub struct LabelSample {
    pub label: String,
    pub md5: String,
    pub points: Vec<u32>,
}

#[derive(Deserialize)]
pub struct VectorRing {
    pub name: String,
    pub nodes: Vec<String>,
    pub weights: Vec<f64>,
    pub int_weights: Vec<u64>,
    pub labels: Vec<u64>,
    pub count: usize,
    pub first20: Vec<(u32, u32)>,
    pub last: Vec<u32>,
    pub sha256: String,
    pub picks: String,
    pub picks_hex: String,
    pub equal_keys: Vec<(String, String)>,
    pub wrap_keys: Vec<(String, String)>,
    pub low_keys: Vec<(String, String)>,
}

#[derive(Deserialize)]
pub struct Collision {
    pub count_including_duplicate: usize,
    pub key: String,
    pub nodes: Vec<String>,
    pub point: u32,
}

/// A request target and its decoded path: text, or hex where it is not UTF-8, or none where it is refused.
#[derive(Deserialize)]
pub struct VectorTarget {
    pub target: String,
    pub path: Option<String>,
    pub path_hex: Option<String>,
}

#[derive(Deserialize)]
pub struct Regression {
    pub v2018: Vec<Walk>,
    pub master: Vec<Walk>,
}

/// One request of the original and the clusters it asked, in order.
#[derive(Deserialize)]
pub struct Walk {
    pub method: String,
    pub path: String,
    pub tried: Vec<String>,
    pub picked: Option<String>,
    #[serde(default)]
    pub all_clusters: bool,
}

pub fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../tests/data/ring-vectors.json")).unwrap()
}

pub fn hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
