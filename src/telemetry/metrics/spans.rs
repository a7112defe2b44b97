//! What is counted of spans.

use pingora_prometheus::prometheus::IntCounter;

use super::families::Families;

#[derive(Debug)]
pub struct Spans {
    pub ended: IntCounter,
    pub exported: IntCounter,
    /// The collector did not take them.
    pub failed: IntCounter,
}

impl Spans {
    pub(super) fn new(f: &mut Families) -> Spans {
        let spans = f.counters(
            "akubra_trace_spans_total",
            "Spans of requests and exchanges that ended, that the collector took, and that it did not take.",
            &["outcome"],
        );
        let of = |outcome| spans.with_label_values(&[outcome]);
        Spans { ended: of("ended"), exported: of("exported"), failed: of("failed") }
    }
}
