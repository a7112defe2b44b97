//! Random histories of gateways, workers and backends under a scheduler that one seed decides: nothing acknowledged is
//! lost, nothing deleted comes back, and in the end all backends agree or the object is parked.
//!
//! `AKUBRA_SIM_SEED` replays one history with its trace, `AKUBRA_SIM_HISTORIES` says how many there are.

#![allow(clippy::unwrap_used, clippy::panic)]

mod exec;
mod gateway;
mod history;
mod worker;
mod world;

use std::{env, thread, time::Instant};

use world::Mutation;

const HISTORIES: u64 = 100_000;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// The first seed of a range whose history breaks a rule.
fn first_broken(seeds: impl Iterator<Item = u64>, mutation: Mutation) -> Option<u64> {
    seeds.into_iter().find(|seed| history::run(*seed, mutation, false).is_err())
}

#[test]
#[ignore = "finds an open fault: weak, seed 25408; see docs/journal.md"]
fn no_history_loses_what_was_acknowledged() {
    if let Some(seed) = number("AKUBRA_SIM_SEED") {
        return history::run(seed, Mutation::None, true).unwrap_or_else(|why| panic!("{why}"));
    }
    let most = number("AKUBRA_SIM_HISTORIES").unwrap_or(HISTORIES);
    let begun = Instant::now();
    let halves: Vec<_> = (0..2)
        .map(|half| thread::spawn(move || first_broken((half..most).step_by(2), Mutation::None)))
        .collect();
    let broken: Vec<u64> = halves.into_iter().filter_map(|half| half.join().unwrap()).collect();
    println!("{most} histories in {:?}", begun.elapsed());
    for seed in broken {
        history::run(seed, Mutation::None, true).unwrap_or_else(|why| panic!("{why}"));
    }
}

/// Histories that have found a fault.
#[test]
fn what_was_broken_once_is_not_again() {
    history::run(33_824, Mutation::None, true).unwrap_or_else(|why| panic!("{why}"));
}

/// How many histories it takes to see that a rule is broken.
#[test]
#[ignore = "belongs to the one above"]
fn broken_rules_are_seen() {
    const MOST: u64 = 20_000;
    let all = [
        Mutation::Unconditional,
        Mutation::NoSettle,
        Mutation::SettledForgotten,
        Mutation::DeletesForgotten,
        Mutation::LeaseIgnored,
    ];
    for mutation in all {
        let broken = first_broken(0..MOST, mutation);
        let why = broken.and_then(|seed| history::run(seed, mutation, false).err());
        println!("{mutation:?}: {broken:?} {}", why.as_deref().unwrap_or_default());
        assert!(broken.is_some(), "{mutation:?} is not seen in {MOST} histories");
    }
}
