//! How soon a sick backend is out of use, and what it costs while it is.

use super::*;

/// From one request to the next: 100 in a second.
const PACE: Duration = Duration::from_millis(10);
const ROUNDS: usize = 5;

pub async fn a_backend_that_refuses(sheet: Arc<Sheet>) {
    for method in ["PUT", "GET"] {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let (a, b) = pair().await;
            let gateway = by_default(&[&a, &b]).start().await;
            assert_eq!(gateway.put("/bucket/key", b"x").await.status, 200);
            a.wait_for_object("/bucket/key").await;
            let clients = at_a_pace(&gateway, method);
            tokio::time::sleep(50 * PACE).await;
            a.refuse().await;
            let start = Instant::now();
            ejected(&gateway).await;
            times.push(start.elapsed());
            clients.abort();
        }
        let times = Times::of(times);
        let measured = format!("median {:.0?}, longest {:.0?}", times.median, times.longest);
        let what = format!("a backend refuses at 100 {method}s a second: out of use after");
        sheet.figure(&what, measured, "1 s", times.longest < Duration::from_secs(1));
    }
}

pub async fn a_backend_that_hangs(sheet: Arc<Sheet>) {
    const INTERVAL: Duration = Duration::from_secs(1);
    const WATCHED: Duration = Duration::from_secs(15);
    let (a, b) = pair().await;
    let setup = by_default(&[&a, &b]).set_yaml("Ejection", "{Time: 1s, MaxTime: 2s}");
    let gateway = setup.set_yaml("HealthCheck", "{Interval: 1s, Path: /check}").start().await;
    let clients = at_a_pace(&gateway, "PUT");
    tokio::time::sleep(50 * PACE).await;
    a.will(Behaviour::hangs(Phase::AfterHead));
    let start = Instant::now();
    ejected(&gateway).await;
    sheet.note("a backend hangs at 100 PUTs a second: out of use after", format!("{:.1?}", start.elapsed()));
    // What was on its way when it was taken out has come by then.
    tokio::time::sleep(20 * PACE).await;
    let before = a.requests().len();
    tokio::time::sleep(WATCHED).await;
    let requests = a.requests();
    clients.abort();
    let checks = requests[before..].iter().filter(|request| request.target == "/check").count();
    let others = requests.len() - before - checks;
    let most = (WATCHED.as_secs() / INTERVAL.as_secs()) as usize;
    let measured = format!("{checks} checks and {others} requests of clients in {WATCHED:.0?}");
    let limit = format!("{most}, one for each Interval, and 0");
    sheet.figure("  what it got while it was out", measured, limit, checks <= most && others == 0);
}

/// As a gateway is without any key about health.
fn by_default(backends: &[&dyn Endpoint]) -> Setup {
    let setup = Gateway::over(backends).logging(LOGGING);
    setup.set_yaml("HealthCheck", "{}").set_yaml("Ejection", "{}")
}

/// A client that begins a request at every beat, whether the last one has its answer or not.
fn at_a_pace(gateway: &Gateway, method: &'static str) -> tokio::task::JoinHandle<()> {
    let address = gateway.address();
    tokio::spawn(async move {
        let mut beat = tokio::time::interval(PACE);
        let mut requests = tokio::task::JoinSet::new();
        for number in 0.. {
            beat.tick().await;
            let target = if method == "GET" { "/bucket/key".to_owned() } else { format!("/bucket/{number}") };
            requests.spawn(async move {
                let body: &[u8] = if method == "GET" { b"" } else { b"x" };
                assert_eq!(request(address, method, &target, &[], body).await.status, 200);
            });
            while requests.try_join_next().is_some() {}
        }
    })
}

async fn ejected(gateway: &Gateway) {
    let deadline = Instant::now() + DEADLINE;
    while !gateway.stderr().contains(": ejected for") {
        assert!(Instant::now() < deadline, "it is not ejected");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
