//! One history: who does what when, what goes wrong, and what must hold at its end.

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
};

use akubra::{
    config::Consistency,
    journal::{Case, Filter, Journal, Standing},
};

use crate::{
    exec::{Rng, Sim, channel, lock},
    gateway::Gateway,
    mutation::Mutation,
    worker,
    world::{Effect, LANDED, SETTLE, SPOILT, World, Write, object_on},
};

type Slots = Arc<Vec<Mutex<Option<Arc<Gateway>>>>>;

/// Histories from this one on have an older cluster beside the home.
pub const MOVING: u64 = 1_000_000_000;

/// What went wrong, with a trace if one was wanted.
pub fn run(seed: u64, mutation: Mutation, traced: bool) -> Result<(), String> {
    let sim = Sim::new(Rng::new(seed), traced);
    let world = World::new(sim.clone(), mutation, seed >= MOVING);
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
    drain(&world, &slots).await?;
    let is_calm = *lock(&is_safe);
    let is_safe = match world.consistency {
        Consistency::Strong => true,
        // Of two gateways that write at once neither knows of the other, and while the journal fails workers know
        // nothing of a write.
        Consistency::Weak | Consistency::None => is_calm && slots.len() == 1 && !world.journal_fails,
    };
    // Nothing parks: but what came late may have overwritten what is newest, everywhere; and of two contents within a
    // second nobody knows which is that of a write of which no backend has said anything.
    let is_decided =
        slots.len() == 1 && is_calm && !world.is_late && world.consistency == Consistency::Strong;
    // Whoever crashes: the successor's writes are behind those of the dead.
    let is_ordered = slots.len() == 1 && world.consistency == Consistency::Strong;
    check(&world, &keys, is_decided, is_ordered, is_safe).await
}

/// What was there before.
fn begin(world: &World, key: &[u8]) {
    if world.is_moving() {
        return begin_elsewhere(world, key);
    }
    let effect = match world.sim.chance(500) {
        true => put(world, 0),
        false => Effect::Delete,
    };
    was_written(world, key, &effect, world.at_home());
}

/// Most objects are where they were before their home was another; some were written since, or copied.
fn begin_elsewhere(world: &World, key: &[u8]) {
    let was_there = world.sim.chance(800);
    let effect = if was_there { put(world, 0) } else { Effect::Delete };
    was_written(world, key, &effect, world.elsewhere());
    match world.sim.range(0, 9) {
        0 => {
            let at = lock(&world.writes).len();
            was_written(world, key, &put(world, at), world.at_home());
        }
        1 => world.at_home().for_each(|at| _ = world.store(at, key, &effect)),
        _ => {}
    }
}

fn was_written(world: &World, key: &[u8], effect: &Effect, backends: Range<usize>) {
    backends.for_each(|at| _ = world.store(at, key, effect));
    let (began, closed) = (world.event(), world.event());
    let write =
        Write { key: key.to_vec(), effect: effect.clone(), began, closed, acknowledged: true, whole: true };
    lock(&world.writes).push(write);
}

fn put(world: &World, at: usize) -> Effect {
    let version = world.is_versioned.then_some(at as u64);
    Effect::Put { text: format!("w{at:03}"), version, tags: None }
}

async fn client(world: Arc<World>, slots: Slots, keys: Vec<Vec<u8>>, _done: crate::exec::Sender<()>) {
    let sim = world.sim.clone();
    for _ in 0..sim.range(1, 4) {
        sim.pause(0, if sim.chance(500) { 50 } else { 5_000 }).await;
        let gateway = lock(&slots[sim.range(0, slots.len() as i64 - 1) as usize]).clone();
        let Some(gateway) = gateway else { continue };
        let key = keys[sim.range(0, keys.len() as i64 - 1) as usize].clone();
        if sim.chance(if world.is_moving() { 400 } else { 150 }) {
            let (told, end) = channel();
            sim.spawn(gateway.actor, gateway.clone().read(key, told));
            end.recv().await;
            continue;
        }
        let chance = sim.range(0, 999);
        let at = {
            let mut writes = lock(&world.writes);
            let at = writes.len();
            let effect = match chance {
                0..550 => put(&world, at),
                550..900 => Effect::Delete,
                _ => Effect::Tag(Some(format!("t{at:03}"))),
            };
            let began = world.event();
            writes.push(Write {
                key: key.clone(),
                effect,
                began,
                closed: i64::MAX,
                acknowledged: false,
                whole: false,
            });
            at
        };
        let effect = lock(&world.writes)[at].effect.clone();
        let (told, answer) = channel();
        sim.note(|| format!("client: {effect:?} to {} of gateway {}", key.escape_ascii(), gateway.id));
        sim.spawn(gateway.actor, gateway.clone().write(at, key, effect, told));
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
    // In most histories of a kind, so that what takes several of them happens.
    let kind = sim.range(0, 4);
    for _ in 0..sim.range(0, 6) {
        sim.pause(10, 3_000).await;
        if !world.faults.load(Relaxed) {
            return;
        }
        match if sim.chance(500) { kind } else { sim.range(0, 4) } {
            0 => {
                world.take_down(sim.range(0, world.backends.len() as i64 - 1) as usize, sim.range(10, 4_000))
            }
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
            3 => {
                let at = sim.range(0, slots.len() as i64 - 1) as usize;
                let Some(gateway) = lock(&slots[at]).clone() else { continue };
                sim.note(|| format!("gateway {} stalls", gateway.id));
                sim.stall(gateway.actor, sim.range(100, 8_000));
            }
            _ => {
                let worker = sim.pick(&workers);
                sim.note(|| format!("worker {worker} stalls"));
                sim.stall(worker, sim.range(100, 12_000));
            }
        }
    }
}

async fn drain(world: &World, slots: &[Mutex<Option<Arc<Gateway>>>]) -> Result<(), String> {
    for second in 0..200 {
        let counts = world.journal.counts().await.unwrap();
        let are_idle = slots.iter().all(|slot| lock(slot).as_ref().is_none_or(|gateway| gateway.is_idle()));
        if counts.intents == 0 && are_idle && (counts.open == 0 || (second > 30 && are_left(world).await)) {
            return Ok(());
        }
        world.sim.sleep(1_000).await;
    }
    let left = world.journal.list(&Filter::default(), None, 10).await.unwrap();
    Err(format!("the journal does not drain: {left:?}"))
}

/// Whether all open objects are such as no rule moves home.
async fn are_left(world: &World) -> bool {
    let cases = world.journal.list(&Filter::default(), None, 10).await.unwrap();
    let is_parked =
        |object| cases.iter().any(|case| case.object == object && case.standing != Standing::Open);
    let is_left = |case: &Case| {
        case.reason.contains("old has to agree on it first") && is_parked(object_on("old", &case.object.key))
            // With less, some of its backends may have been lost a DELETE for, and nobody knows.
            || case.reason.contains("not all other backends of that cluster do")
                && world.consistency != Consistency::Strong
    };
    world.is_moving() && cases.iter().all(|case| case.standing != Standing::Open || is_left(case))
}

async fn check(
    world: &World,
    keys: &[Vec<u8>],
    is_decided: bool,
    is_ordered: bool,
    is_safe: bool,
) -> Result<(), String> {
    let parked = world.journal.list(&Filter::default(), None, 10).await.unwrap();
    let is_tag = |write: &Write| matches!(write.effect, Effect::Tag(_));
    let is_answered = |key: &[u8]| {
        lock(&world.writes).iter().all(|write| write.key != key || (write.acknowledged && !is_tag(write)))
    };
    // Of what is at home and what is elsewhere nothing tells which is newer.
    let differs = |key: &[u8]| {
        let contents: BTreeSet<_> = (0..world.backends.len()).filter_map(|at| world.text(at, key)).collect();
        world.is_moving() && contents.len() > 1
    };
    // What a backend made of a copy, and the worker could not take away: nothing tells whose it is.
    let is_spoilt = |key: &[u8]| {
        (0..world.backends.len()).any(|at| world.text(at, key).is_some_and(|text| text == SPOILT))
    };
    let is_excused = |key: &[u8]| differs(key) || is_spoilt(key);
    let is_parked = |case: &&Case| case.standing == Standing::Parked && !is_excused(&case.object.key);
    let is_wrong = |case: &&Case| is_parked(case) && is_answered(&case.object.key);
    if let Some(case) = parked.iter().find(is_wrong).filter(|_| is_decided) {
        return Err(format!("parked, with one gateway: {case:?}"));
    }
    let has_decided = |key: &[u8]| {
        let held: Vec<_> = (0..world.names.len()).map(|at| world.text(at, key)).collect();
        let writes = lock(&world.writes);
        let of_key: Vec<&Write> = writes.iter().filter(|write| write.key == key).collect();
        // What is late may come over it everywhere, or take away what a DELETE has left.
        last_of_all(&of_key).is_some_and(|write| match &write.effect {
            Effect::Put { text, .. } => held.iter().any(|held| held.as_ref() == Some(text)),
            _ => !world.is_late,
        })
    };
    let is_wrong = |case: &&Case| is_parked(case) && has_decided(&case.object.key);
    if let Some(case) = parked.iter().find(is_wrong).filter(|_| is_ordered) {
        return Err(format!("parked, though all took the last write: {case:?}"));
    }
    let parked: BTreeSet<Vec<u8>> = parked.into_iter().map(|case| case.object.key).collect();
    for key in keys.iter().filter(|key| is_safe && !parked.contains(*key)) {
        let writes = lock(&world.writes);
        let of_key: Vec<&Write> = writes.iter().filter(|write| write.key == *key).collect();
        // A copy has no ACL, and nothing tells of one that all took long ago.
        let counts = !world.is_apart || matches!(last(&of_key), Some(Effect::Tag(_)));
        let there = agreed(world, key, world.elsewhere(), counts)?;
        if there.is_some() && lock(&world.sighted).contains(key) {
            return Err(format!("{there:?} is not at home"));
        }
        // What a client reads.
        let content = agreed(world, key, world.at_home(), counts)?.or(there);
        if let Err(why) = is_right(content.as_ref(), &of_key) {
            return Err(format!("{why}, of {of_key:?}"));
        }
    }
    Ok(())
}

/// A write that every backend took, and which began when all others were over; not where tags were written.
fn last_of_all<'a>(writes: &[&'a Write]) -> Option<&'a Write> {
    let is_whole = |write: &Write| write.whole && write.acknowledged;
    let is_last =
        |write: &Write| writes.iter().all(|other| other.began == write.began || other.closed < write.began);
    let is_tag = |write: &&Write| matches!(write.effect, Effect::Tag(_));
    let mut last = writes.iter().copied().filter(|write| is_whole(write) && is_last(write));
    last.next().filter(|_| !writes.iter().any(is_tag))
}

/// The last of all writes, if it was acknowledged.
fn last<'a>(writes: &[&'a Write]) -> Option<&'a Effect> {
    let is_last = |write: &&&Write| {
        let others = writes.iter().filter(|other| other.began != write.began);
        write.acknowledged && others.into_iter().all(|other| other.closed < write.began)
    };
    writes.iter().find(is_last).map(|write| &write.effect)
}

/// What all of these backends hold, with tags if they count.
fn agreed(
    world: &World,
    key: &[u8],
    backends: Range<usize>,
    tags_count: bool,
) -> Result<Option<Effect>, String> {
    let held = |at| if tags_count { world.content(at, key) } else { world.copied(at, key) };
    let mut contents: Vec<_> = backends.map(held).collect();
    if contents.iter().any(|content| *content != contents[0]) {
        return Err(format!("backends do not agree: {contents:?}"));
    }
    Ok(contents.pop().flatten())
}

/// Whether what all backends hold is of writes after which no acknowledged one began.
fn is_right(held: Option<&Effect>, writes: &[&Write]) -> Result<(), String> {
    let is_whole = |write: &&&Write| !matches!(write.effect, Effect::Tag(_));
    let is_passed = |write: &Write, by: &dyn Fn(&Write) -> bool| {
        writes.iter().any(|other| other.acknowledged && other.began > write.closed && by(other))
    };
    let by_whole = |other: &Write| is_whole(&&other);
    let (text, tags) = match held {
        Some(Effect::Put { text, tags, .. }) => (Some(text), tags.as_ref()),
        _ => (None, None),
    };
    let wrote = |write: &&&Write| match &write.effect {
        Effect::Put { text: written, .. } => Some(written) == text,
        Effect::Delete => text.is_none(),
        Effect::Tag(_) => false,
    };
    if !writes.iter().filter(wrote).any(|write| !is_passed(write, &by_whole)) {
        return Err(format!("{text:?} is there"));
    }
    let tagged = |write: &&&Write| matches!(&write.effect, Effect::Tag(written) if written.as_ref() == tags);
    if tags.is_some() && !writes.iter().filter(tagged).any(|write| !is_passed(write, &|_| true)) {
        return Err(format!("{text:?} is there with {tags:?}"));
    }
    if text.is_some() && tags.is_none() && matches!(last(writes), Some(Effect::Tag(_))) {
        return Err(format!("{text:?} is there without tags"));
    }
    Ok(())
}
