//! `akubra journal`: what waits for a human, who is told of what, and a journal that cannot be used.

use crate::fixture::{sync::*, *};

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
        let told = String::from_utf8_lossy(&wrong.stderr);
        assert!(told.contains("does not have this backend; it is one of one"), "{told}");
        let wrong = command(&gateway, &["journal", "list", "--backend", "http://nowhere"]).await;
        let told = String::from_utf8_lossy(&wrong.stderr);
        let known = [a, b, c, d].iter().all(|backend| told.contains(&backend.url()));
        assert!(told.contains("is no backend of the configuration, which has ") && known, "{told}");
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
