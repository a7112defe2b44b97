//! The prefix of a process's reports: `Prefix`, and with `AppendDefaults` the host and the program behind it.
//!
//! The host is what the Go program took: the name that the address of the host's name has, which is the full one where
//! the host knows it, with its dots as underscores.

use std::{
    fs,
    net::{IpAddr, ToSocketAddrs},
    path::Path,
};

use super::series::clean;
use crate::config::Reports;

/// The Go program's word for host and program as the whole prefix.
const DEFAULT: &str = "default";
/// Behind the prefix of a process that has been followed by another one.
const DRAINING: &str = "-draining";

/// With a dot at its end, or empty. May take as long as the system takes to resolve a name.
pub fn prefix(reports: &Reports) -> String {
    with_defaults(reports, || format!("{}.{}", lower(&host()), lower(&program())))
}

fn with_defaults(reports: &Reports, defaults: impl FnOnce() -> String) -> String {
    let (mut prefix, append) = match reports.prefix.as_str() {
        DEFAULT if !reports.append_defaults => (String::new(), true),
        prefix => (prefix.to_owned(), reports.append_defaults),
    };
    if append {
        let dot = if prefix.is_empty() { "" } else { "." };
        prefix.push_str(&format!("{dot}{}", defaults()));
    }
    if !prefix.is_empty() {
        prefix.push('.');
    }
    prefix
}

fn lower(text: &str) -> String {
    clean(text).to_ascii_lowercase()
}

/// The prefix of a process that has been followed.
pub fn draining(prefix: &str) -> String {
    match prefix.strip_suffix('.') {
        Some(prefix) => format!("{prefix}{DRAINING}."),
        None => format!("{}.", DRAINING.trim_start_matches('-')),
    }
}

fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    full_name(name).unwrap_or_else(|| name.to_owned())
}

fn full_name(name: &str) -> Option<String> {
    let address = (name, 0).to_socket_addrs().ok()?.map(|address| address.ip()).find(IpAddr::is_ipv4)?;
    let full = dns_lookup::lookup_addr(&address).ok()?;
    // Without a name the address comes back as a text.
    let full = full.trim_end_matches('.');
    (!full.is_empty() && full.parse::<IpAddr>().is_err()).then(|| full.to_owned())
}

fn program() -> String {
    let path = std::env::args_os().next().unwrap_or_default();
    Path::new(&path).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn of(prefix: &str, append_defaults: bool) -> String {
        let interval = Duration::from_secs(30);
        let prefix = prefix.to_owned();
        let reports = Reports { interval, prefix, append_defaults, percentiles: Vec::new(), debug: false };
        with_defaults(&reports, || "host_lan.akubra".to_owned())
    }

    #[test]
    fn host_and_program_come_behind_the_prefix() {
        assert_eq!((of("", false).as_str(), of("my.metrics", false).as_str()), ("", "my.metrics."));
        assert_eq!(of("", true), "host_lan.akubra.");
        assert_eq!(of("my.metrics", true), "my.metrics.host_lan.akubra.");
        assert_eq!(of("default", false), "host_lan.akubra.");
        assert_eq!(lower("Host.Lan"), "host_lan");
    }

    #[test]
    fn a_process_that_was_followed_has_a_prefix_of_its_own() {
        assert_eq!(draining("my.host.akubra."), "my.host.akubra-draining.");
        assert_eq!(draining(""), "draining.");
    }
}
