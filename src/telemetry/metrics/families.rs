//! Makes families and registers them, and keeps a list of what there is: a family without children is not exported,
//! and so cannot be seen in the registry.

use pingora_prometheus::prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Result,
    core::Collector, default_registry,
};

/// Seconds: from a small object on a fast storage to a large upload.
pub const LATENCY_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
    300.0,
];

/// A family as it was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    pub name: String,
    /// "counter", "gauge" or "histogram".
    pub kind: String,
    pub labels: Vec<String>,
    pub help: String,
}

#[derive(Default)]
pub(super) struct Families {
    pub declared: Vec<Declared>,
}

impl Families {
    pub fn counter(&mut self, name: &str, help: &str) -> IntCounter {
        self.family(IntCounter::new(name, help))
    }

    pub fn gauge(&mut self, name: &str, help: &str) -> IntGauge {
        self.family(IntGauge::new(name, help))
    }

    pub fn counters(&mut self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.family(IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub fn gauges(&mut self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.family(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub fn histograms(&mut self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        let opts = HistogramOpts::new(name, help).buckets(LATENCY_BUCKETS.to_vec());
        self.family(HistogramVec::new(opts, labels))
    }

    #[expect(clippy::expect_used, reason = "names and labels are constants, and a test makes every family")]
    fn family<C: Collector + Clone + 'static>(&mut self, family: Result<C>) -> C {
        self.register(family.expect("valid name and labels"))
    }

    #[expect(clippy::expect_used, reason = "names are constants, and a test makes every family")]
    pub fn register<C: Collector + Clone + 'static>(&mut self, collector: C) -> C {
        let collected = collector.collect();
        for desc in collector.desc() {
            let family = collected.iter().find(|family| family.name() == desc.fq_name);
            self.declared.push(Declared {
                name: desc.fq_name.clone(),
                kind: family.map(|family| format!("{:?}", family.type_()).to_lowercase()).unwrap_or_default(),
                labels: desc.variable_labels.clone(),
                help: desc.help.clone(),
            });
        }
        default_registry().register(Box::new(collector.clone())).expect("a name of its own");
        collector
    }
}
