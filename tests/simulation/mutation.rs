//! Rules that are broken on purpose, to see that somebody notices.

use akubra::journal::{Case, Said, What};

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    None,
    /// Copies and deletions go to whatever the backend holds by now, and whatever the journal knows by now.
    Unchecked,
    /// Nobody waits for what may still arrive.
    NoSettle,
    /// Writes that all took are never recorded.
    SettledForgotten,
    /// DELETEs are never recorded.
    DeletesForgotten,
    /// A worker goes on when its lease has run out, whatever the backend holds by now, and the next does not wait for it.
    LeaseIgnored,
    /// Whoever ends does not tell that another write to the object is under way.
    OthersUntold,
    /// Writes to objects with records begin unseen.
    KnownUnseen,
    /// A gateway forgets which objects have records.
    MemoryLost,
    /// Writes begin before their intents are on disk.
    NobodyWaits,
    /// What the journal did not take is not told again.
    BatchesLost,
    /// A gateway that was taken for dead goes on as if it had not been.
    DeathsUnheard,
    /// A gateway begins writes before those of its dead predecessor are records.
    HeirsTooEarly,
    /// That something was changed is not told, unless its outcome is unknown.
    ChangesUntold,
    /// Clocks are taken to be the same everywhere.
    ClocksTrusted,
    /// Where nothing tells which is newer it is left as it is.
    Guessed,
    /// Workers pass over DELETEs.
    TombstonesIgnored,
    /// Workers take what nobody knows for what was not done.
    UnknownsTrusted,
    /// What is elsewhere is deleted whatever home holds.
    HomeUnseen,
    /// What was copied home of a misplaced object is not waited for.
    CopiesUnawaited,
    /// What was copied home of a misplaced object is not looked back at.
    CopiesForgotten,
    /// That an object is misplaced is not said again when its other records are resolved.
    SightingsForgotten,
}

/// What a worker takes the records for.
pub fn misread(mutation: Mutation, case: &Case) -> Case {
    let mut known = case.clone();
    for record in &mut known.records {
        let replies = record.replies.iter_mut().map(|(_, said)| said);
        match mutation {
            Mutation::TombstonesIgnored if record.intent.what == What::Delete => {
                replies.for_each(|said| *said = Said::NotApplied);
            }
            Mutation::UnknownsTrusted => {
                replies.filter(|said| **said == Said::Unknown).for_each(|said| *said = Said::NotApplied);
            }
            _ => {}
        }
    }
    known
}
