//! `Sync`: what is read, and what each mistake is told as.

use super::*;

fn with(block: &str) -> String {
    format!("Sync: {{{block}}}\n{MINIMAL}")
}

#[test]
fn all_keys_of_the_sync_process_are_read() {
    let keys = "Concurrency: 3, ConcurrencyPerBackend: 2, BandwidthPerBackend: 10M, LeastRate: 0, ClockBound: 0s, CopyACL: true, \
        ObjectVersionHeaderName: X-Amz-Meta-V, MultipartThreshold: 5MiB, PartSize: 6MiB, MaxAttempts: 7, \
        BackoffMin: 20m, Hold: 3s, Listen: '127.0.0.1:1'";
    let sync = parse(&with(keys)).unwrap().sync;
    assert_eq!((sync.concurrency, sync.concurrency_per_backend), (3, 2));
    assert_eq!((sync.bandwidth_per_backend, sync.least_rate), (Some(10_000_000), None));
    assert_eq!((sync.clock_bound, sync.copy_acl), (Duration::ZERO, true));
    assert_eq!(sync.object_version_header, "x-amz-meta-v");
    assert_eq!((sync.multipart_threshold, sync.part_size), (5 << 20, 6 << 20));
    assert_eq!(
        (sync.max_attempts, sync.backoff_min, sync.backoff_max),
        (Some(7), sync.backoff_max, sync.backoff_min)
    );
    assert_eq!((sync.hold, sync.listen.unwrap().to_string()), (Duration::from_secs(3), "127.0.0.1:1".into()));
    assert_eq!(parse(MINIMAL).unwrap().sync, SyncConfig::default());
}

#[test]
fn each_mistake_in_the_sync_block_is_named() {
    for (keys, message) in [
        ("Concurrency: 0", "Sync.Concurrency: 0 would repair nothing"),
        ("ConcurrencyPerBackend: 0", "Sync.ConcurrencyPerBackend: 0 would repair nothing"),
        ("BandwidthPerBackend: 1K", "less than 64KiB a second"),
        ("LeastRate: 65KiB", "more than 64KiB a second"),
        ("ObjectVersionHeaderName: x-version", "begins with x-amz-meta-"),
        ("ObjectVersionHeaderName: x-amz-meta-", "begins with x-amz-meta-"),
        ("PartSize: 4MiB", "outside 5MiB..1GiB"),
        ("MultipartThreshold: 6GiB", "outside 5MiB..5GiB"),
        ("MaxAttempts: 5000000000", "too many"),
        ("BackoffMin: 2s, BackoffMax: 1s", "Sync.BackoffMax: shorter than BackoffMin"),
        ("BackoffMin: 0s", "positive duration"),
        ("Hold: 1s", "shorter than 3s"),
        ("Listen: nowhere", "Sync.Listen"),
        ("Concurency: 1", "did you mean"),
    ] {
        let told = errors(&with(keys));
        assert!(told.contains(message), "{keys}: {told}");
    }
    let told = errors(&format!("Sync: {{Listen: ':1'}}\n{}", MINIMAL.replace("':0'", "':1'")));
    assert!(told.contains("same address"), "{told}");
}
