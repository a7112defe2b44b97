//! A new process takes over from the running one: real processes under load, every request counted.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use crate::fixture::*;

pub fn quiet(setup: Setup) -> Setup {
    setup.logging("akubra=info")
}

#[test]
fn five_takeovers_under_load_lose_no_request() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = quiet(Gateway::over(&[&a, &b])).start().await;
        let load = Load::begin(gateway.address(), 50);
        let mut done = 0;
        for _ in 0..5 {
            done += 200;
            a.wait_for_requests(done).await;
            let successor = gateway.hand_over().await;
            gateway.ended().await;
            gateway = successor;
            done = a.requests().len();
        }
        a.wait_for_requests(done + 200).await;
        let tally = load.end().await;
        let logs = gateway.stop().await;
        println!(
            "{} on fresh connections, {} on reused ones, {} of them tried again",
            tally.fresh, tally.reused, tally.retried
        );
        assert!(tally.failed.is_empty(), "{} failed: {:#?}", tally.failed.len(), tally.failed);
        assert!(tally.fresh > 200 && tally.reused > 200, "{tally:?}");
        assert!(logs.records.is_empty(), "{:#?}", logs.records);
        assert_nothing_unrecorded(&tally.stored, &[&a, &b], &logs.records);
        assert_eq!(logs.access.len(), tally.stored.len(), "each request is logged once");
    });
}

#[test]
fn connections_whose_heads_come_after_sigquit_are_served() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = quiet(Gateway::over(&[&a, &b])).start().await;
        let mut clients = Vec::new();
        for _ in 0..100 {
            clients.push(gateway.client().await);
        }
        let successor = gateway.successor().await;
        gateway.signal("QUIT");
        successor.wait_for_log("took over").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        for (number, client) in clients.iter_mut().enumerate() {
            let reply = try_put(client, &format!("/bucket/{number}")).await;
            assert_eq!(reply.map(|reply| reply.status), Some(200), "connection {number}");
        }
        gateway.ended().await;
        assert_eq!(successor.put("/bucket/new", b"new").await.status, 200);
    });
}

#[test]
fn an_upload_in_flight_ends_in_the_process_that_it_began_in() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let body = noise(3 << 20);
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/big", &[("Content-Length", &body.len().to_string())]).await;
        client.send(&body[..1 << 20]).await;
        a.wait_for_requests(1).await;
        let mut successor = gateway.hand_over().await;
        assert_eq!(successor.put("/bucket/new", b"new").await.status, 200);
        assert!(gateway.is_running());
        client.send(&body[1 << 20..]).await;
        let reply = client.reply("PUT").await;
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
        gateway.ended().await;
        let logs = successor.stop_in_sync().await;
        assert_eq!(logs.access.len(), 2);
        for backend in [&a, &b] {
            assert_eq!(backend.stored_bytes("/bucket/big").unwrap(), body);
            assert_eq!(backend.stored_bytes("/bucket/new").unwrap(), "new");
        }
    });
}

#[test]
fn background_work_of_the_predecessor_goes_on_to_its_end() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::AfterBody));
        let mut gateway = Gateway::over(&[&a, &b]).set("ResponseHeaderTimeout", "1m").start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        let mut successor = gateway.hand_over().await;
        gateway.wait_for_log("took over").await;
        assert!(gateway.is_running());
        a.will(Behaviour::good());
        assert_eq!(successor.put("/bucket/new", b"new").await.status, 200);
        a.release();
        gateway.ended().await;
        successor.stop_in_sync().await;
        assert_eq!(a.stored_bytes("/bucket/key").unwrap(), "hello");
    });
}

#[test]
fn a_predecessor_drains_through_one_sigterm_and_stops_at_the_second() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::AfterBody));
        let mut gateway = Gateway::over(&[&a, &b]).set("ResponseHeaderTimeout", "1m").start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        let _successor = gateway.hand_over().await;
        gateway.wait_for_log("took over").await;
        gateway.signal("TERM");
        gateway.signal("QUIT");
        gateway.wait_for_log("SIGQUIT is ignored").await;
        assert!(gateway.is_running());
        gateway.signal("TERM");
        let logs = gateway.ended().await;
        assert_eq!(record_of(&logs.records, &a)["outcome"], "unknown");
    });
}

#[test]
fn a_listener_that_is_to_be_elsewhere_is_bound_anew() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let file = gateway.log_file("akubra.yaml");
        let yaml = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, yaml.replace("127.0.0.1:0", "127.0.0.2:0")).unwrap();
        let successor = gateway.hand_over().await;
        gateway.ended().await;
        assert!(TcpStream::connect(gateway.address()).await.is_err());
        let line = successor.wait_for_log("listening on http://127.0.0.2:").await;
        let address = line.split("http://").nth(1).unwrap().parse().unwrap();
        assert_eq!(request(address, "PUT", "/bucket/key", &[], b"hello").await.status, 200);
    });
}

#[test]
fn operators_find_the_successor_where_its_predecessor_was() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::AfterBody));
        let setup = Gateway::over(&[&a, &b]).with_technical_endpoint().with_metrics();
        let mut gateway = setup.set("ResponseHeaderTimeout", "1m").start().await;
        let (technical, metrics) = (gateway.technical().await, gateway.metrics().await);
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        // The predecessor has still something to do, and is not asked any more.
        let mut successor = gateway.hand_over().await;
        gateway.wait_for_log("took over").await;
        assert_eq!((successor.technical().await, successor.metrics().await), (technical, metrics));
        // The predecessor would say 503.
        for _ in 0..20 {
            assert_eq!(request(technical, "GET", "/status/ping", &[], b"").await.status, 200);
        }
        assert_eq!(request(metrics, "GET", "/metrics", &[], b"").await.status, 200);
        a.release();
        gateway.ended().await;
        successor.stop_in_sync().await;
    });
}

#[test]
fn a_unix_socket_survives_its_first_process() {
    run(async {
        let (a, b) = pair().await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("listen.sock");
        let mut gateway =
            Gateway::over(&[&a, &b]).set("Listen", format!("unix:{}", path.display())).launch(&[]);
        gateway.wait_for_log("listening on unix:").await;
        for round in ["first", "second", "third"] {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            let head = format!("PUT /bucket/{round} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n");
            stream.write_all(format!("{head}Content-Length: 5\r\n\r\nhello").as_bytes()).await.unwrap();
            let mut answer = String::new();
            soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            let successor = gateway.hand_over().await;
            gateway.ended().await;
            gateway = successor;
        }
        gateway.stop_in_sync().await;
        assert_eq!(b.stored_bytes("/bucket/third").unwrap(), "hello");
    });
}

#[test]
fn sigterm_under_load_leaves_nothing_unrecorded() {
    run(async {
        let (a, b) = pair().await;
        let setup = quiet(Gateway::over(&[&a, &b])).set("ResponseHeaderTimeout", "1m");
        let mut gateway = setup.start().await;
        // Of one backend's answers some are still to come at the end, and some come never.
        let load = Load::begin(gateway.address(), 20);
        a.wait_for_requests(300).await;
        for _ in 0..30 {
            a.will_once(Behaviour::hangs(Phase::AfterBody));
        }
        a.wait_for_requests(400).await;
        gateway.signal("TERM");
        gateway.wait_for_refusal().await;
        a.release();
        let logs = gateway.ended().await;
        // What meets no gateway any more is no failure of it.
        let tally = load.end().await;
        assert!(tally.stored.len() >= 300, "{}", tally.stored.len());
        assert_nothing_unrecorded(&tally.stored, &[&a, &b], &logs.records);
    });
}
