//! What is counted of changes without a restart.

use pingora_prometheus::prometheus::{IntCounter, IntGauge};

use super::families::Families;

#[derive(Debug)]
pub struct Reloads {
    pub made: IntCounter,
    pub refused: IntCounter,
    /// When the snapshot in force was put in place, Unix seconds.
    pub in_force_since: IntGauge,
}

impl Reloads {
    pub(super) fn new(f: &mut Families) -> Reloads {
        let reloads = f.counters(
            "akubra_reloads_total",
            "SIGHUPs, by whether the configuration was put in place or refused because of errors.",
            &["outcome"],
        );
        Reloads {
            made: reloads.with_label_values(&["made"]),
            refused: reloads.with_label_values(&["refused"]),
            in_force_since: f.gauge(
                "akubra_configuration_in_force_since_seconds",
                "Unix time of the last change of what requests are served by: the start, a reload, maintenance.",
            ),
        }
    }
}
