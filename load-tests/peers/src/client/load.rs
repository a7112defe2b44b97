//! So many requests on so many connections, as fast as they are answered or at a rate; each is timed.
//!
//! The number of requests is what is given, not the time: CPU time per request then compares like with like.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::task::JoinSet;

use super::{Complaints, Failure, Target};

/// What came of it. Times are in microseconds, from the first byte sent to the last received.
#[derive(Debug, Serialize)]
pub struct Outcome {
    pub requests: usize,
    pub errors: usize,
    pub seconds: f64,
    pub p50: u32,
    pub p99: u32,
    pub longest: u32,
    pub complaints: Vec<String>,
}

struct Shared {
    target: Target,
    /// What makes the objects' names differ from those of other runs.
    name: String,
    requests: usize,
    /// When a request may begin: so long after the one before it.
    pace: Duration,
    start: Instant,
    begun: Cell<usize>,
    times: RefCell<Vec<u32>>,
    complaints: RefCell<Complaints>,
}

/// With a `rate` at most so many begin in a second. Needs a `LocalSet`.
pub async fn run(
    target: Target,
    name: &str,
    connections: usize,
    requests: usize,
    rate: Option<u32>,
) -> Outcome {
    let start = Instant::now();
    let shared = std::rc::Rc::new(Shared {
        target,
        name: name.to_owned(),
        requests,
        pace: rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.max(1)),
        start,
        begun: Cell::new(0),
        times: RefCell::new(Vec::with_capacity(requests)),
        complaints: RefCell::default(),
    });
    let mut tasks = JoinSet::new();
    for _ in 0..connections.min(requests) {
        let shared = shared.clone();
        tasks.spawn_local(async move { shared.work().await });
    }
    while tasks.join_next().await.is_some() {}
    let seconds = start.elapsed().as_secs_f64();
    let mut times = shared.times.take();
    times.sort_unstable();
    Outcome {
        requests,
        errors: requests - times.len(),
        seconds,
        p50: quantile(&times, 0.5),
        p99: quantile(&times, 0.99),
        longest: quantile(&times, 1.0),
        complaints: shared.complaints.borrow().shown().to_vec(),
    }
}

impl Shared {
    async fn work(&self) {
        let mut kept = None;
        while self.begun.get() < self.requests {
            let number = self.begun.replace(self.begun.get() + 1);
            let path = self.target.path(format_args!("{}-{number}", self.name));
            let due = self.start + self.pace.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX));
            if due > Instant::now() {
                tokio::time::sleep_until(due.into()).await;
            }
            let start = Instant::now();
            let exchange = async {
                let mut connection = match kept.take() {
                    Some(connection) => connection,
                    None => self.target.connect().await.map_err(Failure::before)?,
                };
                let again = self.target.exchange(&mut connection, &path).await?;
                Ok(again.then_some(connection))
            };
            match exchange.await {
                Ok(connection) => {
                    kept = connection;
                    let took = u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX);
                    self.times.borrow_mut().push(took);
                }
                Err(failure) => self.complaints.borrow_mut().add(&path, &failure),
            }
        }
    }
}

/// The smallest time that this share of all times does not exceed.
fn quantile(sorted: &[u32], share: f64) -> u32 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn a_quantile_is_the_nearest_rank() {
        let times: Vec<u32> = (1..=200).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|share| quantile(&times, share)), [100, 198, 200]);
        assert_eq!(quantile(&[7], 0.5), 7);
        assert_eq!(quantile(&[], 0.99), 0);
    }
}
