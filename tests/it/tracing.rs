//! Following a request: one id in all that is said of it, and spans for a collector.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::any_value::Value,
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message;

use crate::fixture::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn traced(backends: &[&dyn Endpoint], collector: &dyn Endpoint) -> Setup {
    Gateway::over(backends).set_yaml("Tracing", &format!("{{Endpoint: '{}'}}", collector.url()))
}

/// The spans that a collector was given.
fn spans(collector: &Misbehaving) -> Vec<Span> {
    let exported = collector.requests().into_iter().filter(|request| request.is_complete());
    exported
        .flat_map(|request| {
            assert_eq!((request.method.as_str(), request.path()), ("POST", "/v1/traces"));
            ExportTraceServiceRequest::decode(request.body.unwrap()).unwrap().resource_spans
        })
        .flat_map(|resource| resource.scope_spans)
        .flat_map(|scope| scope.spans)
        .collect()
}

fn text(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{key}: {other:?} in {span:#?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn one_id_is_in_all_that_is_said_of_a_request() {
    run(async {
        let (a, b) = pair().await;
        b.will(Behaviour::closes(Phase::AfterBody));
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let reply = gateway.put("/b/k", b"1").await;
        let id = reply.header("x-akubra-request-id").unwrap().to_owned();
        let records = gateway.wait_for_records(1).await;
        assert_eq!(records[0]["reqID"], id);
        assert_eq!(gateway.wait_for_access(1).await[0]["reqID"], id);
        assert_eq!(a.requests()[0].header("x-akubra-request-id"), Some(id.as_str()));
        gateway.wait_for_log(&format!("request {id}: ")).await;

        a.will(Behaviour::answers(500));
        b.will(Behaviour::closes(Phase::AfterBody));
        let reply = gateway.request("GET", "/b/k", &[("Host", "127.0.0.1")], b"").await;
        let id = reply.header("x-akubra-request-id").unwrap().to_owned();
        gateway.wait_for_log(&format!("request {id}: read: ")).await;
        let reply = gateway.request("GET", "/b/%zz", &[], b"").await;
        let id = reply.header("x-akubra-request-id").unwrap();
        assert!(reply.text().contains(&format!("<RequestId>{id}</RequestId>")), "{}", reply.text());
        gateway.stop().await;
    });
}

#[test]
fn a_request_has_a_span_and_so_has_each_exchange() {
    run(async {
        let (a, b) = pair().await;
        let collector = Misbehaving::start().await;
        b.will(Behaviour::closes(Phase::AfterBody));
        let mut gateway = traced(&[&a, &b], &collector).start().await;
        let parent = format!("00-{TRACE}-{PARENT}-01");
        let reply = gateway.request("PUT", "/b/k?x=secret", &[("traceparent", &parent)], b"1").await;
        assert_eq!(reply.status, 200);
        let id = reply.header("x-akubra-request-id").unwrap().to_owned();
        // The client's word is passed on as it came.
        assert_eq!(a.requests()[0].header("traceparent"), Some(parent.as_str()));
        // This client does not want to be traced.
        let unsampled = format!("00-{TRACE}-{PARENT}-00");
        gateway.request("GET", "/b/k", &[("traceparent", &unsampled)], b"").await;
        gateway.stop().await;

        let spans = spans(&collector);
        let (request, exchanges): (Vec<_>, Vec<_>) =
            spans.iter().partition(|span| span.kind == SpanKind::Server as i32);
        assert_eq!((request.len(), exchanges.len()), (1, 2), "{spans:#?}");
        let request = request[0];
        assert_eq!((request.name.as_str(), text(request, "akubra.request_id")), ("PUT", id));
        assert_eq!(
            (text(request, "url.path"), text(request, "http.response.status_code")),
            ("/b/k".into(), "200".into())
        );
        assert_eq!((hex(&request.trace_id), hex(&request.parent_span_id)), (TRACE.into(), PARENT.into()));
        for exchange in &exchanges {
            assert_eq!((&exchange.parent_span_id, &exchange.trace_id), (&request.span_id, &request.trace_id));
            assert!(exchange.start_time_unix_nano >= request.start_time_unix_nano);
            assert!(exchange.end_time_unix_nano >= exchange.start_time_unix_nano);
        }
        let of = |backend: &Misbehaving| {
            *exchanges.iter().find(|span| text(span, "akubra.backend") == backend.url()).unwrap()
        };
        assert_eq!(text(of(&a), "http.response.status_code"), "200");
        let status = of(&b).status.clone().unwrap();
        assert_eq!(status.code, StatusCode::Error as i32);
        assert!(status.message.contains("waiting for the answer"), "{}", status.message);
        let whole = format!("{spans:?}");
        assert!(!whole.contains("secret"), "{whole}");
    });
}

#[test]
fn a_collector_that_is_away_costs_spans_and_no_request() {
    run(async {
        let (a, b) = pair().await;
        let collector = Misbehaving::refusing().await;
        let mut gateway = traced(&[&a, &b], &collector).with_metrics().start().await;
        for number in 0..20 {
            assert_eq!(gateway.put(&format!("/b/{number}"), b"1").await.status, 200);
        }
        let line = gateway.wait_for_log("spans are lost").await;
        assert!(line.contains(&collector.url()), "{line}");
        let outcome = |outcome: &'static str| [("outcome", outcome)];
        let scrape = gateway
            .scrape_until("all spans to be given up", |scrape| {
                scrape.sum("akubra_trace_spans_total", &outcome("failed")) == 60.0
            })
            .await;
        assert_eq!(scrape.sum("akubra_trace_spans_total", &outcome("ended")), 60.0);
        assert_eq!(scrape.sum("akubra_trace_spans_total", &outcome("exported")), 0.0);
        gateway.stop_in_sync().await;
    });
}
