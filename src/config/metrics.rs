//! `Metrics`: where they go. Prometheus scrapes them; the other targets are checked, so that files stay right, and
//! otherwise ignored until they have exporters.

use super::{
    Exporter, Listen,
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

/// Reads the block; gives the exporter, and the address that it listens on or would listen on.
pub fn read(top: &mut MapReader) -> (Option<Exporter>, Option<Listener>) {
    let Some(at) = top.get("Metrics") else { return (None, None) };
    let Some(mut map) = at.map() else { return (None, None) };
    let target = map.read("Target", Target::None, |at| at.one_of(&TARGETS));
    match target {
        Target::None => at.warning("without a Target they go nowhere; write prometheus"),
        Target::Prometheus => {}
        Target::Graphite => at.report.unsupported("Metrics.Target graphite"),
        Target::Stdout => at.report.unsupported("Metrics.Target stdout"),
        Target::Expvar => at.report.unsupported("Metrics.Target expvar"),
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
    if let Some(at) = collector {
        collector_address(&at);
    }
    map.get("Interval").and_then(|at| at.timeout());
    map.get("Prefix").and_then(|at| at.text());
    map.get("AppendDefaults").and_then(|at| at.boolean());
    map.get("Debug").and_then(|at| at.boolean());
    for item in map.get("Percentiles").and_then(|at| at.items()).unwrap_or_default() {
        item.fraction();
    }
    map.finish();
    let exporter = listener.as_ref().filter(|_| target == Target::Prometheus);
    (exporter.map(|listener| Exporter::Prometheus { listen: listener.address.clone() }), listener)
}

fn exporter(at: &At, in_use: bool) -> Option<Listener> {
    let text = at.text().filter(|text| in_use || !text.value.is_empty())?;
    match Listen::parse(&text.value) {
        Ok(address) => Some(Listener { name: "Metrics.ExpAddr", address, text, in_use }),
        Err(error) => at.error(format!("{} is {error}", text.shown)),
    }
}

/// `HOST:PORT`; empty is the original's default.
fn collector_address(at: &At) -> Option<()> {
    let text = at.text().filter(|text| !text.value.is_empty())?;
    let (host, port) = text.value.rsplit_once(':').unwrap_or((&text.value, ""));
    match port.parse::<u16>() {
        Ok(port) if port != 0 && !host.is_empty() => Some(()),
        _ => at.error(format!("{} is not HOST:PORT", text.shown)),
    }
}
