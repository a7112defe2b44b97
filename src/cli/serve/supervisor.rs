//! What systemd, or whoever else started the process, is told of its life: the protocol of sd_notify(3).
//!
//! The supervisor names a datagram socket in `NOTIFY_SOCKET`; without it nothing is told. The word that matters
//! is `MAINPID`: with it a successor becomes the service's main process before its predecessor ends.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    time::Duration,
};

/// The longest that telling may hold the process up.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Supervisor(Option<SocketAddr>);

impl Supervisor {
    pub fn from_environment() -> Supervisor {
        let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return Supervisor(None) };
        match address(&socket) {
            Ok(address) => Supervisor(Some(address)),
            Err(error) => {
                log::warn!("NOTIFY_SOCKET: {error}: the supervisor is told nothing");
                Supervisor(None)
            }
        }
    }

    /// This process serves, and is the main one.
    pub fn serving(&self) {
        self.tell(&format!("MAINPID={}\nREADY=1\nSTATUS=Serving", process::id()));
    }

    /// It hands over. To be followed by a successor's `serving`, or by `still_serving`.
    pub fn handing_over(&self) {
        self.tell("RELOADING=1\nSTATUS=Handing over to a successor");
    }

    pub fn still_serving(&self) {
        self.tell("READY=1\nSTATUS=Serving; a successor failed to take over");
    }

    /// The service ends: never said by a predecessor, whose service goes on.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Finishing what is under way");
    }

    fn tell(&self, what: &str) {
        let Some(address) = &self.0 else { return };
        let told = || {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(PATIENCE))?;
            socket.send_to_addr(what.as_bytes(), address)
        };
        if let Err(error) = told() {
            log::warn!("the supervisor cannot be told {what:?}: {error}");
        }
    }
}

/// A path, or with "@" in front an abstract name.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::other("neither an absolute path nor an abstract name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_hears_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("@akubra-test-{}", process::id());
        for socket in [path.as_os_str(), OsStr::new(&name)] {
            let address = address(socket).unwrap();
            let ear = UnixDatagram::bind_addr(&address).unwrap();
            Supervisor(Some(address)).serving();
            let mut heard = [0; 200];
            let length = ear.recv(&mut heard).unwrap();
            let expected = format!("MAINPID={}\nREADY=1\n", process::id());
            assert!(heard[..length].starts_with(expected.as_bytes()));
        }
        assert!(address(OsStr::new("relative")).is_err());
    }
}
