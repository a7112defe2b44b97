//! Clients that break off their bodies after a backend has acted on what it had: what may have been done is recorded, and
//! what a head alone asks for is sent to nobody before its request is whole.

use akubra::journal::Said;

use crate::{
    fixture::*,
    journaling::{Peek, over},
};

/// Requests that some storages execute when they have the head.
type Command = (&'static str, &'static str, &'static [(&'static str, &'static str)]);
const COMMANDS: [Command; 6] = [
    ("DELETE", "/bucket/key", &[]),
    ("PUT", "/bucket/copy", &[("x-amz-copy-source", "/bucket/key")]),
    ("DELETE", "/bucket/key?tagging", &[]),
    ("PUT", "/bucket/key?acl", &[("x-amz-acl", "private")]),
    ("DELETE", "/bucket", &[]),
    ("PUT", "/bucket", &[]),
];
const FRAMINGS: [(&str, &str); 2] = [("Content-Length", "5"), ("Transfer-Encoding", "chunked")];

#[test]
fn what_a_head_alone_asks_for_is_sent_to_nobody_before_the_body_has_ended() {
    run(async {
        let (a, b) = pair().await;
        for backend in [&a, &b] {
            backend.will(Behaviour::answers_early(204, AfterEarly::KeepReading));
        }
        let mut gateway = over(&[&a, &b], "strong").set("ClientReadTimeout", "1s").start().await;
        let mut clients = Vec::new();
        for (method, target, headers) in COMMANDS {
            for framing in FRAMINGS {
                let mut client = gateway.client().await;
                client.head(method, target, &[headers, &[framing]].concat()).await;
                client.send(if framing.1 == "chunked" { b"2\r\nhe\r\n" } else { b"he" }).await;
                clients.push((method, client));
            }
        }
        for (number, (method, mut client)) in clients.into_iter().enumerate() {
            match number % 2 {
                0 => client.reply(method).await.assert_error(408, "RequestTimeout"),
                _ => client.reset(),
            }
        }
        gateway.wait_for_access(2 * COMMANDS.len()).await;
        let seen = [a.requests(), b.requests()];
        assert!(seen.iter().all(Vec::is_empty), "{seen:?}");
        let journal = Peek::of(&gateway);
        gateway.stop_in_sync().await;
        assert_eq!((journal.counts().await.intents, journal.cases().await.len()), (0, 0));
    });
}

#[test]
fn what_a_head_alone_asks_for_is_passed_on_with_its_body() {
    run(async {
        let (a, b) = pair().await;
        for backend in [&a, &b] {
            backend.holds("/bucket/key", "hello");
            backend.will(Behaviour::answers(204));
        }
        let gateway = over(&[&a, &b], "strong").start().await;
        let body = noise(1_000_000);
        for (method, target, headers) in COMMANDS {
            for chunked in [false, true] {
                let length = body.len().to_string();
                let framing = if chunked { FRAMINGS[1] } else { ("Content-Length", length.as_str()) };
                let own = [framing, ("Expect", "100-continue"), ("x-was", framing.0)];
                let mut client = gateway.client().await;
                client.head(method, target, &[headers, &own].concat()).await;
                if chunked {
                    client.chunk(&body).await;
                    client.last_chunk().await;
                } else {
                    client.send(&body).await;
                }
                assert_eq!(client.reply(method).await.status, 204, "{method} {target} {framing:?}");
                let is_it = |request: &Received| {
                    let named = (request.method.as_str(), request.target.as_str());
                    named == (method, target)
                        && request.header("x-was") == Some(framing.0)
                        && request.is_complete()
                };
                for backend in [&a, &b] {
                    let got = backend.wait_for_request("it", is_it).await;
                    assert_eq!(got.body_md5, hex_md5(&body));
                    assert_eq!(got.header("content-length"), Some(length.as_str()));
                }
            }
        }
    });
}

#[test]
fn a_command_whose_body_is_too_large_to_be_read_first_is_refused() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let body = noise((2 << 20) + 1);
        let reply = gateway.request("DELETE", "/bucket/key", &[], &body).await;
        reply.assert_error(413, "EntityTooLarge");
        let mut client = gateway.client().await;
        client.head("DELETE", "/bucket/key", &[FRAMINGS[1]]).await;
        client.chunk(&body).await;
        client.reply("DELETE").await.assert_error(413, "EntityTooLarge");
        gateway.stop_in_sync().await;
        assert!(a.requests().is_empty() && b.requests().is_empty());
    });
}

#[test]
fn an_upload_that_a_backend_acknowledged_before_its_end_is_recorded_when_its_client_breaks_off() {
    run(async {
        for with_journal in [true, false] {
            for framing in [("Content-Length", "100"), ("Transfer-Encoding", "chunked")] {
                let (a, b) = pair().await;
                a.will(Behaviour::answers_early(200, AfterEarly::KeepReading));
                let setup = match with_journal {
                    true => over(&[&a, &b], "strong"),
                    false => Gateway::over(&[&a, &b]),
                };
                let mut gateway = setup.start().await;
                let mut client = gateway.client().await;
                client.head("PUT", "/bucket/key", &[framing]).await;
                client.send(if framing.1 == "chunked" { b"2\r\nhe\r\n" } else { b"he" }).await;
                // It has been answered, and is of no use any more.
                a.wait_for_open_connections(0).await;
                b.wait_for_requests(1).await;
                client.reset();
                if with_journal {
                    let journal = Peek::of(&gateway);
                    let record = journal.records(1).await.remove(0);
                    assert_eq!(
                        (record.said(&a.url()), record.said(&b.url())),
                        (&Said::Unknown, &Said::NotApplied)
                    );
                    assert!(record.commit.is_none() && journal.counts().await.intents == 0);
                }
                let records = gateway.wait_for_records(2).await;
                for (backend, outcome, status) in [(&a, "unknown", 200), (&b, "not applied", 0)] {
                    let record = record_of(&records, backend);
                    assert_eq!((&record["outcome"], &record["status"]), (&outcome.into(), &status.into()));
                    assert_eq!(record["successhost"], "");
                }
                assert_eq!(gateway.stop().await.access.len(), 1);
                assert!(b.paths().is_empty());
            }
        }
    });
}

#[test]
fn an_upload_that_a_backend_refused_before_its_end_leaves_nothing_when_its_client_breaks_off() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::answers_early(403, AfterEarly::KeepReading));
        let mut gateway = over(&[&a, &b], "strong").start().await;
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/key", &[("Content-Length", "100")]).await;
        client.send(b"he").await;
        a.wait_for_open_connections(0).await;
        drop(client);
        let journal = Peek::of(&gateway);
        journal.until("the intent to go", |_, counts| counts.intents == 0).await;
        gateway.stop_in_sync().await;
        assert!(journal.cases().await.is_empty());
    });
}

#[test]
fn an_upload_that_a_backend_has_begun_to_acknowledge_before_its_end_is_recorded_when_it_breaks_off() {
    run(async {
        let (a, b) = pair().await;
        let early = Behaviour::answers_early(Answer::new(200).body("later"), AfterEarly::KeepReading);
        a.will(early.and_hangs(Phase::AfterAnswerHead));
        // Time enough for the head of the answer.
        let mut gateway = over(&[&a, &b], "strong").set("ClientReadTimeout", "1s").start().await;
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/key", &[("Content-Length", "100")]).await;
        client.send(b"he").await;
        client.reply("PUT").await.assert_error(408, "RequestTimeout");
        let record = Peek::of(&gateway).records(1).await.remove(0);
        assert_eq!((record.said(&a.url()), record.said(&b.url())), (&Said::Unknown, &Said::NotApplied));
        assert_eq!(record_of(&gateway.wait_for_records(2).await, &a)["outcome"], "unknown");
        gateway.stop().await;
    });
}

#[test]
fn the_end_of_the_process_does_not_wait_for_a_body_that_is_read_first() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = over(&[&a, &b], "strong").set("grace_period_seconds", 1).start().await;
        let mut client = gateway.client().await;
        client.head("DELETE", "/bucket/key", &[("Content-Length", "5"), ("Expect", "100-continue")]).await;
        // It is told to go on.
        client.read_at_least(1).await;
        let logs = gateway.stop_in_sync().await;
        assert!(!logs.main.contains("did not end within"), "{}", logs.main);
        assert_eq!(logs.access[0]["error"], "cut off: the gateway is stopping");
        assert!(a.requests().is_empty() && b.requests().is_empty());
    });
}
