//! `akubra journal`: what backends may not agree on, and what a human decides where no rule does.
//!
//! It opens the journal that the configuration names, beside gateways and sync processes that work with it. Whatever it
//! prints of keys and of what backends said is escaped: a terminal would obey control characters in them.

mod dropped;
mod meant;
mod text;

use std::{
    fs::File,
    io::{ErrorKind, IsTerminal, Write, stderr, stdout},
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};
use chrono::Utc;
use clap::{Args, Subcommand};
use tokio::{
    runtime,
    time::{Instant, timeout_at},
};

use self::meant::{Filters, Named, filter, object};
use super::{names, sync::asking, tell};
use crate::{
    config::{Config, JournalEngine},
    journal::{self, Case, Filter, Journal, Object, survey::behind_in},
    sync::{State, Stores},
    topology::Topology,
};

/// Objects of one look.
const PAGE: usize = 500;
/// For all backends to say what they hold.
const ASKING: Duration = Duration::from_secs(15);

#[derive(Args)]
pub struct Arguments {
    /// The gateway's configuration file
    #[arg(short, long, value_name = "FILE", global = true)]
    pub conf: Option<String>,
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Subcommand)]
pub enum Action {
    /// List objects
    List(List),
    /// Show an object's records, and what each backend holds now
    Show(One),
    /// Have objects tried again now, also parked and dead ones
    Retry(Retry),
    /// Forget an object: whatever its backends hold is right
    Drop(Drop),
    /// List what was dropped and why, the last first
    Dropped(dropped::List),
    /// Print all objects with their records, a JSON object per line
    Export,
    /// Print how many objects there are
    Counts(Counts),
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    filter: Filters,
    /// The most to list; 0 for all
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,
    /// A JSON object per line, with the records
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct One {
    #[command(flatten)]
    named: Named,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct Retry {
    /// /bucket/key, percent-encoded as clients send it
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    path: Option<String>,
    /// All objects that the options name
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filters,
}

#[derive(Args)]
pub struct Drop {
    #[command(flatten)]
    named: Named,
    /// Why; it is kept
    #[arg(long)]
    reason: String,
}

#[derive(Args)]
pub struct Counts {
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub fn run(config: &Config, action: Action) -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = tell(|out| runtime.block_on(act(config, action, out)));
    // Connections that nobody needs any more.
    runtime.shutdown_background();
    outcome
}

async fn act(config: &Config, action: Action, out: &mut impl Write) -> anyhow::Result<()> {
    let engine = super::sync::journal_of(config)?.engine.clone();
    if let JournalEngine::Sqlite(file) = &engine {
        reachable(file)?;
    }
    let journal = journal::open(&engine).await?;
    let journal = &*journal;
    match action {
        Action::List(list) => {
            let filter = filter(config, &list.filter)?;
            let most = if list.limit == 0 { usize::MAX } else { list.limit };
            let print = |cases: &[Case], out: &mut _| match list.json {
                true => text::lines(cases, out),
                false => text::table(cases, out),
            };
            let more = pages(journal, &filter, most, |cases| print(cases, out)).await?;
            if more && !list.json {
                writeln!(out, "... and more: --limit 0 lists all")?;
            }
            Ok(())
        }
        Action::Export => {
            let mut done = Done::default();
            let each = |cases: &[Case]| {
                done.more(cases.len());
                text::lines(cases, out)
            };
            pages(journal, &Filter::default(), usize::MAX, each).await.map(drop)
        }
        Action::Show(one) => show(config, journal, &one, out).await,
        Action::Retry(retry) => again(config, journal, &retry, out).await,
        Action::Drop(drop) => forget(config, journal, &drop, out).await,
        Action::Dropped(list) => dropped::list(journal, &list, out).await,
        Action::Counts(counts) => {
            let now = journal.counts().await?;
            let clusters = names::clusters(&Topology::new(config));
            let (behind, sampled) = behind_in(journal, &now, &clusters).await?;
            let counted = text::Counted { counts: now, behind, sampled };
            if counts.json { text::counts_line(&counted, out) } else { text::counts(&counted, out) }
        }
    }
}

/// Whether this user may work with the journal's file; one that is not there would be made, and might belong to the wrong
/// user.
fn reachable(file: &Path) -> anyhow::Result<()> {
    match File::options().read(true).write(true).open(file) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("there is no journal at {} yet: the gateway makes it", file.display())
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            bail!("{}: {error}; run this as the gateway's user, or as root", file.display())
        }
        Err(error) => bail!("{}: {error}", file.display()),
    }
}

/// Up to `most` objects, some at a time; whether there are more.
async fn pages(
    journal: &dyn Journal,
    filter: &Filter,
    most: usize,
    mut each: impl FnMut(&[Case]) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    let mut left = most;
    let mut after: Option<Object> = None;
    loop {
        // One more tells whether there are more.
        let cases = journal.list(filter, after.as_ref(), PAGE.min(left.saturating_add(1))).await?;
        let shown = cases.len().min(left);
        each(&cases[..shown])?;
        left -= shown;
        if cases.len() > shown {
            return Ok(true);
        }
        match cases.into_iter().last() {
            Some(last) => after = Some(last.object),
            None => return Ok(false),
        }
    }
}

async fn show(config: &Config, journal: &dyn Journal, one: &One, out: &mut impl Write) -> anyhow::Result<()> {
    let object = object(config, journal, &one.named).await?;
    let case = journal.show(&object).await?.context("it has just been resolved: there is nothing to show")?;
    let held = held(config, &object).await;
    if one.json { text::shown_line(&case, &held, out) } else { text::shown(&case, &held, out) }
}

/// What the backends of the object's cluster hold now.
async fn held(config: &Config, object: &Object) -> Vec<(String, State)> {
    if object.key.is_empty() {
        return Vec::new();
    }
    let topology = Topology::new(config);
    let (stores, signer) = asking(config, &topology).await;
    let mut clusters = topology.regions.iter().flat_map(|region| &region.clusters);
    let Some(cluster) = clusters.find(|cluster| cluster.name == object.cluster) else { return Vec::new() };
    let deadline = Instant::now() + ASKING;
    let states = cluster.backends.iter().map(|backend| {
        let (stores, endpoint) = (&stores, backend.endpoint());
        let opens = signer.knows(backend);
        async move {
            let unknown = |why: &str| State::Unknown(why.to_owned());
            let state = match opens {
                false => unknown("there are no credentials for it"),
                true => match timeout_at(deadline, stores.state(&endpoint, object)).await {
                    Ok(state) => state,
                    Err(_) => unknown("no answer in time"),
                },
            };
            (endpoint, state)
        }
    });
    futures_util::future::join_all(states).await
}

async fn again(
    config: &Config,
    journal: &dyn Journal,
    retry: &Retry,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    if let Some(path) = &retry.path {
        let named = Named { cluster: retry.filter.cluster.clone(), path: path.clone() };
        let object = object(config, journal, &named).await?;
        return again_one(journal, &object, out).await;
    }
    let filter = filter(config, &retry.filter)?;
    let (mut after, mut count, mut done) = (None, 0u64, Done::default());
    loop {
        let cases = journal.list(&filter, after.as_ref(), PAGE).await?;
        for case in &cases {
            count += u64::from(journal.retry(&case.object).await?);
        }
        done.more(cases.len());
        match cases.into_iter().last() {
            Some(last) => after = Some(last.object),
            None => break,
        }
    }
    drop(done);
    writeln!(out, "{count} objects are tried again")?;
    Ok(())
}

async fn again_one(journal: &dyn Journal, object: &Object, out: &mut impl Write) -> anyhow::Result<()> {
    let name = names::name(object);
    if !journal.retry(object).await? {
        bail!("{name} has just been resolved: there is nothing to try again");
    }
    // What was sent may still arrive, or a worker has it.
    let due = journal.show(object).await?.map_or(0, |case| case.due);
    match due > Utc::now().timestamp_millis() {
        true => writeln!(out, "{name} is tried again, not before {}", text::time(due))?,
        false => writeln!(out, "{name} is tried again")?,
    }
    Ok(())
}

async fn forget(
    config: &Config,
    journal: &dyn Journal,
    drop: &Drop,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    if drop.reason.trim().is_empty() {
        bail!("--reason is empty; say why nothing has to be repaired");
    }
    let object = object(config, journal, &drop.named).await?;
    forget_one(journal, &object, &drop.reason, out).await
}

async fn forget_one(
    journal: &dyn Journal,
    object: &Object,
    reason: &str,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let name = names::name(object);
    if !journal.drop_object(object, reason).await? {
        match journal.show(object).await? {
            Some(_) => bail!("{name} cannot be dropped now: it is being written or repaired; try again"),
            None => bail!("{name} has just been resolved: there is nothing to drop"),
        }
    }
    writeln!(out, "{name} is forgotten")?;
    Ok(())
}

/// How far something long is, on stderr: for who waits at a terminal while the output goes elsewhere.
struct Done {
    objects: usize,
    is_watched: bool,
}

impl Default for Done {
    fn default() -> Done {
        Done { objects: 0, is_watched: stderr().is_terminal() && !stdout().is_terminal() }
    }
}

impl Done {
    fn more(&mut self, objects: usize) {
        self.objects += objects;
        if self.is_watched && objects > 0 {
            eprint!("\r{} objects", self.objects);
        }
    }
}

impl std::ops::Drop for Done {
    fn drop(&mut self) {
        if self.is_watched && self.objects > 0 {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Change, Enrolled, Intent, Memory, Record, What, WriteId, system_clock};

    /// An empty journal, and a gateway that writes there.
    pub async fn journal() -> (Memory, Enrolled) {
        let journal = Memory::new(system_clock());
        let gateway = Enrolled { number: journal.enrol("g").await.unwrap(), name: "g".into(), deaths: 0 };
        (journal, gateway)
    }

    /// A write to an object, of which nobody knows what came of it.
    pub async fn lost(journal: &Memory, gateway: &Enrolled, number: i64, object: &Object, settle: Duration) {
        let intent = Intent {
            id: WriteId { gateway: gateway.number, number },
            object: object.clone(),
            what: What::Put,
            region: "r".into(),
            req_id: "q".into(),
            length: None,
            begun: 0,
            strong: false,
            turn: None,
        };
        let changes = vec![Change::Diverged(Record::orphaned(intent, 0))];
        journal.apply(gateway, changes, settle).await.unwrap();
    }

    #[tokio::test]
    async fn what_has_gone_meanwhile_is_neither_tried_again_nor_dropped() {
        let (journal, _) = journal().await;
        let gone = names::object("c", "/b/k").unwrap();
        let mut out = Vec::new();
        let outcomes = [
            again_one(&journal, &gone, &mut out).await,
            forget_one(&journal, &gone, "it is right", &mut out).await,
        ];
        for outcome in outcomes {
            assert!(outcome.unwrap_err().to_string().starts_with("c:/b/k has just been resolved"));
        }
        assert!(out.is_empty());
    }

    #[tokio::test]
    async fn who_has_one_tried_again_hears_when() {
        for (settle, waits) in [(Duration::ZERO, false), (Duration::from_secs(3600), true)] {
            let (journal, gateway) = journal().await;
            let object = names::object("c", "/b/k").unwrap();
            lost(&journal, &gateway, 1, &object, settle).await;
            let mut out = Vec::new();
            again_one(&journal, &object, &mut out).await.unwrap();
            let told = String::from_utf8(out).unwrap();
            assert_eq!(told.starts_with("c:/b/k is tried again, not before "), waits, "{told}");
        }
    }
}
