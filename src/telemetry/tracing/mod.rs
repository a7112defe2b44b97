//! Spans for OpenTelemetry: one per request, and below it one per exchange with a backend.
//!
//! Off unless the configuration has `Tracing`; then a request costs one look at an option. A client's `traceparent`
//! (W3C Trace Context) is taken as the parent, and its decision whether to sample is kept to; it goes on to backends as
//! it came, since it may be signed. The SDK's batch processor has a thread and a bounded queue: a collector that is
//! slow or away costs spans, never a request. How many are lost is what `akubra_trace_spans_total` tells: ended, less
//! exported, less failed, less those that still wait.

mod collector;

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, Method};
use opentelemetry::{
    Context, KeyValue,
    propagation::TextMapPropagator,
    trace::{Span, SpanKind, Status, TraceContextExt, Tracer, TracerProvider},
};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider},
};
use tokio::task::spawn_blocking;

use super::{AccessEntry, metrics::METRICS};
use crate::config;

/// Spans that wait for the collector.
const QUEUE: usize = 8 * 1024;
/// Spans in one request to the collector.
const BATCH: usize = 512;
/// Bytes of a text in a span.
const TEXT_MOST: usize = 1024;

/// Makes spans, if they are asked for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tracing(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    config: config::Tracing,
    /// From the start on: it has a thread, and a daemon forks first.
    running: OnceLock<(SdkTracerProvider, SdkTracer)>,
}

/// One request's span while the request lasts.
#[derive(Debug)]
pub struct Trace {
    tracer: SdkTracer,
    context: Context,
}

/// One exchange with a backend, when it has ended.
#[derive(Debug)]
pub struct Exchange<'a> {
    pub backend: &'a str,
    pub method: &'a Method,
    pub started: Instant,
    /// On a connection that had been used before.
    pub reused: bool,
    /// Of the answer; `None` = none came.
    pub status: Option<u16>,
    /// What went wrong; `None` = nothing.
    pub failure: Option<String>,
}

impl Tracing {
    /// As the configuration says; nothing runs before [`Tracing::start`].
    pub fn new(config: Option<&config::Tracing>) -> Tracing {
        let inner = |config: &config::Tracing| {
            METRICS.limit("trace_spans_waiting", QUEUE as u64);
            Arc::new(Inner { config: config.clone(), running: OnceLock::new() })
        };
        Tracing(config.map(inner))
    }

    pub fn off() -> Tracing {
        Tracing(None)
    }

    /// Starts the thread that exports, once; later calls do nothing.
    pub fn start(&self) {
        let Some(inner) = &self.0 else { return };
        if inner.running.get().is_some() {
            return;
        }
        match inner.provider() {
            Ok(provider) => {
                let tracer = provider.tracer("akubra");
                inner.running.get_or_init(|| (provider, tracer));
            }
            Err(error) => log::error!("Tracing: there will be no spans: {error}"),
        }
    }

    /// Begins the span of a request that came at `started`; `None` when it is not to be traced.
    pub fn begin(&self, method: &Method, headers: &HeaderMap, started: SystemTime) -> Option<Trace> {
        let (_, tracer) = self.0.as_ref()?.running.get()?;
        let parent =
            TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
        let name = if is_known(method) { method.as_str().to_owned() } else { "HTTP".to_owned() };
        let span = tracer.span_builder(name).with_kind(SpanKind::Server).with_start_time(started);
        let span = tracer.build_with_context(span, &parent);
        span.is_recording().then(|| Trace { tracer: tracer.clone(), context: parent.with_span(span) })
    }

    /// Exports what waits, for at most `deadline`; later spans are lost.
    pub async fn flush(&self, deadline: Duration) {
        let Some((provider, _)) = self.0.as_ref().and_then(|inner| inner.running.get()) else { return };
        let provider = provider.clone();
        match spawn_blocking(move || provider.shutdown_with_timeout(deadline)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::warn!("Tracing: the last spans are lost: {error}"),
            Err(error) => log::warn!("Tracing: the last spans may be lost: {error}"),
        }
    }
}

impl Inner {
    fn provider(&self) -> Result<SdkTracerProvider, opentelemetry_otlp::ExporterBuildError> {
        let config::Tracing { endpoint, ratio, service_name } = &self.config;
        let exporter = collector::exporter(endpoint)?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(Duration::from_secs(1))
            .build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let resource = Resource::builder()
            .with_service_name(service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())))
            .build();
        Ok(SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(*ratio))))
            .with_resource(resource)
            .build())
    }
}

impl Trace {
    /// Adds the span of an exchange that ends now.
    pub fn exchange(&self, exchange: Exchange) {
        let Exchange { backend, method, started, reused, status, failure } = exchange;
        let now = SystemTime::now();
        let began = now.checked_sub(started.elapsed()).unwrap_or(now);
        let span = self
            .tracer
            .span_builder(format!("{method} backend"))
            .with_kind(SpanKind::Client)
            .with_start_time(began)
            .with_attributes([
                KeyValue::new("http.request.method", method.to_string()),
                KeyValue::new("akubra.backend", backend.to_owned()),
                KeyValue::new("akubra.connection.reused", reused),
            ]);
        let mut span = self.tracer.build_with_context(span, &self.context);
        if let Some(status) = status {
            span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        }
        let error = status.filter(|status| *status >= 400).map(|status| format!("answered {status}"));
        if let Some(error) = failure.or(error) {
            span.set_status(Status::error(cut(&error)));
        }
        METRICS.trace_spans.ended.inc();
        span.end_with_timestamp(now);
    }

    /// Ends the request's span with what the access log says of it.
    pub fn end(&self, entry: &AccessEntry) {
        let span = self.context.span();
        let text = |name: &'static str, value: &str| KeyValue::new(name, cut(value));
        span.set_attributes([
            KeyValue::new("http.request.method", entry.method.to_string()),
            text("url.path", entry.path.split('?').next().unwrap_or_default()),
            text("server.address", &entry.host),
            text("user_agent.original", &entry.useragent),
            KeyValue::new("http.response.status_code", i64::from(entry.status)),
            KeyValue::new("http.request.body.size", i64::try_from(entry.bytes_in).unwrap_or(i64::MAX)),
            KeyValue::new("http.response.body.size", i64::try_from(entry.bytes_out).unwrap_or(i64::MAX)),
            text("akubra.request_id", &entry.req_id),
            text("akubra.region", &entry.region),
            text("akubra.cluster", &entry.cluster),
            KeyValue::new("akubra.asked", entry.asked as i64),
            KeyValue::new("akubra.good", entry.good as i64),
        ]);
        if let Some(remote) = entry.remote {
            span.set_attribute(KeyValue::new("client.address", remote.to_string()));
        }
        if entry.status >= 500 || entry.status == 0 {
            span.set_status(Status::error(cut(&entry.error)));
        }
        METRICS.trace_spans.ended.inc();
        span.end_with_timestamp(SystemTime::from(entry.ts) + entry.duration);
    }
}

/// Names of spans are of a bounded set.
fn is_known(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::DELETE, Method::OPTIONS].contains(method)
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_MOST)].to_owned()
}
