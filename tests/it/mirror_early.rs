//! Backends that answer before they have read the body. One of them ends its own sub-request only; where
//! all do, the client gets the answer at once, and sees it even though it still sends.

use crate::fixture::*;

const AFTER: [AfterEarly; 3] = [AfterEarly::KeepReading, AfterEarly::StopReading, AfterEarly::Close];

#[test]
fn an_early_answer_ends_that_sub_request_only() {
    run(async {
        for after in AFTER {
            for size in [5, 1_500_000, 12 << 20] {
                let (a, b) = pair().await;
                a.will(Behaviour::answers_early(403, after));
                let mut gateway = Gateway::over(&[&a, &b]).start().await;
                let body = noise(size);
                assert_eq!(gateway.put("/bucket/key", &body).await.status, 200, "{after:?}");
                assert_eq!(b.stored("/bucket/key").unwrap().md5, hex_md5(&body));
                let records = gateway.stop().await.records;
                let record = record_of(&records, &a);
                let expected = (&"not applied".into(), &403.into());
                assert_eq!((&record["outcome"], &record["status"]), expected, "{after:?} {size}");
            }
        }
    });
}

#[test]
fn an_early_answer_is_noticed_while_the_upload_goes_on() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::answers_early(403, AfterEarly::KeepReading));
        let gateway = Gateway::over(&[&a, &b]).start().await;
        let body = noise(12 << 20);
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/key", &[("Content-Length", &body.len().to_string())]).await;
        client.send(&body[..8 << 20]).await;
        // Its connection has gone long before the upload ends.
        a.wait_for_open_connections(0).await;
        client.send(&body[8 << 20..]).await;
        assert_eq!(client.reply("PUT").await.status, 200);
    });
}

#[test]
fn where_all_answer_early_the_client_need_not_send_the_rest() {
    run(async {
        for after in AFTER {
            let (a, b) = pair().await;
            for backend in [&a, &b] {
                backend.will(Behaviour::answers_early(403, after));
            }
            let mut gateway = Gateway::over(&[&a, &b]).start().await;
            let mut client = gateway.client().await;
            client.head("PUT", "/bucket/key", &[("Content-Length", "1500000")]).await;
            client.send(&noise(100)).await;
            let reply = client.reply("PUT").await;
            assert!(reply.status == 403 && reply.text().contains("AccessDenied"), "{reply:?}");
            client.closed().await;
            gateway.stop_in_sync().await;
        }
    });
}

#[test]
fn the_client_sees_an_early_answer_although_it_still_sends() {
    run(async {
        let body = noise(1_500_000);
        let mut chunked = format!("{:x}\r\n", body.len()).into_bytes();
        chunked.extend_from_slice(&body);
        chunked.extend_from_slice(b"\r\n0\r\n\r\n");
        for after in AFTER {
            let (a, b) = pair().await;
            for backend in [&a, &b] {
                backend.will(Behaviour::answers_early(403, after));
            }
            let gateway = Gateway::over(&[&a, &b]).start().await;
            let framings = [
                (("Content-Length", "1500000"), body.as_ref()),
                (("Transfer-Encoding", "chunked"), &chunked),
            ];
            for (round, (header, bytes)) in framings.into_iter().cycle().take(10).enumerate() {
                let mut client = gateway.client().await;
                client.head("PUT", &format!("/bucket/{round}"), &[header]).await;
                client.try_send(bytes).await;
                let reply = client.reply_or_end("PUT").await;
                let status = reply.as_ref().map(|reply| (reply.status, reply.complete));
                assert_eq!(status, Some((403, true)), "{after:?}, round {round}: {reply:?}");
            }
        }
    });
}

#[test]
fn a_connection_that_was_answered_early_and_is_not_read_is_not_used_again() {
    run(async {
        let (a, b) = pair().await;
        a.will_once(Behaviour::answers_early(403, AfterEarly::StopReading));
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        // All of it fits into the sockets, so that the request looks sent.
        assert_eq!(gateway.put("/bucket/one", &noise(600_000)).await.status, 200);
        gateway.wait_for_records(1).await;
        assert_eq!(gateway.put("/bucket/two", b"hello").await.status, 200);
        a.wait_for_object("/bucket/two").await;
        assert_eq!(gateway.stop().await.records.len(), 1);
    });
}

#[test]
fn where_none_can_be_reached_the_client_sees_503_although_it_still_sends() {
    run(async {
        let (a, b) = (Misbehaving::refusing().await, Misbehaving::refusing().await);
        let gateway = Gateway::over(&[&a, &b]).start().await;
        let body = noise(1_500_000);
        for _ in 0..30 {
            let mut client = gateway.client().await;
            client.head("PUT", "/bucket/key", &[("Content-Length", "1500000")]).await;
            client.try_send(&body).await;
            assert_eq!(client.reply("PUT").await.status, 503);
        }
    });
}

#[test]
fn an_early_answer_with_an_empty_body_to_come_leaves_the_connection_usable() {
    run(async {
        let (a, b) = pair().await;
        for backend in [&a, &b] {
            backend.will_once(Behaviour::answers_early(403, AfterEarly::KeepReading));
        }
        let gateway = Gateway::over(&[&a, &b]).start().await;
        let mut client = gateway.client().await;
        assert_eq!(client.request("PUT", "/bucket/key", &[], b"").await.status, 403);
        assert_eq!(client.request("PUT", "/bucket/key", &[], b"").await.status, 200);
    });
}
