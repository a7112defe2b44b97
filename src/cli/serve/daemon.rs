//! What a daemon owes to the world: word to whoever started it, and its pid file.
//!
//! Pingora forks and writes the pid file. It can also keep the first process waiting, but that one learns of a
//! daemon that died from its pid file only, now and then, and not at all where nobody buries the dead. So the
//! process that is started runs the program once more, with a pipe: a byte on it means that the daemon serves,
//! its end that there is none any more.
//!
//! Pingora renames a pid file that is there to `.old` and never looks at either again: a failed successor would
//! leave its own dead number in place of its predecessor's.

use std::{
    fs::{self, File, TryLockError},
    io::{self, PipeReader, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::{self, Command},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

/// Set for the process that becomes the daemon; its stdin is the pipe.
const STARTED: &str = "AKUBRA_STARTED";

/// The way back to the process that was started.
#[derive(Debug)]
pub struct Starter(Option<File>);

impl Starter {
    /// In the process that becomes the daemon, before it does.
    pub fn of_this_process() -> io::Result<Option<Starter>> {
        if std::env::var_os(STARTED).is_none() {
            return Ok(None);
        }
        let pipe: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Some(Starter(Some(pipe.into()))))
    }

    /// Lets it end with success. Later calls do nothing.
    pub fn release(&mut self) {
        // An error means that it has gone; nobody waits then.
        self.0.take().map(|mut pipe| pipe.write_all(b"+"));
    }
}

/// Runs this program once more and waits until the daemon that it becomes serves.
pub fn start(patience: Duration) -> anyhow::Result<()> {
    let (reader, writer) = io::pipe().context("no pipe can be had")?;
    let program = std::env::current_exe().context("the program cannot be found")?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).env(STARTED, "1").stdin(writer);
    let mut child = command.spawn().context("the program cannot be run")?;
    // It holds the other end of the pipe.
    drop(command);
    if wait_for_word(reader, patience)? {
        return Ok(());
    }
    match child.wait()?.code() {
        Some(0) => bail!("the daemon ended before it served; its log says why"),
        // It has said why.
        Some(code) => process::exit(code),
        None => bail!("the program was killed before it became a daemon"),
    }
}

/// Whether the word came; else the pipe has ended.
fn wait_for_word(mut reader: PipeReader, patience: Duration) -> anyhow::Result<bool> {
    let limit = Timespec { tv_sec: patience.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(&reader, PollFlags::IN)], Some(&limit)) {
            Ok(0) => bail!("the daemon does not serve after {patience:?}"),
            Ok(_) => return Ok(reader.read(&mut [0])? > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for the daemon"),
        }
    }
}

/// A daemon's pid file, and where Pingora puts its predecessor's.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    old: PathBuf,
}

impl PidFile {
    pub fn new(path: &Path) -> PidFile {
        PidFile { path: path.to_owned(), old: PathBuf::from(format!("{}.old", path.display())) }
    }

    /// Of a successor that failed: the predecessor's file comes back to its place.
    pub fn give_back(&self) {
        if names(&self.path, process::id()) {
            let back = fs::rename(&self.old, &self.path);
            report(&self.path, back.or_else(|_| fs::remove_file(&self.path)));
        }
    }

    /// Of a predecessor whose successor failed and could not give it back.
    pub fn reclaim(&self) {
        // A daemon keeps its file locked for as long as it lives.
        let file = File::open(&self.path);
        let lives = file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)));
        if names(&self.old, process::id()) && !lives {
            report(&self.path, fs::rename(&self.old, &self.path));
        }
    }

    /// At the end: no file names a process that is gone.
    pub fn remove(&self) {
        for path in [&self.path, &self.old] {
            if names(path, process::id()) {
                report(path, fs::remove_file(path));
            }
        }
    }
}

fn read(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn names(path: &Path, pid: u32) -> bool {
    read(path) == Some(pid)
}

fn report(path: &Path, outcome: io::Result<()>) {
    if let Err(error) = outcome {
        log::warn!("pid file {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(current: Option<u32>, old: Option<u32>) -> (tempfile::TempDir, PidFile) {
        let folder = tempfile::tempdir().unwrap();
        let file = PidFile::new(&folder.path().join("pid"));
        for (path, pid) in [(&file.path, current), (&file.old, old)] {
            if let Some(pid) = pid {
                fs::write(path, format!("{pid}\n")).unwrap();
            }
        }
        (folder, file)
    }

    fn now(file: &PidFile) -> (Option<u32>, Option<u32>) {
        (read(&file.path), read(&file.old))
    }

    #[test]
    fn a_failed_successor_leaves_the_pid_file_as_it_was() {
        let own = process::id();
        for (before, after) in [
            ((Some(own), Some(1)), (Some(1), None)),
            ((Some(own), None), (None, None)),
            ((Some(1), Some(2)), (Some(1), Some(2))),
        ] {
            let (_folder, file) = files(before.0, before.1);
            file.give_back();
            assert_eq!(now(&file), after, "{before:?}");
        }
    }

    #[test]
    fn a_predecessor_reclaims_its_pid_file_from_a_dead_successor_only() {
        let own = process::id();
        for (before, after) in [
            ((Some(1), Some(own)), (Some(own), None)),
            ((None, Some(own)), (Some(own), None)),
            ((Some(1), Some(2)), (Some(1), Some(2))),
        ] {
            let (_folder, file) = files(before.0, before.1);
            file.reclaim();
            assert_eq!(now(&file), after, "{before:?}");
        }
        let (_folder, file) = files(Some(1), Some(own));
        let living = File::open(&file.path).unwrap();
        living.lock().unwrap();
        file.reclaim();
        assert_eq!(now(&file), (Some(1), Some(own)));
    }

    #[test]
    fn a_process_that_ends_removes_what_names_it() {
        let own = process::id();
        for (before, after) in
            [((Some(own), Some(1)), (None, Some(1))), ((Some(1), Some(own)), (Some(1), None))]
        {
            let (_folder, file) = files(before.0, before.1);
            file.remove();
            assert_eq!(now(&file), after, "{before:?}");
        }
    }
}
