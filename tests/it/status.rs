//! The status page: what it says, to whom, and what a browser makes of it.

use std::path::PathBuf;

use serde_json::Value;

use crate::fixture::*;

const HOSTILE: &str = "<script>alert(1)</script>";
/// The same in a request's target.
const HOSTILE_TARGET: &str = "/bucket/%3Cscript%3Ealert(1)%3C%2Fscript%3E";

#[test]
fn the_page_may_load_nothing_and_is_kept_by_nobody() {
    run(async {
        let backend = Misbehaving::start().await;
        let gateway = Gateway::over(&[&backend]).with_technical_endpoint().start().await;
        let technical = gateway.technical().await;
        for (path, kind) in [("/status", "text/html; charset=utf-8"), ("/status.json", "application/json")] {
            let mut client = Client::connect(technical).await;
            for method in ["HEAD", "GET"] {
                let reply = client.request(method, path, &[], b"").await;
                assert_eq!((reply.status, reply.header("content-type")), (200, Some(kind)));
                assert_eq!(reply.body.is_empty(), method == "HEAD");
                for (name, value) in [
                    ("cache-control", "no-store"),
                    ("x-content-type-options", "nosniff"),
                    ("referrer-policy", "no-referrer"),
                ] {
                    assert_eq!(reply.header(name), Some(value), "{path}");
                }
                let policy = reply.header("content-security-policy").unwrap_or_default();
                assert_eq!(policy.starts_with("default-src 'none'; script-src 'sha256-"), path == "/status");
            }
            assert_eq!(client.request("POST", path, &[], b"").await.header("allow"), Some("GET, HEAD"));
        }
        let head = request(technical, "HEAD", "/status/events", &[], b"").await;
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
        // To an older client a stream's end is the connection's.
        let mut client = Client::connect(technical).await;
        client.send(b"GET /status/events HTTP/1.0\r\nHost: a\r\n\r\n").await;
        let (status, headers) = client.read_head().await.unwrap();
        assert!(status == 200 && headers.iter().all(|(name, _)| name != "transfer-encoding"), "{headers:?}");
        client.read_at_least(1000).await;
        // Through the gateway's own address these are keys of objects.
        gateway.get("/status").await;
        assert_eq!(backend.requests().len(), 1);
    });
}

#[test]
fn the_json_says_what_there_is_and_what_goes_on() {
    run(async {
        let (a, b) = pair().await;
        let away = Url("http://no-such-name.invalid:9000".into());
        let setup = Setup::new().cluster("old", &[&a]).cluster("new", &[&b, &away]);
        let region = Region::new("eu", &[("old", 0.25), ("new", 0.75)]).domain("s3.test").default_region();
        let setup = setup.region(region).with_technical_endpoint().with_metrics();
        let setup = setup.set_yaml("MaintainedBackends", &format!("['{}']", b.url()));
        let setup = setup.set_yaml("AdditionalRequestHeaders", "{X-Token: hunter2}");
        let gateway = setup.start().await;
        let technical = gateway.technical().await;
        for number in 0..20 {
            gateway.put(&format!("/bucket/{number}"), b"hello").await;
        }
        let done = |status: &Value| {
            status["requests"]["by_status"]
                .as_object()
                .unwrap()
                .values()
                .map(|n| n.as_u64().unwrap())
                .sum::<u64>()
                == 20
        };
        let status = status_until(technical, "twenty requests", done).await;

        let process = &status["process"];
        assert_eq!((&process["pid"], &process["draining"]), (&gateway.pid().into(), &false.into()));
        assert_eq!(process["version"], env!("CARGO_PKG_VERSION"));
        assert!(status["generated"].as_str() >= process["started"].as_str());

        let region = &status["regions"][0];
        assert_eq!(
            (&region["name"], &region["default"], &region["domains"][0]),
            (&"eu".into(), &true.into(), &"s3.test".into())
        );
        let cluster = |at: usize| &region["clusters"][at];
        assert_eq!((&cluster(0)["name"], &cluster(1)["weight"]), (&"old".into(), &0.75.into()));
        let share = |at: usize| cluster(at)["share"].as_f64().unwrap();
        assert!((share(0) + share(1) - 1.0).abs() < 1e-9 && share(0) > 0.1 && share(1) > 0.5);
        assert_eq!(cluster(1)["backends"], serde_json::json!([b.url(), away.url()]));

        let backend = |at: usize| &status["backends"][at];
        let states = [0, 1, 2].map(|at| backend(at)["state"].as_str().unwrap());
        assert_eq!(states, ["healthy", "maintenance", "unresolved"]);
        assert_eq!(backend(0)["url"], a.url());
        assert!(backend(0)["replies"]["good"].as_u64().unwrap() > 0);
        assert!(backend(1)["since"].as_str() >= process["started"].as_str());
        // Rates are forgotten after ten seconds, points are not.
        for series in [&status["history"]["requests"], &status["history"]["backends"][a.url()]] {
            for name in ["per_second", "p50_seconds", "p99_seconds"] {
                let points = series[name].as_array().unwrap();
                assert!(
                    points.len() <= 150 && points.iter().any(|point| point.as_f64() > Some(0.0)),
                    "{name}"
                );
            }
        }
        // Of "new" no backend can be had: nothing diverged, and nothing was put there.
        assert_eq!(
            (&status["writes"]["divergences"], &status["events"]),
            (&0.into(), &serde_json::json!([]))
        );

        let configuration = status["configuration"].as_str().unwrap();
        assert!(
            configuration.contains("X-Token: (hidden)") && configuration.contains("Cluster: new"),
            "{configuration}"
        );
        assert!(!status.to_string().contains("hunter2"));
    });
}

#[test]
fn events_come_as_they_happen() {
    run(async {
        let (a, b) = pair().await;
        let gateway = Gateway::over(&[&a, &b]).with_technical_endpoint().start().await;
        let technical = gateway.technical().await;
        let mut events = Events::open(technical).await;
        let whole = events.next("whole").await;
        assert!(whole["history"].is_object() && whole["configuration"].is_string());
        b.will(Behaviour::answers(503));
        assert_eq!(gateway.put(HOSTILE_TARGET, b"hello").await.status, 200);
        let divergence = events.next("divergence").await;
        assert_eq!((&divergence["number"], &divergence["key"]), (&1.into(), &HOSTILE.into()));
        assert_eq!((&divergence["failedhost"], &divergence["status"]), (&b.url().into(), &503.into()));
        assert_eq!(divergence["reqID"], gateway.wait_for_records(1).await[0]["reqID"]);
        let counted = async {
            loop {
                let status = events.next("status").await;
                assert!(status.get("history").is_none() && status.get("configuration").is_none());
                assert!(status["last"]["backends"][a.url()].is_object());
                if status["writes"]["divergences"] == 1 {
                    return status;
                }
            }
        };
        let status = soon("the divergence to be counted", counted).await;
        assert_eq!(status["process"]["viewers"], 1);
        assert_eq!(status_json(technical).await["events"], serde_json::json!([divergence]));
    });
}

#[test]
fn a_find_on_another_cluster_is_told_too() {
    run(async {
        let (old, new) = pair().await;
        let setup = Setup::new().cluster("old", &[&old]).cluster("new", &[&new]).with_technical_endpoint();
        let setup = setup.region(Region::new("r", &[("old", 0.0), ("new", 1.0)]).default_region());
        let gateway = setup.start().await;
        let mut events = Events::open(gateway.technical().await).await;
        // What comes before it is in it.
        events.next("whole").await;
        new.will(Behaviour::answers(404));
        old.will(Behaviour::answers(200));
        assert_eq!(gateway.get("/bucket/key").await.status, 200);
        let found = events.next("misplacement").await;
        assert_eq!(
            (&found["key"], &found["expected"], &found["actual"]),
            (&"/bucket/key".into(), &"new".into(), &"old".into())
        );
    });
}

#[test]
fn viewers_beyond_the_bound_are_refused_and_harm_nobody() {
    run(async {
        let backend = Misbehaving::start().await;
        let gateway = Gateway::over(&[&backend]).with_technical_endpoint().with_metrics().start().await;
        let technical = gateway.technical().await;
        let mut viewers = Vec::new();
        for _ in 0..16 {
            let mut viewer = Events::open(technical).await;
            viewer.next("whole").await;
            viewers.push(viewer);
        }
        let refused = request(technical, "GET", "/status/events", &[], b"").await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
        assert!(refused.text().contains("16 viewers"), "{}", refused.text());
        let metrics = gateway.scrape().await;
        assert_eq!(metrics.value("akubra_status_viewers", &[]), 16.0);
        assert_eq!(metrics.value("akubra_limit", &[("bound", "status_viewers")]), 16.0);
        // The endpoint does all else meanwhile.
        status_json(technical).await;
        let checked = request(
            technical,
            "POST",
            "/configuration/validate",
            &[("Content-Type", "application/yaml")],
            b"x: 1",
        );
        assert_eq!(checked.await.status, 400);
        // A viewer that has gone is noticed when it is told something.
        drop(viewers.pop());
        let again = async {
            while request(technical, "HEAD", "/status/events", &[], b"").await.status != 200 {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        soon("a place that was given back", again).await;
        viewers.last_mut().unwrap().next("status").await;
    });
}

#[test]
fn viewers_see_the_process_drain_and_end() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::AfterBody));
        let setup = Gateway::over(&[&a, &b]).with_technical_endpoint().set("ResponseHeaderTimeout", "1m");
        let mut gateway = setup.start().await;
        let mut events = Events::open(gateway.technical().await).await;
        assert_eq!(events.next("whole").await["process"]["draining"], false);
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        gateway.signal("TERM");
        let draining = async { while events.next("status").await["process"]["draining"] != true {} };
        soon("the drain to be told", draining).await;
        assert!(gateway.is_running());
        a.release();
        gateway.ended().await;
        events.0.closed().await;
    });
}

/// The one test with a browser: starting one costs more than what it looks at.
#[test]
fn a_browser_shows_it_keeps_it_up_to_date_and_runs_nothing_of_a_key() {
    run(async {
        let (a, b) = pair().await;
        let c = Misbehaving::start().await;
        let setup = Setup::new().cluster("testcluster", &[&a, &b]).cluster("away", &[&c]);
        let setup = setup.region(Region::new("testregion", &[("testcluster", 1.0)]).default_region());
        let setup = setup.region(Region::new("other", &[("away", 1.0)]).domain("other.test"));
        let setup = setup.set_yaml("MaintainedBackends", &format!("['{}']", c.url()));
        let gateway = setup.with_technical_endpoint().start().await;
        let technical = gateway.technical().await;
        let mut browser = Browser::open(&format!("http://{technical}/status")).await;
        browser.until("live numbers", "document.getElementById('link').textContent === 'Live'").await;
        let row = |backend: &Misbehaving, what: &str| {
            format!("document.querySelector('[data-backend=\"{}\"]'){what}", backend.url())
        };
        browser.until("the backends", &row(&c, "")).await;
        let state = row(&c, ".children[1].innerText");
        let text = browser.evaluate(&state).await.as_str().unwrap().to_owned();
        assert!(text.starts_with("maintenance") && text.contains("listed in MaintainedBackends"), "{text}");
        let text = browser.text().await;
        for shown in [
            "1 of 3 backends gets no requests",
            "serving",
            "Region testregion",
            "Cluster testcluster",
            "100 % of the ring",
        ] {
            assert!(text.contains(shown), "no {shown} in {text}");
        }

        // Requests, and one backend that begins to fail: the numbers change.
        let divergences = row(&b, ".children[9].textContent");
        assert_eq!(browser.evaluate(&divergences).await, "0");
        b.will(Behaviour::answers(503));
        assert_eq!(gateway.put(HOSTILE_TARGET, b"hello").await.status, 200);
        assert_eq!(gateway.put("/bucket/a%E2%80%AEb%0Ac", b"hello").await.status, 200);
        browser.until("the backend's numbers", &format!("{divergences} === '2'")).await;
        browser
            .until(
                "the error's cause",
                "document.getElementById('errors').innerText.includes('answered with 5xx')",
            )
            .await;
        browser.until("the answers", "document.getElementById('errors').innerText.includes('2xx 2')").await;

        // The key is text. What cannot be seen in the other one is spelled out.
        browser.until("both events", "document.querySelectorAll('#events li').length === 2").await;
        let keys = browser
            .evaluate("[...document.querySelectorAll('#events .object')].map((key) => key.textContent)")
            .await;
        assert_eq!(keys, serde_json::json!(["/bucket/a⟨U+202E⟩b⟨U+000A⟩c", format!("/bucket/{HOSTILE}")]));
        assert_eq!(browser.evaluate("document.scripts.length").await, 1);

        // From the keyboard: the second stop is the newest event, which Enter opens.
        browser.press("Tab").await;
        browser.press("Tab").await;
        assert_eq!(browser.evaluate("document.activeElement.tagName").await, "SUMMARY");
        browser.press("Enter").await;
        browser.until("the event's fields", "document.querySelector('#events details').open").await;

        // On a phone nothing is beside the page.
        browser.look(360, true).await;
        assert_eq!(browser.evaluate("document.documentElement.scrollWidth").await, 360);

        // Where there is no place for one more viewer, the page asks.
        let mut viewers = Vec::new();
        while viewers.len() < 15 {
            viewers.push(Events::open(technical).await);
        }
        browser.another_tab(&format!("http://{technical}/status")).await;
        browser.until("the backends", &row(&c, "")).await;
        let link = browser.evaluate("document.getElementById('link').textContent").await;
        assert_eq!(link, "No live updates, too many viewers perhaps: asking every 5 s");
        assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
    });
}

/// Not a test: pictures for who works on the page, of two regions in which much goes wrong.
#[test]
#[ignore = "makes pictures: AKUBRA_SCREENSHOTS=folder"]
fn screenshots() {
    let Some(folder) = std::env::var_os("AKUBRA_SCREENSHOTS").map(PathBuf::from) else { return };
    run_without_limit(async {
        let mut backends = Vec::new();
        for _ in 0..6 {
            backends.push(Misbehaving::start().await);
        }
        let [a, b, c, d, e, f] = [0, 1, 2, 3, 4, 5].map(|at| &backends[at]);
        let setup = Setup::new().cluster("pair", &[a, b]).cluster("large", &[c, d]).cluster("small", &[e, f]);
        let single = Region::new("single", &[("pair", 1.0)]).default_region();
        let sharded = Region::new("sharded", &[("large", 0.75), ("small", 0.25)]).domain("sharded.localhost");
        let setup = setup.region(single).region(sharded).with_technical_endpoint().logging("akubra=info");
        let gateway = setup.set_yaml("MaintainedBackends", &format!("['{}']", d.url())).start().await;
        let mut browser = Browser::open(&format!("http://{}/status", gateway.technical().await)).await;
        let traffic = async {
            for round in 0u64.. {
                let host = ("Host", if round % 3 == 0 { "sharded.localhost" } else { "a" });
                let key = format!("/bucket/photos/2026/{round}.jpg");
                gateway.request("PUT", &key, &[host], &noise(1 << (round % 17))).await;
                gateway.request("GET", &key, &[host], b"").await;
                if round % 40 == 7 {
                    b.will_once(Behaviour::answers(503));
                    gateway.put(&format!("/bucket/{}", "long%20key/".repeat(80)), b"x").await;
                    b.will_once(Behaviour::closes(Phase::AfterBody));
                    gateway.put(HOSTILE_TARGET, b"x").await;
                    b.will_once(Behaviour::answers(503));
                    gateway.put("/bucket/%E2%80%AEgpj.exe", b"x").await;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5 + 10 * (round / 100 % 4))).await;
            }
        };
        let pictures = async {
            let seconds = std::env::var("AKUBRA_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
            tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
            browser.evaluate("for (const one of [...document.querySelectorAll('#events details')].slice(1, 2)) one.open = true").await;
            for (width, dark) in [(1280, false), (1280, true), (360, false), (360, true), (768, false)] {
                browser.look(width, dark).await;
                let scheme = if dark { "dark" } else { "light" };
                browser.screenshot(&folder.join(format!("status-{width}-{scheme}.png"))).await;
            }
            assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
        };
        tokio::select! {
            () = traffic => {}
            () = pictures => {}
        }
    });
}
