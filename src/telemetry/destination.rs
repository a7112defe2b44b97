//! Where a log's lines go: stderr, stdout, a file, or a [`Sink`] of its own kind.
//!
//! Files are opened when the program starts, so that a wrong path is an error there and not in the middle of
//! the night. The standard streams are looked up anew for each batch, because becoming a daemon replaces them.
//! Writes count their bytes as they go: after a disk was full, the rest of a torn line comes first. One that a process
//! left that was killed while it wrote is ended first: else the next record would be part of it.
//!
//! During a takeover two processes write to one log. Their lines do not mix: a file is appended to, which the kernel
//! does for one write after the other, and what may be a pipe gets lines in pieces that a pipe takes at once. But who looks
//! at a file may see a part of a write that is under way: its size grows page by page, with pauses where the disk is slow.
//! So a line without an end is one that was left so only if it stays as it is.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use thiserror::Error;

use super::syslog::SyslogSink;
use crate::config::LogConfig;

/// What Linux writes to a pipe in one piece.
const PIPE_BUF: usize = 4096;
/// Longer than Linux lets a write wait for the disk between two pages.
const PAUSE: Duration = Duration::from_millis(250);
/// At a file that others write to: whoever keeps it growing has written behind what was torn.
const LOOKS: usize = 3;

/// A log's file cannot be opened.
#[derive(Debug, Error)]
#[error("{log}: cannot open {}: {source}{}", .path.display(), hint(.path, .source))]
pub struct OpenError {
    /// Name of the log, "synclog" or the like.
    pub log: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

fn hint(path: &Path, source: &io::Error) -> &'static str {
    let missing_parent = source.kind() == io::ErrorKind::NotFound
        && path.parent().is_some_and(|parent| !parent.as_os_str().is_empty() && !parent.exists());
    if missing_parent { " (its directory does not exist)" } else { "" }
}

/// A destination that is no stream of bytes. It gets whole lines.
pub trait Sink: fmt::Display + Send {
    /// Its label in metrics.
    fn label(&self) -> &'static str;

    /// Takes all of `bytes`, telling `written` of every line, or some, that it has taken for good. After an error it
    /// is given the rest again.
    fn write(&mut self, bytes: &[u8], written: &mut dyn FnMut(usize)) -> io::Result<()>;
}

/// One place that a log is written to.
pub enum Destination {
    Stderr,
    Stdout,
    File {
        path: PathBuf,
        file: File,
        fifo: bool,
        /// Nothing was written to it yet: its last line, of a process before, may have no end.
        fresh: bool,
    },
    Sink(Box<dyn Sink>),
    /// A test's writer.
    #[cfg(test)]
    Scripted(Box<dyn Write + Send>),
}

impl Destination {
    /// Everything that `config` names but a database, the file opened (created with mode 0600, appended to).
    pub fn open_all(log: &'static str, config: &LogConfig) -> Result<Vec<Destination>, OpenError> {
        let mut destinations = Vec::new();
        if config.stderr {
            destinations.push(Destination::Stderr);
        }
        if config.stdout {
            destinations.push(Destination::Stdout);
        }
        if let Some(path) = &config.file {
            let opened = open_file(path).map_err(|source| OpenError { log, path: path.clone(), source });
            let (file, fifo) = opened?;
            destinations.push(Destination::File { path: path.clone(), file, fifo, fresh: true });
        }
        if let Some(syslog) = &config.syslog {
            destinations.push(Destination::Sink(Box::new(SyslogSink::new(log, syslog.clone()))));
        }
        Ok(destinations)
    }

    /// Its label in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Destination::Stderr => "stderr",
            Destination::Stdout => "stdout",
            Destination::File { .. } => "file",
            Destination::Sink(sink) => sink.label(),
            #[cfg(test)]
            Destination::Scripted(_) => "scripted",
        }
    }

    /// Opens a file anew by its path; false where there is none. After an error the one that was open stays.
    pub fn reopen(&mut self) -> io::Result<bool> {
        let Destination::File { path, file, fifo, .. } = self else { return Ok(false) };
        // A FIFO's content goes with its last descriptor: the old one is closed after the new one is there.
        (*file, *fifo) = open_file(path)?;
        Ok(true)
    }

    /// Writes all of `bytes`, telling `written` of every piece that was taken. Holds the lock of a standard
    /// stream for all of it, so that two logs on one stream do not mix their lines.
    pub fn write(&mut self, bytes: &[u8], written: &mut dyn FnMut(usize)) -> io::Result<()> {
        match self {
            Destination::Stderr => write_counted(&mut io::stderr().lock(), bytes, PIPE_BUF, written),
            Destination::Stdout => {
                // Not through Rust's stdout: it may keep part of a line in its buffer and call it written.
                let lock = io::stdout().lock();
                let mut stdout = File::from(lock.as_fd().try_clone_to_owned()?);
                let _stderr = is_stderr(&stdout)?.then(|| io::stderr().lock());
                write_counted(&mut stdout, bytes, PIPE_BUF, written)
            }
            Destination::File { file, fifo: true, .. } => write_counted(file, bytes, PIPE_BUF, written),
            Destination::File { path, file, fresh, .. } => {
                // Not before: the predecessor may have been killed since the file was opened.
                if *fresh && is_left(|| torn_at(path), PAUSE) {
                    file.write_all(b"\n")?;
                }
                *fresh = false;
                write_counted(file, bytes, usize::MAX, written)
            }
            Destination::Sink(sink) => sink.write(bytes, written),
            #[cfg(test)]
            Destination::Scripted(writer) => write_counted(writer, bytes, usize::MAX, written),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::File { path, .. } => write!(f, "{}", path.display()),
            Destination::Sink(sink) => sink.fmt(f),
            other => f.write_str(other.label()),
        }
    }
}

/// Whether stderr is the same pipe, socket or file, as under systemd or after `2>&1`.
fn is_stderr(stdout: &File) -> io::Result<bool> {
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let (one, other) = (stdout.metadata()?, stderr.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// And whether it is a FIFO.
fn open_file(path: &Path) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    // Opening a FIFO for writing waits for a reader; opened for both it does not, and outlives readers.
    let fifo = path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
    if fifo {
        options.read(true).write(true)
    } else {
        options.append(true).create(true).mode(0o600)
    };
    Ok((options.open(path)?, fifo))
}

/// The last byte's place in a file whose last line has no end. What cannot be read, as a terminal or a device, has no lines.
fn torn_at(path: &Path) -> Option<u64> {
    path.metadata().ok().filter(|metadata| metadata.is_file())?;
    let mut file = File::open(path).ok()?;
    let at = file.seek(SeekFrom::End(-1)).ok()?;
    let mut last = [0];
    file.read_exact(&mut last).ok()?;
    (last[0] != b'\n').then_some(at)
}

/// Whether a file is torn and stays so: nobody is writing the line.
fn is_left(mut torn_at: impl FnMut() -> Option<u64>, pause: Duration) -> bool {
    let mut seen = None;
    for look in 0..LOOKS {
        if look > 0 {
            thread::sleep(pause);
        }
        match torn_at() {
            None => return false,
            at if at == seen => return true,
            at => seen = at,
        }
    }
    false
}

/// Writes whole lines at once, in pieces of about `most` bytes.
fn write_counted(
    out: &mut dyn Write,
    mut bytes: &[u8],
    most: usize,
    written: &mut dyn FnMut(usize),
) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(&bytes[..whole_lines(bytes, most)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                written(n);
                bytes = &bytes[n..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The length of as many lines as fit into `most` bytes, of one at least.
fn whole_lines(bytes: &[u8], most: usize) -> usize {
    if bytes.len() <= most {
        return bytes.len();
    }
    let last = bytes[..most].iter().rposition(|byte| *byte == b'\n');
    let end = last.or_else(|| bytes.iter().position(|byte| *byte == b'\n'));
    end.map_or(bytes.len(), |end| end + 1)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn to_file(path: PathBuf) -> LogConfig {
        LogConfig { file: Some(path), ..LogConfig::default() }
    }

    #[test]
    fn a_file_is_created_for_its_owner_only_and_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sync.log");
        for line in [b"one\n", b"two\n"] {
            let mut opened = Destination::open_all("synclog", &to_file(path.clone())).unwrap();
            opened[0].write(line, &mut |_| ()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_line_that_a_killed_process_left_torn_takes_no_other_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sync.log");
        std::fs::write(&path, "one\ntw").unwrap();
        let mut opened = Destination::open_all("synclog", &to_file(path.clone())).unwrap();
        for line in [b"three\n", b"four!\n"] {
            opened[0].write(line, &mut |_| ()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntw\nthree\nfour!\n");
    }

    #[test]
    fn a_line_that_the_predecessor_was_writing_is_not_ended_twice_and_one_that_it_left_later_is_ended() {
        for (before, then, expected) in
            [("one\ntw", "o\n", "one\ntwo\nthree\n"), ("one\n", "tw", "one\ntw\nthree\n")]
        {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("sync.log");
            std::fs::write(&path, before).unwrap();
            let mut predecessor = OpenOptions::new().append(true).open(&path).unwrap();
            let mut opened = Destination::open_all("synclog", &to_file(path.clone())).unwrap();
            predecessor.write_all(then.as_bytes()).unwrap();
            opened[0].write(b"three\n", &mut |_| ()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        }
    }

    #[test]
    fn a_line_is_left_torn_only_if_it_stays_as_it_is() {
        for (looks, left) in [
            (&[None][..], false),
            (&[Some(5), None], false),
            (&[Some(5), Some(5)], true),
            (&[Some(5), Some(9), Some(9)], true),
            (&[Some(5), Some(9), Some(12)], false),
        ] {
            let mut next = looks.iter();
            assert_eq!(is_left(|| *next.next().unwrap(), Duration::ZERO), left, "{looks:?}");
        }
    }

    #[test]
    fn a_pipe_gets_whole_lines_in_pieces_that_it_takes_at_once() {
        let lines = |lengths: &[usize]| lengths.iter().map(|n| "x".repeat(n - 1) + "\n").collect::<String>();
        for (lengths, pieces) in [
            (&[10, 10][..], &[20][..]),
            (&[4000, 96, 1], &[4096, 1]),
            (&[4000, 97], &[4000, 97]),
            (&[5000, 10], &[5000, 10]),
        ] {
            let text = lines(lengths);
            let mut written = Vec::new();
            write_counted(&mut Vec::new(), text.as_bytes(), PIPE_BUF, &mut |n| written.push(n)).unwrap();
            assert_eq!(written, pieces);
        }
    }

    #[test]
    fn a_missing_directory_is_a_clear_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none/sync.log");
        let error = Destination::open_all("synclog", &to_file(path.clone())).err().unwrap();
        let text = error.to_string();
        assert!(text.starts_with(&format!("synclog: cannot open {}: ", path.display())), "{text}");
        assert!(text.ends_with("(its directory does not exist)"), "{text}");
    }
}
