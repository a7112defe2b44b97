//! Under paused time: what is known when, and what a failing name server does.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::time::{Instant, advance};

use super::*;

/// Answers from a list, then the last again; `None` never answers.
struct Script {
    answers: Mutex<VecDeque<Option<io::Result<Vec<SocketAddr>>>>>,
    asked: AtomicUsize,
}

fn fail() -> Option<io::Result<Vec<SocketAddr>>> {
    Some(Err(io::Error::other("no such name")))
}

fn found(addrs: &[&str]) -> Option<io::Result<Vec<SocketAddr>>> {
    Some(Ok(addrs.iter().map(|addr| addr.parse().unwrap()).collect()))
}

#[async_trait]
impl Lookup for Script {
    async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        assert_eq!((host, port), ("storage", 9000));
        self.asked.fetch_add(1, Ordering::SeqCst);
        let next = {
            let mut answers = self.answers.lock().unwrap();
            answers.pop_front().unwrap_or_else(fail)
        };
        match next {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

fn backend(id: BackendId, host: &str) -> Arc<Backend> {
    Arc::new(Backend {
        id,
        url: format!("http://{host}:9000"),
        host: host.into(),
        port: 9000,
        maintained: false,
    })
}

fn start(
    answers: impl IntoIterator<Item = Option<io::Result<Vec<SocketAddr>>>>,
) -> (Arc<Resolver>, Arc<Script>) {
    let script =
        Arc::new(Script { answers: Mutex::new(answers.into_iter().collect()), asked: AtomicUsize::new(0) });
    let resolver = Arc::new(Resolver::with_lookup(&[backend(0, "storage")], script.clone()));
    resolver.start();
    (resolver, script)
}

fn known(resolver: &Resolver) -> Vec<String> {
    resolver.addrs(0).iter().map(SocketAddr::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn addresses_in_urls_need_no_lookup() {
    let backends = [backend(0, "127.0.0.1"), backend(1, "::1"), backend(2, "[::1]")];
    let resolver = Arc::new(Resolver::new(&backends));
    assert_eq!(known(&resolver), ["127.0.0.1:9000"]);
    for id in [1, 2] {
        assert_eq!(resolver.addrs(id).to_vec(), ["[::1]:9000".parse().unwrap()]);
    }
    assert!(resolver.addrs(3).is_empty());
    resolver.looked_up_once().await;
}

#[tokio::test(start_paused = true)]
async fn names_that_come_later_are_resolved_and_those_that_went_are_not() {
    let (resolver, script) = start([found(&["10.0.0.1:9000"])]);
    resolver.looked_up_once().await;
    resolver.hold(&[backend(1, "storage")]);
    assert!(resolver.addrs(0).is_empty() && !resolver.knows(1));
    resolver.start();
    sleep(RETRY.0).await;
    let asked = script.asked.load(Ordering::SeqCst);
    assert!(asked > 1, "the new one is asked for");
    resolver.hold(&[]);
    resolver.looked_up_once().await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(script.asked.load(Ordering::SeqCst), asked);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_resolved_in_the_background_and_refreshed() {
    let (resolver, script) = start([found(&["10.0.0.1:9000"]), found(&["10.0.0.2:9000", "10.0.0.1:9000"])]);
    assert!(resolver.addrs(0).is_empty());
    resolver.looked_up_once().await;
    assert_eq!(known(&resolver), ["10.0.0.1:9000"]);
    advance(REFRESH - Duration::from_millis(10)).await;
    assert_eq!(script.asked.load(Ordering::SeqCst), 1);
    sleep(Duration::from_millis(20)).await;
    assert_eq!(known(&resolver), ["10.0.0.2:9000", "10.0.0.1:9000"]);
}

#[tokio::test(start_paused = true)]
async fn the_last_good_addresses_outlive_a_failing_name_server() {
    let (resolver, script) = start([found(&["10.0.0.1:9000"]), None, found(&[]), fail()]);
    sleep(Duration::from_secs(600)).await;
    assert!(script.asked.load(Ordering::SeqCst) > 10);
    assert_eq!(known(&resolver), ["10.0.0.1:9000"]);
}

#[tokio::test(start_paused = true)]
async fn a_lookup_without_an_answer_ends_at_its_deadline() {
    let (resolver, _script) = start([None, found(&["10.0.0.1:9000"])]);
    let began = Instant::now();
    resolver.looked_up_once().await;
    assert!(began.elapsed() < LOOKUP_DEADLINE + Duration::from_millis(10));
    assert!(resolver.addrs(0).is_empty());
    sleep(RETRY.0 + Duration::from_millis(10)).await;
    assert_eq!(known(&resolver), ["10.0.0.1:9000"]);
}

#[test]
fn pauses_grow_from_one_second_to_thirty() {
    for (failures, shortest, longest) in
        [(0, 1.0, 1.0), (1, 1.0, 1.0), (2, 1.0, 2.0), (3, 2.0, 4.0), (6, 15.0, 30.0), (u32::MAX, 15.0, 30.0)]
    {
        for _ in 0..100 {
            let pause = retry_pause(failures).as_secs_f64();
            assert!((shortest..=longest).contains(&pause), "{failures}: {pause}");
        }
    }
}

#[tokio::test]
async fn the_system_knows_localhost() {
    let addrs = SystemLookup.lookup("localhost", 80).await.unwrap();
    assert!(addrs.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 80), "{addrs:?}");
}
