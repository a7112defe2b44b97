//! What operators see of the journal of the running gateway, and decide there: adapters, since the technical endpoint
//! knows nothing of the gateway and the journal nothing of the topology.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use chrono::DateTime;

use super::reload::Orders;
use crate::{
    cli::names::{self, printable},
    config::JournalEngine,
    gateway::journaling::Journaling,
    journal::{
        Case, Journal, JournalError, Standing,
        survey::{Known, Look, Survey, WINDOW},
    },
    technical::{
        decisions::{Action, Decision, Desk, DeskError},
        status::journal::{Aside, Behind, Seen},
    },
};

/// The journal, as far as operators have to do with it.
pub struct Office {
    journaling: Arc<Journaling>,
    survey: Survey,
    orders: Arc<Orders>,
    /// The configuration's; the demo has none.
    file: Option<PathBuf>,
}

impl Office {
    /// Looks at nothing before it runs.
    pub fn new(journaling: Arc<Journaling>, orders: Arc<Orders>, file: Option<PathBuf>) -> Office {
        let (writing, topology) = (journaling.clone(), orders.clone());
        let engine = Box::new(move || writing.writer().engine().cloned());
        let survey = Survey::new(engine, Box::new(move || names::clusters(&topology.snapshot().topology)));
        let survey = match orders.snapshot().config.journal.as_ref().map(|journal| &journal.engine) {
            Some(JournalEngine::Sqlite(file)) => survey.of_file(file),
            _ => survey,
        };
        Office { journaling, survey, orders, file }
    }

    /// Keeps an eye on the journal for as long as it is polled.
    pub async fn run(&self) {
        self.survey.run().await;
    }

    /// For the status page. Waits for nothing.
    pub fn seen(&self) -> Seen {
        let Known { look, trouble } = self.survey.known();
        let snapshot = self.orders.snapshot();
        let (config, topology) = (&snapshot.config, &snapshot.topology);
        let known = look.as_deref().map(|look| {
            let urls = topology.backends.iter().map(|backend| &backend.url);
            let behind = urls.map(|url| Behind {
                backend: url.clone(),
                open: look.behind.get(url).copied().unwrap_or_default(),
            });
            Seen { behind: behind.collect(), ..seen(look) }
        });
        Seen {
            trouble: trouble.unwrap_or_default(),
            window_seconds: WINDOW.as_secs(),
            remembered_most: self.journaling.remembered_most() as u64,
            command: command(self.file.as_ref()),
            decides: config.technical.as_ref().is_some_and(|technical| technical.token.is_some()),
            ..known.unwrap_or_default()
        }
    }

    fn engine(&self) -> Result<&Arc<dyn Journal>, DeskError> {
        let away = || DeskError::Unavailable("the journal could not be opened yet".to_owned());
        self.journaling.writer().engine().ok_or_else(away)
    }
}

#[async_trait]
impl Desk for Office {
    async fn decide(&self, decision: Decision) -> Result<(), DeskError> {
        let Decision { cluster, path, action, reason } = decision;
        let unknown = |why: String| DeskError::Unknown(why);
        let object = names::object(&cluster, &path).map_err(|error| unknown(error.to_string()))?;
        let name = names::name(&object);
        let away = |error: JournalError| DeskError::Unavailable(error.to_string());
        let engine = self.engine()?;
        if action == Action::Drop {
            let case = engine.show(&object).await.map_err(away)?;
            // Something has come since it was looked at.
            if case.is_some_and(|case| case.standing == Standing::Open) {
                return Err(DeskError::Busy);
            }
        }
        let done = match action {
            Action::Retry => engine.retry(&object).await.map_err(away)?,
            Action::Drop => engine.drop_object(&object, &reason).await.map_err(away)?,
        };
        if !done {
            let is_there = engine.show(&object).await.map_err(away)?.is_some();
            return Err(if is_there { DeskError::Busy } else { unknown(name) });
        }
        self.survey.look_again();
        let what = match action {
            Action::Retry => "is tried again",
            Action::Drop => "is forgotten",
        };
        log::warn!("journal: {name} {what}, by the technical endpoint: {}", printable(&reason));
        Ok(())
    }
}

fn seen(look: &Look) -> Seen {
    let (counts, pace) = (&look.counts, look.pace);
    Seen {
        looked: Some(look.at),
        open: counts.open,
        parked: counts.parked,
        dead: counts.dead,
        leased: counts.leased,
        intents: counts.intents,
        resolved: counts.resolved,
        oldest_seconds: look.oldest_seconds(),
        new_per_second: pace.map(|pace| pace.new_per_second),
        resolved_per_second: pace.map(|pace| pace.resolved_per_second),
        open_per_second: pace.map(|pace| pace.open_per_second),
        seconds_to_drain: pace.and_then(|pace| pace.seconds_to_drain),
        sampled: look.sampled.map(|count| count as u64),
        aside: look.aside.iter().map(aside).collect(),
        ..Seen::default()
    }
}

fn aside(case: &Case) -> Aside {
    Aside {
        cluster: case.object.cluster.clone(),
        path: names::path(&case.object),
        standing: if case.standing == Standing::Dead { "dead" } else { "parked" },
        since: DateTime::from_timestamp_millis(case.since),
        tries: case.attempts,
        reason: case.reason.clone(),
    }
}

/// What a shell takes, whatever the file is called.
fn command(file: Option<&PathBuf>) -> String {
    let name = file.map_or("FILE".into(), |file| file.to_string_lossy());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@".contains(c);
    match name.chars().all(is_plain) {
        true => format!("akubra journal -c {name}"),
        false => format!("akubra journal -c '{}'", name.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_the_command_as_it_is_meant() {
        let command = |name: &str| command(Some(&PathBuf::from(name)));
        assert_eq!(command("/etc/akubra/akubra.yaml"), "akubra journal -c /etc/akubra/akubra.yaml");
        assert_eq!(command("/a b/it's;x"), r"akubra journal -c '/a b/it'\''s;x'");
    }
}
