//! From a file to a [`Config`]: read, parse, substitute, read typed, validate.
//!
//! Each step goes on as far as it can, so that all errors are there at the end. The top-level keys are
//! read here, the blocks in files of their own.

use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::Method;

use super::{
    Config, ConfigError, ConfigErrors, InForce, Listen, MirrorConfig, Technical, Transport, credentials,
    env::{self, Variables},
    errors::Report,
    headers, health, journal, logging, metrics, proxies,
    reader::{At, MapReader, Text},
    regions, secret, server, sync, tracing, tree,
    validate::{self, Listener},
};

/// Largest configuration: a few thousand regions fit, a disk image does not.
const MAX_BYTES: u64 = 1 << 20;

/// What systemd's `StateDirectory=akubra` makes.
const STATE_DIRECTORY: &str = "/var/lib/akubra";

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const SMALLEST_BUFFER: (usize, &str) = (64 * KIB, "64KiB");

impl Config {
    /// Reads and checks a file. `env` answers for the variables that it names as `${NAME}`.
    pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigErrors> {
        read_file(path).and_then(|yaml| Config::parse(&yaml, env)).map_err(|errors| {
            let file = Some(path.display().to_string());
            ConfigErrors { file, ..errors }
        })
    }

    /// Reads and checks a text.
    pub fn parse(yaml: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigErrors> {
        Config::read(yaml, Variables::Known(env))
    }

    /// Checks a text that comes from outside: what is to be said about it beside errors. Neither the environment
    /// nor the file system is looked at, so that nothing of them can be learned from the answer.
    pub fn check(yaml: Vec<u8>) -> Result<Vec<String>, ConfigErrors> {
        Config::read(&as_text(yaml)?, Variables::Withheld).map(|config| config.warnings)
    }

    fn read(yaml: &str, variables: Variables) -> Result<Config, ConfigErrors> {
        let report = Report::default();
        let config = read_document(yaml, variables, &report);
        let warnings = report.finish()?;
        match config {
            Some(config) => Ok(Config { warnings, ..config }),
            // Every reader that gives nothing reports why: this is never seen.
            None => Err(whole_file_error(0, "the configuration is incomplete".into())),
        }
    }
}

fn read_file(path: &Path) -> Result<String, ConfigErrors> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| whole_file_error(0, format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(whole_file_error(0, format!("larger than {} MiB", MAX_BYTES >> 20)));
    }
    as_text(bytes)
}

fn as_text(bytes: Vec<u8>) -> Result<String, ConfigErrors> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n').count();
        whole_file_error(line, "not UTF-8 text".into())
    })
}

fn whole_file_error(line: usize, message: String) -> ConfigErrors {
    ConfigErrors { file: None, errors: vec![ConfigError { path: String::new(), line, message }] }
}

fn read_document(yaml: &str, variables: Variables, report: &Report) -> Option<Config> {
    let mut root = tree::parse(yaml, report)?;
    env::substitute(&mut root, "", variables, report);
    let mut top = At { node: &root, path: String::new(), report }.map()?;
    let config = read_top(&mut top, matches!(variables, Variables::Known(_)));
    top.finish();
    match variables {
        Variables::Known(_) => config.map(|config| Config { in_force: InForce::of(&root), ..config }),
        // It is only checked.
        Variables::Withheld => config,
    }
}

/// `look` = files that it names may be read.
fn read_top(top: &mut MapReader, look: bool) -> Option<Config> {
    let report = top.at.report;
    let listen =
        top.require("Listen", "write an address such as :8080").and_then(|at| listener(&at, "Listen"));
    let technical =
        top.get("TechnicalEndpointListen").and_then(|at| listener(&at, "TechnicalEndpointListen"));
    let technical_endpoint = read_technical(top, technical.as_ref());
    let (metrics, exporter) = metrics::read(top);
    let clusters = regions::read_clusters(top, look);
    let regions = regions::read_regions(top);
    validate::clusters(&clusters, &regions, report);
    credentials::validate(&clusters, report);
    validate::regions(&regions, &clusters, report);
    let maintained = top.get("MaintainedBackends").map(|at| regions::read_backends(&at)).unwrap_or_default();
    let maintained_backends = validate::maintained(&maintained, &clusters, report);
    let address = listen.as_ref().map(|listener| listener.address.clone());
    let (sync, sync_listener) = sync::read(top);
    validate::listeners(
        &[listen, technical, exporter, sync_listener].into_iter().flatten().collect::<Vec<_>>(),
        report,
    );
    let mirror = read_mirror(top);
    let state_directory = top.read("StateDirectory", PathBuf::from(STATE_DIRECTORY), directory);
    let journal = journal::read(top, &state_directory);
    // One that has errors is one that was meant.
    if top.get("Journal").is_none() && !top.is_unknown("Journal") {
        validate::consistencies(&regions);
    }
    let (trusted_proxies, proxy_protocol) = proxies::read(top);

    Some(Config {
        metrics,
        state_directory,
        journal,
        health_check_endpoint: top
            .get("HealthCheckEndpoint")
            .and_then(|at| health_path(&at, technical_endpoint.is_some())),
        technical: technical_endpoint,
        additional_request_headers: headers::read(
            top,
            "AdditionalRequestHeaders",
            headers::Direction::Request,
        ),
        additional_response_headers: headers::read(
            top,
            "AdditionalResponseHeaders",
            headers::Direction::Response,
        ),
        tracing: tracing::read(top),
        transport: read_transport(top),
        body_max_size: top.get("BodyMaxSize").and_then(|at| match at.size()? {
            0 => at.error("0 would refuse every upload; leave the key out for no limit"),
            size => Some(size),
        }),
        max_client_connections: top.read("MaxClientConnections", 0, At::count),
        max_concurrent_requests: top.read("MaxConcurrentRequests", 0, At::count),
        maintained_backends,
        sync_log_methods: top.get("SyncLogMethods").and_then(|at| methods(&at)),
        clusters: clusters.into_iter().map(Into::into).collect(),
        regions: regions.into_iter().map(Into::into).collect(),
        logging: logging::read(top),
        mirror,
        sync,
        health_check: health::read_check(top),
        ejection: health::read_ejection(top),
        client_header_timeout: top.read("ClientHeaderTimeout", Duration::from_secs(10), At::timeout),
        client_idle_timeout: top.read("ClientIdleTimeout", Duration::from_secs(75), At::timeout),
        client_read_timeout: top.read("ClientReadTimeout", Duration::from_secs(60), At::timeout),
        client_write_timeout: top.read("ClientWriteTimeout", Duration::from_secs(60), At::timeout),
        trusted_proxies,
        proxy_protocol,
        server: Arc::new(server::read(top)),
        warnings: Vec::new(),
        in_force: InForce::default(),
        listen: address.unwrap_or_else(|| Listen::Tcp(([127, 0, 0, 1], 0).into())),
    })
}

fn read_technical(top: &mut MapReader, listener: Option<&Listener>) -> Option<Technical> {
    let body_max_size = top.read("TechnicalEndpointBodyMaxSize", 256 * KIB, |at| {
        at.buffer((KIB, "1KiB"), (MAX_BYTES as usize, "1MiB"))
    });
    let token = top.get("TechnicalEndpointToken").and_then(|at| secret::token(&at));
    listener.map(|listener| Technical { listen: listener.address.clone(), body_max_size, token })
}

fn read_transport(top: &mut MapReader) -> Transport {
    let zero = "0 would keep no connection; write DisableKeepAlives: true for that";
    Transport {
        max_idle_conns: top.read("MaxIdleConns", 0, At::count),
        max_idle_conns_per_host: top.read("MaxIdleConnsPerHost", 100, |at| at.positive(zero)),
        idle_conn_timeout: top
            .get("IdleConnTimeout")
            .and_then(|at| at.duration())
            .filter(|idle| !idle.is_zero()),
        disable_keep_alives: top.read("DisableKeepAlives", false, At::boolean),
        dial_timeout: top.read("DialTimeout", Duration::from_secs(1), At::timeout),
        response_header_timeout: top.read("ResponseHeaderTimeout", Duration::from_secs(5), At::timeout),
        max_conns_per_backend: top.read("MaxConnsPerBackend", 0, At::count),
    }
}

fn read_mirror(top: &mut MapReader) -> MirrorConfig {
    let zero = "0 would abort every slower backend once the client has its answer; write a positive number";
    let replica_buffer = top.read("ReplicaBuffer", MIB, |at| at.buffer(SMALLEST_BUFFER, (1 << 30, "1GiB")));
    MirrorConfig {
        replica_buffer,
        replay_buffer: top.read("ReplayBuffer", 256 * KIB, |at| at.buffer((0, "0"), (64 * MIB, "64MiB"))),
        slow_backend_timeout: top.read("SlowBackendTimeout", Duration::from_secs(5), At::timeout),
        background_timeout: top.read("BackgroundTimeout", Duration::from_secs(60), At::timeout),
        background_requests: top.read("BackgroundRequests", 1000, |at| at.positive(zero)),
        background_bytes: top.read("BackgroundBytes", 256 * MIB, |at| background_bytes(at, replica_buffer)),
        compare_etags: top.read("CompareETags", true, At::boolean),
    }
}

fn background_bytes(at: &At, replica_buffer: usize) -> Option<usize> {
    let bytes = usize::try_from(at.size()?).unwrap_or(usize::MAX);
    if bytes < replica_buffer {
        return at
            .error("smaller than ReplicaBuffer: one full queue would not fit; write at least that size");
    }
    Some(bytes)
}

pub fn listener(at: &At, name: &'static str) -> Option<Listener> {
    let text = at.text()?;
    match Listen::parse(&text.value) {
        Ok(address) => Some(Listener { name, address, text, in_use: true }),
        Err(error) => at.error(format!("{} is {error}", text.shown)),
    }
}

/// An absolute path: a daemon changes its directory.
pub fn directory(at: &At) -> Option<PathBuf> {
    let Text { value, shown, .. } = at.text()?;
    if !value.starts_with('/') {
        return at.error(format!("{shown} is not an absolute path; write one such as {STATE_DIRECTORY}"));
    }
    Some(value.into())
}

/// The path, an `abs_path` without query.
fn health_path(at: &At, with_status: bool) -> Option<String> {
    let Text { value, shown, .. } = at.text()?;
    if !value.starts_with('/') {
        return at.error(format!("{shown} does not start with \"/\"; write a path such as /status/ping"));
    }
    if !value.bytes().all(|byte| byte.is_ascii_graphic()) || value.contains(['?', '#', '%']) {
        return at.error(format!(
            "{shown} is not a plain path; write ASCII without blanks, \"?\", \"#\" and \"%\""
        ));
    }
    if value == "/" {
        at.warning("\"/\" hides S3's list of buckets; write a path such as /status/ping");
    }
    if with_status && ["/status", "/status.json", "/status/events", "/maintenance"].contains(&value.as_str())
    {
        at.warning("it hides that path of the technical endpoint; write one such as /status/ping");
    }
    Some(value)
}

fn methods(at: &At) -> Option<Vec<Method>> {
    const KNOWN: [&str; 6] = ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"];
    let items = at.items()?;
    if items.is_empty() {
        at.warning("an empty list: the synclog prints nothing; leave the key out for all methods");
    }
    let read = |item: &At| {
        let Text { value, shown, .. } = item.text()?;
        match Method::from_bytes(value.as_bytes()) {
            Ok(method) if KNOWN.contains(&value.as_str()) => Some(method),
            _ => {
                let hint = KNOWN.iter().find(|known| known.eq_ignore_ascii_case(&value));
                let hint = hint.map(|known| format!("; did you mean \"{known}\"?")).unwrap_or_default();
                item.error(format!("{shown} is not one of {}{hint}", KNOWN.join(", ")))
            }
        }
    };
    Some(items.iter().filter_map(read).collect())
}
