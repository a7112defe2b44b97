//! What the gateway tells its journal, and asks of it.
//!
//! A write becomes an intent for each cluster that it concerns ([`Writing::intents`]), and what its backends reply the
//! end of each ([`Begun::end`]). Reads learn which backends have the newest version ([`lagging`]).
//!
//! | file | what it is |
//! |---|---|
//! | `outcome.rs` | from replies to what the journal is told of a write |
//! | `follow.rs` | keeps what is remembered as the journal is |
//! | `lagging.rs` | who is asked last for an object |

mod follow;
pub mod lagging;
pub mod outcome;
#[cfg(test)]
mod tests;

use std::{
    path::Path,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use chrono::Utc;
use http::Method;
use tokio::{sync::watch, time::timeout};

use self::outcome::{Parts, outcome};
use super::route::Route;
use crate::{
    config::{Consistency, JournalConfig},
    journal::{
        Ended, Intent, Known, Object, Outcome, Overview, Presence, Record, Refused, Said, What, WriteId,
        Writer, opener,
    },
    mirror::Reply,
    s3::{Multipart, Operation, S3Request, Target, delete_objects::Doomed},
    telemetry::metrics::JournalMetrics,
    topology::{Backend, Cluster},
};

/// The longest that a write to an object with records waits for its intent to be on disk, where its region does not ask
/// for that.
const SEEN: Duration = Duration::from_secs(1);

/// The journal as the gateway has it. One per process.
pub struct Journaling {
    writer: Writer,
    overview: Overview,
    remembered_most: usize,
    /// What the journal has is remembered, as far as there is room.
    loaded: watch::Sender<bool>,
    asked_in_vain: Mutex<Option<Instant>>,
    metrics: JournalMetrics,
}

/// A write that is about to begin.
pub struct Writing<'a> {
    route: &'a Route,
    method: &'a Method,
    req_id: &'a str,
    clusters: &'a [Arc<Cluster>],
    /// Objects of the bucket that it deletes.
    pub doomed: Vec<Doomed>,
}

/// A write that has begun: it ends with [`Begun::end`] or [`Begun::nothing_was_sent`]. Dropped, nobody knows what
/// became of it.
pub struct Begun {
    journaling: Arc<Journaling>,
    /// One for each cluster, or of each cluster one for each object that the body names.
    intents: Vec<Arc<Intent>>,
    clusters: usize,
    is_many: bool,
    /// Of each object: it had records when the write began, or may have had.
    contested: Vec<bool>,
    /// From now on backends may have seen it.
    may_be_sent: bool,
}

impl Journaling {
    /// Nothing is opened before it is started. What tells others on this host that the process lives is in
    /// `state_directory`.
    pub fn of(config: &JournalConfig, state_directory: &Path) -> Journaling {
        let presence = Presence::in_directory(state_directory, &config.engine);
        let writer = Writer::new(opener(config.engine.clone()), presence, config.settle);
        Journaling::with(writer, config.remembered_objects)
    }

    fn with(writer: Writer, remembered_most: usize) -> Journaling {
        let overview = Overview::new(remembered_most);
        let (remembered, live, untold) =
            (overview.remembered.clone(), overview.live.clone(), overview.untold.clone());
        let is_replaced = move || {
            remembered.doubt();
            untold.store(true, Relaxed);
        };
        Journaling {
            writer: writer.when_replaced(is_replaced).telling_again(live),
            overview,
            remembered_most,
            loaded: watch::Sender::new(false),
            asked_in_vain: Mutex::default(),
            metrics: JournalMetrics::of_process(),
        }
    }

    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Objects that it remembers at most.
    pub fn remembered_most(&self) -> usize {
        self.remembered_most
    }

    /// Lets a write begin, when the journal knows of it as its region asks for. Dropped, it has not begun.
    pub async fn begin(self: &Arc<Self>, writing: &Writing<'_>) -> Result<Begun, Refused> {
        let intents = writing.intents(|| self.writer.next_id());
        let contested = intents.iter().map(|intent| self.overview.may_have_records(&intent.object)).collect();
        let is_strong = writing.consistency() == Consistency::Strong;
        if is_strong {
            self.writer.begin(&intents).await?;
        }
        intents.iter().for_each(|intent| self.overview.begin(intent, is_strong, &self.writer));
        let (clusters, is_many) = (writing.clusters.len(), writing.is_many());
        let journaling = self.clone();
        let mut begun = Begun { journaling, intents, clusters, is_many, contested, may_be_sent: false };
        if !is_strong {
            self.tell_what_must_be(writing.consistency(), &begun.intents).await;
        }
        begun.may_be_sent = true;
        Ok(begun)
    }

    /// An object that may have records is repaired by somebody, who must see that it is written to, whatever its region
    /// asks for. That is waited for a while; the write goes on all the same, and its intent stays on its way.
    async fn tell_what_must_be(&self, consistency: Consistency, intents: &[Arc<Intent>]) {
        let (known, others): (Vec<_>, Vec<_>) =
            intents.iter().cloned().partition(|intent| self.overview.may_have_records(&intent.object));
        let known = self.claim(known);
        let on_disk = if known.is_empty() { None } else { self.writer.begin_now(&known) };
        known.iter().for_each(|intent| self.overview.unclaim(intent, on_disk.is_some()));
        let others = if consistency == Consistency::Weak { self.claim(others) } else { Vec::new() };
        let is_told = !others.is_empty() && self.writer.begin_soon(&others);
        others.iter().for_each(|intent| self.overview.unclaim(intent, is_told));
        if let Some(on_disk) = on_disk {
            timeout(SEEN, on_disk).await.map(drop).unwrap_or_default();
        }
    }

    /// Those of which others have not told the journal.
    fn claim(&self, intents: Vec<Arc<Intent>>) -> Vec<Arc<Intent>> {
        intents.into_iter().filter(|intent| !self.overview.claim(intent)).collect()
    }

    /// Tells of what a read found, unless another has told of it. `known` = what was known before.
    pub fn found(&self, mut record: Record, known: Option<&Known>) {
        let says_so = |known: &Known| known.says(&record.intent.what);
        let now = self.overview.remembered.of(&record.intent.object);
        if !known.is_some_and(says_so) && !now.as_ref().is_some_and(says_so) {
            record.intent.id = self.writer.next_id();
            self.overview.note(&record, false, &self.writer);
        }
    }
}

impl<'a> Writing<'a> {
    pub fn new(
        route: &'a Route,
        method: &'a Method,
        req_id: &'a str,
        clusters: &'a [Arc<Cluster>],
    ) -> Writing<'a> {
        Writing { route, method, req_id, clusters, doomed: Vec::new() }
    }

    /// One whose body could not be read has no objects, and was done as far as its answers say.
    fn is_many(&self) -> bool {
        matches!(&self.route.request.operation, Operation::BucketWrite) && self.method == Method::POST
    }

    fn consistency(&self) -> Consistency {
        self.route.region.consistency
    }

    fn intents(&self, next_id: impl Fn() -> WriteId) -> Vec<Arc<Intent>> {
        let what = what(&self.route.request, self.method);
        let length = self.route.object_length;
        let strong = self.consistency() == Consistency::Strong;
        let intent =
            |cluster: &Cluster, what| Intent { length, strong, ..self.intent(next_id(), cluster, what) };
        if self.doomed.is_empty() {
            return self.clusters.iter().map(|cluster| Arc::new(intent(cluster, what.clone()))).collect();
        }
        let one = |cluster, doomed: &Doomed| {
            let mut intent = intent(cluster, doomed.version.clone().map_or(What::Delete, What::Version));
            intent.object.key.clone_from(&doomed.key);
            Arc::new(Intent { length: None, ..intent })
        };
        let of_cluster = |cluster| self.doomed.iter().map(move |doomed| one(cluster, doomed));
        self.clusters.iter().flat_map(|cluster| of_cluster(cluster)).collect()
    }

    fn intent(&self, id: WriteId, cluster: &Cluster, what: What) -> Intent {
        Intent {
            id,
            object: object(&self.route.request.target, &cluster.name),
            what,
            region: self.route.region.name.clone(),
            req_id: self.req_id.to_owned(),
            length: None,
            begun: now(),
            strong: false,
            turn: None,
        }
    }

    /// What a read found of the object on its home cluster, as a record that has no name yet.
    pub fn found(&self, what: What, replies: Vec<(String, Said)>) -> Record {
        let intent = self.intent(WriteId { gateway: 0, number: 0 }, &self.clusters[0], what);
        Record { ended: intent.begun, intent, commit: None, turn: None, replies }
    }
}

/// In milliseconds since 1970.
fn now() -> i64 {
    Utc::now().timestamp_millis()
}

/// Of one that is about a version.
fn version(intent: &Intent) -> Option<&str> {
    match &intent.what {
        What::Version(version) => Some(version),
        _ => None,
    }
}

fn object(target: &Target, cluster: &str) -> Object {
    let (bucket, key) = match target {
        Target::Service => (Vec::new(), Vec::new()),
        Target::Bucket { bucket } => (bucket.clone(), Vec::new()),
        Target::Object { bucket, key } => (bucket.clone(), key.clone()),
    };
    Object { cluster: cluster.to_owned(), bucket, key }
}

fn what(request: &S3Request, method: &Method) -> What {
    match (&request.operation, &request.version_id, &request.sub_resource) {
        (Operation::Delete, ..) => What::Delete,
        (Operation::Copy { .. } | Operation::Multipart(Multipart::Complete), ..) => What::Put,
        (Operation::BucketWrite, _, Some(sub_resource)) => What::Bucket(format!("{method} {sub_resource}")),
        (Operation::BucketWrite, _, None) => What::Bucket(method.to_string()),
        (_, Some(version), _) => What::Version(version.clone()),
        (_, None, Some(sub_resource)) => What::Attribute(sub_resource.clone()),
        (_, None, None) if method == Method::PUT => What::Put,
        // Nobody knows what it does.
        (_, None, None) => What::Attribute(method.to_string()),
    }
}

impl Begun {
    /// No backend has seen the end of the request.
    pub fn nothing_was_sent(mut self) {
        let intents = std::mem::take(&mut self.intents);
        for (intent, contested) in intents.into_iter().zip(&self.contested) {
            let record = Record::orphaned(self.own(intent), now());
            self.tell(record, Outcome::Void, *contested);
        }
    }

    /// Tells what all backends said. `diverges` belongs to `replies`; those `left_out` belong to the first cluster.
    pub fn end(
        mut self,
        replies: &[Reply],
        diverges: &[bool],
        left_out: &[Arc<Backend>],
        committed: Option<i64>,
    ) {
        let ended = now();
        let intents = std::mem::take(&mut self.intents);
        let of_cluster = (intents.len() / self.clusters.max(1)).max(1);
        let (whole, many) = (outcome::whole(replies, diverges), Parts::of(replies));
        for (at, (intent, contested)) in intents.into_iter().zip(&self.contested).enumerate() {
            let cluster = at / of_cluster;
            let left_out = if cluster == 0 { left_out } else { &[] };
            let (outcome, replies) = match self.is_many {
                true => outcome(cluster, &many.about(&intent.object.key, version(&intent)), left_out),
                false => outcome(cluster, &whole, left_out),
            };
            let intent = self.own(intent);
            let record = Record { intent, commit: committed, ended, turn: None, replies };
            self.tell(record, outcome, *contested);
        }
    }

    /// What was shared, so that others could tell of it, until the write tells of itself: not a copy then.
    fn own(&self, intent: Arc<Intent>) -> Intent {
        self.journaling.overview.claim(&intent);
        Arc::unwrap_or_clone(intent)
    }

    fn tell(&self, record: Record, outcome: Outcome, contested: bool) {
        let Journaling { writer, overview, .. } = &*self.journaling;
        // While the journal is away it may be taken for dead.
        let orphaned = writer.was_taken_for_dead(record.id()) || !writer.is_available();
        overview.end(Ended { record, outcome, orphaned, contested }, writer);
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let outcome = if self.may_be_sent { Outcome::Diverged } else { Outcome::Void };
        for intent in std::mem::take(&mut self.intents) {
            let record = Record::orphaned(self.own(intent), now());
            self.tell(record, outcome, true);
        }
    }
}
