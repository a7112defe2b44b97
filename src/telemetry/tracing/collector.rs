//! The way to the collector: OTLP as protobuf over HTTP (port 4318 of most collectors).
//!
//! Requests are made by the batch processor's thread and block it; so a small blocking client does. Each has a
//! deadline, and trouble is told now and then in the main log.

use std::{io::Read, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter as Export},
};
use ureq::Agent;

use crate::telemetry::{metrics::METRICS, report::Report};

/// For one batch.
const DEADLINE: Duration = Duration::from_secs(5);
/// A collector has little to say.
const ANSWER_MOST: u64 = 64 * 1024;

/// An exporter to this URL that counts.
pub fn exporter(endpoint: &str) -> Result<Counting, ExporterBuildError> {
    let agent = Agent::config_builder()
        .timeout_global(Some(DEADLINE))
        .http_status_as_error(false)
        .max_redirects(0)
        .build();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Blocking(agent.into()))
        .with_endpoint(endpoint)
        .with_timeout(DEADLINE)
        .build()?;
    Ok(Counting { exporter, endpoint: endpoint.to_owned(), trouble: Arc::new(Report::new("tracing")) })
}

/// The exporter, counting what comes of its batches.
#[derive(Debug)]
pub struct Counting {
    exporter: SpanExporter,
    endpoint: String,
    trouble: Arc<Report>,
}

impl Export for Counting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let outcome = self.exporter.export(batch).await;
        match &outcome {
            Ok(()) => METRICS.trace_spans.exported.inc_by(spans),
            Err(error) => {
                METRICS.trace_spans.failed.inc_by(spans);
                self.trouble.at(
                    log::Level::Warn,
                    format_args!(
                        "Tracing: {spans} spans are lost, {} does not take them: {error}",
                        self.endpoint
                    ),
                );
            }
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[derive(Debug)]
struct Blocking(Agent);

#[async_trait]
impl HttpClient for Blocking {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let answer = self.0.run(Request::from_parts(head, &body[..]))?;
        let (head, body) = answer.into_parts();
        let mut bytes = Vec::new();
        body.into_reader().take(ANSWER_MOST).read_to_end(&mut bytes)?;
        Ok(Response::from_parts(head, bytes.into()))
    }
}
