//! Connections that did one request each and then stay, so that what they cost can be read off the proxy.

use std::rc::Rc;

use serde::Serialize;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{Complaints, Failure, Target};
use crate::wire::Connection;

/// Requests under way at once, so that nothing but the connections grows with their number.
const AT_ONCE: usize = 8;

/// What is told once all connections stand.
#[derive(Debug, Serialize)]
pub struct Standing {
    pub connections: usize,
    pub errors: usize,
    pub complaints: Vec<String>,
}

/// Opens the connections; they last as long as what is returned. Needs a `LocalSet`.
pub async fn open(target: Target, connections: usize) -> (Standing, Vec<Connection>) {
    let target = Rc::new(target);
    let turns = Rc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for number in 0..connections {
        let (target, turns) = (target.clone(), turns.clone());
        tasks.spawn_local(async move {
            let _turn = turns.acquire().await;
            one(&target, number).await
        });
    }
    let mut complaints = Complaints::default();
    let mut open = Vec::with_capacity(connections);
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok(Ok(connection)) => open.push(connection),
            Ok(Err(failure)) => complaints.add("idle", &failure),
            Err(_) => {}
        }
    }
    let errors = connections - open.len();
    (Standing { connections: open.len(), errors, complaints: complaints.shown().to_vec() }, open)
}

async fn one(target: &Target, number: usize) -> Result<Connection, Failure> {
    let mut connection = target.connect().await.map_err(Failure::before)?;
    let path = target.path(format_args!("idle-{number}"));
    if target.exchange(&mut connection, &path).await? {
        Ok(connection)
    } else {
        Err(Failure::within(std::io::Error::other("the connection is not kept")))
    }
}
