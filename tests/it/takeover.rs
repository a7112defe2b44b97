//! A new process takes over from the running one: real processes under load, every request counted.

use std::{
    io::Write,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixListener, UnixStream},
};

use crate::fixture::*;

/// What one client did, and what came of it.
#[derive(Debug, Default)]
struct Tally {
    /// Targets of the writes that were answered with 200, and their bodies' text.
    stored: Vec<String>,
    fresh: usize,
    reused: usize,
    /// Reused connections that were closed before any byte of an answer: clients try again.
    retried: usize,
    failed: Vec<String>,
}

impl Tally {
    fn of(tallies: Vec<Tally>) -> Tally {
        tallies.into_iter().fold(Tally::default(), |mut all, one| {
            all.stored.extend(one.stored);
            all.failed.extend(one.failed);
            all.fresh += one.fresh;
            all.reused += one.reused;
            all.retried += one.retried;
            all
        })
    }

    fn note(&mut self, target: String, reply: Option<Reply>) {
        match reply {
            Some(reply) if reply.status == 200 => self.stored.push(target),
            other => self.failed.push(format!("{target}: {other:?}")),
        }
    }
}

/// A body that names its object.
fn body_of(target: &str) -> Vec<u8> {
    target.repeat(20).into_bytes()
}

/// One request on a connection that may be closed under it.
async fn try_put(client: &mut Client, target: &str) -> Option<Reply> {
    let body = body_of(target);
    let length = body.len().to_string();
    let mut request = client.head_text("PUT", target, &[("Content-Length", &length)]).into_bytes();
    request.extend_from_slice(&body);
    // What is not taken has no answer either, but an answer may be there all the same.
    client.try_send(&request).await;
    client.reply_or_end("PUT").await
}

async fn try_connect(address: SocketAddr) -> Result<Client, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    Ok(Client::from(stream, address))
}

/// A connection for each write. Ends when nobody listens any more.
async fn with_fresh_connections(name: usize, address: SocketAddr, on: Arc<AtomicBool>) -> Tally {
    let mut tally = Tally::default();
    while on.load(Relaxed) {
        match try_connect(address).await {
            Ok(mut client) => {
                let target = format!("/bucket/fresh-{name}-{}", tally.fresh);
                tally.fresh += 1;
                let reply = try_put(&mut client, &target).await;
                tally.note(target, reply);
            }
            Err(error) => {
                tally.failed.push(error);
                break;
            }
        }
    }
    tally
}

/// One connection for as long as it lasts; a write to which a used one gives no answer is tried on another. Every
/// other client thinks between two writes, so that its connection is idle now and then.
async fn with_one_connection(name: usize, address: SocketAddr, on: Arc<AtomicBool>) -> Tally {
    let mut tally = Tally::default();
    let (mut client, mut again) = (None, None);
    while on.load(Relaxed) || again.is_some() {
        let used = client.is_some();
        if !used {
            match try_connect(address).await {
                Ok(connected) => client = Some(connected),
                Err(error) => {
                    tally.failed.push(error);
                    break;
                }
            }
        }
        if name % 4 == 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let target = again.take().unwrap_or_else(|| {
            tally.reused += 1;
            format!("/bucket/reused-{name}-{}", tally.reused)
        });
        let Some(connection) = &mut client else { continue };
        let reply = try_put(connection, &target).await;
        if reply.as_ref().is_none_or(|reply| reply.header("connection") == Some("close")) {
            client = None;
        }
        if reply.is_none() && used {
            tally.retried += 1;
            again = Some(target);
        } else {
            tally.note(target, reply);
        }
    }
    tally
}

/// Clients that write until they are told to stop, half of them on fresh connections.
struct Load {
    on: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<Tally>>,
}

impl Load {
    fn begin(address: SocketAddr, clients: usize) -> Load {
        let on = Arc::new(AtomicBool::new(true));
        let client = |name| match name % 2 {
            0 => tokio::spawn(with_fresh_connections(name, address, on.clone())),
            _ => tokio::spawn(with_one_connection(name, address, on.clone())),
        };
        Load { clients: (0..clients).map(client).collect(), on }
    }

    async fn end(self) -> Tally {
        self.on.store(false, Relaxed);
        let mut tallies = Vec::new();
        for client in self.clients {
            tallies.push(client.await.unwrap());
        }
        Tally::of(tallies)
    }
}

/// Every write that was answered with 200 is on every backend, or recorded for it.
fn assert_nothing_unrecorded(stored: &[String], backends: &[&Misbehaving], records: &[Value]) {
    for target in stored {
        for backend in backends {
            let there = backend.stored_bytes(target).is_some_and(|bytes| bytes == body_of(target));
            let recorded = |record: &Value| {
                record["failedhost"] == backend.url() && record["path"].as_str() == Some(target)
            };
            assert!(there || records.iter().any(recorded), "{target} is lost on {}", backend.url());
        }
    }
}

fn quiet(setup: Setup) -> Setup {
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
fn a_successor_with_a_bad_configuration_harms_nothing() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let file = gateway.log_file("akubra.yaml");
        let good = std::fs::read(&file).unwrap();
        std::fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"Lisen: x\n").unwrap();
        let output = akubra(&["-u", "-c", file.to_str().unwrap()]).await;
        assert_eq!(output.status.code(), Some(20), "{output:?}");
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        std::fs::write(&file, good).unwrap();
        let mut successor = gateway.hand_over().await;
        gateway.ended().await;
        successor.stop_in_sync().await;
    });
}

#[test]
fn a_successor_that_cannot_listen_says_why_and_the_gateway_goes_on() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let file = gateway.log_file("akubra.yaml");
        let good = std::fs::read_to_string(&file).unwrap();
        let taken = a.address().to_string();
        std::fs::write(&file, good.replace("127.0.0.1:0", &taken)).unwrap();
        let mut successor = gateway.successor().await;
        gateway.signal("QUIT");
        let why = gateway.wait_for_log("not handed over").await;
        assert!(why.contains(&format!("the successor failed: cannot listen on {taken}")), "{why}");
        assert_eq!(successor.exit_status().await.code(), Some(1));
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        std::fs::write(&file, good).unwrap();
        let mut successor = gateway.hand_over().await;
        gateway.ended().await;
        successor.stop_in_sync().await;
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

/// A process that waits where a successor would.
struct Impostor(UnixListener);

impl Impostor {
    fn of(gateway: &Gateway) -> Self {
        Impostor(UnixListener::bind(gateway.log_file("upgrade.sock")).unwrap())
    }

    /// The gateway's connection, once the offer has been read. The descriptors are thrown away.
    async fn meet(&self) -> UnixStream {
        let (mut stream, _) = soon("the gateway to come", self.0.accept()).await.unwrap();
        let mut offer = Vec::new();
        while offer.last() != Some(&b'\n') {
            assert!(soon("an offer", stream.read_buf(&mut offer)).await.unwrap() > 0);
        }
        let offer: Value = serde_json::from_slice(&offer).unwrap();
        assert_eq!(offer["sockets"][0], "gateway 127.0.0.1:0");
        stream
    }
}

#[test]
fn a_successor_that_dies_before_it_is_ready_costs_nothing() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = quiet(Gateway::over(&[&a, &b])).start().await;
        let load = Load::begin(gateway.address(), 10);
        let impostor = Impostor::of(&gateway);
        // It dies with the sockets, talks nonsense, or dies just after it said that it is ready.
        for last_words in ["", "GET / HTTP/1.1\r\n\r\n", "failed on\u{1b}purpose\n"] {
            gateway.signal("QUIT");
            let mut stream = impostor.meet().await;
            stream.write_all(last_words.as_bytes()).await.unwrap();
            drop(stream);
            let tries = ["the successor has gone", "another language", "failed: onpurpose"];
            let said = tries[usize::from(!last_words.is_empty()) + usize::from(last_words.starts_with('f'))];
            gateway.wait_for_log(said).await;
        }
        drop(impostor);
        std::fs::remove_file(gateway.log_file("upgrade.sock")).unwrap();
        let mut successor = gateway.hand_over().await;
        gateway.ended().await;
        let tally = load.end().await;
        let logs = successor.stop().await;
        assert!(tally.failed.is_empty(), "{:#?}", tally.failed);
        assert_nothing_unrecorded(&tally.stored, &[&a, &b], &logs.records);
    });
}

#[test]
fn a_successor_that_dies_with_everything_makes_the_gateway_end_badly() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let impostor = Impostor::of(&gateway);
        gateway.signal("QUIT");
        let mut stream = impostor.meet().await;
        stream.write_all(b"ready\n").await.unwrap();
        let mut yours = [0; 6];
        soon("the sockets", stream.read_exact(&mut yours)).await.unwrap();
        assert_eq!(&yours, b"yours\n");
        drop(stream);
        // So that a supervisor starts it again.
        assert_eq!(gateway.exit_status().await.code(), Some(1));
    });
}

#[test]
fn sigterm_ends_a_gateway_that_waits_for_its_successor() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let impostor = Impostor::of(&gateway);
        gateway.signal("QUIT");
        let mut stream = impostor.meet().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        gateway.stop_in_sync().await;
        assert_eq!(soon("the end", stream.read(&mut [0])).await.unwrap(), 0);
    });
}

#[test]
fn sigquit_without_a_successor_is_refused() {
    run(async {
        let (a, b) = pair().await;
        let setup = Gateway::over(&[&a, &b]).set("upgrade_sock_connect_accept_max_retries", 1);
        let mut gateway = setup.start().await;
        gateway.signal("QUIT");
        let line = gateway.wait_for_log("not handed over").await;
        assert!(line.contains("no successor listens at"), "{line}");
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        gateway.stop_in_sync().await;
    });
}

#[test]
fn a_successor_may_come_after_sigquit() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        gateway.signal("QUIT");
        gateway.wait_for_log("SIGQUIT: handing over").await;
        let mut successor = gateway.successor().await;
        successor.wait_for_log("took over").await;
        gateway.ended().await;
        assert_eq!(successor.put("/bucket/key", b"hello").await.status, 200);
        successor.stop_in_sync().await;
    });
}

#[test]
fn a_successor_to_nobody_gives_up() {
    run(async {
        let (a, b) = pair().await;
        let setup = Gateway::over(&[&a, &b]).set("upgrade_sock_connect_accept_max_retries", 1);
        let mut successor = setup.launch(&["-u"]);
        successor.wait_for_log("no running instance came").await;
        assert_eq!(successor.exit_status().await.code(), Some(1));
        assert!(!successor.log_file("upgrade.sock").exists());
    });
}

#[test]
fn a_successor_waits_on_after_others_have_connected() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let mut successor = gateway.successor().await;
        let path = gateway.log_file("upgrade.sock");
        // One who leaves, one who talks nonsense, one who offers nothing, and a second successor.
        for words in [&b""[..], b"hello\n", b"{\"version\":1,\"sockets\":[\"gateway 127.0.0.1:0\"]}\n"] {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(words).await.unwrap();
            stream.shutdown().await.unwrap();
        }
        let second = akubra(&["-u", "-c", gateway.log_file("akubra.yaml").to_str().unwrap()]).await;
        assert_eq!(second.status.code(), Some(1));
        let text = String::from_utf8_lossy(&second.stderr);
        assert!(text.contains("another process listens there"), "{text}");
        gateway.signal("QUIT");
        successor.wait_for_log("took over").await;
        gateway.ended().await;
        assert_eq!(successor.put("/bucket/key", b"hello").await.status, 200);
        let logs = successor.stop_in_sync().await;
        assert!(logs.main.contains("names and descriptors do not match"), "{}", logs.main);
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
