//! How gateways of one host learn at once that one of them has died: each holds a lock on a file of its own, which is
//! named by its number in the journal, and has its name there. A file that nobody holds is that of a process that ended
//! without leave.
//!
//! Others learn of it by its silence, which takes longer. So whatever goes wrong here does no harm.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::Enrolled;
use crate::config::JournalEngine;

const DIRECTORY: &str = "gateways";
/// Of a file: far more than the name of a journal.
const MOST_BYTES: u64 = 16 * 1024;

#[derive(Debug)]
pub struct Presence {
    directory: PathBuf,
    /// Which journal the numbers are of.
    journal: String,
    /// Held as long as the process lives.
    own: Mutex<Option<Held>>,
}

/// A file with its lock.
#[derive(Debug)]
pub struct Held {
    pub gateway: Enrolled,
    path: PathBuf,
    file: File,
}

impl Held {
    /// Nobody need look at it any more. A journal that was replaced may have given the number to another process, which
    /// has put its own file there: that stays.
    pub fn forget(self) -> io::Result<()> {
        let own = self.file.metadata()?;
        match fs::metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (own.dev(), own.ino()) => fs::remove_file(&self.path),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Presence {
    pub fn in_directory(state_directory: &Path, engine: &JournalEngine) -> Presence {
        let journal = Named(engine).to_string();
        Presence { directory: state_directory.join(DIRECTORY), journal, own: Mutex::new(None) }
    }

    /// Those that died without leave. While this is held, no other process finds them.
    pub fn dead(&self) -> io::Result<Vec<Held>> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut dead = Vec::new();
        for entry in entries {
            let path = entry?.path();
            // One that cannot be read hides no other.
            match self.abandoned(&path) {
                Ok(found) => dead.extend(found),
                Err(error) => log::warn!("journal: {}: {error}", path.display()),
            }
        }
        Ok(dead)
    }

    /// Whose file that is, if it is of this journal and nobody holds it.
    fn abandoned(&self, path: &Path) -> io::Result<Option<Held>> {
        let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let Some(number) = number else { return Ok(None) };
        let file = File::options().read(true).write(true).open(path)?;
        if file.try_lock().is_err() {
            return Ok(None);
        }
        let mut text = String::new();
        (&file).take(MOST_BYTES).read_to_string(&mut text)?;
        let own = text.rsplit_once('\n').filter(|(journal, _)| *journal == self.journal);
        Ok(own.map(|(_, name)| {
            let gateway = Enrolled { number, name: name.to_owned(), deaths: 0 };
            Held { gateway, path: path.to_owned(), file }
        }))
    }

    /// This process is there, as this gateway.
    pub fn tell(&self, gateway: &Enrolled) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        // It has its name when it is locked.
        let draft = self.directory.join(format!("{}.new", gateway.number));
        let path = self.directory.join(gateway.number.to_string());
        let mut file = File::options().write(true).create(true).truncate(true).open(&draft)?;
        file.try_lock()?;
        file.write_all(format!("{}\n{}", self.journal, gateway.name).as_bytes())?;
        fs::rename(&draft, &path)?;
        let held = Held { gateway: gateway.clone(), path: path.clone(), file };
        let before = self.own.lock().unwrap_or_else(PoisonError::into_inner).replace(held);
        // Another journal may have given the number once more: then the file is where the former was.
        before.filter(|before| before.path != path).map_or(Ok(()), Held::forget)
    }

    /// It ends with leave.
    pub fn end(&self) -> io::Result<()> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner).take();
        own.map_or(Ok(()), Held::forget)
    }
}

/// An engine, without what is secret.
struct Named<'a>(&'a JournalEngine);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            JournalEngine::Sqlite(file) => write!(f, "SQLite {}", file.display()),
            JournalEngine::Postgres(login) => {
                write!(f, "PostgreSQL {} {} {}", login.host, login.port, login.dbname)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_died_is_found_once_and_who_lives_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let presence = |file: &str| Presence::in_directory(dir.path(), &JournalEngine::Sqlite(file.into()));
        let numbers = |presence: &Presence| -> Vec<i64> {
            presence.dead().unwrap().iter().map(|held| held.gateway.number).collect()
        };
        let (one, other, next) = (presence("/j"), presence("/other"), presence("/j"));
        assert!(numbers(&next).is_empty());
        let gateway = |number| Enrolled { number, name: format!("host {number}"), deaths: 0 };
        one.tell(&gateway(3)).unwrap();
        other.tell(&gateway(4)).unwrap();
        assert!(numbers(&next).is_empty());
        drop((one, other));
        let dead = next.dead().unwrap();
        assert_eq!(dead.iter().map(|held| held.gateway.clone()).collect::<Vec<_>>(), [gateway(3)]);
        assert!(numbers(&presence("/j")).is_empty(), "it is held by who found it");
        drop(dead);
        next.dead().unwrap().into_iter().for_each(|held| held.forget().unwrap());
        assert!(numbers(&next).is_empty());
        // A process that is given another number leaves none behind.
        next.tell(&gateway(5)).unwrap();
        next.tell(&gateway(6)).unwrap();
        next.tell(&Enrolled { name: "host again".into(), ..gateway(6) }).unwrap();
        assert!(dir.path().join("gateways/6").exists());
        next.end().unwrap();
        drop(next);
        assert!(numbers(&presence("/j")).is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_read_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let presence = || Presence::in_directory(dir.path(), &JournalEngine::Sqlite("/j".into()));
        for number in 1..=20 {
            let gateway = Enrolled { number, name: "host".into(), deaths: 0 };
            presence().tell(&gateway).unwrap();
        }
        fs::create_dir(dir.path().join("gateways/100")).unwrap();
        fs::write(dir.path().join("gateways/101"), b"SQLite /j\n\xff").unwrap();
        assert_eq!(presence().dead().unwrap().len(), 20);
    }

    #[test]
    fn a_number_that_was_given_once_more_keeps_the_file_of_who_has_it_now() {
        let dir = tempfile::tempdir().unwrap();
        let presence = || Presence::in_directory(dir.path(), &JournalEngine::Sqlite("/j".into()));
        let named = |number, name: &str| Enrolled { number, name: name.into(), deaths: 0 };
        let (old, new, next) = (presence(), presence(), presence());
        old.tell(&named(7, "old")).unwrap();
        // The journal was restored, and gave the number to another process of this host.
        new.tell(&named(7, "new")).unwrap();
        old.tell(&named(8, "old")).unwrap();
        drop(new);
        let dead: Vec<_> = next.dead().unwrap().iter().map(|held| held.gateway.name.clone()).collect();
        assert_eq!(dead, ["new"]);
    }
}
