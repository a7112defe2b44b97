//! The configuration as a whole: defaults, what is refused and where, any input.

mod credentials;
mod in_force;
mod journal;
mod logging;
mod secrets;
mod shipped;
mod sync;

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// The smallest valid configuration; tests put keys before it.
const MINIMAL: &str = "\
Listen: ':0'
Clusters:
  c1: {Backends: [http://b1]}
  c2: {Backends: [http://b2]}
Regions:
  r: {Default: true, Clusters: [{Cluster: c1, Weight: 0}, {Cluster: c2, Weight: 1}]}
Logging: {Synclog: {stderr: true}}
";

fn no_env(_: &str) -> Option<String> {
    None
}

fn parse(yaml: &str) -> Result<Config, ConfigErrors> {
    Config::parse(yaml, &no_env)
}

fn errors(yaml: &str) -> String {
    parse(yaml).map_or_else(|errors| errors.to_string(), |_| String::new())
}

fn warnings(yaml: &str) -> String {
    parse(yaml).unwrap().warnings.join("\n")
}

#[test]
fn what_is_not_written_has_its_default() {
    let config = parse(MINIMAL).unwrap();
    let (transport, mirror) = (&config.transport, &config.mirror);
    assert_eq!((transport.max_idle_conns, transport.max_idle_conns_per_host), (0, 100));
    assert_eq!((transport.dial_timeout, transport.max_conns_per_backend), (Duration::from_secs(1), 0));
    assert_eq!((mirror.replica_buffer, mirror.replay_buffer), (1 << 20, 256 << 10));
    assert_eq!((mirror.background_requests, mirror.background_bytes), (1000, 256 << 20));
    assert_eq!(mirror.slow_backend_timeout, Duration::from_secs(5));
    assert_eq!(mirror.background_timeout, Duration::from_secs(60));
    assert!(mirror.compare_etags);
    let (check, ejection) = (&config.health_check, &config.ejection);
    assert_eq!((check.kind, check.path.as_str()), (CheckKind::Http, "/"));
    assert_eq!((check.interval, check.timeout), (Duration::from_secs(5), Duration::from_secs(1)));
    assert_eq!((check.healthy, check.unhealthy), (2, 3));
    assert_eq!((ejection.enabled, ejection.consecutive_failures, ejection.max_ejected), (true, 5, 0.5));
    assert_eq!((ejection.error_rate, ejection.min_requests, ejection.latency), (0.5, 20, None));
    assert_eq!((ejection.time, ejection.max_time), (Duration::from_secs(10), Duration::from_secs(300)));
    assert_eq!(config.client_read_timeout, Duration::from_secs(60));
    assert_eq!((config.body_max_size, config.max_concurrent_requests), (None, 0));
    assert_eq!(config.sync_log_methods, None);
    assert!(config.logging.mainlog.stderr && !config.logging.accesslog.goes_anywhere());
    assert_eq!(*config.server, ServerConf::default());
    assert!(config.technical.is_none() && config.metrics.is_none());
    assert!(config.warnings.is_empty());
}

#[test]
fn each_mistake_in_a_top_level_key_is_named() {
    let cases = [
        ("listen: x", "line 1: listen: unknown key; did you mean \"Listen\"?"),
        ("Thread: 2", "line 1: Thread: unknown key; did you mean \"threads\"?"),
        ("TrustedProxies: [10.0.0.0/40]", "TrustedProxies[0]: \"10.0.0.0/40\" is no network"),
        ("TrustedProxies: [lan]", "TrustedProxies[0]: \"lan\" is no network"),
        ("ProxyProtocol: true", "ProxyProtocol: refuses every connection without TrustedProxies"),
        ("MaxIdleConns: -1", "MaxIdleConns: \"-1\" is not a count"),
        ("MaxIdleConns: '1'", "MaxIdleConns: \"1\" is quoted"),
        ("MaxIdleConns: [1]", "MaxIdleConns: found a list; write a whole number"),
        ("MaxIdleConnsPerHost: 0", "MaxIdleConnsPerHost: 0 would keep no connection"),
        ("DisableKeepAlives: maybe", "DisableKeepAlives: \"maybe\" is not a truth value"),
        ("DialTimeout: 5", "DialTimeout: \"5\" is not a duration (no unit); write a duration such as 5s"),
        ("DialTimeout: 0", "DialTimeout: 0 would end every wait at once"),
        ("DialTimeout: 9000h", "DialTimeout: \"9000h\" is more than a year"),
        (
            "HealthCheck: {Type: ping}",
            "HealthCheck.Type: \"ping\" is not known; write one of http, tcp, none",
        ),
        ("HealthCheck: {Path: status}", "HealthCheck.Path: \"status\" does not start with \"/\""),
        ("HealthCheck: {Path: '/a b'}", "HealthCheck.Path: \"/a b\" is not a path"),
        ("HealthCheck: {Timeout: 6s}", "HealthCheck.Timeout: longer than Interval"),
        ("HealthCheck: {Interval: 0s}", "HealthCheck.Interval: 0 would end every wait at once"),
        ("HealthCheck: {Healthy: 0}", "HealthCheck.Healthy: 0 would judge without asking"),
        ("HealthCheck: {Unhealthy: 0}", "HealthCheck.Unhealthy: 0 would judge without asking"),
        ("HealthCheck: none", "HealthCheck: found a single value; write a mapping"),
        ("Ejection: {ErrorRate: 50}", "Ejection.ErrorRate: 50 is outside 0..1"),
        ("Ejection: {MinRequests: 0}", "Ejection.MinRequests: 0 would judge by nothing"),
        ("Ejection: {Window: 100ms}", "Ejection.Window: shorter than 1s"),
        ("Ejection: {LatencyPercentile: 1}", "Ejection.LatencyPercentile: one slow answer would do"),
        ("Ejection: {MaxTime: 5s}", "Ejection.MaxTime: shorter than Time"),
        ("Ejection: {MaxEjected: 0}", "Ejection.MaxEjected: 0 would eject no backend; write Enabled: false"),
        ("Ejection: {Rate: 1}", "Ejection.Rate: unknown key"),
        ("BodyMaxSize: 10X", "BodyMaxSize: \"10X\" is not a size (unknown unit)"),
        ("BodyMaxSize: 0", "BodyMaxSize: 0 would refuse every upload"),
        ("ReplicaBuffer: 1K", "ReplicaBuffer: \"1K\" is outside 64KiB..1GiB"),
        ("BackgroundBytes: 1K", "BackgroundBytes: smaller than ReplicaBuffer"),
        ("BackgroundRequests: 0", "BackgroundRequests: 0 would abort"),
        ("HealthCheckEndpoint: status", "HealthCheckEndpoint: \"status\" does not start with \"/\""),
        ("HealthCheckEndpoint: /a?b", "HealthCheckEndpoint: \"/a?b\" is not a plain path"),
        ("SyncLogMethods: [put]", "SyncLogMethods[0]: \"put\" is not one of"),
        ("SyncLogMethods: PUT", "SyncLogMethods: found a single value; write a list"),
        (
            "MaintainedBackends: [http://b3]",
            "MaintainedBackends[0]: \"http://b3\" is a backend of no cluster",
        ),
        (
            "TechnicalEndpointListen: nowhere",
            "TechnicalEndpointListen: \"nowhere\" is not an address to listen on",
        ),
        (
            "TechnicalEndpointBodyMaxSize: 2MiB",
            "TechnicalEndpointBodyMaxSize: \"2MiB\" is outside 1KiB..1MiB",
        ),
        ("AdditionalRequestHeaders: {X-Amz-Acl: x}", "AdditionalRequestHeaders.X-Amz-Acl: storages refuse"),
        ("AdditionalRequestHeaders: {Host: x}", "AdditionalRequestHeaders.Host: the client's Host is signed"),
        ("AdditionalRequestHeaders: {Content-Length: 1}", "this header belongs to one connection"),
        ("AdditionalResponseHeaders: {Connection: close}", "this header belongs to one connection"),
        ("AdditionalRequestHeaders: {'a b': c}", "\"a b\" is not the name of a header"),
        ("AdditionalRequestHeaders: {a: \"x\\ny\"}", "characters that a header cannot hold"),
        ("AdditionalRequestHeaders: {a: 1, A: 2}", "this header is already set above"),
        ("threads: many", "line 1: threads: invalid type: string \"many\", expected usize"),
        ("threads: 0", "line 1: threads: 0 would serve nobody"),
        ("max_blocking_threads: 0", "max_blocking_threads: max_blocking_threads must be greater than zero"),
        ("Metrics: {Target: graphit}", "Metrics.Target: \"graphit\" is not known; write one of"),
        ("Metrics: {Target: graphite}", "Metrics.Addr: missing"),
        ("Metrics: {Target: prometheus}", "Metrics.ExpAddr: missing"),
        ("Metrics: {Addr: 'host'}", "Metrics.Addr: \"host\" is not HOST:PORT"),
        ("Metrics: {Target: graphite, Addr: ''}", "Metrics.Addr: \"\" is not HOST:PORT"),
        ("Metrics: {Interval: 0s, Percentiles: [2]}", "Metrics.Percentiles[0]: 2 is outside 0..1"),
        ("Metrics: {Percentiles: [0.95, 0.095]}", "Percentiles[1]: 0.095 would have the name of 0.95, 95"),
        ("Metrics: {Interval: 100ms}", "Metrics.Interval: shorter than 1s; write at least 1s"),
        ("Metrics: {Prefix: 'a b'}", "Metrics.Prefix: \"a b\" cannot begin a path"),
        ("Metrics: {Prefix: 'a..b'}", "Metrics.Prefix: \"a..b\" cannot begin a path"),
        ("Metrics: {Target: expvar, ExpAddr: ':1'}\nTechnicalEndpointListen: ':1'", "are the same address"),
    ];
    for (keys, expected) in cases {
        let found = errors(&format!("{keys}\n{MINIMAL}"));
        assert!(found.contains(expected), "{keys}: {found}");
    }
}

#[test]
fn a_number_about_health_alone_does_not_contradict_the_others_defaults() {
    let config =
        parse(&format!("HealthCheck: {{Interval: 500ms}}\nEjection: {{Time: 1h}}\n{MINIMAL}")).unwrap();
    assert_eq!(config.health_check.timeout, Duration::from_millis(500));
    assert_eq!(config.ejection.max_time, Duration::from_secs(3600));
    let off = "HealthCheck: {Type: none}\nEjection: {ConsecutiveFailures: 0, ErrorRate: 0, Latency: 0}";
    let config = parse(&format!("{off}\n{MINIMAL}")).unwrap();
    assert_eq!(config.health_check.kind, CheckKind::None);
    assert_eq!((config.ejection.consecutive_failures, config.ejection.latency), (0, None));
}

#[test]
fn each_mistake_in_clusters_and_regions_is_named() {
    let cases = [
        (
            "Weight: 1}",
            "Weight: 1.5}",
            "line 6: Regions.r.Clusters[1].Weight: 1.5 is outside 0..1; write a number",
        ),
        ("Weight: 1}", "Weight: .nan}", "Weight: \".nan\" is not a number"),
        ("Weight: 1}", "Weight: nan}", "Weight: nan is outside 0..1"),
        ("Weight: 1}", "Weight: -0.1}", "Weight: -0.1 is outside 0..1"),
        ("Weight: 1}", "Weight: '1'}", "Weight: \"1\" is quoted"),
        ("Weight: 1}", "Weight: 0.009}", "Regions.r.Clusters: all weights come to 0"),
        (", Weight: 1}", "}", "Regions.r.Clusters[1].Weight: missing"),
        ("Cluster: c2", "Cluster: c1", "Regions.r.Clusters[1].Cluster: \"c1\" stands twice"),
        (
            "Cluster: c2",
            "Cluster: c3",
            "Regions.r.Clusters[1].Cluster: \"c3\" is not in Clusters; did you mean \"c",
        ),
        ("  c2: {", "  c1: {", "line 4: Clusters.c1: this key already stands in line 3"),
        ("http://b2", "https://b2", "Clusters.c2.Backends[0]: https backends are not supported yet"),
        ("[http://b2]", "[]", "Clusters.c2.Backends: empty"),
        ("Backends: [http://b2]", "", "Clusters.c2.Backends: missing"),
        ("[http://b2]", "[http://b2, 'http://B2:80']", "\"http://B2:80\" already stands in this cluster"),
        ("Default: true, ", "", "Regions.r: no request can reach this region"),
        (
            "Default: true",
            "Default: true, Domains: [a.b, A.B]",
            "Domains[1]: \"A.B\" is a domain of region r already",
        ),
        ("Default: true", "Domains: ['a:80']", "Regions.r.Domains[0]: \"a:80\" is not a host name"),
        (
            "Default: true",
            "Default: true, ReadPolicy: all",
            "ReadPolicy: \"all\" is not known; write one of one, race",
        ),
        (
            "  r: {",
            "  q: {Default: true, Clusters: [{Cluster: c1, Weight: 1}]}\n  r: {",
            "region q is the default already",
        ),
        ("Listen: ':0'\n", "", "Listen: missing; write an address such as :8080"),
        ("stderr: true", "stdder: true", "Logging.Synclog.stdder: unknown key; did you mean \"stderr\"?"),
        ("stderr: true", "syslog: LOCAL9", "Logging.Synclog.syslog: \"LOCAL9\" is no facility"),
        (
            "{stderr: true}",
            "{stderr: true}, Mainlog: {level: Loud}",
            "Logging.Mainlog.level: \"Loud\" is not known",
        ),
    ];
    for (good, bad, expected) in cases {
        assert!(MINIMAL.contains(good), "{good}");
        let found = errors(&MINIMAL.replacen(good, bad, 1));
        assert!(found.contains(expected), "{bad}: {found}");
    }
}

#[test]
fn all_mistakes_come_at_once_in_the_order_of_the_file() {
    let yaml = "Listen: here\nDialTimeout: 5\nFoo: 1\nClusters: {c: {Backends: [x]}}\n\
        Regions: {r: {Clusters: [{Cluster: d, Weight: 2}]}}\nthreads: x\n";
    let errors = parse(yaml).unwrap_err().errors;
    let found: Vec<_> = errors.iter().map(|error| (error.line, error.path.as_str())).collect();
    assert_eq!(
        found,
        [
            (1, "Listen"),
            (2, "DialTimeout"),
            (3, "Foo"),
            (4, "Clusters.c.Backends[0]"),
            (5, "Regions.r.Clusters[0].Weight"),
            (5, "Regions.r.Clusters[0].Cluster"),
            (6, "threads"),
        ]
    );
}

#[test]
fn what_works_and_is_hardly_meant_is_warned_about() {
    let cases = [
        ("Weight: 0}", "Weight: 0.005}", "Regions.r.Clusters[0]: the weight is so small"),
        ("Cluster: c1, Weight: 0}, {", "", "Clusters.c1: no region uses this cluster"),
        ("http://b2", "http://b1", "\"http://b1\" is a backend of cluster c1 too"),
        ("Synclog: {stderr: true}", "", "Logging.Synclog: it goes nowhere"),
        ("':0'", "':0'\nMaintainedBackends: ['http://B2:80/']", "Clusters.c2: all backends of this cluster"),
        ("':0'", "':0'\nHealthCheckEndpoint: /", "HealthCheckEndpoint: \"/\" hides"),
    ];
    for (good, bad, expected) in cases {
        let found = warnings(&MINIMAL.replacen(good, bad, 1));
        assert!(found.contains(expected), "{bad}: {found}");
    }
}

#[test]
fn the_endpoints_for_operators_are_read() {
    let config = parse(&format!(
        "TechnicalEndpointListen: '127.0.0.1:8071'\nTechnicalEndpointBodyMaxSize: 64KiB\n\
         Metrics: {{Target: prometheus, ExpAddr: '127.0.0.1:8081'}}\n{MINIMAL}"
    ))
    .unwrap();
    let technical = config.technical.unwrap();
    assert_eq!((technical.listen.to_string(), technical.body_max_size), ("127.0.0.1:8071".into(), 64 << 10));
    let Some(Exporter::Prometheus { listen }) = config.metrics else { panic!("{:?}", config.metrics) };
    assert_eq!(listen.to_string(), "127.0.0.1:8081");
    assert!(config.warnings.is_empty());
}

#[test]
fn reports_of_metrics_are_read() {
    let exporter = |keys: &str| {
        let config = parse(&format!("Metrics: {{{keys}}}\n{MINIMAL}")).unwrap();
        assert!(config.warnings.is_empty());
        config.metrics.unwrap()
    };
    let Exporter::Stdout { reports } = exporter("Target: stdout") else { panic!() };
    assert_eq!(reports.percentiles, [0.75, 0.95, 0.99, 0.999]);
    assert_eq!((reports.interval, reports.prefix.as_str()), (Duration::from_secs(30), ""));
    assert!(!reports.append_defaults && !reports.debug);
    let keys = "Target: graphite, Addr: '[::1]:2003', Interval: 1m, Prefix: a-1.b_2, AppendDefaults: true, \
        Percentiles: [0.5, 1], Debug: true";
    let Exporter::Graphite { collector, reports } = exporter(keys) else { panic!() };
    assert_eq!((collector.host.as_str(), collector.port), ("::1", 2003));
    assert_eq!((reports.interval, reports.prefix.as_str()), (Duration::from_secs(60), "a-1.b_2"));
    assert_eq!(reports.percentiles, [0.5, 1.0]);
    assert!(reports.append_defaults && reports.debug);
    let Exporter::Expvar { listen, reports } = exporter("Target: expvar, ExpAddr: ':1', Percentiles: []")
    else {
        panic!()
    };
    assert_eq!((listen.to_string(), reports.percentiles.len()), ("0.0.0.0:1".into(), 4));
    let told =
        "line 1: Metrics: without a Target they go nowhere; write graphite, expvar, stdout or prometheus";
    assert_eq!(warnings(&format!("Metrics: {{Interval: 5s}}\n{MINIMAL}")), told);
}

#[test]
fn a_percentiles_name_is_what_the_original_calls_it() {
    let names = [0.75, 0.95, 0.99, 0.999, 0.5, 0.57, 0.0, 1.0].map(percentile_name);
    assert_eq!(names, ["75", "95", "99", "999", "50", "57", "0", "100"]);
}

#[test]
fn a_maintained_backend_is_spelled_as_its_cluster_spells_it() {
    let config = parse(&format!("MaintainedBackends: ['http://B2:80/']\n{MINIMAL}")).unwrap();
    assert_eq!(
        config.maintained_backends,
        [BackendUrl { url: "http://b2".into(), host: "b2".into(), port: 80 }]
    );
    let yaml = MINIMAL.replace("[http://b1]", "[http://b1, 'http://B2', http://b3]");
    let config = parse(&format!("MaintainedBackends: [http://b2, 'http://b2:80']\n{yaml}")).unwrap();
    let urls: Vec<_> = config.maintained_backends.iter().map(|backend| backend.url.as_str()).collect();
    assert_eq!(urls, ["http://B2", "http://b2"]);
}

#[test]
fn pingoras_keys_reach_pingora() {
    let yaml = format!("threads: 3\nuser: nobody\nclient_bind_to_ipv4: [127.0.0.1]\npid_file:\n{MINIMAL}");
    let server = parse(&yaml).unwrap().server;
    assert_eq!((server.threads, server.user.as_deref()), (3, Some("nobody")));
    assert_eq!(server.client_bind_to_ipv4, ["127.0.0.1"]);
    assert_eq!(server.pid_file, ServerConf::default().pid_file);
    let server = parse(&format!("fast_timeout_to_tokio_threshold_seconds: ~\n{MINIMAL}")).unwrap().server;
    assert_eq!(server.fast_timeout_to_tokio_threshold_seconds, None);
}

#[test]
fn a_file_that_is_no_configuration_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.yaml");
    let load = || Config::load(&path, &no_env).unwrap_err().to_string();
    let name = path.display().to_string();
    assert!(load().starts_with(&format!("{name}: cannot be read: ")));
    std::fs::write(&path, b"a: 1\nb: \xff\n").unwrap();
    assert_eq!(load(), format!("{name}:2: not UTF-8 text"));
    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert_eq!(load(), format!("{name}: larger than 1 MiB"));
    std::fs::write(&path, "- a\n").unwrap();
    assert_eq!(load(), format!("{name}:1: found a list; write a mapping of keys"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_the_configuration_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        shaped in "([-?:,\\[\\]{}#&*!|>'\"%@` \t\n\r~a]|\\.\\.\\.|---|\\$\\{|<<|0|Listen: |Regions:\n|Weight: ){0,60}",
    ) {
        drop(parse(&String::from_utf8_lossy(&bytes)));
        drop(parse(&shaped));
    }

    #[test]
    fn no_change_of_a_real_file_makes_the_configuration_panic(
        at in 0.0..1.0f64, cut in 0usize..40, put in "([-?:,\\[\\]{}#&*!|>'\"% \t\n]|(?s).){0,8}",
    ) {
        let mut text: Vec<char> = include_str!("../../../tests/data/seed.yaml").chars().collect();
        let start = (text.len() as f64 * at) as usize;
        let end = (start + cut).min(text.len());
        text.splice(start..end, put.chars());
        drop(parse(&text.into_iter().collect::<String>()));
    }
}

#[test]
fn a_health_path_that_hides_the_status_page_is_remarked_upon() {
    let with = |path: &str, more: &str| warnings(&format!("HealthCheckEndpoint: {path}\n{more}{MINIMAL}"));
    let technical = "TechnicalEndpointListen: ':8071'\n";
    assert!(
        with("/status", technical)
            .contains("HealthCheckEndpoint: it hides that path of the technical endpoint")
    );
    assert_eq!((with("/status", ""), with("/status/ping", technical)), (String::new(), String::new()));
}
