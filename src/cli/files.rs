//! How many files the process may have open: every client connection is one, and one more per backend while a
//! request runs. Systems start processes with a soft limit of 1024, for the sake of programs that use `select`;
//! this one does not, so it takes what it may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Below this many the log says so: a few hundred clients at once use them up.
const FEW: u64 = 4096;

/// Raises the soft limit to the hard one, and tells what it is then; `None` = there is none.
pub fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        log::warn!("the limit of open files cannot be raised: {error}");
    }
    let limit = getrlimit(Resource::Nofile).current;
    match limit {
        Some(limit) if limit < FEW => {
            log::warn!(
                "only {limit} files may be open at once, client connections among them: raise the limit"
            );
        }
        Some(limit) => log::info!("at most {limit} files may be open at once"),
        None => log::info!("any number of files may be open at once"),
    }
    limit
}
