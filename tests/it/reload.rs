//! Changes without a restart: SIGHUP, and maintenance at run time.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};

use crate::fixture::*;

const TOKEN: &str = "a-token-for-tests";

fn operated(backends: &[&dyn Endpoint]) -> Setup {
    Gateway::over(backends).with_technical_endpoint().set("TechnicalEndpointToken", TOKEN)
}

async fn ask(technical: SocketAddr, token: &str, body: &str) -> Reply {
    let token = format!("Bearer {token}");
    request(technical, "POST", "/maintenance", &[("Authorization", &token)], body.as_bytes()).await
}

async fn maintain(technical: SocketAddr, backend: &dyn Endpoint, on: bool) -> Value {
    let change = json!({"backend": backend.url(), "maintenance": on, "reason": "new disks"});
    let reply = ask(technical, TOKEN, &change.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    serde_json::from_slice(&reply.body).unwrap()
}

async fn listed(technical: SocketAddr, backend: &dyn Endpoint) -> Value {
    let reply = request(technical, "GET", "/maintenance", &[], b"").await;
    let all: Vec<Value> = serde_json::from_slice(&reply.body).unwrap();
    all.into_iter().find(|line| line["backend"] == backend.url()).unwrap()
}

#[test]
fn a_reload_changes_clusters_weights_headers_and_limits_at_once() {
    run(async {
        let (old, new) = pair().await;
        let setup = |weights: (f64, f64)| {
            let region = Region::new("r", &[("old", weights.0), ("new", weights.1)]).default_region();
            Setup::new().cluster("old", &[&old]).cluster("new", &[&new]).region(region)
        };
        let only_old =
            Setup::new().cluster("old", &[&old]).region(Region::new("r", &[("old", 1.0)]).default_region());
        let gateway = only_old.start().await;
        assert_eq!(gateway.put("/b/one", b"1").await.status, 200);
        let headers = "{X-Site: north}";
        gateway
            .reload(
                &setup((0.0, 1.0)).set_yaml("AdditionalResponseHeaders", headers).set("BodyMaxSize", "10B"),
            )
            .await;
        let reply = gateway.put("/b/two", b"2").await;
        assert_eq!((reply.status, reply.header("x-site")), (200, Some("north")));
        gateway.put("/b/three", b"more than ten bytes").await.assert_error(413, "EntityTooLarge");
        assert_eq!((old.paths(), new.paths()), (vec!["/b/one".to_owned()], vec!["/b/two".to_owned()]));
        // The older cluster is sought in, too.
        assert_eq!(gateway.get("/b/one").await.text(), "1");
        gateway.reload(&setup((1.0, 0.0))).await;
        assert_eq!(gateway.put("/b/three", b"more than ten bytes").await.status, 200);
        assert!(old.paths().contains(&"/b/three".to_owned()));
    });
}

#[test]
fn a_file_with_errors_changes_nothing_and_what_needs_a_takeover_is_named() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a]).with_metrics().start().await;
        gateway.configure(&Gateway::over(&[&a, &b]).set("DialTimeout", 5).set("BodyMaxSize", "1B"));
        gateway.signal("HUP");
        let line = gateway.wait_for_log("SIGHUP: nothing has changed").await;
        assert!(line.contains("the configuration has errors"), "{line}");
        gateway.wait_for_log("DialTimeout: ").await;
        assert_eq!(gateway.put("/b/k", b"whole").await.status, 200);
        assert!(b.paths().is_empty());
        gateway.reload(&Gateway::over(&[&a, &b]).with_metrics().set("threads", 3)).await;
        let line = gateway.wait_for_log("not in force before a takeover").await;
        assert!(line.contains("Pingora's keys (threads"), "{line}");
        assert_eq!(gateway.put("/b/k", b"whole").await.status, 200);
        b.wait_for_object("/b/k").await;
        let scrape = gateway.scrape().await;
        assert_eq!(scrape.value("akubra_reloads_total", &[("outcome", "made")]), 1.0);
        assert_eq!(scrape.value("akubra_reloads_total", &[("outcome", "refused")]), 1.0);
        gateway.stop_in_sync().await;
    });
}

#[test]
fn an_upload_keeps_the_backends_that_it_began_with() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a]).start().await;
        let mut client = gateway.client().await;
        client.head("PUT", "/b/k", &[("Content-Length", "10")]).await;
        client.send(b"12345").await;
        a.wait_for_requests(1).await;
        gateway.reload(&Gateway::over(&[&b])).await;
        assert_eq!(gateway.put("/b/new", b"new").await.status, 200);
        client.send(b"67890").await;
        assert_eq!(client.reply("PUT").await.status, 200);
        gateway.stop_in_sync().await;
        assert_eq!((a.paths(), b.paths()), (vec!["/b/k".to_owned()], vec!["/b/new".to_owned()]));
    });
}

#[test]
fn fifty_changes_under_load_fail_no_request() {
    run(async {
        let (a, b) = pair().await;
        let c = Misbehaving::start().await;
        let mut gateway = operated(&[&a, &b]).logging("akubra=info").start().await;
        let technical = gateway.technical().await;
        let load = Load::begin(gateway.address(), 20);
        for round in 0..25 {
            a.wait_for_requests(a.requests().len() + 10).await;
            let third: &[&dyn Endpoint] = if round % 2 == 0 { &[&a, &b, &c] } else { &[&a, &b] };
            gateway.reload(&operated(third).logging("akubra=info")).await;
            maintain(technical, &b, round % 2 == 0).await;
        }
        maintain(technical, &b, false).await;
        let tally = load.end().await;
        let logs = gateway.stop().await;
        assert!(tally.failed.is_empty(), "{} failed: {:#?}", tally.failed.len(), tally.failed);
        assert!(tally.stored.len() > 250, "{}", tally.stored.len());
        // Only what was to miss writes has missed some.
        let others: Vec<_> = logs
            .records
            .iter()
            .filter(|record| {
                record["failedhost"] != b.url() || !record["error"].as_str().unwrap().contains("maintenance")
            })
            .collect();
        assert!(others.is_empty(), "{others:#?}");
        assert_nothing_unrecorded(&tally.stored, &[&a, &b], &logs.records);
    });
}

#[test]
fn a_backend_under_maintenance_gets_nothing_and_what_it_misses_is_recorded() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = operated(&[&a, &b]).start().await;
        let technical = gateway.technical().await;
        let told = maintain(technical, &b, true).await;
        assert_eq!(
            (&told["maintenance"], &told["configured"], &told["reason"]),
            (&json!(true), &json!(false), &json!("new disks"))
        );
        assert_eq!(listed(technical, &b).await, told);
        assert_eq!(gateway.put("/b/k", b"1").await.status, 200);
        for _ in 0..10 {
            assert_eq!(gateway.get("/b/k").await.text(), "1");
        }
        assert!(b.requests().is_empty());
        let told = maintain(technical, &b, false).await;
        assert_eq!(told, json!({"backend": b.url(), "maintenance": false, "configured": false}));
        assert_eq!(gateway.put("/b/other", b"2").await.status, 200);
        b.wait_for_object("/b/other").await;
        let logs = gateway.stop().await;
        assert_eq!(logs.records.len(), 1, "{:#?}", logs.records);
        assert_eq!(logs.records[0]["error"], format!("{}: under maintenance", b.url()));
    });
}

#[test]
fn changes_take_the_token_and_a_backend_that_there_is() {
    run(async {
        let (a, b) = pair().await;
        let gateway = operated(&[&a]).start().await;
        let technical = gateway.technical().await;
        let change = |url: &str| json!({"backend": url, "maintenance": true}).to_string();
        let reply = ask(technical, "another-token-is-not-it", &change(&a.url())).await;
        assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer realm=\"akubra\"")));
        let reply = ask(technical, TOKEN, &change(&b.url())).await;
        assert_eq!(reply.status, 404);
        assert!(reply.text().contains(&format!("there are: {}", a.url())), "{}", reply.text());
        for wrong in [
            "",
            "{}",
            "{\"backend\": 1, \"maintenance\": true}",
            "{\"backend\": \"x\", \"maintenance\": true, \"y\": 1}",
        ] {
            assert_eq!(ask(technical, TOKEN, wrong).await.status, 400, "{wrong}");
        }
        assert_eq!(ask(technical, TOKEN, &" ".repeat(10_000)).await.status, 413);
        assert_eq!(listed(technical, &a).await["maintenance"], false);
        assert!(!gateway.stderr().contains(TOKEN));

        let open = Gateway::over(&[&a]).with_technical_endpoint().start().await;
        let reply = ask(open.technical().await, TOKEN, &change(&a.url())).await;
        assert_eq!(reply.status, 403, "{}", reply.text());
    });
}

#[test]
fn changes_survive_a_takeover_and_a_restart_until_the_file_says_the_same() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = operated(&[&a, &b]).start().await;
        maintain(gateway.technical().await, &b, true).await;
        let mut successor = gateway.hand_over().await;
        gateway.ended().await;
        assert_eq!(listed(successor.technical().await, &b).await["maintenance"], true);
        successor.stop().await;
        let mut gateway = successor.again().await;
        let told = listed(gateway.technical().await, &b).await;
        assert_eq!((&told["maintenance"], &told["reason"]), (&json!(true), &json!("new disks")));
        let configured = operated(&[&a, &b]).set("MaintainedBackends", vec![b.url()]);
        gateway.reload(&configured).await;
        let expected = json!({"backend": b.url(), "maintenance": true, "configured": true});
        assert_eq!(listed(gateway.technical().await, &b).await, expected);
        // Now it is the file that decides.
        gateway.reload(&operated(&[&a, &b])).await;
        assert_eq!(listed(gateway.technical().await, &b).await["maintenance"], false);
        // The same by a restart with another file.
        maintain(gateway.technical().await, &b, true).await;
        gateway.stop().await;
        gateway.configure(&configured);
        let mut gateway = gateway.again().await;
        assert_eq!(listed(gateway.technical().await, &b).await, expected);
        soon("the change to be forgotten", async {
            let file = gateway.log_file("state/runtime.json");
            while std::fs::read_to_string(&file).unwrap().contains("new disks") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        gateway.stop().await;
        gateway.configure(&operated(&[&a, &b]));
        let mut gateway = gateway.again().await;
        assert_eq!(listed(gateway.technical().await, &b).await["maintenance"], false);
        gateway.stop().await;
    });
}

#[test]
fn what_another_process_changed_is_in_force_soon() {
    run(async {
        let (a, b) = pair().await;
        let gateway = operated(&[&a, &b]).start().await;
        let technical = gateway.technical().await;
        let endpoint = b.url().trim_end_matches('/').to_owned();
        let changes =
            json!({"maintenance": {endpoint: {"on": true, "since": "2026-01-01T00:00:00Z", "reason": ""}}});
        std::fs::create_dir_all(gateway.log_file("state")).unwrap();
        std::fs::write(gateway.log_file("state/runtime.json"), changes.to_string()).unwrap();
        soon("the change to be in force", async {
            while listed(technical, &b).await["maintenance"] != true {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        // One that cannot be kept is not made.
        std::fs::remove_dir_all(gateway.log_file("state")).unwrap();
        std::fs::write(gateway.log_file("state"), "in the way").unwrap();
        let change = json!({"backend": a.url(), "maintenance": true}).to_string();
        let reply = ask(technical, TOKEN, &change).await;
        assert_eq!(reply.status, 500, "{}", reply.text());
        assert!(reply.text().contains("cannot be kept"), "{}", reply.text());
        assert_eq!(listed(technical, &a).await["maintenance"], false);
        // Trouble with the file is told, and its end.
        let told = |what| {
            let gateway = &gateway;
            soon(what, async move {
                while !gateway.stderr().contains(what) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
        };
        told("changes at run time are as before: ").await;
        std::fs::remove_file(gateway.log_file("state")).unwrap();
        std::fs::create_dir(gateway.log_file("state")).unwrap();
        std::fs::write(gateway.log_file("state/runtime.json"), changes.to_string()).unwrap();
        told("changes at run time can be read again").await;
    });
}

#[test]
fn the_command_line_changes_and_lists() {
    run(async {
        let (a, b) = pair().await;
        let setup = operated(&[&a, &b]);
        let gateway = setup.clone().start().await;
        // The file that the command reads names the port that the running gateway was given.
        let technical = gateway.technical().await.to_string();
        gateway.configure(&setup.set("TechnicalEndpointListen", technical));
        let file = gateway.log_file("akubra.yaml").display().to_string();
        let url = b.url();
        let on = akubra(&["maintenance", "on", &url, "-c", &file, "--reason", "new disks"]).await;
        assert!(on.status.success(), "{on:?}");
        let list = akubra(&["maintenance", "list", "-c", &file]).await;
        let list: Vec<Value> = serde_json::from_slice(&list.stdout).unwrap();
        assert_eq!(list[1]["maintenance"], true);
        let off = akubra(&["maintenance", "off", &url, "-c", &file]).await;
        assert!(String::from_utf8_lossy(&off.stdout).contains("\"maintenance\": false"), "{off:?}");
        let wrong = akubra(&["maintenance", "on", "http://nowhere", "-c", &file]).await;
        let text = String::from_utf8_lossy(&wrong.stderr).into_owned();
        assert!(
            wrong.status.code() == Some(1) && text.contains("no backend of the configuration is"),
            "{text}"
        );
        assert!(!text.contains(TOKEN));
    });
}

#[test]
fn a_predecessor_that_drains_undoes_nothing_that_its_successor_is_told() {
    run(async {
        let (a, b) = pair().await;
        let c = Misbehaving::start().await;
        let mut gateway = operated(&[&a, &b]).start().await;
        // An upload keeps it.
        let mut client = gateway.client().await;
        client.head("PUT", "/b/k", &[("Content-Length", "10")]).await;
        client.send(b"12345").await;
        a.wait_for_requests(1).await;
        maintain(gateway.technical().await, &b, true).await;
        gateway.configure(&operated(&[&a, &b, &c]).set("MaintainedBackends", vec![b.url()]));
        let mut successor = gateway.hand_over().await;
        let technical = successor.technical().await;
        maintain(technical, &c, true).await;
        maintain(technical, &a, true).await;
        maintain(technical, &a, false).await;
        // Both have looked at the file again.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert!(gateway.is_running());
        for backend in [&b, &c] {
            assert_eq!(listed(technical, backend).await["maintenance"], true, "{}", backend.url());
        }
        client.send(b"67890").await;
        assert_eq!(client.reply("PUT").await.status, 200);
        gateway.ended().await;
        successor.stop().await;
    });
}

#[test]
fn a_backend_that_missed_writes_under_maintenance_is_asked_last_afterwards() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = operated(&[&a, &b]).start().await;
        let technical = gateway.technical().await;
        assert_eq!(gateway.put("/b/changed", b"old").await.status, 200);
        assert_eq!(gateway.put("/b/deleted", b"old").await.status, 200);
        b.wait_for_object("/b/deleted").await;
        maintain(technical, &b, true).await;
        assert_eq!(gateway.put("/b/changed", b"new").await.status, 200);
        assert!(gateway.delete("/b/deleted").await.status < 300);
        maintain(technical, &b, false).await;
        for _ in 0..20 {
            assert_eq!(gateway.get("/b/changed").await.text(), "new");
            assert_eq!(gateway.get("/b/deleted").await.status, 404);
        }
        gateway.stop().await;
    });
}

#[test]
fn the_same_file_again_changes_nothing_and_a_secret_that_changed_is_named() {
    run(async {
        let (a, b) = pair().await;
        let setup = operated(&[&a, &b]);
        let mut gateway = setup.clone().start().await;
        gateway.reload(&setup).await;
        let line = gateway.wait_for_log("was read again").await;
        assert!(line.contains("nothing is different"), "{line}");
        gateway.reload(&setup.set("TechnicalEndpointToken", "another-token-for-tests")).await;
        let line = gateway.wait_for_log("not in force before a takeover").await;
        assert!(line.ends_with(": TechnicalEndpointToken"), "{line}");
        gateway.stop().await;
    });
}
