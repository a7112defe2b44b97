//! A listening socket, bound by us and not by Pingora.
//!
//! Pingora binds in a task of its own, retries for half a minute and then panics there; here an address that
//! cannot be had is an error at the start. It also removes any file in the way of a unix socket; here only a
//! socket that nobody listens on. And a descriptor of our own, beside the one that Pingora accepts on, can be
//! handed to a successor and asked who waits.

use std::{
    fs::{File, Metadata, Permissions},
    io,
    net::TcpListener,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::Path,
};

use anyhow::{Context, bail, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt},
};

use crate::config::Listen;

/// Everybody on the machine may connect.
const EVERYBODY: u32 = 0o666;

/// As many as Pingora asks for; the kernel has a bound of its own (`net.core.somaxconn`).
const BACKLOG: i32 = 65_535;

#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// For people: where it listens, with the port that the system chose.
    pub address: String,
}

impl Socket {
    pub fn bind(listen: &Listen) -> anyhow::Result<Socket> {
        let fd = match listen {
            Listen::Tcp(address) => TcpListener::bind(address).map(OwnedFd::from).and_then(|fd| {
                // Until it accepts, and while it is busy, clients wait here; the library's 128 are soon full.
                rustix::net::listen(&fd, BACKLOG)?;
                Ok(fd)
            }),
            Listen::Unix(path) => bind_unix(path, EVERYBODY).map(OwnedFd::from),
        };
        Socket::new(listen, fd.with_context(|| format!("cannot listen on {listen}"))?)
    }

    /// Takes a descriptor that another process bound, if it is what it is said to be.
    pub fn adopt(listen: &Listen, fd: OwnedFd) -> anyhow::Result<Socket> {
        let is_listening = sockopt::socket_acceptconn(&fd).context("not a socket")?;
        ensure!(is_listening, "not a listening socket");
        match listen {
            Listen::Tcp(address) => {
                let bound = TcpListener::from(fd.try_clone()?).local_addr()?;
                let port = if address.port() == 0 { bound.port() } else { address.port() };
                ensure!((bound.ip(), bound.port()) == (address.ip(), port), "it is bound to {bound}");
            }
            Listen::Unix(path) => {
                let bound = UnixListener::from(fd.try_clone()?).local_addr()?;
                ensure!(bound.as_pathname() == Some(path), "it is bound to {bound:?}");
                // Pingora does the same when it accepts on it, and panics where that fails.
                std::fs::set_permissions(path, Permissions::from_mode(EVERYBODY))?;
            }
        }
        Socket::new(listen, fd)
    }

    fn new(listen: &Listen, fd: OwnedFd) -> anyhow::Result<Socket> {
        // Pingora does not do it for a descriptor that it is given.
        rustix::io::ioctl_fionbio(&fd, true)?;
        let address = match listen {
            Listen::Tcp(_) => format!("http://{}", TcpListener::from(fd.try_clone()?).local_addr()?),
            Listen::Unix(_) => listen.to_string(),
        };
        Ok(Socket { fd, address })
    }

    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Whether the kernel has connections that nobody has accepted yet.
    pub fn has_queued(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Binds a unix socket, in place of one that nobody listens on any more.
pub fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    if let Err(error) = remove_stale(path) {
        return Err(io::Error::other(format!("{error:#}")));
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Which file there is at a path. It is told from any other for as long as something holds it: a socket that is
/// bound to it, or a descriptor. After that its number may be another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(metadata: &Metadata) -> FileId {
        FileId { device: metadata.dev(), inode: metadata.ino() }
    }

    pub fn at(path: &Path) -> io::Result<FileId> {
        std::fs::symlink_metadata(path).map(|metadata| FileId::of(&metadata))
    }

    /// Removes the file there if it is still this one: another process may have put its own there since.
    pub fn remove(self, path: &Path) -> io::Result<()> {
        if FileId::at(path)? != self {
            return Err(io::Error::other("there is another process's file by now"));
        }
        std::fs::remove_file(path)
    }
}

fn remove_stale(path: &Path) -> anyhow::Result<()> {
    // Held until it is removed.
    let file = match rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    {
        Err(Errno::NOENT) => return Ok(()),
        file => File::from(file?),
    };
    let metadata = file.metadata()?;
    ensure!(metadata.file_type().is_socket(), "there is a file that is no socket");
    // Not blocking: whoever listens may have a full queue.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&probe, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED) => {
            FileId::of(&metadata).remove(path).context("an old socket cannot be removed")
        }
        Ok(()) | Err(Errno::AGAIN) => bail!("another process listens there"),
        Err(error) => bail!("there is a socket that cannot be tried: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listen = Listen::Unix(path.clone());
        drop(Socket::bind(&listen).unwrap());
        let live = Socket::bind(&listen).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, EVERYBODY);
        let error = format!("{:#}", Socket::bind(&listen).unwrap_err());
        assert!(error.contains("another process listens there"), "{error}");
        drop(live);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(Socket::bind(&listen).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_file_that_was_replaced_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _first = UnixListener::bind(&path).unwrap();
        let first = FileId::at(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _second = UnixListener::bind(&path).unwrap();
        assert!(first.remove(&path).is_err() && path.exists());
        FileId::at(&path).unwrap().remove(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn only_a_socket_that_listens_where_it_should_is_adopted() {
        let any = Listen::parse("127.0.0.1:0").unwrap();
        let socket = Socket::bind(&any).unwrap();
        let address = socket.address.strip_prefix("http://").unwrap();
        for (text, good) in [("127.0.0.1:0", true), (address, true), ("127.0.0.1:1", false), (":0", false)] {
            let adopted = Socket::adopt(&Listen::parse(text).unwrap(), socket.duplicate().unwrap());
            assert_eq!(adopted.is_ok(), good, "{text}");
        }
        let connection = std::net::TcpStream::connect(address).unwrap();
        assert!(Socket::adopt(&any, connection.into()).is_err());
        assert!(Socket::adopt(&any, std::fs::File::open("/dev/null").unwrap().into()).is_err());
        assert!(Socket::adopt(&Listen::parse("unix:/x").unwrap(), socket.duplicate().unwrap()).is_err());
    }

    #[test]
    fn a_connection_that_nobody_accepted_is_seen() {
        let socket = Socket::bind(&Listen::parse("127.0.0.1:0").unwrap()).unwrap();
        assert!(!socket.has_queued());
        let _waiting = std::net::TcpStream::connect(socket.address.strip_prefix("http://").unwrap()).unwrap();
        assert!(socket.has_queued());
    }
}
