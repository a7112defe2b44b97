//! What is counted of the journal: what this gateway puts there, and what is there.

use pingora_prometheus::prometheus::{Histogram, IntCounter, IntGauge, IntGaugeVec};

use super::{METRICS, families::Families};

/// The bound of what waits for the journal.
pub const WAITING_CHANGES: &str = "journal_waiting_changes";

/// A process has one journal.
#[derive(Debug, Clone)]
pub struct JournalMetrics {
    pub begun: IntCounter,
    pub settled: IntCounter,
    pub diverged: IntCounter,
    pub void: IntCounter,
    pub taken: Histogram,
    pub failed: Histogram,
    pub waiting: IntGauge,
    pub unavailable: IntGauge,
    pub refused: IntCounter,
    pub dropped: IntCounter,
    pub replaced: IntCounter,
    pub log_bytes: IntGauge,
    pub checkpoints_failed: IntCounter,
    pub remembered: IntGauge,
    pub whole: IntGauge,
    pub asked_in_time: IntCounter,
    pub asked_in_vain: IntCounter,
    pub open: IntGauge,
    pub parked: IntGauge,
    pub dead: IntGauge,
    pub leased: IntGauge,
    behind: IntGaugeVec,
    pub intents: IntGauge,
    pub oldest: IntGauge,
    pub resolved: IntGauge,
}

impl JournalMetrics {
    pub(super) fn new(f: &mut Families) -> JournalMetrics {
        let changes = f.counters(
            "akubra_journal_changes_total",
            "Steps of writes that this gateway has put into the journal.",
            &["kind"],
        );
        let batches = f.histograms(
            "akubra_journal_batch_seconds",
            "Time for a transaction of the journal with all that waited, by whether it was made.",
            &["outcome"],
        );
        let asked = f.counters(
            "akubra_journal_reads_asked_total",
            "Reads for which the journal was asked, because not all of it is in memory.",
            &["outcome"],
        );
        let objects = f.gauges(
            "akubra_journal_objects",
            "Objects in the journal, by where they stand: to be repaired, waiting for a human, tried too often.",
            &["standing"],
        );
        let change = |kind| changes.with_label_values(&[kind]);
        let standing = |standing| objects.with_label_values(&[standing]);
        JournalMetrics {
            begun: change("begun"),
            settled: change("settled"),
            diverged: change("diverged"),
            void: change("void"),
            taken: batches.with_label_values(&["made"]),
            failed: batches.with_label_values(&["failed"]),
            waiting: f.gauge(
                "akubra_journal_waiting_changes",
                "Steps of writes that wait to be put into the journal.",
            ),
            unavailable: f.gauge(
                "akubra_journal_unavailable",
                "1 while this gateway cannot put anything into the journal.",
            ),
            refused: f.counter(
                "akubra_journal_refused_writes_total",
                "Writes answered 503 because the journal could not be told of them before they began.",
            ),
            dropped: f.counter(
                "akubra_journal_dropped_total",
                "Steps of writes that never reached the journal, because too many waited.",
            ),
            replaced: f.counter(
                "akubra_journal_replacements_total",
                "Times that this gateway had to enrol again, because the journal is another one, or an older state of it.",
            ),
            log_bytes: f.gauge(
                "akubra_journal_log_bytes",
                "Size of the write-ahead log beside the journal's file; 0 with PostgreSQL.",
            ),
            checkpoints_failed: f.counter(
                "akubra_journal_checkpoint_failures_total",
                "Times that the write-ahead log could not be copied into the journal's file.",
            ),
            remembered: f.gauge(
                "akubra_journal_remembered_objects",
                "Objects of the journal that this gateway has in memory.",
            ),
            whole: f.gauge("akubra_journal_remembered_whole", "1 while these are all that there are."),
            asked_in_time: asked.with_label_values(&["answered"]),
            asked_in_vain: asked.with_label_values(&["not answered"]),
            open: standing("open"),
            parked: standing("parked"),
            dead: standing("dead"),
            leased: f.gauge("akubra_journal_leased_objects", "Objects that a worker has leased to repair them."),
            behind: f.gauges(
                "akubra_journal_behind_objects",
                "Objects to be repaired of which a backend has not taken a write; an estimate above 1,000 objects.",
                &["backend"],
            ),
            intents: f.gauge(
                "akubra_journal_intents",
                "Writes in the journal that are under way, or whose gateway has not said how they ended.",
            ),
            oldest: f.gauge(
                "akubra_journal_oldest_seconds",
                "Age of the oldest object that is to be repaired; 0 if there is none.",
            ),
            resolved: f.gauge(
                "akubra_journal_resolved_objects",
                "Objects whose backends were seen to agree again, since the journal began.",
            ),
        }
    }

    /// Of one backend, by URL.
    pub fn behind(&self, backend: &str, count: i64) {
        self.behind.with_label_values(&[backend]).set(count);
    }

    /// It is no backend any more.
    pub fn forget_backend(&self, backend: &str) {
        // An error says that it was none.
        self.behind.remove_label_values(&[backend]).unwrap_or_default();
    }

    pub fn of_process() -> JournalMetrics {
        METRICS.journal.clone()
    }
}
