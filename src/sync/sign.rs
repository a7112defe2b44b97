//! Signatures of the program's own requests: SigV4 with each backend's [`Credentials`].
//!
//! The settings are S3's: the path is signed as it is sent, neither normalised nor encoded again. What the body is
//! signed as says the header `x-amz-content-sha256`, which whoever knows the body sets before.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
        UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use http::header::HOST;
use pingora_http::RequestHeader;

use crate::{
    config::{Config, Credentials},
    topology::{Backend, Topology},
    upstream::{Cause, Signer},
};

/// The header that says what a body is signed as.
pub const CONTENT_SHA256: &str = "x-amz-content-sha256";
pub const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// Signs for all backends of a configuration.
pub struct ServiceSigner {
    by_endpoint: HashMap<String, Arc<Credentials>>,
}

impl ServiceSigner {
    pub fn new(config: &Config, topology: &Topology) -> ServiceSigner {
        let known =
            config.clusters.iter().flat_map(|cluster| cluster.backends.iter().zip(&cluster.credentials));
        let by_endpoint = known.filter_map(|(url, credentials)| {
            Some((topology.backend(&url.url)?.endpoint(), credentials.clone()?))
        });
        ServiceSigner { by_endpoint: by_endpoint.collect() }
    }

    /// Whether requests to a backend can be signed.
    pub fn knows(&self, backend: &Backend) -> bool {
        self.by_endpoint.contains_key(&backend.endpoint())
    }

    fn sign_at(&self, backend: &Backend, header: &mut RequestHeader, time: SystemTime) -> Result<(), Cause> {
        let Some(credentials) = self.by_endpoint.get(&backend.endpoint()) else {
            return Err(unsendable(
                "no Credentials for this backend; write them in Clusters.NAME.Credentials",
            ));
        };
        header.insert_header(HOST, backend.authority()).map_err(unsendable)?;
        let body = match header.headers.get(CONTENT_SHA256) {
            Some(hash) => SignableBody::Precomputed(hash.to_str().map_err(unsendable)?.to_owned()),
            None => SignableBody::UnsignedPayload,
        };
        let signed = signed_headers(credentials, backend, header, body, time)?;
        for (name, value) in signed {
            header.insert_header(name, value).map_err(unsendable)?;
        }
        Ok(())
    }
}

impl Signer for ServiceSigner {
    fn sign(&self, backend: &Backend, header: &mut RequestHeader) -> Result<(), Cause> {
        self.sign_at(backend, header, SystemTime::now())
    }
}

fn signed_headers(
    credentials: &Credentials,
    backend: &Backend,
    header: &RequestHeader,
    body: SignableBody,
    time: SystemTime,
) -> Result<Vec<(String, String)>, Cause> {
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    let identity = aws_credential_types::Credentials::new(
        &credentials.access_key,
        credentials.secret_key.reveal(),
        credentials.session_token.as_ref().map(|token| token.reveal().to_owned()),
        None,
        "akubra",
    )
    .into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(&credentials.region)
        .name("s3")
        .time(time)
        .settings(settings)
        .build()
        .map_err(unsendable)?
        .into();
    let target = std::str::from_utf8(header.raw_path()).map_err(unsendable)?;
    let mut headers = Vec::with_capacity(header.headers.len());
    for (name, value) in &header.headers {
        headers.push((name.as_str(), std::str::from_utf8(value.as_bytes()).map_err(unsendable)?));
    }
    let uri = format!("http://{}{target}", backend.authority());
    let request = SignableRequest::new(header.method.as_str(), uri, headers.into_iter(), body);
    let (instructions, _) = sign(request.map_err(unsendable)?, &params).map_err(unsendable)?.into_parts();
    Ok(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn unsendable(error: impl std::fmt::Display) -> Cause {
    Cause::Unsendable(format!("it cannot be signed: {error}"))
}

#[cfg(test)]
mod tests;
