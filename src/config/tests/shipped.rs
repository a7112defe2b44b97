//! The files that come with the program: valid, free of warnings, and true to the code.

use std::{path::Path, time::Duration};

use http::Method;
use log::LevelFilter;

use super::{super::server, no_env, parse};
use crate::config::{Config, ConfigErrors, Exporter};

fn shipped(path: &str) -> Result<Config, ConfigErrors> {
    Config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join(path), &no_env)
}

/// The reference file's lines that `uncomment` picks, without their `#`.
pub fn reference(uncomment: impl Fn(&str) -> bool) -> String {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/akubra.yaml")).unwrap();
    text.lines()
        .map(|line| if uncomment(line.trim_start()) { line.replacen('#', "", 1) } else { line.to_owned() } + "\n")
        .collect()
}

#[test]
fn the_originals_example_is_accepted() {
    let config = shipped("tests/data/seed.yaml").unwrap();
    assert_eq!(config.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(config.health_check_endpoint.as_deref(), Some("/status/ping"));
    assert_eq!(config.additional_request_headers[1].0, "x-akubra-version");
    assert_eq!(config.additional_response_headers.len(), 4);
    assert_eq!(config.transport.idle_conn_timeout, None);
    assert_eq!(config.transport.response_header_timeout, Duration::from_secs(5));
    assert_eq!(config.body_max_size, Some(100_000_000));
    assert_eq!(config.max_concurrent_requests, 200);
    assert_eq!(config.sync_log_methods, Some(vec![Method::PUT]));
    assert_eq!(config.regions[0].clusters, [("cluster1".to_owned(), 0.0), ("cluster2".to_owned(), 1.0)]);
    assert_eq!(config.regions[0].domains, ["myregion.internal"]);
    assert!(
        config.logging.synclog.stderr && config.logging.mainlog.stderr && config.logging.accesslog.stderr
    );
    assert_eq!(config.logging.mainlog.level, Some(LevelFilter::Debug));
    let technical = config.technical.unwrap();
    assert_eq!((technical.listen.to_string(), technical.body_max_size), ("0.0.0.0:8071".into(), 256 << 10));
    let Some(Exporter::Graphite { collector, reports }) = config.metrics else {
        panic!("{:?}", config.metrics)
    };
    assert_eq!(collector.to_string(), "graphite.addr.internal:2003");
    assert_eq!((reports.interval, reports.prefix.as_str()), (Duration::from_secs(30), "my.metrics"));
    assert_eq!((reports.append_defaults, reports.debug), (true, false));
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("Metrics.ExpAddr: \":8080\" and Listen are the same address"));
}

#[test]
fn every_shipped_file_is_valid_and_gives_no_warning() {
    for path in [
        "conf/akubra.yaml",
        "conf/dev.yaml",
        "conf/service.yaml",
        "conf/examples/two-sites.yaml",
        "conf/examples/new-storage.yaml",
    ] {
        let config = shipped(path).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(config.warnings.is_empty(), "{path}: {:?}", config.warnings);
    }
}

/// Those that `systemd/akubra.service` names: it can write nowhere else.
#[test]
fn the_services_files_are_in_the_services_directories() {
    let config = shipped("conf/service.yaml").unwrap();
    assert!(config.listen.to_string().starts_with("127.0.0.1:"));
    assert_eq!(config.state_directory, Path::new("/var/lib/akubra"));
    for file in [&config.server.upgrade_sock, &config.server.pid_file] {
        assert!(file.starts_with("/run/akubra/"), "{file}");
    }
    let logging = &config.logging;
    for log in [&logging.synclog, &logging.mainlog, &logging.accesslog, &logging.clustersynclog] {
        let file = log.file.as_deref().unwrap();
        assert!(file.starts_with("/var/log/akubra/") && !log.stderr, "{file:?}");
    }
}

#[test]
fn the_demo_has_six_backends_and_two_regions() {
    let config = shipped("conf/dev.yaml").unwrap();
    let ports: Vec<u16> = config.clusters.iter().flat_map(|c| &c.backends).map(|b| b.port).collect();
    assert_eq!(ports, [9001, 9002, 9003, 9004, 9005, 9006]);
    assert_eq!(
        config.regions.iter().map(|r| (r.name.as_str(), r.default)).collect::<Vec<_>>(),
        [("single", true), ("sharded", false)]
    );
}

#[test]
fn the_reference_file_tells_the_true_defaults() {
    let commented = parse(&reference(|_| false)).unwrap();
    let uncommented = reference(|line| line.starts_with('#') && !line.starts_with("# "));
    let uncommented = parse(&uncommented).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(format!("{commented:?}"), format!("{uncommented:?}"));
}

#[test]
fn the_reference_file_names_every_key() {
    let text = reference(|_| false);
    let ours = "Journal SQLite File PostgreSQL RememberedObjects Settle Consistency Tracing Endpoint Ratio ServiceName StateDirectory TechnicalEndpointToken TechnicalEndpointListen TechnicalEndpointBodyMaxSize HealthCheckEndpoint AdditionalRequestHeaders AdditionalResponseHeaders \
        MaxIdleConns MaxIdleConnsPerHost IdleConnTimeout ResponseHeaderTimeout DisableKeepAlives DialTimeout \
        MaxConnsPerBackend BodyMaxSize MaxConcurrentRequests MaintainedBackends SyncLogMethods Backends Cluster \
        Weight Domains Default ReadPolicy VirtualHostStyle UnmergedListings Credentials AccessKey SecretKey SessionToken Region File Backend Synclog Mainlog Accesslog \
        ClusterSyncLog stderr stdout file level plaintext syslog syslogaddr database user password dbname host port sslmode spool \
        inserttmpl ReplicaBuffer ReplayBuffer \
        SlowBackendTimeout HealthCheck Type Path Timeout Healthy Unhealthy Ejection Enabled ConsecutiveFailures \
        ErrorRate MinRequests Window Latency LatencyPercentile Time MaxTime MaxEjected BackgroundTimeout BackgroundRequests BackgroundBytes CompareETags ClientReadTimeout \
        ClientWriteTimeout ClientHeaderTimeout ClientIdleTimeout TrustedProxies ProxyProtocol MaxClientConnections Target ExpAddr Interval Prefix AppendDefaults Addr Percentiles Debug \
        Sync Concurrency ConcurrencyPerBackend BandwidthPerBackend LeastRate ClockBound CopyACL ObjectVersionHeaderName \
        MultipartThreshold PartSize MaxAttempts BackoffMin BackoffMax Hold";
    for key in ours.split_whitespace().chain(server::KEYS) {
        let names = |line: &str| line.trim_start_matches([' ', '#', '-']).starts_with(&format!("{key}:"));
        assert!(text.lines().any(names), "{key}");
    }
}
