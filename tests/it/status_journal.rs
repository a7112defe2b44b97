//! The journal on the status page: what waits to be repaired, of which backend, and what a human decides there.

use std::{net::SocketAddr, path::Path, time::Duration};

use akubra::journal::{Journal, Sqlite, Standing, Wanted};
use serde_json::{Value, json};

use crate::fixture::*;

const JOURNAL: &str = "state/journal.sqlite";
const TOKEN: &str = "a-token-for-tests";
/// What a worker heard of a backend, and a key that a client chose.
const HOSTILE: &str = "<script>alert(1)</script>";
const HOSTILE_TARGET: &str = "/bucket/%3Cscript%3Ealert(1)%3C%2Fscript%3E%27;x";
const HOSTILE_PATH: &str = "/bucket/%3Cscript%3Ealert%281%29%3C/script%3E%27%3Bx";

fn operated(backends: &[&dyn Endpoint]) -> Setup {
    let setup = Gateway::over(backends).set_yaml("Journal", "{}");
    setup.with_technical_endpoint().with_metrics().set("TechnicalEndpointToken", TOKEN)
}

async fn journal(technical: SocketAddr) -> Value {
    status_json(technical).await["journal"].take()
}

async fn journal_until(technical: SocketAddr, what: &str, so: impl Fn(&Value) -> bool) -> Value {
    status_until(technical, what, |status| so(&status["journal"])).await["journal"].take()
}

/// A worker that leases all that is due, and sets it aside.
async fn park(file: &Path, count: usize, standing: Standing) {
    let journal = Sqlite::open(file).unwrap();
    let (hold, settle) = (Duration::from_secs(60), Duration::ZERO);
    let leased = async {
        let mut done = 0;
        while done < count {
            for (lease, case) in journal.lease("w", Wanted::Diverged, 100, hold, settle).await.unwrap() {
                let seen: Vec<_> = case.records.iter().map(|record| record.id()).collect();
                journal
                    .set_aside(&lease, standing, None, &seen, &format!("because {HOSTILE}\n"))
                    .await
                    .unwrap();
                done += 1;
            }
        }
    };
    soon("the objects to be due", leased).await;
}

/// A gateway with two objects that the second backend has missed, and that are set aside.
async fn with_two(a: &Misbehaving, b: &Misbehaving, standing: Standing) -> Gateway {
    let gateway = operated(&[a, b]).start().await;
    b.will(Behaviour::answers(503));
    for target in [HOSTILE_TARGET, "/bucket/other"] {
        assert_eq!(gateway.put(target, b"hello").await.status, 200);
    }
    park(&gateway.log_file(JOURNAL), 2, standing).await;
    gateway
}

async fn decide(technical: SocketAddr, token: &str, decision: &Value) -> Reply {
    let token = format!("Bearer {token}");
    request(technical, "POST", "/journal", &[("Authorization", &token)], decision.to_string().as_bytes())
        .await
}

#[test]
fn a_gateway_without_a_journal_has_none_to_show() {
    run(async {
        let backend = Misbehaving::start().await;
        let gateway = Gateway::over(&[&backend]).with_technical_endpoint().start().await;
        let technical = gateway.technical().await;
        assert_eq!(journal(technical).await, Value::Null);
        assert_eq!(request(technical, "POST", "/journal", &[], b"{}").await.status, 404);
    });
}

#[test]
fn the_json_says_what_waits_of_which_backend_and_the_metrics_do() {
    run(async {
        let (a, b) = pair().await;
        let gateway = operated(&[&a, &b]).start().await;
        let technical = gateway.technical().await;
        let empty = journal_until(technical, "a look", |journal| !journal["looked"].is_null()).await;
        assert_eq!(
            (&empty["open"], &empty["oldest_seconds"], &empty["aside"]),
            (&json!(0), &Value::Null, &json!([]))
        );
        assert_eq!((&empty["available"], &empty["trouble"]), (&json!(true), &json!("")));
        assert_eq!((&empty["waiting_most"], &empty["remembered_most"]), (&json!(65536), &json!(100_000)));
        b.will(Behaviour::answers(503));
        for number in 0..3 {
            assert_eq!(gateway.put(&format!("/bucket/{number}"), b"hello").await.status, 200);
        }
        let behind = journal_until(technical, "three objects", |journal| journal["open"] == 3).await;
        let expected = json!([{"backend": a.url(), "open": 0}, {"backend": b.url(), "open": 3}]);
        assert_eq!((&behind["behind"], &behind["sampled"]), (&expected, &Value::Null));
        assert!(behind["oldest_seconds"].is_number() && behind["window_seconds"] == 60, "{behind}");
        // Nobody repairs: it does not drain.
        let paced =
            journal_until(technical, "a pace", |journal| journal["new_per_second"].as_f64() > Some(0.0));
        assert_eq!(paced.await["seconds_to_drain"], Value::Null);
        journal_until(technical, "the memory", |journal| journal["remembered"] == 3).await;
        let metrics = gateway.scrape().await;
        assert_eq!(metrics.value("akubra_journal_behind_objects", &[("backend", &b.url())]), 3.0);
        assert_eq!(metrics.value("akubra_journal_behind_objects", &[("backend", &a.url())]), 0.0);
        assert_eq!(metrics.value("akubra_journal_objects", &[("standing", "open")]), 3.0);
    });
}

#[test]
fn what_is_parked_is_shown_and_decided_with_the_token_only() {
    run(async {
        let (a, b) = pair().await;
        let gateway = with_two(&a, &b, Standing::Parked).await;
        let technical = gateway.technical().await;
        let parked = journal_until(technical, "what is parked", |journal| journal["parked"] == 2).await;
        let aside = parked["aside"].as_array().unwrap();
        let one = aside.iter().find(|one| one["path"] == HOSTILE_PATH).unwrap();
        assert_eq!((&one["cluster"], &one["standing"]), (&json!("testcluster"), &json!("parked")));
        assert_eq!(one["reason"], format!("because {HOSTILE}\n"));
        let conf = gateway.log_file("akubra.yaml");
        assert_eq!(parked["command"], format!("akubra journal -c {}", conf.display()));

        let decision = |action: &str, path: &str| json!({"cluster": "testcluster", "path": path, "action": action, "reason": "is right\u{1b}[2J"});
        let retry = decision("retry", "/bucket/other");
        assert_eq!(
            request(technical, "POST", "/journal", &[], retry.to_string().as_bytes()).await.status,
            401
        );
        assert_eq!(decide(technical, "wrong", &retry).await.status, 401);
        assert_eq!(decide(technical, TOKEN, &json!({})).await.status, 400);
        assert_eq!(decide(technical, TOKEN, &decision("retry", "/bucket/none")).await.status, 404);
        assert_eq!(journal(technical).await["parked"], 2);

        assert_eq!(decide(technical, TOKEN, &retry).await.status, 200);
        let opened = journal_until(technical, "it to be open", |journal| journal["open"] == 1).await;
        assert_eq!(opened["parked"], 1);
        assert_eq!(decide(technical, TOKEN, &decision("drop", HOSTILE_PATH)).await.status, 200);
        journal_until(technical, "it to be gone", |journal| journal["parked"] == 0).await;
        gateway.wait_for_log("is forgotten, by the technical endpoint: is right\\u{1b}[2J").await;

        // One that is being repaired is not dropped.
        let journal = Sqlite::open(&gateway.log_file(JOURNAL)).unwrap();
        let leased =
            journal.lease("w", Wanted::Diverged, 1, Duration::from_secs(60), Duration::ZERO).await.unwrap();
        assert_eq!(leased.len(), 1);
        assert_eq!(decide(technical, TOKEN, &decision("drop", "/bucket/other")).await.status, 409);
    });
}

#[test]
fn a_browser_shows_the_journal_and_decides_in_it() {
    run(async {
        let (a, b) = pair().await;
        let gateway = with_two(&a, &b, Standing::Dead).await;
        let technical = gateway.technical().await;
        assert_eq!(gateway.put("/bucket/open", b"hello").await.status, 200);
        let mut browser = Browser::open(&format!("http://{technical}/status")).await;
        let tile =
            |at: usize| format!("(document.querySelectorAll('#journal-tiles li')[{at}]?.innerText ?? '')");
        browser.until("an open object", &format!("{}.startsWith('To be repaired\\n1\\n')", tile(0))).await;
        browser.until("the dead ones", &format!("{}.includes('0 parked, 2 dead')", tile(3))).await;
        let behind =
            format!("document.querySelector('[data-behind=\"{}\"]').children[1].textContent", b.url());
        assert_eq!(browser.evaluate(&behind).await, "1");
        let text = browser.text().await;
        for shown in
            ["Journal of what is to be repaired", "Parked and dead objects", "All of them, newest first"]
        {
            assert!(text.contains(shown), "no {shown} in {text}");
        }
        // Key and reason are text, and the command is one that a shell takes as it is meant.
        let name = format!("testcluster:{HOSTILE_PATH}");
        let row = format!("document.querySelector('[data-aside=\"{name}\"]')");
        browser.evaluate(&format!("{row}.querySelector('details').open = true")).await;
        let text = browser.evaluate(&format!("{row}.innerText")).await.as_str().unwrap().to_owned();
        assert!(text.contains(&format!("because {HOSTILE}⟨U+000A⟩")), "{text}");
        let command = format!("retry --cluster=testcluster {HOSTILE_PATH}");
        assert!(text.contains(&command), "{text}");
        assert_eq!(browser.evaluate("document.scripts.length").await, 1);

        // Without the token nothing is done, and without a reason nothing is forgotten.
        let press = |at: usize| format!("{row}.querySelectorAll('button')[{at}].click()");
        let said = "document.getElementById('decided').textContent";
        browser.evaluate(&press(1)).await;
        browser.until("a refusal", &format!("{said}.includes('Give the token')")).await;
        browser.evaluate(&format!("document.getElementById('token').value = '{TOKEN}'")).await;
        browser.evaluate(&press(1)).await;
        browser.until("a question", &format!("{said}.includes('the reason is empty')")).await;
        browser.evaluate(&format!("{row}.querySelector('input').value = 'it is right'")).await;
        browser.evaluate(&press(1)).await;
        browser.until("the answer", &format!("{said}.includes('It is forgotten')")).await;
        browser.until("it to go", &format!("!{row}")).await;
        browser.until("the other to stay", "document.querySelectorAll('#aside li').length === 1").await;
        assert!(browser.evaluate(said).await.as_str().unwrap().starts_with(&name));

        browser.look(360, true).await;
        assert_eq!(browser.evaluate("document.documentElement.scrollWidth").await, 360);
        assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
    });
}
