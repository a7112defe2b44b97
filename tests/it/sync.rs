//! `akubra sync` and `akubra journal` as users run them: the real program, beside a real gateway, over real S3 servers
//! that are away for a while.

use std::{
    fs::File,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use aws_sdk_s3::primitives::ByteStream;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::fixture::*;

const BUCKET: &str = "bucket";

/// Clusters of these backends with credentials, and a journal.
pub fn setup(clusters: &[(&str, &[&dyn Endpoint])], regions: &[Region]) -> Setup {
    let cluster = |(name, backends): &(&str, &[&dyn Endpoint])| {
        let urls: Vec<String> = backends.iter().map(|backend| backend.url()).collect();
        format!(
            "{name}: {{Backends: {urls:?}, Credentials: {{AccessKey: {ACCESS_KEY}, SecretKey: {SECRET_KEY}}}}}"
        )
    };
    let clusters = clusters.iter().map(cluster).collect::<Vec<_>>().join(", ");
    let setup = Setup::new()
        .set_yaml("Clusters", &format!("{{{clusters}}}"))
        .set_yaml("Journal", "{}")
        .set_yaml("Sync", "{BackoffMin: 10ms, MultipartThreshold: 5MiB, PartSize: 5MiB}");
    regions.iter().fold(setup, |setup, region| setup.region(region.clone()))
}

fn one_cluster(backends: &[&dyn Endpoint]) -> Setup {
    let region = Region::new("region", &[("main", 1.0)]).default_region().set("Consistency", "strong");
    setup(&[("main", backends)], &[region])
}

pub async fn command(gateway: &Gateway, arguments: &[&str]) -> Output {
    let conf = gateway.log_file("akubra.yaml").display().to_string();
    akubra(&[arguments, &["-c", &conf]].concat()).await
}

/// What it printed; it must end well.
pub async fn printed(gateway: &Gateway, arguments: &[&str]) -> String {
    let output = command(gateway, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub async fn counts(gateway: &Gateway) -> Value {
    serde_json::from_str(&printed(gateway, &["journal", "counts", "--json"]).await).unwrap()
}

/// Until the journal has so many open objects: the gateway tells it in the background.
async fn wait_for_open(gateway: &Gateway, count: u64) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let counted = counts(gateway).await;
        if counted["open"] == count && counted["intents"] == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "waited for {count} open objects: {counted}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn put(gateway: &Gateway, key: &str, body: &[u8]) {
    let put = s3_client(&gateway.url()).put_object().bucket(BUCKET).key(key);
    let put =
        put.body(ByteStream::from(body.to_vec())).content_type("text/x-test").metadata("colour", "blue");
    put.send().await.unwrap();
}

async fn delete(gateway: &Gateway, key: &str) {
    s3_client(&gateway.url()).delete_object().bucket(BUCKET).key(key).send().await.unwrap();
}

#[test]
fn a_backend_that_was_away_gets_what_it_missed() {
    run(async {
        let (a, mut b) = (S3Backend::with_bucket(BUCKET).await, S3Backend::with_bucket(BUCKET).await);
        let mut gateway = one_cluster(&[&a, &b]).start().await;
        put(&gateway, "deleted", b"old").await;
        put(&gateway, "overwritten", b"old").await;
        b.wait_for_object(BUCKET, "deleted").await;
        b.wait_for_object(BUCKET, "overwritten").await;
        b.go_away().await;
        let large = noise(11 << 20);
        put(&gateway, "large", &large).await;
        put(&gateway, "a key?", b"new").await;
        put(&gateway, "overwritten", b"newer").await;
        put(&gateway, "overwritten", b"newest").await;
        delete(&gateway, "deleted").await;
        wait_for_open(&gateway, 4).await;

        let counted = counts(&gateway).await;
        assert_eq!(
            (&counted["behind"][a.url()], &counted["behind"][b.url()]),
            (&0.into(), &4.into()),
            "{counted}"
        );
        let exported = lines(&printed(&gateway, &["journal", "export"]).await);
        let records = || exported.iter().flat_map(|line| line["records"].as_array().unwrap());
        assert_eq!(records().count(), 5);
        for record in records() {
            let turns = (record["turn"].as_i64().unwrap(), record["ended_turn"].as_i64().unwrap());
            assert!(turns.0 < turns.1, "{record}");
        }

        // Nobody has what it holds, so nothing can be done yet.
        let output = command(&gateway, &["sync", "--once"]).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("something is left"), "{output:?}");
        let shown = printed(&gateway, &["journal", "show", "/bucket/a%20key%3F"]).await;
        for part in ["main:/bucket/a%20key%3F", "took it, etag", "did not take it", "3 bytes", "not known"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }

        b.come_back().await;
        printed(&gateway, &["journal", "retry", "--all"]).await;
        let told = printed(&gateway, &["sync", "--once"]).await;
        let told = lines(&told);
        let resolved = told.iter().filter(|line| line["outcome"] == "resolved" && line["changed"] == 1);
        assert_eq!(resolved.count(), 4, "{told:#?}");
        assert_eq!(told.last().unwrap()["event"], "summary");
        for (key, body) in [("large", &large[..]), ("a key?", b"new"), ("overwritten", b"newest")] {
            for backend in [&a, &b] {
                assert!(backend.object(BUCKET, key).await.unwrap() == body, "{key}");
            }
        }
        let head = b.client().head_object().bucket(BUCKET).key("overwritten").send().await.unwrap();
        assert_eq!(head.content_type(), Some("text/x-test"));
        assert_eq!(head.metadata().unwrap()["colour"], "blue");
        for backend in [&a, &b] {
            assert_eq!(backend.object(BUCKET, "deleted").await, None);
        }
        let counted = counts(&gateway).await;
        assert_eq!([&counted["open"], &counted["parked"], &counted["dead"]], [0, 0, 0], "{counted}");
        assert_eq!(printed(&gateway, &["journal", "export"]).await, "");
        gateway.stop().await;
    });
}

/// What is the matter with the objects of one standing.
async fn reasons(gateway: &Gateway, standing: &str) -> Vec<String> {
    let listed = printed(gateway, &["journal", "list", "--standing", standing, "--json"]).await;
    lines(&listed).iter().map(|line| line["reason"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_wrong_secret_leaves_all_objects_open_and_says_so() {
    run(async {
        let (a, mut b) = (S3Backend::with_bucket(BUCKET).await, S3Backend::with_bucket(BUCKET).await);
        let mut gateway = one_cluster(&[&a, &b]).start().await;
        b.go_away().await;
        for number in 0..12 {
            put(&gateway, &format!("key{number}"), b"body").await;
        }
        wait_for_open(&gateway, 12).await;
        b.come_back().await;
        let conf = gateway.log_file("akubra.yaml");
        let right = std::fs::read_to_string(&conf).unwrap();
        std::fs::write(&conf, right.replace(SECRET_KEY, "wrong")).unwrap();
        let output = command(&gateway, &["sync", "--once"]).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let counted = counts(&gateway).await;
        assert_eq!([&counted["open"], &counted["parked"], &counted["dead"]], [12, 0, 0], "{counted}");
        let said =
            format!("credentials of main are refused by {}: 403 to HEAD (SignatureDoesNotMatch)", a.url());
        let reasons = reasons(&gateway, "open").await;
        assert!(reasons.iter().any(|reason| reason.contains(&said)), "{said}: {reasons:#?}");

        std::fs::write(&conf, right).unwrap();
        printed(&gateway, &["journal", "retry", "--all"]).await;
        printed(&gateway, &["sync", "--once"]).await;
        assert_eq!(counts(&gateway).await["open"], 0);
        assert_eq!(b.object(BUCKET, "key11").await.as_deref(), Some(&b"body"[..]));
        gateway.stop().await;
    });
}

#[test]
fn what_a_backend_does_not_keep_of_an_object_is_for_a_human() {
    run(async {
        let (a, b) = (S3Backend::with_bucket(BUCKET).await, Misbehaving::start().await);
        let region = Region::new("region", &[("main", 1.0)]).default_region().set("Consistency", "strong");
        let mut gateway = setup(&[("main", &[&a, &b])], &[region]).start().await;
        b.will_once_on("PUT", Behaviour::answers(503));
        // Keeps its type and `x-amz-meta-*`.
        let put = s3_client(&gateway.url()).put_object().bucket(BUCKET).key("key");
        let put = put.body(ByteStream::from_static(b"body")).metadata("a", "b").cache_control("no-store");
        put.send().await.unwrap();
        wait_for_open(&gateway, 1).await;
        assert_eq!(command(&gateway, &["sync", "--once"]).await.status.code(), Some(1));
        let why = format!("{} does not keep metadata cache-control", b.url());
        assert_eq!(reasons(&gateway, "parked").await, [why]);
        let copies = b.methods().iter().filter(|method| *method == "PUT").count();
        assert_eq!(copies, 2, "that of the client, and one copy");
        gateway.stop().await;
    });
}

#[test]
fn what_no_rule_decides_waits_for_a_human_who_drops_it_with_a_reason() {
    run(async {
        let (a, mut b) = (S3Backend::with_bucket(BUCKET).await, S3Backend::with_bucket(BUCKET).await);
        let mut gateway = one_cluster(&[&a, &b]).start().await;
        b.go_away().await;
        s3_client(&gateway.url()).create_bucket().bucket("other").send().await.unwrap();
        wait_for_open(&gateway, 1).await;
        b.come_back().await;
        assert_eq!(command(&gateway, &["sync", "--once"]).await.status.code(), Some(1));

        let listed = printed(&gateway, &["journal", "list", "--standing", "parked"]).await;
        assert!(listed.starts_with("parked ") && listed.contains("main:/other"), "{listed}");
        assert_eq!(printed(&gateway, &["journal", "list", "--standing", "open", "--json"]).await, "");
        let exported = lines(&printed(&gateway, &["journal", "export"]).await);
        assert_eq!((&exported[0]["path"], &exported[0]["standing"]), (&"/other".into(), &"parked".into()));
        let drop = ["journal", "drop", "/other"];
        assert_eq!(command(&gateway, &drop).await.status.code(), Some(2));
        assert_eq!(command(&gateway, &[&drop[..], &["--reason", " "]].concat()).await.status.code(), Some(1));
        printed(&gateway, &[&drop[..], &["--reason", "it is made by hand"]].concat()).await;
        assert_eq!(counts(&gateway).await["parked"], 0);
        gateway.stop().await;
    });
}

#[test]
fn an_object_that_a_read_found_elsewhere_moves_home() {
    run(async {
        let old = S3Backend::with_bucket(BUCKET).await;
        let (a, b) = (S3Backend::with_bucket(BUCKET).await, S3Backend::with_bucket(BUCKET).await);
        let weighted = |weight_of_old, weight_of_new| {
            let region = Region::new("region", &[("old", weight_of_old), ("new", weight_of_new)]);
            setup(&[("old", &[&old]), ("new", &[&a, &b])], &[region.default_region()])
        };
        let mut gateway = weighted(1.0, 0.0).start().await;
        put(&gateway, "key", b"body").await;
        gateway.reload(&weighted(0.0, 1.0)).await;
        let client = s3_client(&gateway.url());
        client.get_object().bucket(BUCKET).key("key").send().await.unwrap();
        wait_for_open(&gateway, 1).await;

        printed(&gateway, &["sync", "--once"]).await;
        assert!(old.object(BUCKET, "key").await.is_some(), "moved without being asked to");
        printed(&gateway, &["sync", "--once", "--misplaced"]).await;
        assert_eq!(old.object(BUCKET, "key").await, None);
        for backend in [&a, &b] {
            assert_eq!(backend.object(BUCKET, "key").await.as_deref(), Some(&b"body"[..]));
        }
        assert_eq!(counts(&gateway).await["open"], 0);
        gateway.stop().await;
    });
}

#[test]
fn what_moves_home_stays_on_a_backend_that_both_clusters_have() {
    run(async {
        let (old, shared) = (S3Backend::with_bucket(BUCKET).await, S3Backend::with_bucket(BUCKET).await);
        let new = S3Backend::with_bucket(BUCKET).await;
        let weighted = |weight_of_old, weight_of_new| {
            let region = Region::new("region", &[("old", weight_of_old), ("new", weight_of_new)]);
            setup(&[("old", &[&old, &shared]), ("new", &[&shared, &new])], &[region.default_region()])
        };
        let mut gateway = weighted(1.0, 0.0).start().await;
        put(&gateway, "key", b"body").await;
        old.wait_for_object(BUCKET, "key").await;
        shared.wait_for_object(BUCKET, "key").await;
        gateway.reload(&weighted(0.0, 1.0)).await;
        // Found on a backend of both, by the name of the old one.
        shared.client().delete_object().bucket(BUCKET).key("key").send().await.unwrap();
        s3_client(&gateway.url()).get_object().bucket(BUCKET).key("key").send().await.unwrap();
        wait_for_open(&gateway, 1).await;
        let body = ByteStream::from_static(b"body");
        let again = shared.client().put_object().bucket(BUCKET).key("key").body(body);
        again.content_type("text/x-test").metadata("colour", "blue").send().await.unwrap();

        printed(&gateway, &["sync", "--once", "--misplaced"]).await;
        for backend in [&shared, &new] {
            assert_eq!(backend.object(BUCKET, "key").await.as_deref(), Some(&b"body"[..]));
        }
        assert_eq!(old.object(BUCKET, "key").await, None);
        assert_eq!(counts(&gateway).await["open"], 0);
        gateway.stop().await;
    });
}

/// `akubra sync` in the background. Ends with its value.
struct Worker(Child);

impl Worker {
    fn start(gateway: &Gateway) -> Worker {
        let log = |name| File::options().create(true).append(true).open(gateway.log_file(name)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_akubra"));
        command.args(["sync", "-c"]).arg(gateway.log_file("akubra.yaml")).stdin(Stdio::null());
        Worker(command.stdout(log("sync.stdout")).stderr(log("sync.stderr")).spawn().unwrap())
    }

    /// SIGTERM, and how it ended.
    async fn stop(mut self) -> ExitStatus {
        Command::new("kill").arg("-TERM").arg(self.0.id().to_string()).status().unwrap();
        let ended = async {
            loop {
                if let Some(status) = self.0.try_wait().unwrap() {
                    return status;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        soon("the worker to end", ended).await
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_worker_in_the_background_is_paused_resumed_watched_and_stopped() {
    run(async {
        let (a, mut b) = (S3Backend::with_bucket(BUCKET).await, S3Backend::with_bucket(BUCKET).await);
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let setup = one_cluster(&[&a, &b]).set_yaml("Sync", &format!("{{Listen: '{free}'}}"));
        let mut gateway = setup.start().await;
        printed(&gateway, &["sync", "pause"]).await;
        let worker = Worker::start(&gateway);
        let scraped = |what: &'static str, line: &'static str| async move {
            let scrape = async {
                loop {
                    if tokio::net::TcpStream::connect(free).await.is_ok() {
                        let reply = request(free, "GET", "/metrics", &[], b"").await;
                        if reply.text().lines().any(|known| known == line) {
                            return;
                        }
                    }
                    sleep(Duration::from_millis(20)).await;
                }
            };
            soon(what, scrape).await;
        };
        scraped("the pause", "akubra_sync_paused 1").await;
        assert_eq!(request(free, "GET", "/health", &[], b"").await.status, 200);
        b.go_away().await;
        put(&gateway, "key", b"body").await;
        b.come_back().await;
        wait_for_open(&gateway, 1).await;
        assert_eq!(command(&gateway, &["sync", "--once"]).await.status.code(), Some(1), "it is paused");
        assert_eq!(b.object(BUCKET, "key").await, None);
        printed(&gateway, &["sync", "resume"]).await;
        scraped("the repair", "akubra_sync_repairs_total{outcome=\"resolved\"} 1").await;
        assert_eq!(b.object(BUCKET, "key").await.as_deref(), Some(&b"body"[..]));
        let status = worker.stop().await;
        assert_eq!((status.code(), status.signal()), (Some(0), None));
        gateway.stop().await;
    });
}

#[test]
fn without_a_journal_or_credentials_there_is_nothing_to_start_with() {
    run(async {
        let a = S3Backend::with_bucket(BUCKET).await;
        let mut gateway = Gateway::over(&[&a]).start().await;
        let output = command(&gateway, &["sync", "--once"]).await;
        assert_eq!(output.status.code(), Some(20), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("no Journal"), "{output:?}");
        gateway.stop().await;
        let mut gateway = Gateway::over(&[&a]).set_yaml("Journal", "{}").start().await;
        let output = command(&gateway, &["sync", "--once"]).await;
        assert_eq!(output.status.code(), Some(20), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("no backend has credentials"), "{output:?}");
        gateway.stop().await;
    });
}

#[test]
fn who_asks_for_what_a_backend_missed_is_told_of_its_clusters_only() {
    run(async {
        let backends = [pair().await, pair().await];
        let [(a, b), (c, d)] = &backends;
        let setup = Setup::new().cluster("one", &[a, b]).cluster("two", &[c, d]).set_yaml("Journal", "{}");
        let setup = setup.region(Region::new("r", &[("one", 1.0)]).default_region());
        let gateway = setup.region(Region::new("s", &[("two", 1.0)]).domain("s.test")).start().await;
        for backend in [b, d] {
            backend.will(Behaviour::answers(503));
        }
        gateway.put("/bucket/of-one", b"x").await;
        gateway.request("PUT", "/bucket/of-two", &[("Host", "s.test")], b"x").await;
        wait_for_open(&gateway, 2).await;
        let listed = printed(&gateway, &["journal", "list", "--backend", &b.url()]).await;
        assert!(listed.contains("one:/bucket/of-one") && listed.lines().count() == 1, "{listed}");
        assert_eq!(printed(&gateway, &["journal", "list", "--backend", &a.url()]).await, "");
        let wrong = command(&gateway, &["journal", "list", "--backend", &b.url(), "--cluster", "two"]).await;
        assert!(String::from_utf8_lossy(&wrong.stderr).contains("does not have this backend"), "{wrong:?}");
    });
}

#[test]
fn a_journal_that_cannot_be_used_is_left_as_it_is_and_the_reason_is_told() {
    run(async {
        let backend = Misbehaving::start().await;
        let mut gateway = Gateway::over(&[&backend]).set_yaml("Journal", "{}").start().await;
        gateway.stop().await;
        let file = gateway.log_file("state/journal.sqlite");
        let later = rusqlite::Connection::open(&file).unwrap();
        later.pragma_update(None, "user_version", 99).unwrap();
        drop(later);
        for why in ["version 99 of the schema, of a later akubra", "no database", "there is no journal at"] {
            let output = command(&gateway, &["journal", "counts"]).await;
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(told.contains(why) && told.contains("journal.sqlite"), "{told}");
            match std::fs::read(&file).is_ok_and(|bytes| bytes.starts_with(b"SQLite")) {
                true => std::fs::write(&file, noise(8192)).unwrap(),
                false => drop(std::fs::remove_file(&file)),
            }
        }
        assert!(!file.exists());
    });
}
