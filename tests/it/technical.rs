//! The technical endpoint: whom it answers, what it refuses, and that it lives as long as the process.

use std::net::SocketAddr;

use crate::fixture::*;

pub const VALIDATE: &str = "/configuration/validate";
pub const YAML: (&str, &str) = ("Content-Type", "application/yaml");

pub async fn with_endpoint() -> (Misbehaving, Gateway, SocketAddr) {
    let backend = Misbehaving::start().await;
    let gateway = Gateway::over(&[&backend]).with_technical_endpoint().start().await;
    let technical = gateway.technical().await;
    (backend, gateway, technical)
}

pub async fn validate(technical: SocketAddr, yaml: &str) -> Reply {
    request(technical, "POST", VALIDATE, &[YAML], yaml.as_bytes()).await
}

#[test]
fn health_is_told_here_as_by_the_gateway() {
    run(async {
        let (_backend, gateway, technical) = with_endpoint().await;
        let (here, there) =
            (request(technical, "GET", "/status/ping", &[], b"").await, gateway.get("/status/ping").await);
        assert_eq!((here.status, here.text().as_str()), (200, "OK"));
        assert_eq!(here.body, there.body);
        for name in ["content-type", "cache-control", "content-length"] {
            assert!(here.header(name).is_some() && here.header(name) == there.header(name), "{name}");
        }
        let mut client = Client::connect(technical).await;
        // On one connection: the answer to HEAD has no body.
        for _ in 0..2 {
            let head = client.request("HEAD", "/status/ping", &[], b"").await;
            assert_eq!((head.status, head.header("content-length")), (200, Some("2")));
        }
        assert_eq!(client.request("GET", "/status/ping", &[], b"").await.text(), "OK");
        let reply = client.request("POST", "/status/ping", &[], b"").await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD")));
    });
}

#[test]
fn it_answers_until_the_process_ends() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::AfterBody));
        let setup = Gateway::over(&[&a, &b]).with_technical_endpoint().with_metrics();
        let mut gateway = setup.set("ResponseHeaderTimeout", "1m").start().await;
        let technical = gateway.technical().await;
        let mut open = Client::connect(technical).await;
        assert_eq!(open.request("GET", "/status/ping", &[], b"").await.status, 200);
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        gateway.signal("TERM");
        gateway.wait_for_refusal().await;
        // On the open connection and on new ones; neither is kept.
        let reply = open.request("GET", "/status/ping", &[], b"").await;
        assert_eq!((reply.status, reply.header("connection")), (503, Some("close")));
        let reply = request(technical, "GET", "/status/ping", &[], b"").await;
        assert_eq!((reply.status, reply.text().as_str()), (503, "draining"));
        assert_eq!(validate(technical, "Foo: 1").await.status, 400);
        assert_eq!(gateway.scrape().await.value("akubra_draining", &[]), 1.0);
        a.release();
        let logs = gateway.ended().await;
        assert!(!logs.main.contains(" ERROR "), "a regular end is no error: {}", logs.main);
    });
}

#[test]
fn connections_beyond_the_bound_are_closed_at_once() {
    run(async {
        let (_backend, _gateway, technical) = with_endpoint().await;
        let mut idle = Vec::new();
        for _ in 0..128 {
            let mut client = Client::connect(technical).await;
            // Answered, so that it is known to have its place.
            assert_eq!(client.request("HEAD", "/status/ping", &[], b"").await.status, 200);
            idle.push(client);
        }
        let mut refused = Client::connect(technical).await;
        refused.closed().await;
        drop(idle.pop());
        let again = async {
            loop {
                let mut client = Client::connect(technical).await;
                if client.try_send(b"HEAD /status/ping HTTP/1.1\r\nHost: a\r\n\r\n").await
                    && client.reply_or_end("HEAD").await.is_some_and(|reply| reply.status == 200)
                {
                    break;
                }
            }
        };
        soon("a place that was given back", again).await;
    });
}

#[test]
fn hostile_heads_are_answered_or_cut_and_end_nothing() {
    run(async {
        let (_backend, _gateway, technical) = with_endpoint().await;
        for head in [
            "POST /configuration/validate HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            "POST /configuration/validate HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
            "POST /configuration/validate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "\0\0\0\0\r\n\r\n",
            "GET http://[/ HTTP/1.1\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET /status/ping HTTP/9.9\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
        ] {
            let mut client = Client::connect(technical).await;
            client.try_send(head.as_bytes()).await;
            client.finish_sending().await;
            let reply = client.reply_or_end("POST").await;
            assert!(
                reply.as_ref().is_none_or(|reply| (400..600).contains(&reply.status)),
                "{head:?}: {reply:?}"
            );
        }
        // What looks like a second request behind a body is none.
        let mut client = Client::connect(technical).await;
        let head = client.head_text(
            "POST",
            VALIDATE,
            &[YAML, ("Content-Length", "6"), ("Transfer-Encoding", "chunked")],
        );
        client.send((head + "0\r\n\r\nGET /status/ping HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
        assert_eq!(client.reply("POST").await.status, 400);
        assert!(client.reply_or_end("GET").await.is_none());
        assert_eq!(request(technical, "GET", "/status/ping", &[], b"").await.status, 200);
    });
}

#[test]
fn it_is_on_its_own_address_only() {
    run(async {
        let (backend, gateway, technical) = with_endpoint().await;
        assert_ne!(technical, gateway.address());
        let reply = gateway.request("POST", VALIDATE, &[YAML], b"Foo: 1").await;
        assert!(!reply.text().contains("unknown key"));
        // To the gateway it is a bucket and a key.
        assert_eq!(backend.requests().len(), 1);
        assert_eq!(request(technical, "PUT", "/bucket/key", &[], b"hello").await.status, 404);
        assert_eq!(backend.requests().len(), 1);
    });
}
