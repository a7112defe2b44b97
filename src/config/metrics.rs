//! `Metrics`: how they leave the process. Prometheus and expvar are asked for them, graphite and stdout are told.

use std::time::Duration;

use super::{
    Collector, Exporter, Listen, Reports,
    reader::{At, MapReader},
    validate::Listener,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    None,
    Graphite,
    Stdout,
    Prometheus,
    Expvar,
}

const TARGETS: [(&str, Target); 5] = [
    ("", Target::None),
    ("graphite", Target::Graphite),
    ("stdout", Target::Stdout),
    ("prometheus", Target::Prometheus),
    ("expvar", Target::Expvar),
];

/// The original's.
const PERCENTILES: [f64; 4] = [0.75, 0.95, 0.99, 0.999];
const INTERVAL: Duration = Duration::from_secs(30);
/// Graphite's times are whole seconds.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Reads the block; gives the exporter, and the address that it listens on or would listen on.
pub fn read(top: &mut MapReader) -> (Option<Exporter>, Option<Listener>) {
    let Some(at) = top.get("Metrics") else { return (None, None) };
    let Some(mut map) = at.map() else { return (None, None) };
    let target = map.read("Target", Target::None, |at| at.one_of(&TARGETS));
    if target == Target::None {
        at.warning("without a Target they go nowhere; write graphite, expvar, stdout or prometheus");
    }
    let scraped = matches!(target, Target::Prometheus | Target::Expvar);
    let listener = if scraped {
        map.require("ExpAddr", "write the address to serve metrics on, such as :8081")
    } else {
        map.get("ExpAddr")
    };
    let listener = listener.and_then(|at| exporter(&at, scraped));
    let collector = if target == Target::Graphite {
        map.require("Addr", "write the address of the graphite collector, HOST:PORT")
    } else {
        map.get("Addr")
    };
    let collector = collector.and_then(|at| collector_address(&at, target == Target::Graphite));
    let reports = reports(&mut map);
    map.finish();
    let listen = listener.as_ref().map(|listener| listener.address.clone());
    let exporter = match target {
        Target::None => None,
        Target::Prometheus => listen.map(|listen| Exporter::Prometheus { listen }),
        Target::Expvar => listen.map(|listen| Exporter::Expvar { listen, reports }),
        Target::Graphite => collector.map(|collector| Exporter::Graphite { collector, reports }),
        Target::Stdout => Some(Exporter::Stdout { reports }),
    };
    (exporter, listener)
}

fn reports(map: &mut MapReader) -> Reports {
    Reports {
        interval: map.read("Interval", INTERVAL, interval),
        prefix: map.get("Prefix").and_then(|at| prefix(&at)).unwrap_or_default(),
        append_defaults: map.read("AppendDefaults", false, At::boolean),
        percentiles: map.get("Percentiles").and_then(|at| percentiles(&at)).unwrap_or(PERCENTILES.to_vec()),
        debug: map.read("Debug", false, At::boolean),
    }
}

fn exporter(at: &At, in_use: bool) -> Option<Listener> {
    let text = at.text().filter(|text| in_use || !text.value.is_empty())?;
    match Listen::parse(&text.value) {
        Ok(address) => Some(Listener { name: "Metrics.ExpAddr", address, text, in_use }),
        Err(error) => at.error(format!("{} is {error}", text.shown)),
    }
}

/// `HOST:PORT`; empty is the original's default where no collector is needed.
fn collector_address(at: &At, needed: bool) -> Option<Collector> {
    let text = at.text().filter(|text| needed || !text.value.is_empty())?;
    match Collector::parse(&text.value) {
        Some(collector) => Some(collector),
        None => at.error(format!("{} is not HOST:PORT; write such as graphite.internal:2003", text.shown)),
    }
}

fn interval(at: &At) -> Option<Duration> {
    match at.timeout()? {
        interval if interval < SHORTEST_INTERVAL => at.error("shorter than 1s; write at least 1s"),
        interval => Some(interval),
    }
}

/// Nodes with dots between, as they stand in front of every path.
fn prefix(at: &At) -> Option<String> {
    let text = at.text()?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let node = |node: &str| !node.is_empty() && node.bytes().all(allowed);
    if !text.value.is_empty() && !text.value.split('.').all(node) {
        return at.error(format!(
            "{} cannot begin a path; write ASCII letters, digits, \"-\" and \"_\", with single dots between",
            text.shown
        ));
    }
    Some(text.value)
}

/// An empty list is the default, as in the original.
fn percentiles(at: &At) -> Option<Vec<f64>> {
    let items = at.items()?;
    let mut read: Vec<f64> = Vec::new();
    for item in &items {
        let Some(fraction) = item.fraction() else { continue };
        let name = percentile_name(fraction);
        match read.iter().find(|other| percentile_name(**other) == name) {
            Some(other) => item.error(format!("{fraction} would have the name of {other}, {name}")),
            None => {
                read.push(fraction);
                Some(())
            }
        };
    }
    (!read.is_empty()).then_some(read)
}

/// A percentile's name in paths: 0.75 is "75", 0.999 is "999", as the original has them.
pub fn percentile_name(fraction: f64) -> String {
    // The first six digits count: 0.57 * 100 is 56.99999999999999.
    format!("{}", (fraction * 1e6).round() / 1e4).replacen('.', "", 1)
}
