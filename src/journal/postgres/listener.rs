//! Hears from the database that something has changed, on a connection of its own.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_postgres::{AsyncMessage, Client};

use super::{
    Settings,
    session::{Abort, connect, told},
};

const OPEN: Duration = Duration::from_secs(15);
/// The connection is tried so often, when nothing is heard.
const TRY: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(1);

/// Ends with its value.
pub struct Listener {
    heard: Arc<Heard>,
    _task: Abort,
}

#[derive(Default)]
struct Heard {
    changed: Notify,
    /// A connection was lost: its server may have forgotten the last changes, and have numbered others like them.
    lost: AtomicBool,
    connections: AtomicU64,
}

impl Listener {
    pub fn spawn(settings: Settings) -> Listener {
        let heard = Arc::new(Heard::default());
        let task = tokio::spawn(listen(settings, heard.clone()));
        Listener { heard, _task: Abort(task) }
    }

    /// Waits for something to change. It may have before this is called.
    pub async fn change(&self) {
        self.heard.changed.notified().await;
    }

    /// Whether a connection was lost since this was asked last.
    pub fn has_lost(&self) -> bool {
        self.heard.lost.swap(false, Ordering::Relaxed)
    }
}

async fn listen(settings: Settings, heard: Arc<Heard>) {
    loop {
        if let Err(why) = hear(&settings, &heard).await {
            log::debug!("news of the journal are not heard: {why}");
        }
        if heard.connections.load(Ordering::Relaxed) > 0 {
            heard.lost.store(true, Ordering::Relaxed);
            heard.changed.notify_one();
        }
        sleep(PAUSE).await;
    }
}

/// Until the connection ends.
async fn hear(settings: &Settings, heard: &Arc<Heard>) -> Result<(), String> {
    let connected = timeout(OPEN, connect(settings)).await.map_err(|_| format!("no answer for {OPEN:?}"))?;
    let (client, mut connection) = connected.map_err(|failure| format!("{failure:?}"))?;
    let told_of = heard.clone();
    let mut driver = tokio::spawn(async move {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            match message {
                Ok(AsyncMessage::Notification(_)) => told_of.changed.notify_one(),
                Ok(_) => {}
                Err(error) => return told(&error),
            }
        }
        "the connection was closed".to_owned()
    });
    let why = tokio::select! {
        ended = &mut driver => ended.unwrap_or_else(|error| error.to_string()),
        why = keep(&client, heard) => why,
    };
    driver.abort();
    Err(why)
}

/// Listens, and asks for an answer now and then.
async fn keep(client: &Client, heard: &Heard) -> String {
    let mut statement = "LISTEN akubra_journal";
    loop {
        match timeout(ANSWER, client.batch_execute(statement)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return told(&error),
            Err(_) => return format!("no answer for {ANSWER:?}"),
        }
        if statement != "SELECT 1" {
            heard.connections.fetch_add(1, Ordering::Relaxed);
            // For what came before.
            heard.changed.notify_one();
        }
        statement = "SELECT 1";
        sleep(TRY).await;
    }
}
