//! Writes: which backends, under which rule, and the records that follow from their replies.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use md5::{Digest, Md5};

use super::{
    copied::Doubt,
    journaling::{Begun, Writing},
    route::Route,
    snapshot::Snapshot,
};
use crate::{
    journal::{self, Said, What},
    mirror::{Judge, Kind, Reply, Rule, verdict::divergences},
    s3::{Multipart, Operation, S3Request, Target},
    synclog::{Record, SyncLog, record::Outcome},
    telemetry::metrics::ReplyOutcome,
    topology::{Backend, BackendId, Cluster, Region},
    upstream::{Framing, Reuse, Upstream},
};

/// Where a write goes and how its replies are judged.
pub struct Plan {
    /// The clusters concerned; targets name them by index.
    pub clusters: Vec<Arc<Cluster>>,
    pub targets: Vec<(usize, Arc<Backend>)>,
    pub rule: Rule,
    pub judge: Judge,
    pub reuse: Reuse,
    /// Writes to the object are kept in order.
    pub ordered: bool,
    /// A good reply means that the backend has the object's last version.
    pub whole_object: bool,
    /// Whether replies that differ are a divergence: not of reads, nor of parts of an upload.
    pub recorded: bool,
    /// Backends that do not take part although they should: a completed multipart upload's others, and those that have
    /// an older version of what is copied.
    pub left_out: Vec<Arc<Backend>>,
}

impl Plan {
    /// Does without these backends.
    pub fn leave_out(&mut self, backends: &[BackendId]) {
        let is_out = |(_, backend): &mut (usize, Arc<Backend>)| backends.contains(&backend.id);
        self.left_out.extend(self.targets.extract_if(.., is_out).map(|(_, backend)| backend));
    }
}

/// Plans a write. `usable` says whether a backend can be asked at all.
pub fn plan(
    request: &S3Request,
    method: &Method,
    headers: &HeaderMap,
    region: &Region,
    usable: impl Fn(&Backend) -> bool,
) -> Plan {
    let everywhere = matches!(request.operation, Operation::Delete | Operation::BucketWrite);
    let clusters: Vec<_> = match everywhere {
        true => region.clusters.clone(),
        false => vec![region.clusters[region.home(&request.ring_key)].clone()],
    };
    let all = clusters.iter().enumerate();
    let mut targets: Vec<_> =
        all.flat_map(|(at, c)| c.backends.iter().map(move |b| (at, b.clone()))).collect();
    let mut left_out = Vec::new();
    if let Operation::Multipart(step) = request.operation {
        let chosen = sticky(&targets, &request.ring_key, usable);
        let others = targets.iter().filter(|(_, backend)| backend.id != chosen.1.id);
        if step == Multipart::Complete {
            left_out = others.map(|(_, backend)| backend.clone()).collect();
        }
        targets = vec![chosen];
    }
    Plan {
        clusters,
        targets,
        rule: match request.operation {
            Operation::Delete => Rule::EveryCluster,
            Operation::BucketWrite => Rule::EveryClusterOrFirstFailure,
            _ => Rule::FirstGood,
        },
        judge: judge(request, method),
        reuse: reuse(request, method, headers),
        ordered: is_ordered(request, method),
        whole_object: !request.home_only || matches!(request.operation, Operation::Multipart(_)),
        recorded: is_recorded(request, method),
        left_out,
    }
}

fn judge(request: &S3Request, method: &Method) -> Judge {
    match request.operation {
        Operation::Delete => Judge::Delete,
        Operation::Copy { .. } => Judge::StatusAndResult("CopyObject"),
        Operation::Multipart(Multipart::Complete) => Judge::StatusAndResult("CompleteMultipartUpload"),
        Operation::BucketWrite if is_delete_of_many(request, method) => Judge::StatusAndSurvivors,
        Operation::BucketWrite if method == Method::POST => Judge::StatusAndBody,
        _ => Judge::Status,
    }
}

/// DeleteObjects, whose body names them.
pub fn is_delete_of_many(request: &S3Request, method: &Method) -> bool {
    method == Method::POST
        && request.operation == Operation::BucketWrite
        && request.sub_resource.as_deref() == Some("delete")
}

/// What must not be sent twice takes a fresh connection: on a pooled one that turns out to be dead nobody knows
/// whether the first sending arrived.
fn reuse(request: &S3Request, method: &Method, headers: &HeaderMap) -> Reuse {
    let conditional = headers.contains_key(header::IF_MATCH) || headers.contains_key(header::IF_NONE_MATCH);
    let read = matches!(request.operation, Operation::Multipart(Multipart::List));
    match !read && (method == Method::POST || conditional) {
        true => Reuse::Fresh,
        false => Reuse::Allowed,
    }
}

/// Whether a storage may do what is asked when it has nothing but the head. What it does not do without its body, or only
/// with that of an object, is streamed: uploads (also with sub-resources that some storages do not know), lists of objects
/// or parts.
pub fn can_do_without_body(request: &S3Request, method: &Method) -> bool {
    let sub_resource = request.sub_resource.as_deref();
    match request.operation {
        Operation::Delete | Operation::Copy { .. } => true,
        Operation::Write if matches!(*method, Method::PUT | Method::POST) => {
            !matches!(sub_resource, None | Some("append" | "uploadId" | "uploads"))
        }
        Operation::BucketWrite if method == Method::POST => !matches!(sub_resource, None | Some("delete")),
        Operation::Write | Operation::BucketWrite => true,
        _ => false,
    }
}

/// Whether the request changes the object itself, so that it has a place among the object's writes.
fn is_ordered(request: &S3Request, method: &Method) -> bool {
    let object = matches!(request.target, Target::Object { .. });
    let part = match request.operation {
        Operation::Multipart(step) => step != Multipart::Complete,
        _ => false,
    };
    object && !part && !matches!(*method, Method::GET | Method::HEAD)
}

fn is_recorded(request: &S3Request, method: &Method) -> bool {
    let passing = matches!(request.operation, Operation::Multipart(step) if step != Multipart::Complete);
    !passing && !matches!(*method, Method::GET | Method::HEAD)
}

/// One backend for all requests about an object's multipart uploads: the highest hash of key and backend among
/// the usable ones, so that all gateways choose alike and a change of health moves only what it must.
fn sticky(
    targets: &[(usize, Arc<Backend>)],
    key: &[u8],
    usable: impl Fn(&Backend) -> bool,
) -> (usize, Arc<Backend>) {
    let score = |backend: &Backend| {
        let digest: [u8; 16] = Md5::new().chain_update(key).chain_update(&backend.url).finalize().into();
        (usable(backend), digest)
    };
    let best = targets.iter().max_by_key(|(_, backend)| score(backend));
    best.unwrap_or(&targets[0]).clone()
}

/// What the records of one request have in common.
pub struct Recorder {
    pub synclog: SyncLog,
    pub upstream: Arc<Upstream>,
    pub method: Method,
    pub uri: Uri,
    pub useragent: Option<HeaderValue>,
    pub req_id: String,
    pub ts: DateTime<Utc>,
    pub route: Route,
    pub clusters: Vec<Arc<Cluster>>,
    /// Pinned to the last reply: the state of backends that a reload has taken out is there as long.
    pub snapshot: Arc<Snapshot>,
    pub left_out: Vec<Arc<Backend>>,
    pub recorded: bool,
    /// The write, as the journal knows it.
    pub begun: Option<Begun>,
    /// It is a copy of what backends may not agree on.
    pub doubt: Option<Doubt>,
}

impl Recorder {
    /// Records what the replies to a write say about divergence. `committed` is its number among those of this process.
    pub async fn write(mut self, replies: &[Reply], committed: Option<i64>) {
        let divergent = self.divergent(replies);
        for reply in replies {
            self.count(reply);
        }
        match (self.begun.take(), self.doubt.take()) {
            (Some(begun), Some(doubt)) => {
                let believed = doubt.believed(replies, &divergent);
                begun.end(&believed, &self.divergent(&believed), &self.left_out, committed);
            }
            (Some(begun), None) => begun.end(replies, &divergent, &self.left_out, committed),
            (None, _) => {}
        }
        if !self.recorded {
            return;
        }
        for (reply, _) in replies.iter().zip(divergent).filter(|(_, diverges)| *diverges) {
            self.diverged(reply, self.good_for(replies, reply)).await;
        }
        let good = replies.iter().find(|reply| reply.kind == Kind::Good);
        let Some(taken_by) = good.or_else(|| replies.iter().find(|reply| reply.kind == Kind::Unknown)) else {
            return;
        };
        for backend in &self.left_out {
            let error = format!("{}: {}", backend.url, self.why_left_out());
            let reply = Reply::without_answer(backend.clone(), taken_by.cluster, Kind::NotApplied, error);
            self.diverged(&reply, good).await;
        }
    }

    fn why_left_out(&self) -> &'static str {
        match self.route.request.operation {
            Operation::Copy { .. } => "it has an older version of the copy's source",
            _ => "the multipart upload went to one backend only",
        }
    }

    /// Records backends that said 404 while another of their cluster has the object.
    pub async fn read(&self, absent: &[Arc<Backend>], found: &Arc<Backend>) {
        let reply = |backend: &Arc<Backend>, kind, status, error| Reply {
            status: Some(status),
            ..Reply::without_answer(backend.clone(), 0, kind, error)
        };
        let good = reply(found, Kind::Good, StatusCode::OK, String::new());
        for backend in absent {
            let error = format!("{}: has no such object, {} has it", backend.url, found.url);
            let missing = reply(backend, Kind::NotApplied, StatusCode::NOT_FOUND, error);
            self.diverged(&missing, Some(&good)).await;
        }
    }

    /// What the journal is told of such a read.
    pub fn seen(&self, absent: &[Arc<Backend>], found: &Arc<Backend>) -> journal::Record {
        let mut replies = not_applied(absent);
        replies.push((found.endpoint(), Said::Good { etag: None, version: None }));
        self.found(What::Seen, replies)
    }

    /// What the journal is told of an object on another cluster than its home, some of whose backends said that they
    /// have none.
    pub fn misplaced(&self, found_on: &str, absent: &[Arc<Backend>]) -> journal::Record {
        self.found(What::Misplaced(found_on.to_owned()), not_applied(absent))
    }

    fn found(&self, what: What, replies: Vec<(String, Said)>) -> journal::Record {
        Writing::new(&self.route, &self.method, &self.req_id, &self.clusters).found(what, replies)
    }

    fn divergent(&self, replies: &[Reply]) -> Vec<bool> {
        let seen: Vec<_> = replies.iter().map(Recorder::kind_and_etag).collect();
        divergences(&seen, self.snapshot.config.mirror.compare_etags)
    }

    fn kind_and_etag(reply: &Reply) -> (Kind, Option<&str>) {
        (reply.kind, reply.etag.as_deref().filter(|_| reply.comparable))
    }

    fn count(&self, reply: &Reply) {
        let outcome = match reply.kind {
            Kind::Good => ReplyOutcome::Good,
            Kind::NotApplied => ReplyOutcome::NotApplied,
            Kind::Unknown => ReplyOutcome::Unknown,
        };
        self.upstream.count_reply(reply.backend.id, &self.method, reply.status, outcome);
    }

    /// A good reply to name beside a failed one, of the same cluster if there is one.
    fn good_for<'a>(&self, replies: &'a [Reply], failed: &Reply) -> Option<&'a Reply> {
        let good = |reply: &&Reply| reply.kind == Kind::Good && reply.backend.id != failed.backend.id;
        let near = replies.iter().filter(|reply| reply.cluster == failed.cluster).find(good);
        near.or_else(|| replies.iter().find(good))
    }

    async fn diverged(&self, failed: &Reply, good: Option<&Reply>) {
        self.upstream.count_divergence(failed.backend.id, &self.method);
        self.synclog.record(self.record(failed, good)).await;
    }

    fn record(&self, failed: &Reply, good: Option<&Reply>) -> Record {
        let Route { region, request, framing, .. } = &self.route;
        let (bucket, key): (&[u8], &[u8]) = match &request.target {
            Target::Service => (b"", b""),
            Target::Bucket { bucket } => (bucket, b""),
            Target::Object { bucket, key } => (bucket, key),
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let error = match failed.kind {
            Kind::Good => format!("{}: its ETag differs from the other good reply's", failed.backend.url),
            _ => failed.error.clone(),
        };
        Record {
            method: self.method.to_string(),
            failedhost: failed.backend.url.clone(),
            path: self.uri.path().to_owned(),
            successhost: good.map(|reply| reply.backend.url.clone()).unwrap_or_default(),
            useragent: self.useragent.as_ref().map(|agent| text(agent.as_bytes())).unwrap_or_default(),
            content_length: match framing {
                Framing::Length(length) => *length,
                Framing::Chunked => 0,
            },
            error,
            req_id: self.req_id.clone(),
            ts: self.ts,
            region: region.name.clone(),
            cluster: self.clusters.get(failed.cluster).map(|c| c.name.clone()).unwrap_or_default(),
            bucket: text(bucket),
            key: text(key),
            status: failed.status.map_or(0, |status| status.as_u16()),
            outcome: match failed.kind {
                Kind::Good => Outcome::Good,
                Kind::NotApplied => Outcome::NotApplied,
                Kind::Unknown => Outcome::Unknown,
            },
            etag: good.and_then(|reply| reply.etag.clone()),
            version: request.version_id.clone().or_else(|| good.and_then(|reply| reply.version.clone())),
            sub_resource: request.sub_resource.clone(),
        }
    }
}

fn not_applied(backends: &[Arc<Backend>]) -> Vec<(String, Said)> {
    backends.iter().map(|backend| (backend.endpoint(), Said::NotApplied)).collect()
}

/// The name under which an object's writes are kept in order: the same in path and virtual-host style.
pub fn object_name(target: &Target) -> Option<Arc<[u8]>> {
    match target {
        Target::Object { bucket, key } => Some([b"/", bucket.as_slice(), b"/", key].concat().into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::VirtualHostStyle, s3::request::classify};

    #[test]
    fn what_can_be_done_without_its_body() {
        let of = |method: &str, target: &str, is_copy: bool| {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let mut headers = HeaderMap::new();
            if is_copy {
                headers.insert("x-amz-copy-source", HeaderValue::from_static("/b/a"));
            }
            let style = VirtualHostStyle::default();
            can_do_without_body(
                &classify(&method, target.as_bytes(), &headers, None, style).unwrap(),
                &method,
            )
        };
        for (method, target) in [
            ("DELETE", "/b/k"),
            ("DELETE", "/b/k?versionId=v"),
            ("DELETE", "/b/k?tagging"),
            ("PUT", "/b/k?acl"),
            ("PUT", "/b/k?renameObject"),
            ("POST", "/b/k?restore"),
            ("PATCH", "/b/k"),
            ("PUT", "/b"),
            ("PUT", "/b?policy"),
            ("DELETE", "/b"),
        ] {
            assert!(of(method, target, false), "{method} {target}");
        }
        assert!(of("PUT", "/b/k", true), "a copy");
        for (method, target) in [
            ("PUT", "/b/k"),
            ("PUT", "/b/k?versionId=v"),
            ("PUT", "/b/k?append&position=0"),
            ("PUT", "/b/k?uploadId=u"),
            ("PUT", "/b/k?uploadId=u&partNumber=1"),
            ("POST", "/b/k"),
            ("POST", "/b/k?uploadId=u"),
            ("POST", "/b?delete"),
            ("POST", "/b"),
        ] {
            assert!(!of(method, target, false), "{method} {target}");
        }
    }
}
