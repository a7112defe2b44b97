//! The programs that measure, against each other: what they count and what they say they did must be true.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(10);

/// A child process; ends with its value.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn sink(options: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sink"))
            .args(["--listen", "127.0.0.1:0"])
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let line = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
        let address = line.strip_prefix("listening on ").unwrap().parse().unwrap();
        Process { child, address }
    }

    /// In front of a backend. Pingora does not tell the port that it was given, so one is picked here.
    fn pass_through(backend: SocketAddr) -> Self {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_pass-through"))
            .args(["--listen", &address.to_string(), "--backend", &backend.to_string()])
            .spawn()
            .unwrap();
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(start.elapsed() < DEADLINE, "the pass-through does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Process { child, address }
    }

    /// SIGTERM, for the one that writes something at its end.
    fn end(mut self) {
        let kill = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(kill.success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The client, its orders and its answers.
struct Client {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Client {
    fn new(address: SocketAddr, size: usize, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_client"))
            .args(["--limit", "10", "--address", &address.to_string(), "--size", &size.to_string()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Client { child, orders, answers }
    }

    fn order(&mut self, word: &str) -> Value {
        writeln!(self.orders.as_mut().unwrap(), "{word}").unwrap();
        self.hear()
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.orders.take());
        self.child.wait().ok();
    }
}

fn load(address: SocketAddr, method: &str, size: usize, requests: usize) -> Value {
    let requests = requests.to_string();
    let arguments = ["load", method, "--connections", "8", "--requests", &requests, "--name", method];
    Client::new(address, size, &arguments).hear()
}

fn paths(file: &Path) -> Vec<String> {
    let mut paths: Vec<String> = fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect();
    paths.sort_unstable();
    paths
}

#[test]
fn every_put_and_get_through_the_pass_through_is_counted_and_reaches_the_sink() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("paths");
    let sink = Process::sink(&["--paths", kept.to_str().unwrap()]);
    let proxy = Process::pass_through(sink.address);
    for size in [0, 4096, 300_000] {
        for method in ["PUT", "GET"] {
            let outcome = load(proxy.address, method, size, 50);
            assert_eq!(outcome["errors"], 0, "{method} {size}: {outcome}");
            assert_eq!(outcome["requests"], 50);
            assert!(outcome["p50"].as_u64() <= outcome["p99"].as_u64());
            assert!(outcome["p99"].as_u64() <= outcome["longest"].as_u64());
        }
    }
    sink.end();
    let mut expected: Vec<String> = [0, 4096, 300_000]
        .iter()
        .flat_map(|size| (0..50).map(move |number| format!("/bucket/{size}/PUT-{number}")))
        .collect();
    expected.sort_unstable();
    assert_eq!(paths(&kept), expected);
}

#[test]
fn what_is_not_answered_is_an_error() {
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    assert_eq!(load(nobody, "PUT", 4096, 20)["errors"], 20);
    // Larger than a sink has.
    let sink = Process::sink(&[]);
    let outcome = load(sink.address, "GET", 100 << 20, 3);
    assert_eq!(outcome["errors"], 3);
    assert!(outcome["complaints"][0].as_str().unwrap().contains("status 404"), "{outcome}");
}

#[test]
fn the_sink_reads_chunked_bodies_and_answers_the_next_request_on_the_connection() {
    let sink = Process::sink(&[]);
    let mut connection = TcpStream::connect(sink.address).unwrap();
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    let first = "PUT /bucket/1/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
        5\r\nhello\r\n3;x=y\r\nyou\r\n0\r\nTrailer: x\r\n\r\n";
    let second = "GET /bucket/3/b HTTP/1.1\r\n\r\n";
    // Byte by byte, so that every place to be interrupted at is met.
    for byte in first.bytes().chain(second.bytes()) {
        connection.write_all(&[byte]).unwrap();
    }
    connection.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answers = Vec::new();
    connection.read_to_end(&mut answers).unwrap();
    let answers = String::from_utf8(answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    assert!(answers.contains("Content-Length: 3\r\n") && answers.ends_with("\r\n\r\n\0\0\0"), "{answers}");
}

#[test]
fn a_sink_with_a_rate_takes_its_time_whatever_the_number_of_connections() {
    let sink = Process::sink(&["--rate", "1000000"]);
    let outcome = load(sink.address, "PUT", 60_000, 8);
    assert_eq!(outcome["errors"], 0);
    let seconds = outcome["seconds"].as_f64().unwrap();
    assert!(seconds > 0.4, "480 kB at 1 MB/s took {seconds} s");
}

#[test]
fn idle_connections_stand_until_the_client_is_let_go() {
    let sink = Process::sink(&[]);
    let mut client = Client::new(sink.address, 4096, &["idle", "--connections", "100"]);
    let standing = client.hear();
    assert_eq!((&standing["connections"], &standing["errors"]), (&100.into(), &0.into()));
    assert!(client.child.try_wait().unwrap().is_none(), "the client has ended by itself");
}

#[test]
fn requests_on_fresh_reused_and_held_connections_are_counted_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (kept, answered) = (folder.path().join("kept"), folder.path().join("answered"));
    let sink = Process::sink(&["--paths", kept.to_str().unwrap()]);
    let arguments = [
        "takeover",
        "--clients",
        "20",
        "--held",
        "10",
        "--requests",
        "500",
        "--paths",
        answered.to_str().unwrap(),
    ];
    let mut client = Client::new(sink.address, 4096, &arguments);
    assert_eq!(client.order("hold"), 10);
    assert_eq!(client.order("use"), 1);
    let tally = client.order("stop");
    let good = |kind: &str| tally[kind]["good"].as_u64().unwrap();
    assert_eq!(good("held"), 10, "{tally}");
    assert!(good("fresh") >= 20 && good("reused") > 0, "{tally}");
    for kind in ["fresh", "reused", "held"] {
        assert_eq!(tally[kind]["failed"], 0, "{tally}");
    }
    sink.end();
    assert_eq!(paths(&answered).len() as u64, good("fresh") + good("reused") + 10);
    assert_eq!(paths(&answered), paths(&kept));
}

#[test]
fn a_reused_connection_that_is_closed_unanswered_is_no_failure_and_half_an_answer_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let answered = folder.path().join("answered");
    let tally_of = |answer: &'static str| {
        let address = closes_after_one_answer(answer);
        let arguments = ["takeover", "--clients", "4", "--held", "0", "--requests", "40", "--paths"];
        let mut client =
            Client::new(address, 0, &[arguments.as_slice(), &[answered.to_str().unwrap()]].concat());
        client.order("use");
        client.order("stop")
    };
    let tally = tally_of("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert!(tally["reused"]["sent_again"].as_u64().unwrap() > 0, "{tally}");
    assert_eq!((&tally["fresh"]["failed"], &tally["reused"]["failed"]), (&0.into(), &0.into()), "{tally}");

    let tally = tally_of("HTTP/1.1 200 OK\r\nContent-Le");
    assert!(tally["fresh"]["failed"].as_u64().unwrap() > 0, "{tally}");
    assert_eq!((&tally["fresh"]["good"], &tally["reused"]["sent_again"]), (&0.into(), &0.into()), "{tally}");
}

/// A server for requests without bodies that says nothing of closing. It lasts as long as the tests do.
fn closes_after_one_answer(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            stream.get_mut().write_all(answer.as_bytes()).ok();
        }
    });
    address
}
