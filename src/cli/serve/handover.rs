//! How listening sockets go from a process to its successor.
//!
//! The successor listens on a unix socket (`upgrade_sock`), and the predecessor, told by SIGQUIT, connects. The
//! talk has four lines: the predecessor's *offer* names its sockets and carries their descriptors; the successor
//! says `ready` when nothing but accepting is left to be done, or `failed` and why; the predecessor says `yours`;
//! the successor accepts and says `taken`, and only then the predecessor stops to accept. Until `yours` a
//! successor that fails, hangs or dies has touched no connection, and until `taken` the predecessor goes on as it
//! was if anything goes wrong. Pingora's own way tells the predecessor nothing of its successor's fate.
//!
//! Neither side trusts the path alone: each asks the kernel who the other is, and what is read is bounded ([`talk`]).

mod talk;

use std::{
    collections::HashMap,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{UnixListener, UnixStream},
    time::{Instant, sleep, timeout, timeout_at},
};

use self::talk::{check_peer, printable, read_line, receive_with, say, send_with};
use super::socket::{FileId, bind_unix};

/// Of this talk; a process that speaks another is refused.
const VERSION: u32 = 1;
/// For a successor to become ready: its first lookup of names is the longest part.
const GETTING_READY: Duration = Duration::from_secs(30);
/// For a successor to accept. Long for what is done at once: a predecessor that gives up on one that was only held up goes
/// on beside it.
const TAKING: Duration = Duration::from_secs(15);
/// For everything else that one side says at once.
const AT_ONCE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(20);

const READY: &str = "ready";
const FAILED: &str = "failed ";
const YOURS: &str = "yours";
const TAKEN: &str = "taken";

#[derive(Debug, Serialize, Deserialize)]
struct Offer {
    version: u32,
    /// One per descriptor, in order.
    sockets: Vec<String>,
}

/// A successor that is ready.
#[derive(Debug)]
pub struct Successor {
    stream: UnixStream,
    pid: u32,
}

impl Successor {
    /// Lets it accept. Returns its process id when it does; the caller must then stop to. An error means that
    /// nothing was handed over. Not to be cancelled: the successor may have begun.
    pub async fn hand_over(mut self) -> anyhow::Result<u32> {
        let said = timeout(AT_ONCE, say(&mut self.stream, YOURS)).await;
        said.context("the successor does not read")?.context("the successor has gone")?;
        hear(&mut self.stream, TAKEN, TAKING).await.context("the successor does not take the sockets")?;
        Ok(self.pid)
    }
}

/// The predecessor's side: offers sockets to a successor, waiting for one to come at most `patience`. An error,
/// and dropping this, mean that nothing was handed over.
pub async fn offer(
    path: &Path,
    sockets: &[(String, BorrowedFd<'_>)],
    patience: Duration,
) -> anyhow::Result<Successor> {
    let mut stream = connect(path, patience).await?;
    let pid = check_peer(&stream).context("the process that listens there is no successor")?;
    let names = sockets.iter().map(|(name, _)| name.clone()).collect();
    let mut line = serde_json::to_vec(&Offer { version: VERSION, sockets: names })?;
    line.push(b'\n');
    let fds: Vec<_> = sockets.iter().map(|(_, fd)| *fd).collect();
    timeout(AT_ONCE, send_with(&stream, &line, &fds)).await.context("the successor does not read")??;
    // Meanwhile this process serves: there is no hurry.
    hear(&mut stream, READY, GETTING_READY).await.context("the successor is not ready")?;
    Ok(Successor { stream, pid })
}

/// Waits for the successor to say this.
async fn hear(stream: &mut UnixStream, expected: &str, patience: Duration) -> anyhow::Result<()> {
    let Ok(said) = timeout(patience, read_line(stream)).await else {
        bail!("it says nothing for {patience:?}");
    };
    let said = said.context("it has gone")?;
    match said.strip_prefix(FAILED) {
        Some(reason) => bail!("it failed: {}", printable(reason)),
        None => ensure!(said == expected, "it speaks another language"),
    }
    Ok(())
}

async fn connect(path: &Path, patience: Duration) -> anyhow::Result<UnixStream> {
    let deadline = Instant::now() + patience;
    loop {
        match timeout_at(deadline, UnixStream::connect(path)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(_)) if Instant::now() + RETRY < deadline => sleep(RETRY).await,
            Ok(Err(error)) => {
                let at = path.display();
                return Err(error)
                    .with_context(|| format!("no successor listens at {at} after {patience:?}"));
            }
            Err(_) => bail!("what listens at {} takes no connection", path.display()),
        }
    }
}

/// The successor's side, before its predecessor has come. The socket's file goes with it, unless it is another
/// successor's by then.
#[derive(Debug)]
pub struct Expecting {
    listener: UnixListener,
    path: PathBuf,
    file: FileId,
}

/// A predecessor that has made its offer.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    pub pid: u32,
    /// What it offers, by name.
    pub sockets: HashMap<String, OwnedFd>,
}

impl Expecting {
    pub fn bind(path: &Path) -> anyhow::Result<Expecting> {
        let at = || format!("cannot wait for the running instance at {}", path.display());
        let listener = bind_unix(path, 0o600).with_context(at)?;
        let file = FileId::at(path).with_context(at)?;
        listener.set_nonblocking(true).with_context(at)?;
        let listener = UnixListener::from_std(listener).with_context(at)?;
        Ok(Expecting { listener, path: path.to_owned(), file })
    }

    /// Waits for the predecessor's offer. Others who connect are sent away. Cancel-safe: an offer that was not
    /// returned was not accepted.
    pub async fn predecessor(&self) -> anyhow::Result<Predecessor> {
        loop {
            let (stream, _) = self.listener.accept().await.context("no connection can be accepted")?;
            match timeout(AT_ONCE, receive_offer(stream)).await {
                Ok(Ok(predecessor)) => return Ok(predecessor),
                Ok(Err(error)) => log::warn!("{}: not a predecessor: {error:#}", self.path.display()),
                Err(_) => log::warn!("{}: whoever connected says nothing", self.path.display()),
            }
        }
    }
}

impl Drop for Expecting {
    fn drop(&mut self) {
        if let Err(error) = self.file.remove(&self.path) {
            log::debug!("{}: {error}", self.path.display());
        }
    }
}

impl Predecessor {
    /// Says that nothing but accepting is left to be done. Returns when the predecessor waits for that; an error
    /// means that it goes on alone.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let told = timeout(GETTING_READY, async {
            say(&mut self.stream, READY).await?;
            read_line(&mut self.stream).await
        });
        let told = told.await.context("the predecessor does not answer")?;
        ensure!(
            told.context("the predecessor has gone, or goes on as it was")? == YOURS,
            "the predecessor speaks another language"
        );
        Ok(())
    }

    /// Says that connections are accepted here, so that the predecessor stops to.
    pub async fn taken(mut self) {
        // It may be gone, and serving matters more than telling.
        if !matches!(timeout(AT_ONCE, say(&mut self.stream, TAKEN)).await, Ok(Ok(()))) {
            let pid = self.pid;
            log::error!(
                "process {pid} did not hear that its sockets are taken: if it still runs, two serve; end it"
            );
        }
    }

    /// Says why they will not be.
    pub async fn failed(mut self, reason: &str) {
        let line = format!("{FAILED}{}", printable(reason));
        timeout(AT_ONCE, say(&mut self.stream, &line)).await.ok();
    }
}

async fn receive_offer(stream: UnixStream) -> anyhow::Result<Predecessor> {
    let pid = check_peer(&stream)?;
    let (line, fds) = receive_with(&stream).await?;
    let offer: Offer = serde_json::from_slice(&line).context("this is no offer of sockets")?;
    ensure!(offer.version == VERSION, "it speaks version {} of the hand-over, not {VERSION}", offer.version);
    ensure!(offer.sockets.len() == fds.len(), "names and descriptors do not match");
    let count = fds.len();
    let sockets: HashMap<_, _> = offer.sockets.into_iter().zip(fds).collect();
    ensure!(sockets.len() == count, "two sockets have one name");
    Ok(Predecessor { stream, pid, sockets })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, IoSlice, Read, Write},
        mem::MaybeUninit,
        os::fd::AsFd,
    };

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::{
        talk::{LONGEST_LINE, MOST_SOCKETS},
        *,
    };

    const SOON: Duration = Duration::from_secs(10);

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upgrade.sock");
        (folder, path)
    }

    fn pipe() -> (OwnedFd, OwnedFd) {
        let (reader, writer) = io::pipe().unwrap();
        (reader.into(), writer.into())
    }

    #[tokio::test]
    async fn descriptors_arrive_under_their_names_and_the_talk_ends_well() {
        let (_folder, path) = place();
        let (reader, writer) = pipe();
        let expecting = Expecting::bind(&path).unwrap();
        let succeed = async {
            let mut predecessor = expecting.predecessor().await.unwrap();
            assert_eq!(predecessor.pid, std::process::id());
            let mut sockets = std::mem::take(&mut predecessor.sockets);
            predecessor.ready().await.unwrap();
            std::fs::File::from(sockets.remove("out").unwrap()).write_all(b"through").unwrap();
            assert!(sockets.contains_key("in"));
            predecessor.taken().await;
        };
        let precede = async {
            let sockets = [("in".to_owned(), reader.as_fd()), ("out".to_owned(), writer.as_fd())];
            let successor = offer(&path, &sockets, SOON).await.unwrap();
            assert_eq!(successor.hand_over().await.unwrap(), std::process::id());
        };
        tokio::join!(succeed, precede);
        drop(writer);
        let mut text = String::new();
        std::fs::File::from(reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        drop(expecting);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_successor_leaves_anothers_socket_alone() {
        let (_folder, path) = place();
        let first = Expecting::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let second = Expecting::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_predecessor_that_withdraws_is_noticed() {
        let (_folder, path) = place();
        let (reader, _writer) = pipe();
        let expecting = Expecting::bind(&path).unwrap();
        let sockets = [("in".to_owned(), reader.as_fd())];
        let mut predecessor = tokio::select! {
            predecessor = expecting.predecessor() => predecessor.unwrap(),
            outcome = offer(&path, &sockets, SOON) => panic!("{outcome:?}"),
        };
        let error = format!("{:#}", predecessor.ready().await.unwrap_err());
        assert!(error.contains("goes on as it was"), "{error}");
    }

    #[tokio::test]
    async fn a_successor_that_hangs_is_given_up() {
        let (_folder, path) = place();
        let (reader, _writer) = pipe();
        let expecting = Expecting::bind(&path).unwrap();
        let sockets = [("in".to_owned(), reader.as_fd())];
        let (_hanging, error) = tokio::join!(expecting.predecessor(), async {
            tokio::time::pause();
            format!("{:#}", offer(&path, &sockets, SOON).await.unwrap_err())
        });
        assert!(error.starts_with("the successor is not ready: it says nothing for 30s"), "{error}");
    }

    #[tokio::test]
    async fn a_successor_that_is_held_up_when_it_should_begin_is_waited_for() {
        let (_folder, path) = place();
        let (reader, _writer) = pipe();
        let expecting = Expecting::bind(&path).unwrap();
        let sockets = [("in".to_owned(), reader.as_fd())];
        let succeed = async {
            let mut predecessor = expecting.predecessor().await.unwrap();
            predecessor.ready().await.unwrap();
            tokio::time::pause();
            sleep(TAKING - AT_ONCE).await;
            predecessor.taken().await;
        };
        let precede = async { offer(&path, &sockets, SOON).await.unwrap().hand_over().await };
        let ((), handed) = tokio::join!(succeed, precede);
        handed.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_offer_of_this_version_is_refused() {
        let (reader, _writer) = pipe();
        let too_long = format!("{{\"version\":1,\"sockets\":[\"{}\"]}}\n", "x".repeat(LONGEST_LINE));
        for (line, fds, why) in [
            ("{}\n", 0, "no offer"),
            ("{\"version\":2,\"sockets\":[]}\n", 0, "version 2"),
            ("{\"version\":1,\"sockets\":[\"a\"]}\n", 0, "do not match"),
            ("{\"version\":1,\"sockets\":[]}\n", 1, "do not match"),
            ("{\"version\":1,\"sockets\":[\"a\",\"a\"]}\n", 2, "one name"),
            ("{\"version\":1", 0, "closed"),
            (&too_long, 0, "too much"),
        ] {
            let (here, there) = UnixStream::pair().unwrap();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let fds = vec![reader.as_fd(); fds];
            assert!(fds.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
            sendmsg(&there, &[IoSlice::new(line.as_bytes())], &mut ancillary, SendFlags::empty()).unwrap();
            drop(there);
            let error = format!("{:#}", receive_offer(here).await.unwrap_err());
            assert!(error.contains(why), "{line}: {error}");
        }
    }

    #[tokio::test]
    async fn too_many_descriptors_are_refused_and_closed() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut kept, given) = io::pipe().unwrap();
        let fds = vec![given.as_fd(); 40];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(40))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
        let line = b"{\"version\":1,\"sockets\":[]}\n";
        sendmsg(&there, &[IoSlice::new(line)], &mut ancillary, SendFlags::empty()).unwrap();
        let error = format!("{:#}", receive_offer(here).await.unwrap_err());
        assert!(error.contains("too many descriptors"), "{error}");
        drop(given);
        assert_eq!(kept.read(&mut [0]).unwrap(), 0, "one is still open");
    }
}
