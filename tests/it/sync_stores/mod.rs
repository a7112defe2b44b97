//! Copying between backends: real S3 servers that check signatures, and backends that misbehave at either end. Here is
//! what the tests stand on; one file per subject.

mod answers;
pub mod conditions;
mod copies;
mod parts;
mod tags;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use akubra::{
    config::Config,
    journal::Object,
    sync::{
        Copied, Gate, Held, State, StoreError, Stores,
        sign::ServiceSigner,
        stores::{S3Stores, Settings},
    },
    topology::Topology,
    upstream::{Upstream, resolve::Resolver},
};
use async_trait::async_trait;
use aws_sdk_s3::{Client, primitives::ByteStream};
use bytes::Bytes;
use md5::Digest;

use crate::fixture::{
    ACCESS_KEY, Answer, Behaviour, Endpoint, Misbehaving, Phase, Received, S3Backend, SECRET_KEY, hex_md5,
    noise, run, s3_client, soon,
};

const MIB: usize = 1 << 20;
/// So that a body comes in several pieces, and does not fit into buffers on the way.
const LARGE: usize = 4 * MIB;

/// Open for so many changes.
pub struct Turnstile(AtomicUsize);

#[async_trait]
impl Gate for Turnstile {
    async fn may_go_on(&self) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

pub fn open() -> Turnstile {
    Turnstile(AtomicUsize::new(usize::MAX))
}

fn closed() -> Turnstile {
    Turnstile(AtomicUsize::new(0))
}

fn stores_with(backends: &[&dyn Endpoint], settings: Settings, credentials: &str) -> S3Stores {
    let urls: Vec<String> = backends.iter().map(|backend| backend.url()).collect();
    let yaml = format!(
        "Listen: '127.0.0.1:0'\nClusters:\n  c:\n    Backends: {urls:?}\n{credentials}Regions:\n  r:\n    Default: true\n    \
         Clusters: [{{Cluster: c, Weight: 1}}]\nLogging: {{Synclog: {{stderr: true}}}}\n"
    );
    let config = Config::parse(&yaml, &|_| None).unwrap();
    let topology = Topology::new(&config);
    let resolver = Arc::new(Resolver::new(&topology.backends));
    let signer = Arc::new(ServiceSigner::new(&config, &topology));
    let upstream = Arc::new(Upstream::new(&config, &topology, resolver).signing(signer));
    S3Stores::new(&upstream, &topology, settings)
}

pub fn stores(backends: &[&dyn Endpoint], settings: Settings) -> S3Stores {
    let keys = format!("    Credentials: {{AccessKey: {ACCESS_KEY}, SecretKey: {SECRET_KEY}}}\n");
    stores_with(backends, settings, &keys)
}

fn small_parts(part_size: usize) -> Settings {
    Settings { multipart_threshold: MIB as u64, part_size: part_size as u64, ..Settings::default() }
}

pub fn object(key: &str) -> Object {
    Object { cluster: "c".into(), bucket: b"bucket".to_vec(), key: key.into() }
}

async fn held(stores: &S3Stores, backend: &dyn Endpoint, key: &str) -> Held {
    match stores.state(&backend.url(), &object(key)).await {
        State::Present(held) => held,
        other => panic!("{key}: {other:?}"),
    }
}

/// When a backend was asked about which nothing else is said.
pub fn just_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// From the one to the other, over what is there.
async fn copy(
    stores: &S3Stores,
    key: &str,
    from: &dyn Endpoint,
    to: &dyn Endpoint,
    gate: &Turnstile,
) -> Result<Copied, StoreError> {
    let over = stores.state(&to.url(), &object(key)).await;
    let source = held(stores, from, key).await;
    stores.copy(&object(key), (&from.url(), &source), (&to.url(), &over, just_now()), gate).await
}

/// A misbehaving source with one object and no tags, and a misbehaving target.
async fn misbehaving_pair(body: &Bytes) -> (Misbehaving, Misbehaving) {
    let (a, b) = crate::fixture::pair().await;
    a.holds("/bucket/k", body.clone());
    a.will_once_on("GET", Behaviour::answers(Answer::error(501, "NotImplemented")));
    (a, b)
}

fn stores_with_one(backend: &Misbehaving) -> S3Stores {
    stores(&[backend], Settings::default())
}
