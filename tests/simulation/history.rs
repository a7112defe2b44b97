//! One history: who does what when, what goes wrong, and what must hold at its end.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
};

use akubra::{
    config::Consistency,
    journal::{Filter, Journal},
};

use crate::{
    exec::{Rng, Sim, channel, lock},
    gateway::Gateway,
    worker,
    world::{LANDED, Mutation, SETTLE, World, Write},
};

type Slots = Arc<Vec<Mutex<Option<Arc<Gateway>>>>>;

/// What went wrong, with a trace if one was wanted.
pub fn run(seed: u64, mutation: Mutation, traced: bool) -> Result<(), String> {
    let sim = Sim::new(Rng::new(seed), traced);
    let world = World::new(sim.clone(), mutation);
    let verdict = Arc::new(Mutex::new(None));
    let (told, theirs) = (verdict.clone(), world.clone());
    let ended = sim.run(async move { *lock(&told) = Some(history(theirs).await) }, 1_000_000);
    let verdict = lock(&verdict).take();
    let trace = sim.trace();
    sim.clear();
    let found = match verdict {
        Some(found) if ended => found,
        _ => Err("it does not end".to_owned()),
    };
    found.map_err(|why| format!("seed {seed}, {:?}: {why}\n{trace}", world.consistency))
}

async fn history(world: Arc<World>) -> Result<(), String> {
    let sim = world.sim.clone();
    let keys: Vec<Vec<u8>> = (0..sim.range(1, 2)).map(|at| format!("k{at}").into_bytes()).collect();
    keys.iter().for_each(|key| begin(&world, key));
    let slots: Slots = Arc::new((0..sim.range(1, 2)).map(|_| Mutex::default()).collect());
    for slot in slots.iter() {
        *lock(slot) = Some(Gateway::start(world.clone(), world.skew(), None).await);
    }
    let workers: Vec<_> = (0..sim.range(1, 3)).map(|_| sim.actor()).collect();
    workers.iter().for_each(|actor| sim.spawn(*actor, worker::work(world.clone(), *actor)));
    let is_safe = Arc::new(Mutex::new(true));
    let trouble = sim.actor();
    sim.spawn(trouble, make_trouble(world.clone(), slots.clone(), workers, is_safe.clone()));
    let clients: Vec<_> = (0..sim.range(1, 3))
        .map(|_| {
            let (done, wait) = channel();
            sim.spawn(crate::exec::WORLD, client(world.clone(), slots.clone(), keys.clone(), done));
            wait
        })
        .collect();
    for client in clients {
        client.recv().await;
    }
    world.faults.store(false, Relaxed);
    sim.sleep(SETTLE).await;
    drain(&world).await?;
    let is_calm = *lock(&is_safe);
    let is_safe = match world.consistency {
        Consistency::Strong => true,
        Consistency::Weak => is_calm,
        // Of two gateways that write at once neither knows of the other: there is nothing to record.
        Consistency::None => is_calm && slots.len() == 1,
    };
    // Nothing parks: but what came late may have overwritten what is newest, everywhere; and of two contents within a
    // second nobody knows which is that of a write of which no backend has said anything.
    let is_decided =
        slots.len() == 1 && is_calm && !world.is_late && world.consistency == Consistency::Strong;
    check(&world, &keys, is_decided, is_safe).await
}

/// What was there before.
fn begin(world: &World, key: &[u8]) {
    let text = world.sim.chance(500).then(|| "w000".to_owned());
    if text.is_some() {
        (0..world.names.len()).for_each(|at| _ = world.store(at, key, text.as_deref()));
    }
    let write = Write { key: key.to_vec(), text, began: 0, closed: 0, acknowledged: true };
    lock(&world.writes).push(write);
}

async fn client(world: Arc<World>, slots: Slots, keys: Vec<Vec<u8>>, _done: crate::exec::Sender<()>) {
    let sim = world.sim.clone();
    for _ in 0..sim.range(1, 4) {
        sim.pause(0, if sim.chance(500) { 50 } else { 5_000 }).await;
        let gateway = lock(&slots[sim.range(0, slots.len() as i64 - 1) as usize]).clone();
        let Some(gateway) = gateway else { continue };
        let key = keys[sim.range(0, keys.len() as i64 - 1) as usize].clone();
        let is_put = sim.chance(600);
        let at = {
            let mut writes = lock(&world.writes);
            let at = writes.len();
            let text = is_put.then(|| format!("w{at:03}"));
            let began = world.event();
            writes.push(Write { key: key.clone(), text, began, closed: i64::MAX, acknowledged: false });
            at
        };
        let text = lock(&world.writes)[at].text.clone();
        let (told, answer) = channel();
        sim.note(|| format!("client: {text:?} to {} of gateway {}", key.escape_ascii(), gateway.id));
        sim.spawn(gateway.actor, gateway.clone().write(at, key, text, told));
        let is_good = answer.recv().await;
        sim.note(|| format!("client: write {at} is answered {is_good:?}"));
        let mut writes = lock(&world.writes);
        writes[at].acknowledged = is_good == Some(true);
        if slots.len() == 1 {
            writes[at].closed = writes[at].closed.min(world.event());
        } else if is_good != Some(true) {
            // It may come late, and the journal may hear that it has ended after another gateway has begun a write:
            // nothing tells that it is older.
            writes[at].closed = i64::MAX;
        }
    }
}

async fn make_trouble(world: Arc<World>, slots: Slots, mut workers: Vec<usize>, is_safe: Arc<Mutex<bool>>) {
    let sim = world.sim.clone();
    for _ in 0..sim.range(0, 6) {
        sim.pause(10, 3_000).await;
        if !world.faults.load(Relaxed) {
            return;
        }
        match sim.range(0, 3) {
            0 => world.take_down(sim.range(0, world.names.len() as i64 - 1) as usize, sim.range(10, 4_000)),
            1 => {
                let at = sim.range(0, slots.len() as i64 - 1) as usize;
                let Some(dead) = lock(&slots[at]).take() else { continue };
                *lock(&is_safe) = false;
                sim.note(|| format!("gateway {} crashes", dead.id));
                sim.crash(dead.actor);
                sim.pause(if world.is_late { 1 } else { LANDED }, 500).await;
                let next = Gateway::start(world.clone(), world.skew(), Some(dead.id)).await;
                *lock(&slots[at]) = Some(next);
            }
            2 => {
                let at = sim.range(0, workers.len() as i64 - 1) as usize;
                sim.note(|| format!("worker {} crashes", workers[at]));
                sim.crash(workers[at]);
                workers[at] = sim.actor();
                sim.spawn(workers[at], worker::work(world.clone(), workers[at]));
            }
            _ => {
                let worker = sim.pick(&workers);
                sim.note(|| format!("worker {worker} stalls"));
                sim.stall(worker, sim.range(100, 12_000));
            }
        }
    }
}

async fn drain(world: &World) -> Result<(), String> {
    for _ in 0..200 {
        let counts = world.journal.counts().await.unwrap();
        if counts.open == 0 && counts.intents == 0 {
            return Ok(());
        }
        world.sim.sleep(1_000).await;
    }
    let left = world.journal.list(&Filter::default(), None, 10).await.unwrap();
    Err(format!("the journal does not drain: {left:?}"))
}

async fn check(world: &World, keys: &[Vec<u8>], is_decided: bool, is_safe: bool) -> Result<(), String> {
    let parked = world.journal.list(&Filter::default(), None, 10).await.unwrap();
    let is_answered =
        |key: &[u8]| lock(&world.writes).iter().all(|write| write.key != key || write.acknowledged);
    if let Some(case) = parked.iter().find(|case| is_decided && is_answered(&case.object.key)) {
        return Err(format!("parked, with one gateway: {case:?}"));
    }
    let parked: BTreeSet<Vec<u8>> = parked.into_iter().map(|case| case.object.key).collect();
    for key in keys.iter().filter(|key| is_safe && !parked.contains(*key)) {
        let texts: Vec<_> = (0..world.names.len()).map(|at| world.text(at, key)).collect();
        if texts.iter().any(|text| *text != texts[0]) {
            return Err(format!("backends do not agree: {texts:?}"));
        }
        let writes = lock(&world.writes);
        let of_key = || writes.iter().filter(|write| write.key == *key);
        let is_passed =
            |write: &Write| of_key().any(|other| other.acknowledged && other.began > write.closed);
        if !of_key().any(|write| write.text == texts[0] && !is_passed(write)) {
            return Err(format!("{:?} is there, of {:?}", texts[0], of_key().collect::<Vec<_>>()));
        }
    }
    Ok(())
}
