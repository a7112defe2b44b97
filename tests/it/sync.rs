//! `akubra sync` as users run it: the real program, beside a real gateway, over real S3 servers that are away for a
//! while.

use std::{os::unix::process::ExitStatusExt, time::Duration};

use aws_sdk_s3::primitives::ByteStream;
use tokio::time::sleep;

use crate::fixture::{sync::*, *};

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
        let mut gateway = journaled(&[("main", &[&a, &b])], &[region]).start().await;
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
fn a_worker_in_the_background_is_paused_resumed_watched_and_stopped() {
    run(async {
        let (a, mut b) = (S3Backend::with_bucket(BUCKET).await, S3Backend::with_bucket(BUCKET).await);
        let (free, _port) = port::reserve();
        let setup =
            one_cluster(&[&a, &b]).set_yaml("Sync", &format!("{{Listen: '{free}', BackoffMin: 10ms}}"));
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
        // Before it can be reached again: the client was answered without it.
        wait_for_open(&gateway, 1).await;
        b.come_back().await;
        let once = command(&gateway, &["sync", "--once", "--misplaced"]).await;
        assert_eq!(once.status.code(), Some(1), "{once:?}");
        assert!(String::from_utf8_lossy(&once.stderr).contains("paused: akubra sync resume"), "{once:?}");
        // One more that would serve metrics there says why it cannot.
        let second = command(&gateway, &["sync"]).await;
        assert_eq!(second.status.code(), Some(1), "{second:?}");
        let why = format!("Sync.Listen: cannot listen on {free}");
        assert!(String::from_utf8_lossy(&second.stderr).contains(&why), "{second:?}");
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
