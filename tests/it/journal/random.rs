//! Random calls, the same to two engines: whatever these are, they answer alike.

use akubra::journal::{
    Case, Change, Filter, Known, Later, Lease, Mark, News, Object, Record, Said, Standing, Wanted, What,
    WriteId,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::bench::*;
use crate::fixture::*;

/// Two engines, and what the test knows of them.
struct Pair<'a> {
    benches: [Bench<'a>; 2],
    random: StdRng,
    gateways: Vec<i64>,
    next: i64,
    leases: Vec<[Lease; 2]>,
    marks: [Mark; 2],
    /// Their clocks are not the same.
    is_loose: bool,
}

/// What both must say of an object: not by turns, since each engine has numbers of its own, but by what follows from
/// them.
fn told(mut case: Case, is_loose: bool) -> (Case, Vec<WriteId>) {
    let (unseen, records) = (case.unseen, case.records.iter());
    let over = records.filter(|record| unseen.is_some_and(|unseen| unseen.may_be_over(record)));
    let over = over.map(Record::id).collect();
    case.unseen = None;
    clear_turns(&mut case.records);
    if is_loose {
        (case.since, case.due) = (0, 0);
        case.records.iter_mut().for_each(|record| record.ended = 0);
    }
    (case, over)
}

impl Pair<'_> {
    fn object(&mut self) -> Object {
        object(&format!("key-{}", self.random.gen_range(0..4)))
    }

    fn changes(&mut self) -> Vec<Change> {
        let count = self.random.gen_range(1..4);
        (0..count).map(|_| self.change()).collect()
    }

    fn change(&mut self) -> Change {
        let object = self.object();
        let gateway = *self.gateways.choose(&mut self.random).unwrap();
        // A new write, or one of the last; mostly of one object.
        self.next += 1;
        let id = id(gateway, self.next - self.random.gen_range(0..6));
        let is_usual = self.random.gen_bool(0.8);
        let object = if is_usual { self::object(&format!("key-{}", id.number % 4)) } else { object };
        match self.random.gen_range(0..7) {
            0..3 => begin(id, &object),
            3 => settled(id, &object),
            4 => Change::Diverged(record(id, &object, Said::NotApplied)),
            5 => uncertain(id, &object),
            6 if self.random.gen_bool(0.5) => misplaced(id, &object),
            _ => Change::Void(id),
        }
    }

    async fn both<T: PartialEq + std::fmt::Debug>(&self, call: impl AsyncFn(&Bench<'_>, usize) -> T) -> T {
        let first = call(&self.benches[0], 0).await;
        assert_eq!(first, call(&self.benches[1], 1).await);
        first
    }

    async fn step(&mut self) {
        let object = self.object();
        match self.random.gen_range(0..20) {
            0..8 => {
                let changes = self.changes();
                self.both(async |bench, _| bench.apply(changes.clone()).await).await;
            }
            8..11 => self.lease().await,
            11 => {
                let pass = [HOLD / 2, SETTLE, HOLD + SETTLE].choose(&mut self.random).copied().unwrap();
                self.both(async |bench, _| bench.pass(pass).await).await;
            }
            12..16 => self.end_a_lease().await,
            16 => {
                let gateway = self.both(async |bench, _| bench.journal.enrol("host").await).await.unwrap();
                self.gateways.push(gateway);
            }
            17 => {
                let gateway = *self.gateways.choose(&mut self.random).unwrap();
                match self.random.gen_range(0..3) {
                    0 => self
                        .both(async |bench, _| bench.journal.leave(&host(gateway), SETTLE).await)
                        .await
                        .unwrap(),
                    1 => drop(
                        self.both(async |bench, _| bench.journal.alive(&host(gateway)).await).await.unwrap(),
                    ),
                    _ => drop(
                        self.both(async |bench, _| bench.journal.adopt(HOLD, SETTLE).await).await.unwrap(),
                    ),
                }
            }
            18 => drop(self.both(async |bench, _| bench.journal.retry(&object).await).await.unwrap()),
            _ => drop(
                self.both(async |bench, _| bench.journal.drop_object(&object, "why").await).await.unwrap(),
            ),
        }
        self.compare().await;
    }

    async fn lease(&mut self) {
        let wanted = if self.random.gen_bool(0.5) { Wanted::Diverged } else { Wanted::Misplaced };
        let most = if self.is_loose { 100 } else { self.random.gen_range(1..4) };
        let mut leases: Vec<Vec<(Lease, Case)>> = Vec::new();
        for bench in &self.benches {
            let mut leased = bench.lease_some(wanted, most).await;
            if self.is_loose {
                leased.sort_by(|a, b| a.0.object.cmp(&b.0.object));
            }
            leases.push(leased);
        }
        let told_by = |leases: &[(Lease, Case)]| -> Vec<_> {
            leases.iter().map(|(_, case)| told(case.clone(), self.is_loose)).collect()
        };
        assert_eq!(told_by(&leases[0]), told_by(&leases[1]));
        let second = leases.pop().unwrap();
        let pairs = leases.remove(0).into_iter().zip(second);
        self.leases.extend(pairs.map(|(first, second)| [first.0, second.0]));
    }

    async fn end_a_lease(&mut self) {
        if self.leases.is_empty() {
            return;
        }
        let at = self.random.gen_range(0..self.leases.len());
        let leases = self.leases[at].clone();
        let case = self.benches[0].case(&leases[0].object).await;
        let mut seen: Vec<_> =
            case.map_or(Vec::new(), |case| case.records.iter().map(akubra::journal::Record::id).collect());
        if self.random.gen_bool(0.2) {
            seen.pop();
        }
        let sighted = self.benches[0].case(&leases[0].object).await.filter(|_| self.random.gen_bool(0.5));
        let sightings = sighted.into_iter().flat_map(|case| case.records);
        let sightings =
            sightings.filter(|record| matches!(record.intent.what, akubra::journal::What::Misplaced(_)));
        let sightings: Vec<_> = sightings.map(|record| record.id()).collect();
        let [failed, calm, unseen] = [0.5, 0.5, 0.3].map(|chance| self.random.gen_bool(chance));
        match self.random.gen_range(0..5) {
            0 | 1 => {
                let resolve = async |bench: &Bench<'_>, at: usize| {
                    bench.journal.resolve(&leases[at], &seen, &sightings).await
                };
                self.both(resolve).await.unwrap();
            }
            2 => {
                let postpone = async |bench: &Bench<'_>, at: usize| {
                    bench
                        .journal
                        .postpone(&leases[at], Later { pause: HOLD, failed, calm, unseen }, "why")
                        .await
                };
                self.both(postpone).await.unwrap();
            }
            3 => {
                let standing = if failed { Standing::Dead } else { Standing::Parked };
                let set_aside = async |bench: &Bench<'_>, at: usize| {
                    bench.journal.set_aside(&leases[at], standing, None, &seen, "why").await
                };
                self.both(set_aside).await.unwrap();
            }
            _ => {
                let renew =
                    async |bench: &Bench<'_>, at: usize| bench.journal.renew(&leases[at], HOLD, SETTLE).await;
                self.both(renew).await.unwrap();
            }
        }
    }

    /// All that there is, and what is new.
    async fn compare(&mut self) {
        let is_loose = self.is_loose;
        let all = async |bench: &Bench<'_>, _| {
            let listed = bench.journal.list(&Filter::default(), None, 100).await.unwrap();
            let mut counts = bench.journal.counts().await.unwrap();
            counts.oldest = counts.oldest.filter(|_| !is_loose);
            (listed.into_iter().map(|case| told(case, is_loose)).collect::<Vec<_>>(), counts)
        };
        let (listed, counts) = self.both(all).await;
        let count = |standing| listed.iter().filter(|(case, _)| case.standing == standing).count() as u64;
        let counted = [Standing::Open, Standing::Parked, Standing::Dead].map(count);
        assert_eq!([counts.open, counts.parked, counts.dead], counted);
        let mut news = Vec::new();
        for (bench, mark) in self.benches.iter().zip(&mut self.marks) {
            let News::Changed(mut changed, next) =
                bench.journal.news(*mark, std::time::Duration::ZERO).await.unwrap()
            else {
                panic!("all is asked for");
            };
            changed.sort_by(|a, b| a.0.cmp(&b.0));
            *mark = next;
            // By what they do with it: their clocks need not be the same.
            let told = |known: Known| {
                let lags = ["http://a:80", "http://b:80"].map(|backend| known.lags(backend));
                (lags, [What::Seen, What::Misplaced(String::new())].map(|what| known.says(&what)))
            };
            let changed = changed.into_iter().map(|(object, known)| (object, known.map(told)));
            news.push(changed.collect::<Vec<_>>());
        }
        assert_eq!(news[0], news[1]);
    }
}

async fn compare(benches: [Bench<'_>; 2], seed: u64, steps: usize, is_loose: bool) {
    println!("seed {seed}");
    let mut pair = Pair {
        benches,
        random: StdRng::seed_from_u64(seed),
        gateways: vec![77],
        next: 0,
        leases: Vec::new(),
        marks: [Mark::default(); 2],
        is_loose,
    };
    for _ in 0..steps {
        pair.step().await;
    }
}

#[test]
fn memory_and_sqlite_answer_alike() {
    run(async {
        for seed in 0..8 {
            compare([Engine::Memory.empty().await, Engine::Sqlite.empty().await], seed, 150, false).await;
        }
    });
}

#[test]
fn memory_and_postgres_answer_alike() {
    run(async {
        let engine = Engine::postgres().await;
        for seed in 0..3 {
            compare([Engine::Memory.empty().await, engine.empty().await], seed, 120, true).await;
        }
    });
}
