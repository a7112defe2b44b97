//! Slow backends: who is dropped from an upload and who is waited for, what stays in memory, and how the
//! work that goes on behind a client's back is bounded.

use std::time::{Duration, Instant};

use crate::fixture::*;

/// More than all socket buffers and queues hold.
const LARGE: usize = 12 << 20;

#[test]
fn a_backend_that_stops_reading_is_dropped_from_the_upload() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::MidBody(1_000_000)));
        let mut gateway = Gateway::over(&[&a, &b]).set("SlowBackendTimeout", "500ms").start().await;
        let body = noise(LARGE);
        let start = Instant::now();
        assert_eq!(gateway.put("/bucket/key", &body).await.status, 200);
        // P > S + T/2, where P is nearly T: after 2 S.
        let elapsed = start.elapsed();
        assert!((Duration::from_millis(900)..Duration::from_secs(5)).contains(&elapsed), "{elapsed:?}");
        assert_eq!(b.stored("/bucket/key").unwrap().md5, hex_md5(&body));
        let records = gateway.stop().await.records;
        let record = record_of(&records, &a);
        assert_eq!(record["outcome"], "not applied");
        assert!(record["error"].as_str().unwrap().contains("slow"), "{record}");
        assert!(a.paths().is_empty());
    });
}

#[test]
fn a_backend_a_little_slower_than_the_client_is_waited_for() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::reads_at(7_000_000));
        let mut gateway = Gateway::over(&[&a, &b])
            .set("SlowBackendTimeout", "2s")
            .set("ReplicaBuffer", "128KiB")
            .start()
            .await;
        let body = noise(LARGE);
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/key", &[("Content-Length", &LARGE.to_string())]).await;
        // About 9 MB/s where nothing holds it up: the queue of `a` is full for a part of the time.
        for piece in body.chunks(512 << 10) {
            client.send(piece).await;
            tokio::time::sleep(Duration::from_millis(72)).await;
        }
        assert_eq!(client.reply("PUT").await.status, 200);
        for backend in [&a, &b] {
            assert_eq!(backend.wait_for_object("/bucket/key").await.md5, hex_md5(&body));
        }
        gateway.stop_in_sync().await;
    });
}

#[test]
fn a_slow_backend_is_waited_for_where_there_is_no_other() {
    run(async {
        let a = Misbehaving::start().await;
        a.will(Behaviour::reads_at(8_000_000));
        let mut gateway = Gateway::over(&[&a]).set("SlowBackendTimeout", "100ms").start().await;
        let body = noise(LARGE);
        assert_eq!(gateway.put("/bucket/key", &body).await.status, 200);
        assert_eq!(a.stored("/bucket/key").unwrap().md5, hex_md5(&body));
        gateway.stop_in_sync().await;
    });
}

#[test]
fn a_slow_backend_is_waited_for_where_the_other_has_failed() {
    run(async {
        let (a, b) = (Misbehaving::start().await, Misbehaving::refusing().await);
        a.will(Behaviour::reads_at(8_000_000));
        let mut gateway = Gateway::over(&[&a, &b]).set("SlowBackendTimeout", "100ms").start().await;
        let body = noise(LARGE);
        assert_eq!(gateway.put("/bucket/key", &body).await.status, 200);
        assert_eq!(a.stored("/bucket/key").unwrap().md5, hex_md5(&body));
        let records = gateway.stop().await.records;
        record_of(&records, &b);
        assert_eq!(records.len(), 1);
    });
}

#[test]
fn where_no_backend_reads_the_client_is_not_held_for_ever() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::Accepted));
        b.will(Behaviour::hangs(Phase::MidBody(500_000)));
        let mut gateway = Gateway::over(&[&a, &b]).set("BackgroundTimeout", "1s").start().await;
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/key", &[("Content-Length", &LARGE.to_string())]).await;
        client.try_send(&noise(LARGE)).await;
        assert_eq!(client.reply("PUT").await.status, 503);
        gateway.stop_in_sync().await;
    });
}

#[test]
fn small_puts_never_wait_for_a_backend_that_hangs() {
    run(async {
        for phase in [Phase::Accepted, Phase::AfterHead, Phase::AfterBody] {
            let (a, b) = pair().await;
            a.will(Behaviour::hangs(phase));
            let gateway = Gateway::over(&[&a, &b]).start().await;
            let body = noise(4 << 10);
            let mut client = gateway.client().await;
            for number in 0..20 {
                let start = Instant::now();
                let reply = client.request("PUT", &format!("/bucket/{number}"), &[], &body).await;
                assert_eq!(reply.status, 200);
                // Waiting for the backend would take seconds; how fast it is, `make figures` measures.
                assert!(start.elapsed() < Duration::from_secs(2), "{phase:?}: {:?}", start.elapsed());
            }
            assert_eq!(b.paths().len(), 20);
        }
    });
}

#[test]
fn a_backend_that_cannot_be_connected_to_costs_a_small_put_nothing() {
    run(async {
        let b = Misbehaving::start().await;
        // Nobody answers in the network for documentation: connecting neither succeeds nor fails.
        let a = Url("http://192.0.2.1:9".to_string());
        let gateway = Gateway::over(&[&a, &b]).set("DialTimeout", "3s").start().await;
        let start = Instant::now();
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
        assert_eq!(record_of(&gateway.wait_for_records(1).await, &a)["outcome"], "not applied");
    });
}

#[test]
fn the_wait_for_an_answer_begins_when_the_backend_has_the_last_byte() {
    run(async {
        let (a, b) = pair().await;
        // Three seconds of reading, most of it out of the gateway's socket buffer.
        a.will(Behaviour::reads_at(1_000_000));
        let setup =
            Gateway::over(&[&a, &b]).set("ResponseHeaderTimeout", "1s").set("SlowBackendTimeout", "1m");
        let mut gateway = setup.start().await;
        let body = noise(3_000_000);
        assert_eq!(gateway.put("/bucket/key", &body).await.status, 200);
        assert_eq!(a.wait_for_object("/bucket/key").await.md5, hex_md5(&body));
        gateway.stop_in_sync().await;
    });
}

#[test]
fn a_large_upload_does_not_grow_the_gateway() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::reads_at(30_000_000));
        let mut gateway = Gateway::over(&[&a, &b]).set("SlowBackendTimeout", "1m").start().await;
        assert_eq!(gateway.put("/bucket/warm-up", &noise(100_000)).await.status, 200);
        let before = gateway.peak_memory_kib();
        let body = noise(64 << 20);
        assert_eq!(gateway.put("/bucket/key", &body).await.status, 200);
        for backend in [&a, &b] {
            assert_eq!(backend.wait_for_object("/bucket/key").await.md5, hex_md5(&body));
        }
        let grown = gateway.peak_memory_kib() - before;
        assert!(grown < 12 << 10, "{before} KiB, then {grown} KiB more");
        gateway.stop_in_sync().await;
    });
}

#[test]
fn background_work_without_progress_is_given_up_and_recorded() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::AfterHead));
        let mut gateway = Gateway::over(&[&a, &b])
            .set("BackgroundTimeout", "500ms")
            .set("ResponseHeaderTimeout", "30s")
            .start()
            .await;
        assert_eq!(gateway.put("/bucket/key", &noise(500_000)).await.status, 200);
        let record = record_of(&gateway.wait_for_records(1).await, &a).clone();
        assert_ne!(record["outcome"], "good", "{record}");
        assert_eq!(gateway.stop().await.records.len(), 1);
    });
}

#[test]
fn background_work_is_bounded_in_count() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::AfterBody));
        let setup = Gateway::over(&[&a, &b]).set("BackgroundRequests", 3).set("ResponseHeaderTimeout", "1m");
        let mut gateway = setup.start().await;
        for number in 0..8 {
            assert_eq!(gateway.put(&format!("/bucket/{number}"), b"hello").await.status, 200);
        }
        // Three go on, five are recorded at once.
        let records = gateway.wait_for_records(5).await;
        assert!(records.iter().all(|record| record["failedhost"] == a.url()), "{records:#?}");
        a.wait_for_open_connections(3).await;
        a.release();
        assert_eq!(gateway.stop().await.records.len(), 5);
        // What was cut off had reached it whole: it may have been stored, which is why it is recorded.
        assert!(a.paths().len() >= 3, "{:?}", a.paths());
    });
}

#[test]
fn background_work_is_bounded_in_bytes() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::MidBody(1000)));
        let setup = Gateway::over(&[&a, &b])
            .set("BackgroundBytes", "8MiB")
            .set("ReplicaBuffer", "8MiB")
            .set("SlowBackendTimeout", "30s")
            .set("ResponseHeaderTimeout", "1m");
        let mut gateway = setup.start().await;
        // What the sockets do not take waits in the queue: of one upload it may stay there, of two it is too much.
        let size = 11 << 20;
        for key in ["/bucket/one", "/bucket/two"] {
            assert_eq!(gateway.put(key, &noise(size)).await.status, 200);
        }
        let records = gateway.wait_for_records(1).await;
        let record = record_of(&records, &a);
        assert_eq!((&record["outcome"], &record["key"]), (&"not applied".into(), &"two".into()));
        a.release();
        assert_eq!(gateway.stop().await.records.len(), 1);
    });
}

#[test]
fn where_a_backends_connections_are_used_up_a_write_waits_no_longer_than_for_a_dial() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::AfterBody));
        let setup = Gateway::over(&[&a, &b])
            .set("MaxConnsPerBackend", 1)
            .set("DialTimeout", "300ms")
            .set("ResponseHeaderTimeout", "1m");
        let mut gateway = setup.start().await;
        for key in ["/bucket/one", "/bucket/two"] {
            assert_eq!(gateway.put(key, b"hello").await.status, 200);
        }
        let records = gateway.wait_for_records(1).await;
        let record = record_of(&records, &a);
        assert_eq!((&record["path"], &record["outcome"]), (&"/bucket/two".into(), &"not applied".into()));
        a.release();
        assert_eq!(gateway.stop().await.records.len(), 1);
        assert_eq!((a.accepted(), a.paths()), (1, vec!["/bucket/one".to_string()]));
    });
}
