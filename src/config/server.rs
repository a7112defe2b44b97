//! Pingora's own keys in our file.
//!
//! The names are listed, because Pingora takes any key and drops those that it does not know; a test
//! compares the list with Pingora's structure. The values go through Pingora's deserialiser key by
//! key, so that each error has its line, and not through `ServerConf::from_yaml`, whose errors and
//! trace log repeat the whole text.

use pingora_core::server::configuration::ServerConf;
use serde_yaml::{Mapping, Value as Yaml};

use super::{
    errors::quoted,
    reader::{At, MapReader},
    tree::{Node, Scalar, Value},
};

/// Pingora's keys: the fields of its `ServerConf`.
pub const KEYS: [&str; 35] = [
    "version",
    "daemon",
    "error_log",
    "pid_file",
    "upgrade_sock",
    "user",
    "group",
    "working_directory",
    "threads",
    "listener_tasks_per_fd",
    "work_stealing",
    "runtime_enable_alt_timer",
    "ca_file",
    "grace_period_seconds",
    "graceful_shutdown_timeout_seconds",
    "client_bind_to_ipv4",
    "client_bind_to_ipv6",
    "upstream_keepalive_pool_size",
    "upstream_connect_offload_threadpools",
    "upstream_connect_offload_thread_per_pool",
    "downstream_tls_offload_threadpools",
    "downstream_tls_offload_thread_per_pool",
    "upstream_debug_ssl_keylog",
    "max_retries",
    "upgrade_sock_connect_accept_max_retries",
    "max_blocking_threads",
    "blocking_threads_ttl_seconds",
    "fast_timeout_to_tokio_threshold_seconds",
    "runtime_metrics_poll_time_histogram",
    "runtime_metrics_poll_time_histogram_scale",
    "runtime_metrics_poll_time_histogram_resolution_micros",
    "runtime_metrics_poll_time_histogram_buckets",
    "daemon_wait_for_ready",
    "daemon_ready_timeout_seconds",
    "daemon_notify_timeout_seconds",
];

/// Keys with which Pingora or its runtime fails, or serves nobody, when they are 0.
const POSITIVE: [&str; 2] = ["threads", "listener_tasks_per_fd"];

pub fn read(top: &mut MapReader) -> ServerConf {
    let mut good = Mapping::new();
    for key in KEYS {
        let Some(at) = top.get_or_null(key).filter(|at| !matches!(at.node.value, Value::Unknown)) else {
            continue;
        };
        let value = to_yaml(at.node);
        let alone = Mapping::from_iter([(Yaml::from(key), value.clone())]);
        match deserialize(alone) {
            Ok(conf) if POSITIVE.contains(&key) && (conf.threads == 0 || conf.listener_tasks_per_fd == 0) => {
                at.report.error(&at.path, at.node.line, "0 would serve nobody; write at least 1");
            }
            Ok(_) => {
                good.insert(Yaml::from(key), value);
            }
            // `key:` with nothing behind it means the default, also where Pingora has no null.
            Err(_) if value.is_null() => {}
            Err(error) => refuse(&at, &error),
        }
    }
    deserialize(good).unwrap_or_default()
}

fn refuse(at: &At, error: &str) {
    let message = match &at.node.value {
        // Pingora's message repeats the value.
        Value::Scalar(Scalar { source: Some(source), .. }) => {
            format!("{} is not what belongs here", quoted(source))
        }
        Value::Scalar(_) => {
            let error = error.strip_prefix(&format!("{}: ", at.path)).unwrap_or(error);
            error.chars().filter(|c| !c.is_control()).take(200).collect()
        }
        _ => "not what belongs here; write a value of the type that Pingora documents".to_owned(),
    };
    at.report.error(&at.path, at.node.line, message);
}

fn deserialize(keys: Mapping) -> Result<ServerConf, String> {
    let conf: ServerConf = serde_yaml::from_value(Yaml::Mapping(keys)).map_err(|error| error.to_string())?;
    conf.validate().map_err(|error| match error.context {
        Some(context) => context.as_str().to_owned(),
        None => "refused by Pingora".to_owned(),
    })
}

fn to_yaml(node: &Node) -> Yaml {
    match &node.value {
        Value::Null | Value::Unknown => Yaml::Null,
        Value::Scalar(scalar) if scalar.is_bare() => bare_to_yaml(&scalar.text),
        Value::Scalar(scalar) => Yaml::from(scalar.text.as_str()),
        Value::List(items) => Yaml::Sequence(items.iter().map(to_yaml).collect()),
        Value::Map(entries) => entries
            .iter()
            .map(|entry| (Yaml::from(entry.key.as_str()), to_yaml(&entry.node)))
            .collect::<Mapping>()
            .into(),
    }
}

/// What a text without quotes means.
fn bare_to_yaml(text: &str) -> Yaml {
    match text {
        "true" | "True" | "TRUE" => Yaml::Bool(true),
        "false" | "False" | "FALSE" => Yaml::Bool(false),
        _ => match (text.parse::<u64>(), text.parse::<i64>()) {
            (Ok(number), _) => Yaml::from(number),
            (_, Ok(number)) => Yaml::from(number),
            _ => Yaml::from(text),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_keys_is_pingoras() {
        let Yaml::Mapping(fields) = serde_yaml::to_value(ServerConf::default()).unwrap() else { panic!() };
        let mut pingoras: Vec<_> = fields.keys().filter_map(Yaml::as_str).collect();
        let mut ours = KEYS.to_vec();
        pingoras.sort_unstable();
        ours.sort_unstable();
        assert_eq!(ours, pingoras);
    }

    #[test]
    fn a_configuration_without_version_is_pingoras_default() {
        assert_eq!(deserialize(Mapping::new()), Ok(ServerConf::default()));
    }
}
