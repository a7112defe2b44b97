//! What a repair costs beside the requests to backends that it is made of, and how much memory a large one takes.
//!
//! A repair of an object that one of two backends lacks is seven requests: HEAD to both, GET `?tagging` and GET to the one,
//! PUT to the other, HEAD to both. Two clients make the same ones, each for objects of its own and as many, to the same
//! backends, right before the worker does:
//!
//! - **The plain client** is what the figure is a share of. It is the client that the program itself has for storages
//!   (`S3Stores` over `Upstream`), called by the test: the same code makes, signs (SigV4, the same library) and sends each
//!   request, on pooled connections, streams the body from the one to the other, and checks its MD5 at both ends. As many
//!   objects at once as the worker has (`Sync.Concurrency`). It has no journal, leases nothing, decides nothing, and asks
//!   nobody whether it may go on. So the rest of the share is what those cost, and not what signing costs.
//! - **The bare client** shows what that leaves out. It writes the same requests, as long as if they were signed, from
//!   strings, and looks for the end of each answer; as many at once, each task with a connection to either backend. It neither
//!   signs nor checks.
//!
//! That the worker makes no more requests than the plain client, and no fewer, is counted by the backends.

use std::process::{Child, Command, Stdio};

use akubra::sync::{State, Stores, stores::Settings};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{shelf::Shelf, *};
use crate::{
    fixture::sync::{counts, wait_for_open},
    sync_stores,
};

/// Objects of one round, for the worker and for each client.
const OBJECTS: usize = 20_000;
/// At once, in the worker and in each client.
const AT_ONCE: usize = 16;
const ROUNDS: usize = 3;

fn setup(backends: &[&dyn Endpoint]) -> Setup {
    let urls: Vec<String> = backends.iter().map(|backend| backend.url()).collect();
    let region = Region::new("region", &[("main", 1.0)]).default_region().set("Consistency", "strong");
    let credentials = format!("{{AccessKey: {ACCESS_KEY}, SecretKey: {SECRET_KEY}}}");
    Setup::new()
        .set_yaml("Clusters", &format!("{{main: {{Backends: {urls:?}, Credentials: {credentials}}}}}"))
        .set_yaml("Journal", "{}")
        .set_yaml("Sync", &format!("{{Concurrency: {AT_ONCE}, ConcurrencyPerBackend: {AT_ONCE}}}"))
        .set_yaml("Ejection", "{Enabled: false}")
        .logging(LOGGING)
        .region(region)
}

/// `akubra sync --once`, its stdout unread but for the end.
fn sync_once(gateway: &Gateway) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_akubra"));
    command.args(["sync", "--once", "-c"]).arg(gateway.log_file("akubra.yaml"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

pub async fn many_small_repairs(sheet: Arc<Sheet>) {
    let mut shares = Vec::new();
    let mut rates = Vec::new();
    let mut requests = Vec::new();
    for _ in 0..ROUNDS {
        let a = Shelf::start("127.0.0.1:0", false);
        let (free, _port) = port::reserve();
        let gateway = setup(&[&a, &Url(format!("http://{free}"))]).start().await;
        let body = noise(4 * KIB);
        put_all(&gateway.url(), "repaired", &body).await;
        put_all(&a.url(), "plain", &body).await;
        put_all(&a.url(), "bare", &body).await;
        wait_for_open(&gateway, OBJECTS as u64).await;
        let b = Shelf::start(&free.to_string(), false);
        let bare = by_a_bare_client(&a, &b).await;
        let before = asked_of(&a, &b).await;
        let plain = by_a_plain_client(&a, &b).await;
        let between = asked_of(&a, &b).await;
        let start = Instant::now();
        let mut worker = sync_once(&gateway);
        let status = tokio::task::spawn_blocking(move || worker.wait().unwrap()).await.unwrap();
        let repaired = OBJECTS as f64 / start.elapsed().as_secs_f64();
        assert!(status.success() && counts(&gateway).await["open"] == 0, "{status}");
        let after = asked_of(&a, &b).await;
        let each = |count: u64| count as f64 / OBJECTS as f64;
        requests.push((each(after - between), each(between - before)));
        shares.push(repaired / plain);
        rates.push((repaired, plain, bare));
    }
    shares.sort_by(f64::total_cmp);
    let share = shares[ROUNDS / 2];
    let each: Vec<String> =
        rates.iter().map(|(repaired, plain, _)| format!("{repaired:.0} of {plain:.0}")).collect();
    let measured = format!("{share:.2} (objects a second in each round: {})", each.join(", "));
    let what = "repairs of 4 KiB, as a share of what a plain client does of the same requests";
    sheet.figure(what, measured, "0.6", share >= 0.6);
    let is_same = requests.iter().all(|(worker, plain)| (worker - plain).abs() < 0.01);
    let each: Vec<String> =
        requests.iter().map(|(worker, plain)| format!("{worker:.2} and {plain:.2}")).collect();
    let what = "  requests to backends for each object, of the worker and of the plain client";
    sheet.figure(what, each.join(", "), "the same", is_same);
    let bare: Vec<String> = rates.iter().map(|(_, _, bare)| format!("{bare:.0}")).collect();
    let what = "  a client that neither signs nor checks";
    sheet.note(what, format!("{} objects a second", bare.join(", ")));
}

/// A connection of a client that does no more than it must.
struct Bare {
    stream: TcpStream,
    host: String,
    input: Vec<u8>,
}

impl Bare {
    async fn connect(url: &str) -> Bare {
        let host = url.trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(&host).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Bare { stream, host, input: Vec::new() }
    }

    /// One request; the body of its answer.
    async fn ask(&mut self, method: &str, target: &str, more: &str, body: &[u8]) -> Vec<u8> {
        // As long as a signature.
        let signature = "0123456789abcdef".repeat(24);
        let mut request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nAuthorization: {signature}\r\n{more}\r\n",
            self.host
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request).await.unwrap();
        self.input.clear();
        let (head, length) = loop {
            assert!(self.stream.read_buf(&mut self.input).await.unwrap() > 0, "{method} {target}");
            if let Some(end) = self.input.windows(4).position(|four| four == b"\r\n\r\n") {
                let text = std::str::from_utf8(&self.input[..end]).unwrap();
                let length = text.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                let length = if method == "HEAD" { None } else { length };
                break (end + 4, length.map_or(0, |length| length.parse().unwrap()));
            }
        };
        while self.input.len() < head + length {
            assert!(self.stream.read_buf(&mut self.input).await.unwrap() > 0, "{method} {target}");
        }
        self.input.split_off(head)
    }

    async fn put(&mut self, path: &str, more: &str, body: &[u8]) {
        let more = format!("{more}Content-Length: {}\r\n", body.len());
        self.ask("PUT", path, &more, body).await;
    }
}

/// Runs something for all objects, so many at once.
async fn for_all<F: Future<Output = ()> + Send + 'static>(run: impl Fn(Vec<usize>) -> F) {
    let of = |client: usize| (client..OBJECTS).step_by(AT_ONCE).collect();
    let tasks: Vec<_> = (0..AT_ONCE).map(|client| tokio::spawn(run(of(client)))).collect();
    for task in tasks {
        task.await.unwrap();
    }
}

async fn put_all(url: &str, name: &'static str, body: &Bytes) {
    for_all(|numbers| {
        let (url, body) = (url.to_owned(), body.clone());
        async move {
            let mut client = Bare::connect(&url).await;
            for number in numbers {
                client.put(&format!("/bucket/{name}-{number}"), "", &body).await;
            }
        }
    })
    .await;
}

async fn asked_of(a: &Shelf, b: &Shelf) -> u64 {
    a.requests().await + b.requests().await
}

/// How many objects in a second.
async fn by_a_plain_client(a: &Shelf, b: &Shelf) -> f64 {
    let stores = Arc::new(sync_stores::stores(&[a, b], Settings::default()));
    let start = Instant::now();
    for_all(|numbers| {
        let (stores, a, b) = (stores.clone(), a.url(), b.url());
        async move {
            for number in numbers {
                let object = sync_stores::object(&format!("plain-{number}"));
                let (held, over) = tokio::join!(stores.state(&a, &object), stores.state(&b, &object));
                let State::Present(held) = held else { panic!("{held:?}") };
                let gate = sync_stores::open();
                stores.copy(&object, (&a, &held), (&b, &over, sync_stores::just_now()), &gate).await.unwrap();
                tokio::join!(stores.state(&a, &object), stores.state(&b, &object));
            }
        }
    })
    .await;
    OBJECTS as f64 / start.elapsed().as_secs_f64()
}

/// The same requests as bytes that are ready, and answers whose end is looked for. How many objects in a second.
async fn by_a_bare_client(a: &Shelf, b: &Shelf) -> f64 {
    let start = Instant::now();
    for_all(|numbers| {
        let (a, b) = (a.url(), b.url());
        async move {
            let (mut a, mut b) = (Bare::connect(&a).await, Bare::connect(&b).await);
            for number in numbers {
                let path = format!("/bucket/bare-{number}");
                tokio::join!(a.ask("HEAD", &path, "", b""), b.ask("HEAD", &path, "", b""));
                a.ask("GET", &format!("{path}?tagging"), "", b"").await;
                let body =
                    a.ask("GET", &path, "If-Match: \"0123456789abcdef0123456789abcdef\"\r\n", b"").await;
                assert_eq!(body.len(), 4 * KIB);
                b.put(&path, "If-None-Match: *\r\nContent-MD5: 0123456789abcdef012345\r\n", &body).await;
                tokio::join!(a.ask("HEAD", &path, "", b""), b.ask("HEAD", &path, "", b""));
            }
        }
    })
    .await;
    OBJECTS as f64 / start.elapsed().as_secs_f64()
}

pub async fn a_huge_repair(sheet: Arc<Sheet>) {
    let (a, b) = (Shelf::start("127.0.0.1:0", true), Shelf::start("127.0.0.1:0", false));
    let gateway = setup(&[&a, &b]).start().await;
    let seen = async {
        while counts(&gateway).await["open"] != 1 {
            // Now and then it is b that is asked first, and lacks it.
            gateway.request("HEAD", "/bucket/huge", &[], b"").await;
        }
    };
    soon("the gateway to see that it is missing", seen).await;
    let start = Instant::now();
    let mut worker = sync_once(&gateway);
    let mut peak = 0;
    let status = loop {
        peak = peak_of(worker.id()).max(peak);
        if let Some(status) = worker.try_wait().unwrap() {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let took = start.elapsed();
    let whole = length_at(&b).await;
    let rate = shelf::HUGE as f64 / took.as_secs_f64() / MIB as f64;
    let measured =
        format!("peak memory {peak} KiB, in {took:.1?} ({rate:.0} MiB/s), {whole} bytes at the target");
    let kept = status.success() && peak < 64 << 10 && whole == shelf::HUGE;
    sheet.figure("repair of 5 GiB in parts", measured, "64 MiB, and all bytes", kept);
}

/// The length of what a backend holds.
async fn length_at(backend: &Shelf) -> u64 {
    let address = backend.url().trim_start_matches("http://").parse().unwrap();
    let reply = request(address, "HEAD", "/bucket/huge", &[], b"").await;
    reply.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)
}

/// In KiB; 0 once it has ended.
fn peak_of(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
