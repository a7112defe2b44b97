//! Real crashes: gateway and worker are killed at random moments under traffic, over backends that misbehave. Then
//! everything is repaired, and every object of every backend is compared with what its client was told.
//!
//! Each key belongs to one client, which makes one request at a time: so it is known what may be there in the end, the
//! last write that was acknowledged, or one after it whose outcome nobody was told.
//!
//! `make crash-test` runs them; `AKUBRA_KILLS` says how many kills, `AKUBRA_SEED` which moments.

use std::{
    collections::BTreeMap,
    fs::File,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{net::TcpStream, sync::watch, time::Instant};

use crate::fixture::{
    AfterEarly, Behaviour, Client, Endpoint, Gateway, Misbehaving, Phase, Postgres, Region, Scrape, Setup,
    SmallDisk, pair, repaired, run, run_without_limit,
};

const CLIENTS: usize = 8;
const KEYS: usize = 6;
/// For everything to be repaired once nothing fails any more: gateways that died are found dead after a minute.
const REPAIRED_WITHIN: Duration = Duration::from_secs(240);

/// What a client asked for, and whether it was told that it was done.
#[derive(Debug, Clone)]
struct Write {
    /// `None` = a DELETE.
    body: Option<Vec<u8>>,
    acknowledged: bool,
}

type History = BTreeMap<String, Vec<Write>>;

/// One client: its keys, one request at a time, on whatever gateway serves.
async fn client(
    name: usize,
    address: watch::Receiver<SocketAddr>,
    on: Arc<AtomicBool>,
    seed: u64,
) -> History {
    let mut random = StdRng::seed_from_u64(seed ^ name as u64);
    let mut history = History::new();
    let mut connection: Option<Client> = None;
    let mut number = 0;
    while on.load(Relaxed) {
        if connection.is_none() {
            let now = *address.borrow();
            match TcpStream::connect(now).await {
                Ok(stream) => connection = Some(Client::from(stream, now)),
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            }
        }
        let target = format!("/bucket/{name}-{}", random.gen_range(0..KEYS));
        number += 1;
        let body = random.gen_bool(0.8).then(|| {
            // Two of one length could not be told apart where only their outcome is unknown.
            let length = [20, 4096, 200_000][random.gen_range(0..3)] + random.gen_range(0..4000);
            format!("{target} {number} ").into_bytes().into_iter().cycle().take(length).collect::<Vec<u8>>()
        });
        let Some(open) = &mut connection else { continue };
        let method = if body.is_some() { "PUT" } else { "DELETE" };
        let bytes = body.as_deref().unwrap_or_default();
        let length = bytes.len().to_string();
        let mut request = open.head_text(method, &target, &[("Content-Length", &length)]).into_bytes();
        request.extend_from_slice(bytes);
        open.try_send(&request).await;
        let reply = tokio::time::timeout(Duration::from_secs(20), open.reply_or_end(method)).await;
        let status = reply.as_ref().ok().and_then(|reply| Some(reply.as_ref()?.status));
        let closes = match &reply {
            Ok(Some(reply)) => reply.header("connection") == Some("close"),
            _ => true,
        };
        if closes {
            connection = None;
        }
        let acknowledged = status.is_some_and(|status| (200..300).contains(&status));
        history.entry(target).or_default().push(Write { body, acknowledged });
    }
    history
}

/// Makes the backends misbehave, one or two at a time, until it is told to stop; then they are good.
async fn trouble(backends: Arc<Vec<Misbehaving>>, on: Arc<AtomicBool>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed ^ 0xbad);
    while on.load(Relaxed) {
        let sick = &backends[random.gen_range(0..backends.len())];
        match random.gen_range(0..7) {
            0 => sick.refuse().await,
            1 => sick.will(Behaviour::answers(503)),
            2 => sick.will(Behaviour::resets(Phase::AfterBody)),
            3 => sick.will(Behaviour::resets(Phase::AfterAnswerHead)),
            4 => sick.will(Behaviour::answers_early(500, AfterEarly::Close)),
            5 => sick.will(Behaviour::hangs(Phase::AfterBody)),
            _ => sick.will(Behaviour::closes(Phase::MidBody(1000))),
        }
        tokio::time::sleep(Duration::from_millis(random.gen_range(50..600))).await;
        well(sick);
        tokio::time::sleep(Duration::from_millis(random.gen_range(0..300))).await;
    }
    backends.iter().for_each(well);
}

fn well(backend: &Misbehaving) {
    backend.listen_again();
    backend.will(Behaviour::good());
    backend.release();
}

/// `akubra sync` as a child process. Ends with its value.
struct Worker(Child);

impl Worker {
    fn start(gateway: &Gateway, arguments: &[&str]) -> Worker {
        let log = |name| File::options().create(true).append(true).open(gateway.log_file(name)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_akubra"))
            .arg("sync")
            .arg("-c")
            .arg(gateway.log_file("akubra.yaml"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log("sync.stdout"))
            .stderr(log("sync.stderr"))
            .spawn()
            .unwrap();
        Worker(child)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// What `akubra journal` says.
fn journal(gateway: &Gateway, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_akubra"));
    command.args(["journal", "-c"]).arg(gateway.log_file("akubra.yaml")).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn counts(gateway: &Gateway) -> serde_json::Value {
    serde_json::from_slice(&journal(gateway, &["counts", "--json"])).unwrap()
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

struct Plan {
    journal: String,
    postgres: Option<Postgres>,
    /// That the journal is on, where whoever runs this may have one.
    disk: Option<SmallDisk>,
}

/// Strong, with what `akubra sync` needs.
fn over(backends: &[Misbehaving], journal: &str) -> Setup {
    let urls: Vec<_> = backends.iter().map(|backend| backend.url()).collect();
    let credentials = "Credentials: {AccessKey: AKIATEST, SecretKey: test-secret}";
    Setup::new()
        .set_yaml("Clusters", &format!("main: {{Backends: {urls:?}, {credentials}}}"))
        .region(Region::new("region", &[("main", 1.0)]).default_region().set("Consistency", "strong"))
        .set_yaml("Journal", journal)
        .set_yaml("Sync", "{BackoffMin: 100ms, BackoffMax: 2s, Hold: 5s, ClockBound: 1s}")
        .set("ResponseHeaderTimeout", "1s")
        .set("SlowBackendTimeout", "1s")
        .logging("akubra=info")
}

async fn survives(mut plan: Plan) {
    let (kills, seed) = (from_environment("AKUBRA_KILLS", 200), from_environment("AKUBRA_SEED", 1));
    let mut random = StdRng::seed_from_u64(seed);
    let mut backends = Vec::new();
    for _ in 0..3 {
        backends.push(Misbehaving::start().await);
    }
    let backends = Arc::new(backends);
    let mut gateway = over(&backends, &plan.journal).start().await;
    let mut worker = Worker::start(&gateway, &[]);
    let (moved, address) = watch::channel(gateway.address());
    let (writing, sick) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
    let clients: Vec<_> =
        (0..CLIENTS).map(|name| tokio::spawn(client(name, address.clone(), writing.clone(), seed))).collect();
    let troubled = tokio::spawn(trouble(backends.clone(), sick.clone(), seed));
    let takeovers = AtomicU64::new(0);
    for kill in 0..kills {
        tokio::time::sleep(Duration::from_millis(random.gen_range(20..700))).await;
        if kill % 50 == 25 {
            let successor = gateway.hand_over().await;
            takeovers.fetch_add(1, Relaxed);
            gateway.signal("KILL");
            gateway.exit_status().await;
            gateway = successor;
            continue;
        }
        if let (30, Some(postgres)) = (kill % 60, &mut plan.postgres) {
            postgres.stop().await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            postgres.go_on().await;
        }
        if let (50, Some(disk)) = (kill % 60, &plan.disk) {
            disk.fill();
            tokio::time::sleep(Duration::from_millis(500)).await;
            disk.make_room();
        }
        if random.gen_bool(0.7) {
            gateway.signal("KILL");
            gateway.exit_status().await;
            gateway = gateway.again().await;
            moved.send_replace(gateway.address());
        } else {
            worker.kill();
            worker = Worker::start(&gateway, &[]);
        }
    }
    writing.store(false, Relaxed);
    let mut history = History::new();
    for client in clients {
        history.extend(client.await.unwrap());
    }
    sick.store(false, Relaxed);
    troubled.await.unwrap();
    let deadline = Instant::now() + REPAIRED_WITHIN;
    let counted = loop {
        let counted = counts(&gateway);
        let left = |name: &str| counted[name].as_u64().unwrap();
        if left("open") + left("intents") == 0 {
            break counted;
        }
        assert!(Instant::now() < deadline, "not repaired within {REPAIRED_WITHIN:?}: {counted}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    drop(worker);
    let writes: usize = history.values().map(Vec::len).sum();
    let acknowledged = history.values().flatten().filter(|write| write.acknowledged).count();
    let wrong: Vec<String> =
        history.iter().filter_map(|(target, writes)| judge(target, writes, &backends)).collect();
    println!(
        "{kills} kills, {} takeovers among them; {writes} writes to {} objects, {acknowledged} acknowledged; \
         afterwards {counted}; wrong: {}",
        takeovers.load(Relaxed),
        history.len(),
        wrong.len()
    );
    let left = journal(&gateway, &["export"]);
    let left = String::from_utf8_lossy(&left);
    // Whether such a write was acknowledged, and lost to one that came late, nobody can tell.
    let is_doubtful = |line: &&str| line.contains("a gateway died in the middle of a write");
    let doubtful = left.lines().filter(is_doubtful).count();
    println!("{doubtful} left to a human, because a gateway died in the middle of a write");
    assert!(
        wrong.is_empty() && doubtful == left.lines().count() && doubtful as u64 <= kills / 50,
        "seed {seed}: {wrong:#?}\n{left}"
    );
    gateway.stop().await;
}

/// What is wrong with an object, if anything is.
fn judge(target: &str, writes: &[Write], backends: &[Misbehaving]) -> Option<String> {
    let held: Vec<Option<Vec<u8>>> =
        backends.iter().map(|backend| backend.stored_bytes(target).map(|bytes| bytes.to_vec())).collect();
    let name = |body: &Option<Vec<u8>>| {
        body.as_ref().map_or("nothing".to_owned(), |body| {
            String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned()
        })
    };
    if held.windows(2).any(|pair| pair[0] != pair[1]) {
        return Some(format!("{target}: backends differ: {:?}", held.iter().map(name).collect::<Vec<_>>()));
    }
    let last = writes.iter().rposition(|write| write.acknowledged);
    let allowed = &writes[last.unwrap_or(0)..];
    let fresh = last.is_none() && held[0].is_none();
    let right = fresh || allowed.iter().any(|write| write.body == held[0]);
    (!right).then(|| {
        let known: Vec<_> = allowed.iter().map(|write| name(&write.body)).collect();
        format!("{target}: holds {:?}, and could only be one of {known:?}", name(&held[0]))
    })
}

#[test]
#[ignore = "takes minutes: make crash-test"]
fn nothing_is_lost_with_the_journal_in_sqlite() {
    let disk = SmallDisk::mount(256);
    let file = disk.as_ref().map_or(String::new(), |disk| format!("File: {}/journal", disk.path().display()));
    let journal = format!("{{SQLite: {{{file}}}, Settle: 2s}}");
    run_without_limit(survives(Plan { journal, postgres: None, disk }));
}

#[test]
#[ignore = "takes minutes: make crash-test"]
fn nothing_is_lost_with_the_journal_in_postgres() {
    run_without_limit(async {
        let postgres = Postgres::start().await;
        postgres.execute("GRANT CREATE ON DATABASE akubra TO akubra").await;
        let journal = format!("{{PostgreSQL: {{{}}}, Settle: 2s}}", postgres.block());
        survives(Plan { journal, postgres: Some(postgres), disk: None }).await;
    });
}

#[test]
#[ignore = "mounts a file system, as root: make crash-test"]
fn a_full_disk_refuses_strong_writes_and_loses_nothing() {
    run(async {
        let disk = SmallDisk::mount(64).expect("only root may mount a file system");
        let (a, b) = pair().await;
        let backends = [a, b];
        let [a, b] = &backends;
        let journal = format!("{{SQLite: {{File: {}/journal}}, Settle: 1s}}", disk.path().display());
        let mut gateway = over(&backends, &journal).with_metrics().start().await;
        let mut held: Vec<(String, &[u8])> = Vec::new();
        for (round, killed) in [false, true].into_iter().enumerate() {
            let target = |name: &str| format!("/bucket/{name}-{round}");
            assert_eq!(gateway.put(&target("before"), b"before").await.status, 200);
            b.wait_for_object(&target("before")).await;
            // One that is under way when there is no more room, and ends while there is none.
            a.will_once(Behaviour::hangs(Phase::AfterBody));
            assert_eq!(gateway.put(&target("during"), b"during").await.status, 200);
            disk.fill();
            gateway.wait_for_records(round + 1).await;
            a.release();
            let asked = [a.requests().len(), b.requests().len()];
            for _ in 0..3 {
                gateway.put(&target("refused"), b"refused").await.assert_error(503, "ServiceUnavailable");
                gateway.delete(&target("before")).await.assert_error(503, "ServiceUnavailable");
            }
            assert_eq!([a.requests().len(), b.requests().len()], asked);
            assert_eq!(gateway.get(&target("before")).await.text(), "before");
            if killed {
                gateway.signal("KILL");
                gateway.exit_status().await;
                gateway = gateway.again().await;
                gateway.put(&target("refused"), b"refused").await.assert_error(503, "ServiceUnavailable");
            }
            disk.make_room();
            let is_back = |scrape: &Scrape| scrape.value("akubra_journal_unavailable", &[]) == 0.0;
            gateway.scrape_until("the journal", is_back).await;
            assert_eq!(gateway.put(&target("after"), b"after").await.status, 200);
            repaired(&gateway).await;
            held.extend([
                (target("before"), &b"before"[..]),
                (target("during"), b"during"),
                (target("after"), b"after"),
            ]);
            assert_eq!(
                backends.each_ref().map(|backend| backend.stored_bytes(&target("refused"))),
                [None, None]
            );
        }
        for (target, body) in held {
            for backend in &backends {
                assert_eq!(backend.stored_bytes(&target).as_deref(), Some(body), "{target}");
            }
        }
        gateway.stop().await;
    });
}
