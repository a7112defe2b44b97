//! `Sync`: how the process that makes backends agree works, `akubra sync`. The gateway reads the keys and has no use
//! for them.

use std::time::Duration;

use http::HeaderName;

use super::{
    Listen, SyncConfig,
    load::listener,
    reader::{At, MapReader},
    validate::Listener,
};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// S3's: no part but the last is smaller, and no object that is written at once is larger.
const SMALLEST_PART: u64 = 5 * MIB;
const LARGEST_WRITE: u64 = 5 * GIB;
/// The least limit of bandwidth, and the most that may be asked of a copy.
const LARGEST_LEAST: u64 = 64 << 10;
/// A lease is renewed every third of it, which a busy journal must have time for.
const SHORTEST_HOLD: Duration = Duration::from_secs(3);
const METADATA: &str = "x-amz-meta-";

impl Default for SyncConfig {
    fn default() -> Self {
        SyncConfig {
            concurrency: 16,
            concurrency_per_backend: 8,
            bandwidth_per_backend: None,
            least_rate: Some(16 << 10),
            clock_bound: Duration::from_secs(5),
            copy_acl: false,
            object_version_header: HeaderName::from_static("x-amz-meta-akubra-version"),
            multipart_threshold: 64 * MIB,
            part_size: 16 * MIB,
            max_attempts: None,
            backoff_min: Duration::from_secs(5),
            backoff_max: Duration::from_secs(15 * 60),
            hold: Duration::from_secs(60),
            listen: None,
        }
    }
}

/// The block, and the address that it listens on.
pub fn read(top: &mut MapReader) -> (SyncConfig, Option<Listener>) {
    let default = SyncConfig::default();
    let Some(mut map) = top.get("Sync").and_then(|at| at.map()) else { return (default, None) };
    let zero = "0 would repair nothing; write a whole number from 1 up";
    let backoff_min = map.read("BackoffMin", default.backoff_min, At::timeout);
    let at_backoff_max = map.get("BackoffMax");
    let comparable = !map.is_unknown("BackoffMin");
    let backoff_max = at_backoff_max.as_ref().and_then(At::timeout);
    // Another process than the gateway listens there.
    let listener = map.get("Listen").and_then(|at| listener(&at, "Sync.Listen"));
    let listen: Option<Listen> = listener.as_ref().map(|listener| listener.address.clone());
    let config = SyncConfig {
        concurrency: map.read("Concurrency", default.concurrency, |at| at.positive(zero)),
        concurrency_per_backend: map
            .read("ConcurrencyPerBackend", default.concurrency_per_backend, |at| at.positive(zero)),
        bandwidth_per_backend: map.read("BandwidthPerBackend", None, bandwidth),
        least_rate: map.read("LeastRate", default.least_rate, least_rate),
        clock_bound: map.read("ClockBound", default.clock_bound, At::duration),
        copy_acl: map.read("CopyACL", default.copy_acl, At::boolean),
        object_version_header: map.read("ObjectVersionHeaderName", default.object_version_header, metadata),
        multipart_threshold: map.read("MultipartThreshold", default.multipart_threshold, threshold),
        part_size: map.read("PartSize", default.part_size, part_size),
        max_attempts: map.read("MaxAttempts", None, attempts),
        backoff_min,
        // A long first pause alone is no mistake.
        backoff_max: backoff_max.unwrap_or(default.backoff_max.max(backoff_min)),
        hold: map.read("Hold", default.hold, hold),
        listen,
    };
    if let Some(at) = at_backoff_max.filter(|_| comparable && config.backoff_max < config.backoff_min) {
        at.error::<()>("shorter than BackoffMin; write at least that");
    }
    map.finish();
    (config, listener)
}

fn bandwidth(at: &At) -> Option<Option<u64>> {
    match at.size()? {
        0 => Some(None),
        size if size < LARGEST_LEAST => {
            at.error("less than 64KiB a second: no copy would end in time; write more, or 0 for no limit")
        }
        size => Some(Some(size)),
    }
}

fn least_rate(at: &At) -> Option<Option<u64>> {
    match at.size()? {
        0 => Some(None),
        size if size > LARGEST_LEAST => {
            at.error("more than 64KiB a second, which a limit of bandwidth may be; write less, or 0 for none")
        }
        size => Some(Some(size)),
    }
}

fn metadata(at: &At) -> Option<HeaderName> {
    let text = at.text()?;
    match HeaderName::from_bytes(text.value.as_bytes()) {
        Ok(name) if name.as_str().len() > METADATA.len() && name.as_str().starts_with(METADATA) => Some(name),
        _ => at.error(format!(
            "{} is no header of metadata; write a name that begins with {METADATA}",
            text.shown
        )),
    }
}

fn threshold(at: &At) -> Option<u64> {
    match at.size()? {
        size if (SMALLEST_PART..=LARGEST_WRITE).contains(&size) => Some(size),
        _ => at.error("outside 5MiB..5GiB, which is what storages take at once"),
    }
}

fn part_size(at: &At) -> Option<u64> {
    match at.size()? {
        size if (SMALLEST_PART..=GIB).contains(&size) => Some(size),
        _ => at.error("outside 5MiB..1GiB"),
    }
}

fn attempts(at: &At) -> Option<Option<u32>> {
    match u32::try_from(at.count()?) {
        Ok(0) => Some(None),
        Ok(count) => Some(Some(count)),
        Err(_) => at.error("too many; write 0 for no limit"),
    }
}

fn hold(at: &At) -> Option<Duration> {
    match at.duration()? {
        hold if hold >= SHORTEST_HOLD => Some(hold),
        _ => at.error("shorter than 3s: it would be lost while it is renewed; write a duration such as 60s"),
    }
}
