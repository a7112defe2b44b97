use std::path::Path;

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use rusqlite::{Connection, TransactionBehavior};

use super::{super::open, *};

type Objects = BTreeMap<[u8; 32], i64>;

/// Few, and several have the same prefix.
fn digests() -> Vec<[u8; 32]> {
    let digest = |number: u8| [[number % 5; 16], [number; 16]].concat().try_into().unwrap();
    (1..=30).map(digest).collect()
}

fn opened(path: &Path, late: usize) -> (Connection, Index) {
    open::make(path).unwrap();
    (open::open(path).unwrap(), Index::gathering(Amounts { least: late, most: late, step: 4 }))
}

fn add_or_remove(tables: &Tables<'_>, objects: &mut Objects, digest: &[u8; 32]) {
    let found = tables.find(digest).unwrap();
    assert_eq!(found, objects.get(digest).copied());
    if let Some(id) = found {
        tables.execute("DELETE FROM objects WHERE id = ?1", [id]).unwrap();
        objects.remove(digest);
        return;
    }
    let sql = "INSERT INTO objects (digest, cluster, bucket, key, standing, diverged, due, calm, replaced, attempts,
        since, reason, records, appended) VALUES (?1, 'c', x'', x'', 0, 0, 0, 0, 0, 0, 0, '', 0, 0)";
    let id = tables.prepare_cached(sql).unwrap().insert([digest]).unwrap();
    tables.added(digest, id).unwrap();
    objects.insert(*digest, id);
}

/// In one transaction, which may be undone, or a part of it.
fn change(rng: &mut StdRng, (connection, index): &mut (Connection, Index), objects: &mut Objects) {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let tables = Tables::of(&transaction, index);
    let before = objects.clone();
    for _ in 0..rng.gen_range(1..3) {
        add_or_remove(&tables, objects, digests().choose(rng).unwrap());
    }
    if rng.gen_bool(0.1) {
        let so_far = objects.clone();
        tables.execute_batch("SAVEPOINT change").unwrap();
        add_or_remove(&tables, objects, digests().choose(rng).unwrap());
        tables.execute_batch("ROLLBACK TO change; RELEASE change").unwrap();
        tables.forget();
        *objects = so_far;
    }
    tables.advance().unwrap();
    if rng.gen_bool(0.1) {
        transaction.rollback().unwrap();
        index.forget();
        *objects = before;
        return;
    }
    transaction.commit().unwrap();
}

/// Finds what is there, alone and in a list.
fn look(rng: &mut StdRng, (connection, index): &mut (Connection, Index), objects: &Objects) {
    let transaction = connection.transaction().unwrap();
    let tables = Tables::of(&transaction, index);
    let digest = *digests().choose(rng).unwrap();
    assert_eq!(tables.find(&digest).unwrap(), objects.get(&digest).copied());
    let most = rng.gen_range(1..9);
    let listed = tables.behind(&digest, most).unwrap();
    let behind = objects.range((Bound::Excluded(digest), Bound::Unbounded));
    assert_eq!(listed, behind.map(|(_, id)| *id).take(most).collect::<Vec<_>>());
    assert_eq!(tables.behind(&[], 99).unwrap(), objects.values().copied().collect::<Vec<_>>());
}

fn count(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Objects that nobody finds, and entries that nobody would take out of the table.
fn astray(connection: &Connection) -> (i64, i64) {
    let lost = "SELECT count(*) FROM objects WHERE id <= (SELECT indexed FROM counters)
        AND id NOT IN (SELECT object FROM digests)";
    let kept = "SELECT count(*) FROM digests WHERE object NOT IN (SELECT id FROM objects)
        AND object NOT IN (SELECT object FROM removed WHERE id > (SELECT swept FROM counters))";
    (count(connection, lost), count(connection, kept))
}

#[test]
fn what_came_and_went_before_somebody_looked_is_nowhere_when_that_one_has_moved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut objects = Objects::new();
    let [one, two, three] = [1, 2, 3].map(|at: usize| digests()[at]);
    let mut turn = |(connection, index): &mut (Connection, Index), digests: &[[u8; 32]]| {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        let tables = Tables::of(&transaction, index);
        digests.iter().for_each(|digest| add_or_remove(&tables, &mut objects, digest));
        tables.find(&one).unwrap();
        tables.advance().unwrap();
        transaction.commit().unwrap();
    };
    let (mut knows, mut removes, mut moves) = (opened(&path, 3), opened(&path, 99), opened(&path, 1));
    turn(&mut knows, &[one]);
    turn(&mut removes, &[one]);
    turn(&mut moves, &[]);
    assert_eq!(count(&moves.0, "SELECT indexed FROM counters"), 1);
    turn(&mut knows, &[two, three]);
    turn(&mut knows, &[]);
    assert_eq!(astray(&knows.0), (0, 0));
}

#[test]
fn several_connections_find_what_each_of_them_adds_and_removes() {
    let mut swept = 0;
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut connections: Vec<_> = (0..3).map(|_| opened(&path, 8)).collect();
        let mut objects = Objects::new();
        for _ in 0..150 {
            let (one, another) = (rng.gen_range(0..3), rng.gen_range(0..3));
            change(&mut rng, &mut connections[one], &mut objects);
            look(&mut rng, &mut connections[another], &objects);
            assert_eq!(astray(&connections[0].0), (0, 0), "seed {seed}");
        }
        let moved = count(&connections[0].0, "SELECT min(indexed, swept) FROM counters");
        assert!(moved > 0, "seed {seed}: nothing has moved");
        // With the second move.
        swept += usize::from(count(&connections[0].0, "SELECT min(id) FROM removed") > 1);
    }
    assert!(swept > 20, "what was removed is kept for ever, but for {swept} seeds");
}
