//! What a daemon owes to the world: word to the process that started it, and its pid file.
//!
//! Pingora forks, writes the pid file, and keeps the first process waiting for SIGUSR1, so that its exit code
//! tells whether the daemon came up. It renames a pid file that is there to `.old` beforehand and never looks at
//! either again: a failed successor would leave its own dead number in place of its predecessor's.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process, test_kill_process},
};
use tokio::time::{Instant, sleep};

/// The process that waits for the daemon to serve.
#[derive(Debug)]
pub struct Parent {
    pid: Option<Pid>,
    /// It may still have to become the same user.
    patience: Duration,
}

impl Parent {
    /// To be called before forking: this process is the one.
    pub fn this(patience: Duration) -> Parent {
        Parent { pid: i32::try_from(process::id()).ok().and_then(Pid::from_raw), patience }
    }

    /// Lets it end with success. Later calls do nothing.
    pub async fn release(&mut self) {
        let Some(pid) = self.pid.take() else { return };
        let deadline = Instant::now() + self.patience;
        loop {
            match kill_process(pid, Signal::USR1) {
                Ok(()) => return,
                Err(Errno::PERM) if Instant::now() < deadline => sleep(Duration::from_millis(100)).await,
                Err(error) => return log::warn!("the process that started this one was not told: {error}"),
            }
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
        let successor = read(&self.path).and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        let lives = successor.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH));
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

    /// No process has it: Linux counts to 2^22 at most.
    const NOBODY: u32 = i32::MAX as u32;

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
            ((Some(NOBODY), Some(own)), (Some(own), None)),
            ((None, Some(own)), (Some(own), None)),
            // Process 1 lives.
            ((Some(1), Some(own)), (Some(1), Some(own))),
            ((Some(NOBODY), Some(1)), (Some(NOBODY), Some(1))),
        ] {
            let (_folder, file) = files(before.0, before.1);
            file.reclaim();
            assert_eq!(now(&file), after, "{before:?}");
        }
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
