//! Backends as [`Stores`]: every word to them is a signed request on `upstream`'s road.
//!
//! | file | what it is |
//! |---|---|
//! | `site.rs` | one backend: what is known of it, and requests to it |
//! | `request.rs` | heads of requests: targets, and what an object brings along |
//! | `condition.rs` | conditions of changes, as each backend understands them |
//! | `held.rs` | from the answer to HEAD to what a backend holds |
//! | `error.rs` | from failures and answers to [`StoreError`] |
//! | `source.rs` | an object's bytes as they come in, checked |
//! | `copy.rs`, `multipart.rs` | an object from one backend to another, in one piece and in parts |
//! | `uploads.rs` | aborts uploads in parts that nobody completes |
//! | `attribute.rs` | tags, ACL and other sub-resources |
//! | `xml.rs` | what is to be understood of XML answers |
//! | `pace.rs`, `least.rs` | bytes per second: at most, and at least |
//! | `lacks.rs` | what a backend was found not to know, for a while |

mod attribute;
mod condition;
mod copy;
mod error;
mod held;
mod lacks;
mod least;
mod multipart;
mod pace;
mod request;
mod site;
mod source;
mod uploads;
pub(super) mod xml;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{HeaderName, Method, StatusCode};
use tokio::time::Instant;

pub use self::error::refused_credentials;
use self::{
    condition::Condition,
    copy::Copy,
    error::End,
    least::Least,
    site::{Reply, Site},
    uploads::Uploads,
};
use super::{Copied, Gate, Held, Md5, State, StoreError, Stores};
use crate::{
    journal::Object,
    topology::{Backend, Topology},
    upstream::Upstream,
};

const MIB: u64 = 1 << 20;

/// How objects are copied.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `ObjectVersionHeaderName`, where there is one.
    pub object_version_header: Option<HeaderName>,
    /// Whether an object's ACL is copied with it.
    pub copy_acl: bool,
    /// Longer objects are copied in parts.
    pub multipart_threshold: u64,
    /// Of a part; longer where there would be too many.
    pub part_size: u64,
    /// Bytes per second and backend; 0 = no limit.
    pub bandwidth: u64,
    /// Bytes per second that a copy must have on the average of `patience`; 0 = none is too slow.
    pub least_rate: u64,
    pub patience: Duration,
    /// After which a request whose outcome is unknown does not happen any more.
    pub settle: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            object_version_header: None,
            copy_acl: false,
            multipart_threshold: 64 * MIB,
            part_size: 16 * MIB,
            bandwidth: 0,
            least_rate: 16 << 10,
            patience: Duration::from_secs(60),
            settle: Duration::from_secs(120),
        }
    }
}

/// The backends of one configuration.
pub struct S3Stores {
    /// By endpoint.
    sites: HashMap<String, Arc<Site>>,
    settings: Settings,
    uploads: Arc<Uploads>,
}

impl S3Stores {
    /// `upstream` signs ([`super::sign::ServiceSigner`]).
    pub fn new(upstream: &Arc<Upstream>, topology: &Topology, settings: Settings) -> S3Stores {
        let least = Least { rate: settings.least_rate, window: settings.patience };
        let site = |backend: &Arc<Backend>| {
            let clusters = clusters_of(topology, backend);
            Arc::new(Site::new(upstream.clone(), backend.clone(), clusters, settings.bandwidth, least))
        };
        let sites = topology.backends.iter().map(|backend| (backend.endpoint(), site(backend)));
        let uploads = Uploads::new(settings.settle);
        S3Stores { sites: sites.collect(), settings, uploads }
    }

    /// Before the process ends: lets uploads be aborted that copies have left.
    pub async fn end(&self, within: Duration) {
        self.uploads.end(within).await;
    }

    fn site(&self, backend: &str) -> Result<&Arc<Site>, StoreError> {
        self.sites
            .get(backend)
            .ok_or_else(|| StoreError::Refused(format!("{backend}: no cluster has this backend")))
    }

    async fn state_of(&self, site: &Site, object: &Object) -> State {
        let header = match request::head(site, Method::HEAD, object, "") {
            Ok(header) => header,
            Err(error) => return State::Unknown(error.to_string()),
        };
        match site.ask(header).await {
            Ok(reply) if is_refusal(reply.status) => self.refused(site, object, reply).await,
            Ok(reply) => held::state(site.url(), &reply, self.settings.object_version_header.as_ref()),
            Err(failure) => State::Unknown(failure.to_string()),
        }
    }

    /// Why a question was refused: the answer to HEAD has no room for it, that to GET of one byte has.
    async fn refused(&self, site: &Site, object: &Object, reply: Reply) -> State {
        let asked = async {
            let mut header = request::head(site, Method::GET, object, "").ok()?;
            request::set(&mut header, "range", "bytes=0-0").ok()?;
            let answer = site.open(header).await.ok()?;
            if answer.head.status.is_success() { None } else { site.collect(answer).await.ok() }
        };
        let explained = match asked.await {
            Some(explained) => Reply { status: reply.status, ..explained },
            None => reply,
        };
        let why = error::said(site, &Method::HEAD, &explained);
        match error::is_of_credentials(explained.status, explained.code()) {
            true => State::Unknown(why),
            false => State::Denied(why),
        }
    }
}

fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// The clusters that have a backend, for humans.
fn clusters_of(topology: &Topology, backend: &Backend) -> String {
    let mut names: Vec<&str> = Vec::new();
    for cluster in topology.regions.iter().flat_map(|region| &region.clusters) {
        let has = cluster.backends.iter().any(|one| one.id == backend.id);
        if has && !names.contains(&cluster.name.as_str()) {
            names.push(&cluster.name);
        }
    }
    names.join(", ")
}

#[async_trait]
impl Stores for S3Stores {
    async fn state(&self, backend: &str, object: &Object) -> State {
        match self.site(backend) {
            Ok(_) if object.key.is_empty() => State::Unknown(format!("{object} is no object but a bucket")),
            Ok(site) => self.state_of(site, object).await,
            Err(error) => State::Unknown(error.to_string()),
        }
    }

    async fn md5(&self, backend: &str, object: &Object, held: &Held) -> Result<Md5, StoreError> {
        source::md5(self.site(backend)?, object, held).await
    }

    async fn copy(
        &self,
        object: &Object,
        from: (&str, &Held),
        to: (&str, &State, Instant),
        gate: &dyn Gate,
    ) -> Result<Copied, StoreError> {
        let (source, target) = (self.site(from.0)?, self.site(to.0)?);
        if object.key.is_empty() {
            return Err(StoreError::Refused(format!("{object} is no object but a bucket")));
        }
        if let Some(why) = to.1.why_unknown() {
            return Err(StoreError::Failed(format!("{}: nobody knows what it holds: {why}", target.url())));
        }
        let (_, over, seen) = to;
        Copy { stores: self, object, source, held: from.1, target, over, seen, gate }.run().await
    }

    async fn delete(
        &self,
        object: &Object,
        backend: (&str, &Held),
        gate: &dyn Gate,
    ) -> Result<(), StoreError> {
        self.remove(self.site(backend.0)?, object, backend.1, gate).await
    }

    async fn attribute(
        &self,
        backend: &str,
        object: &Object,
        name: &str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        attribute::read(self.site(backend)?, object, name).await
    }

    async fn set_attribute(
        &self,
        backend: &str,
        object: &Object,
        name: &str,
        value: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        attribute::write(self.site(backend)?, object, name, value).await
    }
}

impl S3Stores {
    /// Deletes what a backend holds, as long as it does.
    async fn remove(
        &self,
        site: &Site,
        object: &Object,
        held: &Held,
        gate: &dyn Gate,
    ) -> Result<(), StoreError> {
        let over = State::Present(held.clone());
        let mut condition = Condition::new(site, &over);
        loop {
            let mut header = request::head(site, Method::DELETE, object, "")?;
            condition.set(&mut header)?;
            // Also where it is conditional: storages that know no conditions on DELETE do not say so.
            self.still(site, object, &over).await?;
            error::pass(gate, site).await?;
            let reply = site.commit(header, bytes::Bytes::new()).await?;
            if reply.status.is_success() || reply.status == StatusCode::NOT_FOUND {
                condition.held();
                return Ok(());
            }
            if !condition.is_misunderstood(self, object, &reply).await {
                return Err(error::of_reply(site, End::Target, &Method::DELETE, &reply));
            }
        }
    }

    /// Whether a backend holds what it did: asked where it cannot be a condition of the change.
    async fn still(&self, site: &Site, object: &Object, before: &State) -> Result<(), StoreError> {
        let now = self.state_of(site, object).await;
        if let Some(why) = now.why_unknown() {
            return Err(StoreError::Failed(why.to_owned()));
        }
        match (&now, before) {
            (State::Absent, State::Absent) => Ok(()),
            (State::Present(now), State::Present(before)) if is_same(now, before) => Ok(()),
            _ => Err(StoreError::Changed(format!("{}: it holds something else now", site.url()))),
        }
    }
}

fn is_same(a: &Held, b: &Held) -> bool {
    (&a.etag, &a.version, a.modified, a.length) == (&b.etag, &b.version, b.modified, b.length)
}
