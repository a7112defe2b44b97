//! One run: kills under traffic, then repair, then the comparison.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::{sync::watch, time::Instant};

use super::{
    NO_ROOT,
    client::{Deeds, Door, ORIGINALS, Reads, World, client, original},
    doubt::{Case, excuse},
    history::{History, Order, Through, Write, excerpt},
    scenery::{Worker, counts, journal, over, trouble},
    summary,
};
use crate::fixture::{Gateway, Misbehaving, Object, Postgres, Received, SmallDisk};

const CLIENTS: usize = 8;
/// For everything to be repaired once nothing fails any more: gateways that died are found dead after a minute.
const REPAIRED_WITHIN: Duration = Duration::from_secs(240);

pub struct Plan {
    pub name: &'static str,
    /// Gateways that serve at the same time, each with a worker beside it.
    pub places: usize,
    pub journal: String,
    pub postgres: Option<Postgres>,
    /// That the journal is on, where whoever runs this may have one.
    pub disk: Option<SmallDisk>,
}

/// What was done to the processes.
#[derive(Debug, Default)]
struct Tally {
    gateways: usize,
    workers: usize,
    takeovers: usize,
    full_disks: usize,
    restarts: usize,
}

/// Where a gateway and its worker are.
struct Place {
    number: usize,
    gateway: Gateway,
    worker: Worker,
    door: watch::Sender<Door>,
}

/// Numbers of processes.
static PROCESSES: AtomicU64 = AtomicU64::new(0);

fn door(place: usize, gateway: &Gateway) -> Door {
    let process = PROCESSES.fetch_add(1, Relaxed);
    Door { address: gateway.address(), through: Through { place, process } }
}

impl Place {
    async fn start(number: usize, backends: &[Misbehaving], journal: &str) -> Place {
        let gateway = over(backends, journal).start().await;
        let worker = Worker::start(&gateway);
        let door = watch::Sender::new(door(number, &gateway));
        Place { number, gateway, worker, door }
    }

    fn process(&self) -> u64 {
        self.door.borrow().through.process
    }

    async fn kill_gateway(&mut self, order: &mut Order) {
        let killed = self.process();
        self.gateway.signal("KILL");
        self.gateway.exit_status().await;
        self.gateway = self.gateway.again().await;
        self.door.send_replace(door(self.number, &self.gateway));
        order.killed.insert(killed, Instant::now());
    }

    /// In the middle of which the old process dies.
    async fn hand_over(&mut self, order: &mut Order) {
        let old = self.process();
        // A client that comes now may get either of the two.
        self.door.send_replace(door(self.number, &self.gateway));
        let either = self.process();
        let successor = self.gateway.hand_over().await;
        self.gateway.signal("KILL");
        self.gateway.exit_status().await;
        self.gateway = successor;
        self.door.send_replace(door(self.number, &self.gateway));
        order.killed.extend([(old, Instant::now()), (either, Instant::now())]);
    }

    fn kill_worker(&mut self) {
        self.worker.kill();
        self.worker = Worker::start(&self.gateway);
    }
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

pub async fn survives(mut plan: Plan) {
    let (kills, seed) = (from_environment("AKUBRA_KILLS", 200), from_environment("AKUBRA_SEED", 1));
    let title = format!("{}, seed {seed}, {kills} kills, {} build", plan.name, summary::profile());
    summary::begin(plan.name, &title);
    let backends = backends().await;
    let mut places = Vec::new();
    for number in 0..plan.places {
        places.push(Place::start(number, &backends, &plan.journal).await);
    }
    let (writing, sick) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
    let doors = places.iter().map(|place| place.door.subscribe()).collect();
    let world = World { doors, writing: writing.clone(), sickness: Arc::default(), seed };
    let clients: Vec<_> = (0..CLIENTS).map(|name| tokio::spawn(client(name, world.clone()))).collect();
    let troubled = tokio::spawn(trouble(backends.clone(), sick.clone(), world.sickness.clone(), seed));
    let mut order = Order::default();
    let tally = kill(&mut plan, &mut places, &mut order, kills, seed).await;
    writing.store(false, Relaxed);
    let mut deeds = Deeds::default();
    for client in clients {
        let Deeds { histories, reads } = client.await.unwrap();
        deeds.histories.extend(histories);
        deeds.reads.add(reads);
    }
    sick.store(false, Relaxed);
    troubled.await.unwrap();
    let counted = wait_for_repair(&places[0].gateway).await;
    places.iter_mut().for_each(|place| place.worker.kill());
    let left = left_to_a_human(&places[0].gateway);
    let wrong = wrong(&deeds, &left, &order, &backends);
    let is_right = wrong.is_empty();
    summary::say(plan.name, told(&title, &plan, &tally, &deeds, &left, &wrong));
    for case in &left {
        let history = deeds.histories.get(&case.path).map(History::told);
        println!("left to a human: {case:?}\nits client knows of {history:#?}");
    }
    assert!(is_right, "seed {seed}, {counted}:\n{}", wrong.join("\n"));
    for mut place in places {
        // Its logs may have lines that end where a process before it was killed.
        place.gateway.signal("TERM");
        assert_eq!(place.gateway.exit_status().await.code(), Some(0));
    }
}

async fn backends() -> Arc<Vec<Misbehaving>> {
    let mut backends = Vec::new();
    for _ in 0..3 {
        let backend = Misbehaving::start().await;
        backend.is_whole();
        backend.forgets();
        for (path, version) in (0..CLIENTS).flat_map(|name| (0..ORIGINALS).map(move |at| original(name, at)))
        {
            backend.holds(&path, version.bytes());
        }
        backends.push(backend);
    }
    Arc::new(backends)
}

/// All the kills, and what else happens in between.
async fn kill(plan: &mut Plan, places: &mut [Place], order: &mut Order, kills: u64, seed: u64) -> Tally {
    const WHILE: Duration = Duration::from_millis(500);
    let (mut random, mut tally) = (StdRng::seed_from_u64(seed), Tally::default());
    for kill in 0..kills {
        tokio::time::sleep(Duration::from_millis(random.gen_range(20..700))).await;
        let at = random.gen_range(0..places.len());
        let place = &mut places[at];
        if kill % 50 == 8 {
            place.hand_over(order).await;
            tally.takeovers += 1;
            continue;
        }
        if let (12, Some(postgres)) = (kill % 60, &mut plan.postgres) {
            postgres.stop().await;
            tokio::time::sleep(WHILE).await;
            postgres.go_on().await;
            tally.restarts += 1;
        }
        if let (16, Some(disk)) = (kill % 60, &plan.disk) {
            disk.fill();
            tokio::time::sleep(WHILE).await;
            disk.make_room();
            tally.full_disks += 1;
        }
        if random.gen_bool(0.7) {
            place.kill_gateway(order).await;
            tally.gateways += 1;
        } else {
            place.kill_worker();
            tally.workers += 1;
        }
    }
    tally
}

async fn wait_for_repair(gateway: &Gateway) -> Value {
    let deadline = Instant::now() + REPAIRED_WITHIN;
    loop {
        let counted = counts(gateway);
        let left = |name: &str| counted[name].as_u64().unwrap();
        if left("open") + left("intents") == 0 {
            return counted;
        }
        assert!(Instant::now() < deadline, "not repaired within {REPAIRED_WITHIN:?}: {counted}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Objects that no rule decides.
fn left_to_a_human(gateway: &Gateway) -> Vec<Case> {
    let lines = String::from_utf8(journal(gateway, &["export"])).unwrap();
    lines.lines().map(Case::of).collect()
}

/// What is not as it must be. What is left to a human may differ from backend to backend, but is not lost.
fn wrong(deeds: &Deeds, left: &[Case], order: &Order, backends: &[Misbehaving]) -> Vec<String> {
    let mut wrong = deeds.reads.wrong.clone();
    let has_no_excuse = |case: &&Case| excuse(case).is_none();
    wrong.extend(left.iter().filter(has_no_excuse).map(|case| format!("parked without need: {case:#?}")));
    for (target, history) in &deeds.histories {
        let held: Vec<_> = backends.iter().map(|backend| backend.stored(target)).collect();
        let held: Vec<Option<(&[u8], &str)>> =
            held.iter().map(|held| held.as_ref().map(bytes_and_tags)).collect();
        let bytes = || held.iter().map(|held| held.map(|(bytes, _)| bytes));
        let found = || {
            let tags = held.iter().map(|held| held.map(|(_, tags)| tags));
            bytes().map(excerpt).zip(tags).map(|found| format!("{found:?}")).collect::<Vec<_>>()
        };
        let why = match left.iter().any(|case| case.path == *target) {
            true if bytes().any(|bytes| history.may_be(bytes, order)) => None,
            true => Some(format!("it is parked, and what was written last is nowhere: {:#?}", found())),
            false if held.windows(2).all(|pair| pair[0] == pair[1]) => history.wrong(held[0], order),
            false => Some(format!("backends differ: {:#?}", found())),
        };
        let asked = || backends.iter().map(|backend| changes(backend, target)).collect::<Vec<_>>();
        let all = |why| {
            let (known, asked) = (history.told(), asked());
            format!("{target}: {why}; its client knows of {known:#?}, and backends were asked for {asked:#?}")
        };
        wrong.extend(why.map(all));
    }
    wrong
}

/// The last changes of an object that a backend was asked for, in the order in which they came, for whoever has to find
/// out what went wrong.
fn changes(backend: &Misbehaving, target: &str) -> Vec<String> {
    let names = |request: &Received| {
        let key = target.rsplit('/').next().unwrap_or_default();
        request
            .body
            .as_ref()
            .is_some_and(|body| String::from_utf8_lossy(body).contains(&format!("<Key>{key}<")))
    };
    let is_change = |request: &&Received| {
        !matches!(request.method.as_str(), "GET" | "HEAD") && (request.path() == target || names(request))
    };
    let told = |request: &Received| {
        let Received { method, target, answered, completed, body_length, .. } = request;
        let header = |name| request.header(name).unwrap_or("-");
        let (tags, by) = (header("x-amz-tagging"), header("x-akubra-request-id"));
        format!(
            "{method} {target} ({body_length} bytes, tags {tags}, by {by}): whole as {completed:?}, answered {answered}"
        )
    };
    let all: Vec<String> = backend.requests().iter().filter(is_change).map(told).collect();
    all[all.len().saturating_sub(12)..].to_vec()
}

fn bytes_and_tags(object: &Object) -> (&[u8], &str) {
    (object.bytes.as_deref().unwrap_or_default(), &object.tags)
}

fn told(title: &str, plan: &Plan, tally: &Tally, deeds: &Deeds, left: &[Case], wrong: &[String]) -> String {
    let writes: Vec<&Write> = deeds.histories.values().flat_map(History::writes).collect();
    let acknowledged = writes.iter().filter(|write| write.acknowledged).count();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    writes.iter().for_each(|write| *kinds.entry(write.kind).or_default() += 1);
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    let Tally { gateways, workers, takeovers, full_disks, restarts } = tally;
    let storage = match (&plan.postgres, &plan.disk) {
        (Some(_), _) => format!("restarts of PostgreSQL {restarts}"),
        (None, Some(_)) => format!("full disks {full_disks}"),
        (None, None) => format!("full disks {NO_ROOT}"),
    };
    let mut excuses: BTreeMap<&str, usize> = BTreeMap::new();
    for case in left {
        *excuses.entry(excuse(case).unwrap_or("without need")).or_default() += 1;
    }
    let excuses = excuses.iter().map(|(excuse, count)| format!("\n         {count}: {excuse}"));
    let Reads { answered, older, .. } = deeds.reads;
    format!(
        "{} {title}, {} gateways and workers at once\n       \
         killed: gateways {gateways}, workers {workers}; takeovers, each with a kill {takeovers}; {storage}\n       \
         writes {} ({}) to {} objects, acknowledged {acknowledged}\n       \
         reads answered {answered}, with what the README allows to be older {older}\n       \
         wrong {}, left to a human {}{}",
        if wrong.is_empty() { "ok    " } else { "FAILED" },
        plan.places,
        writes.len(),
        kinds.join(", "),
        deeds.histories.len(),
        wrong.len(),
        left.len(),
        excuses.collect::<String>()
    )
}
