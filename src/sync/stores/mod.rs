//! Backends as [`Stores`]: every word to them is a signed request on `upstream`'s road.
//!
//! | file | what it is |
//! |---|---|
//! | `site.rs` | one backend: what is known of it, and requests to it |
//! | `request.rs` | heads of requests: targets, conditions, what an object brings along |
//! | `held.rs` | from the answer to HEAD to what a backend holds |
//! | `error.rs` | from failures and answers to [`StoreError`] |
//! | `source.rs` | an object's bytes as they come in, checked |
//! | `copy.rs`, `multipart.rs` | an object from one backend to another, in one piece and in parts |
//! | `attribute.rs` | tags, ACL and other sub-resources |
//! | `xml.rs` | what is to be understood of XML answers |
//! | `pace.rs` | bytes per second |

mod attribute;
mod copy;
mod error;
mod held;
mod multipart;
mod pace;
mod request;
mod site;
mod source;
mod xml;

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use http::{HeaderName, Method};

use self::{copy::Copy, error::End, site::Site};
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
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            object_version_header: None,
            copy_acl: false,
            multipart_threshold: 64 * MIB,
            part_size: 16 * MIB,
            bandwidth: 0,
        }
    }
}

/// The backends of one configuration.
pub struct S3Stores {
    /// By endpoint.
    sites: HashMap<String, Site>,
    settings: Settings,
}

impl S3Stores {
    /// `upstream` signs ([`super::sign::ServiceSigner`]).
    pub fn new(upstream: &Arc<Upstream>, topology: &Topology, settings: Settings) -> S3Stores {
        let site = |backend: &Arc<Backend>| Site::new(upstream.clone(), backend.clone(), settings.bandwidth);
        let sites = topology.backends.iter().map(|backend| (backend.endpoint(), site(backend)));
        S3Stores { sites: sites.collect(), settings }
    }

    fn site(&self, backend: &str) -> Result<&Site, StoreError> {
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
            Ok(reply) => held::state(site.url(), &reply, self.settings.object_version_header.as_ref()),
            Err(failure) => State::Unknown(failure.to_string()),
        }
    }
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
        to: (&str, &State),
        gate: &dyn Gate,
    ) -> Result<Copied, StoreError> {
        let (source, target) = (self.site(from.0)?, self.site(to.0)?);
        if object.key.is_empty() {
            return Err(StoreError::Refused(format!("{object} is no object but a bucket")));
        }
        if let State::Unknown(why) = to.1 {
            return Err(StoreError::Failed(format!("{}: nobody knows what it holds: {why}", target.url())));
        }
        Copy { stores: self, object, source, held: from.1, target, over: to.1, gate }.run().await
    }

    async fn delete(
        &self,
        object: &Object,
        backend: (&str, &Held),
        gate: &dyn Gate,
    ) -> Result<(), StoreError> {
        let (site, over) = (self.site(backend.0)?, State::Present(backend.1.clone()));
        loop {
            let mut header = request::head(site, Method::DELETE, object, "")?;
            let conditional = site.takes_conditions();
            if conditional {
                request::condition(&mut header, &over)?;
            }
            // Also where it is conditional: storages that know no conditions on DELETE do not say so.
            self.still(site, object, &over).await?;
            error::pass(gate, site).await?;
            let reply = site.commit(header, bytes::Bytes::new()).await?;
            if reply.status.is_success() || reply.status == http::StatusCode::NOT_FOUND {
                return Ok(());
            }
            if !(conditional && reply.knows_no_conditions()) {
                return Err(error::of_reply(site, End::Target, &Method::DELETE, &reply));
            }
            site.forget_conditions();
        }
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
    /// Whether a backend holds what it did: asked where it cannot be a condition of the change.
    async fn still(&self, site: &Site, object: &Object, before: &State) -> Result<(), StoreError> {
        match (self.state_of(site, object).await, before) {
            (State::Unknown(why), _) => Err(StoreError::Failed(why)),
            (State::Absent, State::Absent) => Ok(()),
            (State::Present(now), State::Present(before)) if is_same(&now, before) => Ok(()),
            _ => Err(StoreError::Changed(format!("{}: it holds something else now", site.url()))),
        }
    }
}

fn is_same(a: &Held, b: &Held) -> bool {
    (&a.etag, &a.version, a.modified, a.length) == (&b.etag, &b.version, b.modified, b.length)
}
