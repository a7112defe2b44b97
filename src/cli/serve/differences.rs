//! What is different between two configurations, by key, and which keys need another process.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use crate::config::{Config, Consistency, JournalConfig, JournalEngine, Secret};

/// The keys, and their values as text that is compared and never shown.
type Part = (&'static str, fn(&Config) -> String);

macro_rules! part {
    ($keys:literal, $($path:tt).+) => {
        ($keys, |config: &Config| format!("{:?}", config.$($path).+))
    };
}

/// In force as soon as the file is read again.
const RELOADED: &[Part] = &[
    part!("Clusters", clusters),
    part!("Regions", regions),
    part!("MaintainedBackends", maintained_backends),
    part!("AdditionalRequestHeaders", additional_request_headers),
    part!("AdditionalResponseHeaders", additional_response_headers),
    part!("HealthCheck", health_check),
    part!("Ejection", ejection),
    part!("limits of connections to backends", transport),
    part!("limits of the mirror", mirror),
    part!("BodyMaxSize", body_max_size),
    part!("MaxConcurrentRequests", max_concurrent_requests),
    part!("MaxClientConnections", max_client_connections),
    part!("ClientHeaderTimeout", client_header_timeout),
    part!("ClientIdleTimeout", client_idle_timeout),
    part!("ClientReadTimeout", client_read_timeout),
    part!("ClientWriteTimeout", client_write_timeout),
    part!("TrustedProxies", trusted_proxies),
    part!("ProxyProtocol", proxy_protocol),
    part!("Logging.Mainlog.level", logging.mainlog.level),
];

/// In force with the next process.
const NEXT_PROCESS: &[Part] = &[
    part!("Listen", listen),
    part!("the technical endpoint", technical),
    ("TechnicalEndpointToken", |config| told_apart(config.technical.as_ref().and_then(|t| t.token.as_ref()))),
    ("the synclog's database password", |config| {
        let database = config.logging.synclog.database.as_ref();
        told_apart(database.and_then(|database| database.login.password.as_ref()))
    }),
    part!("Journal", journal),
    ("the journal's database password", |config| match &config.journal {
        Some(JournalConfig { engine: JournalEngine::Postgres(login), .. }) => {
            told_apart(login.password.as_ref())
        }
        _ => String::new(),
    }),
    part!("Metrics", metrics),
    part!("HealthCheckEndpoint", health_check_endpoint),
    part!("Tracing", tracing),
    part!("StateDirectory", state_directory),
    part!("Sync", sync),
    part!("SyncLogMethods", sync_log_methods),
    ("destinations of logs", destinations),
    part!("Pingora's keys (threads, grace_period_seconds, ...)", server),
];

/// Secrets show nothing of themselves, so they are compared by a hash that is not kept.
fn told_apart(secret: Option<&Secret>) -> String {
    let mut hasher = DefaultHasher::new();
    secret.map(Secret::reveal).hash(&mut hasher);
    hasher.finish().to_string()
}

fn destinations(config: &Config) -> String {
    let mut logging = config.logging.clone();
    logging.mainlog.level = None;
    format!("{logging:?}")
}

fn differing(parts: &[Part], one: &Config, other: &Config) -> Vec<&'static str> {
    parts.iter().filter(|(_, value)| value(one) != value(other)).map(|(keys, _)| *keys).collect()
}

/// The keys that a reload changes.
pub fn changed(running: &Config, new: &Config) -> Vec<&'static str> {
    differing(RELOADED, running, new)
}

/// Leaves in `new` what the running process has and cannot change; names the keys that would have been different.
pub fn keep_what_needs_a_takeover(running: &Config, new: &mut Config) -> Vec<&'static str> {
    let different = differing(NEXT_PROCESS, running, new);
    let level = new.logging.mainlog.level;
    new.listen = running.listen.clone();
    new.technical = running.technical.clone();
    new.metrics = running.metrics.clone();
    new.health_check_endpoint = running.health_check_endpoint.clone();
    new.tracing = running.tracing.clone();
    new.state_directory = running.state_directory.clone();
    new.sync = running.sync.clone();
    new.sync_log_methods = running.sync_log_methods.clone();
    new.logging = running.logging.clone();
    new.logging.mainlog.level = level;
    new.server = Arc::clone(&running.server);
    if new.journal.is_some() != running.journal.is_some() {
        keep_consistencies(running, new);
    }
    new.journal = running.journal.clone();
    different
}

/// They come and go with the journal.
fn keep_consistencies(running: &Config, new: &mut Config) {
    for region in &mut new.regions {
        let known = running.regions.iter().find(|known| known.name == region.name);
        region.consistency = known.map_or(Consistency::None, |known| known.consistency);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(yaml: &str) -> Config {
        let rest = "Clusters: {c: {Backends: [http://a, http://b]}}\nRegions: {r: {Clusters: [{Cluster: c, Weight: 1}], \
                    Default: true}}\n";
        Config::parse(&format!("{rest}{yaml}"), &|_| None).unwrap()
    }

    #[test]
    fn a_reload_keeps_what_only_another_process_can_change_and_names_it() {
        let running =
            config("Listen: ':1'\nthreads: 1\nLogging: {Mainlog: {level: Info}, Synclog: {stderr: true}}\n");
        let mut new = config(
            "Listen: ':2'\nthreads: 1\nBodyMaxSize: 1M\nMaintainedBackends: [http://a]\n\
             Logging: {Mainlog: {level: Debug}, Synclog: {stderr: true}}\n",
        );
        assert_eq!(keep_what_needs_a_takeover(&running, &mut new), ["Listen"]);
        assert_eq!(new.listen, running.listen);
        assert_eq!(changed(&running, &new), ["MaintainedBackends", "BodyMaxSize", "Logging.Mainlog.level"]);
        let mut new = config("Listen: ':1'\nthreads: 2\nLogging: {Synclog: {stdout: true}}\n");
        let postponed = keep_what_needs_a_takeover(&running, &mut new);
        assert_eq!(
            postponed,
            ["destinations of logs", "Pingora's keys (threads, grace_period_seconds, ...)"]
        );
        let mut new = config("Listen: ':1'\nthreads: 1\nJournal: {}\nLogging: {Synclog: {stderr: true}}\n");
        new.regions[0].consistency = Consistency::Strong;
        assert_eq!(keep_what_needs_a_takeover(&running, &mut new), ["Journal"]);
        assert!(
            changed(&running, &new).iter().all(|key| *key != "Regions"),
            "nobody would be told of writes"
        );
        // The other way: it goes on to be told, as it was, until it goes.
        let running = {
            new.journal = Some(config("Listen: ':1'\nJournal: {}\n").journal.unwrap());
            new.regions[0].consistency = Consistency::Strong;
            new
        };
        let mut new = config("Listen: ':1'\nthreads: 1\nLogging: {Synclog: {stderr: true}}\n");
        assert_eq!(keep_what_needs_a_takeover(&running, &mut new), ["Journal"]);
        assert!(new.journal.is_some() && new.regions[0].consistency == Consistency::Strong);
        assert!(keep_what_needs_a_takeover(&running, &mut running.clone()).is_empty());
        assert!(changed(&running, &running.clone()).is_empty());
    }

    #[test]
    fn every_part_of_a_configuration_is_compared() {
        // Each field of a Config is in one of the lists, or is said of it (warnings), not asked of it.
        let text = format!("{:#?}", config("Listen: ':1'\n"));
        let fields = text.lines().filter(|line| line.starts_with("    ") && !line.starts_with("     "));
        let fields: Vec<_> =
            fields.filter_map(|line| Some(line.trim().split_once(": ")?.0.to_owned())).collect();
        let source = include_str!("differences.rs");
        for field in fields.iter().filter(|field| !["warnings", "in_force"].contains(&field.as_str())) {
            let named = ["(", ".", ", "].iter().any(|before| source.contains(&format!("{before}{field}")));
            assert!(named, "{field} is in no list");
        }
    }
}
