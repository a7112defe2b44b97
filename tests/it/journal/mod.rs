//! The journal's engines: each keeps every rule of the trait, all come to the same by the same calls, and files and
//! databases outlive what opens them.

pub mod bench;
mod damage;
mod leases;
mod news;
mod postgres;
mod random;
pub mod rate;
mod sqlite;
mod writes;

use self::bench::Engine;
use crate::fixture::*;

async fn keeps_the_rules(engine: &Engine) {
    writes::all(engine).await;
    leases::all(engine).await;
    news::all(engine).await;
}

#[test]
fn memory_keeps_the_rules() {
    run(async { keeps_the_rules(&Engine::Memory).await });
}

#[test]
fn sqlite_keeps_the_rules() {
    run(async { keeps_the_rules(&Engine::Sqlite).await });
}

#[test]
fn postgres_keeps_the_rules() {
    run(async { keeps_the_rules(&Engine::postgres().await).await });
}

#[test]
fn sqlite_goes_on_beside_rows_that_cannot_be_read() {
    run(async { damage::all(&Engine::Sqlite).await });
}

#[test]
fn postgres_goes_on_beside_rows_that_cannot_be_read() {
    run(async { damage::all(&Engine::postgres().await).await });
}
