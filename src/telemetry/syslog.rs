//! A syslog as a log's destination: one message per line, to a socket of this host or by UDP to a collector.
//!
//! - **Form.** A local daemon gets what libc sends, `<PRI>Mmm dd hh:mm:ss akubra[PID]: LINE`: it knows the host and
//!   the year, and each of them parses that. A collector gets RFC 5424, since over the network a time needs its zone
//!   and a message its host; the MSGID is the log's name.
//! - **Severity.** The main log's is its level's. A record of the synclog is a warning: a replica has to be mended.
//!   Other lines are informational.
//! - **One line is one message.** Lines come with every control character escaped, so that none can end a message.
//!   Datagrams need no end; on a stream socket it is a NUL, as libc writes it.
//! - **Length.** Past [`MOST`], which is where rsyslog cuts, a message ends in `...[N bytes cut]`, and is counted.
//! - **A daemon that is away**: as with every destination the line is tried again. One that was restarted is found by
//!   the failure, and connected to at once. What UDP loses nobody notices, unless a host says that nobody listens: then
//!   the line that was sent before is lost, and the next ones wait, each asked about until one meets no such answer.

use std::{
    fmt,
    io::{self, Write},
    net::{ToSocketAddrs, UdpSocket},
    os::unix::net::{UnixDatagram, UnixStream},
    path::Path,
    process, thread,
    time::{Duration, Instant},
};

use chrono::{Local, SecondsFormat, Utc};
use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};

use super::{MAINLOG, destination::Sink, metrics::DestinationMetrics, report::Report};
use crate::config::{Syslog, SyslogAddress};

/// Longest message in bytes.
const MOST: usize = 8 << 10;
/// For a daemon to take one message.
const PATIENCE: Duration = Duration::from_secs(5);
/// A collector's name is looked up as often.
const LOOKUP: Duration = Duration::from_secs(60);
/// For a host to say that nobody listens, where one has said so before.
const ANSWER: Duration = Duration::from_millis(50);
const NAME: &str = "akubra";
const LABEL: &str = "syslog";

/// Severities as RFC 5424 numbers them.
const ERROR: u8 = 3;
const WARNING: u8 = 4;
const INFORMATIONAL: u8 = 6;
const DEBUG: u8 = 7;

/// One log's way to a syslog.
pub struct SyslogSink {
    log: &'static str,
    syslog: Syslog,
    /// None before the first line, and after a failure.
    socket: Option<Socket>,
    /// The last datagram failed: the next one has not arrived just because it was sent.
    doubted: bool,
    host: String,
    metrics: DestinationMetrics,
    cut: Report,
}

enum Socket {
    Datagram(UnixDatagram),
    Stream(UnixStream),
    /// And when its address was looked up.
    Udp(UdpSocket, Instant),
}

impl SyslogSink {
    pub fn new(log: &'static str, syslog: Syslog) -> SyslogSink {
        let metrics = DestinationMetrics::of(log, LABEL);
        SyslogSink { log, syslog, socket: None, doubted: false, host: host(), metrics, cut: Report::new(log) }
    }

    /// The message of a line.
    fn message(&self, line: &[u8]) -> Vec<u8> {
        let priority = u32::from(self.syslog.facility) * 8 + u32::from(severity(self.log, line));
        let pid = process::id();
        let mut message = match self.syslog.address {
            SyslogAddress::Unix(_) => {
                let time = Local::now().format("%b %e %H:%M:%S");
                format!("<{priority}>{time} {NAME}[{pid}]: ")
            }
            SyslogAddress::Udp { .. } => {
                let time = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
                format!("<{priority}>1 {time} {} {NAME} {pid} {} - ", self.host, self.log)
            }
        }
        .into_bytes();
        let room = MOST.saturating_sub(message.len());
        if line.len() <= room {
            message.extend_from_slice(line);
            return message;
        }
        self.metrics.cut.inc();
        self.cut.error(format_args!(
            "{}: a line of {} bytes is too long for {self}: it was cut",
            self.log,
            line.len()
        ));
        // Room for the note, and no half of a character.
        let mut end = room.saturating_sub(32);
        while end > 0 && line.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
            end -= 1;
        }
        message.extend_from_slice(&line[..end]);
        message.extend_from_slice(format!("...[{} bytes cut]", line.len() - end).as_bytes());
        message
    }

    /// Sends one message, on a fresh connection where the one there was is dead.
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let reused = self.socket.is_some();
        match self.try_send(message) {
            // Nobody knows what a datagram's failure is about: a pause helps, a second datagram is lost as well.
            Err(error) if reused && !matches!(self.syslog.address, SyslogAddress::Udp { .. }) => {
                if error.kind() == io::ErrorKind::WouldBlock { Err(error) } else { self.try_send(message) }
            }
            sent => {
                self.doubted = sent.is_err();
                sent
            }
        }
    }

    fn try_send(&mut self, message: &[u8]) -> io::Result<()> {
        let mut socket = match self.socket.take() {
            // A name server that is down says nothing about the collector.
            Some(Socket::Udp(old, since)) if since.elapsed() > LOOKUP => {
                open(&self.syslog.address).unwrap_or(Socket::Udp(old, Instant::now()))
            }
            Some(socket) => socket,
            None => open(&self.syslog.address)?,
        };
        match &mut socket {
            Socket::Datagram(socket) => whole(socket.send(message)?, message)?,
            Socket::Udp(socket, _) => {
                whole(socket.send(message)?, message)?;
                if self.doubted {
                    thread::sleep(ANSWER);
                    socket.take_error()?.map_or(Ok(()), Err)?;
                }
            }
            Socket::Stream(stream) => stream.write_all(&[message, b"\0"].concat())?,
        }
        self.socket = Some(socket);
        Ok(())
    }
}

impl Sink for SyslogSink {
    fn label(&self) -> &'static str {
        LABEL
    }

    fn write(&mut self, bytes: &[u8], written: &mut dyn FnMut(usize)) -> io::Result<()> {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let message = self.message(line.strip_suffix(b"\n").unwrap_or(line));
            self.send(&message)?;
            written(line.len());
        }
        Ok(())
    }
}

impl fmt::Display for SyslogSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.syslog.address {
            SyslogAddress::Unix(path) => write!(f, "syslog at {}", path.display()),
            SyslogAddress::Udp { host, port } => write!(f, "syslog at udp:{host}:{port}"),
        }
    }
}

fn whole(sent: usize, message: &[u8]) -> io::Result<()> {
    if sent == message.len() { Ok(()) } else { Err(io::Error::other("a message was sent in part only")) }
}

fn open(address: &SyslogAddress) -> io::Result<Socket> {
    match address {
        SyslogAddress::Unix(path) => open_unix(path),
        SyslogAddress::Udp { host, port } => {
            let addresses = (host.as_str(), *port).to_socket_addrs()?;
            let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            for address in addresses {
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let connected = UdpSocket::bind(any).and_then(|socket| {
                    socket.set_write_timeout(Some(PATIENCE))?;
                    socket.connect(address)?;
                    Ok(socket)
                });
                match connected {
                    Ok(socket) => return Ok(Socket::Udp(socket, Instant::now())),
                    Err(error) => failure = error,
                }
            }
            Err(failure)
        }
    }
}

/// Of datagrams, or where the daemon has a stream of that.
fn open_unix(path: &Path) -> io::Result<Socket> {
    let address = SocketAddrUnix::new(path)?;
    let connected = |kind| {
        let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        // A stream's connection waits where the daemon does not accept; this bounds that, too.
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        connect(&socket, &address)?;
        Ok(socket)
    };
    match connected(SocketType::DGRAM) {
        Ok(socket) => Ok(Socket::Datagram(socket.into())),
        Err(Errno::PROTOTYPE) => Ok(Socket::Stream(connected(SocketType::STREAM)?.into())),
        Err(error) => Err(error.into()),
    }
}

/// This host's name as RFC 5424 allows it.
fn host() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    let fits = !name.is_empty() && name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { name.into_owned() } else { "-".to_owned() }
}

fn severity(log: &str, line: &[u8]) -> u8 {
    match log {
        crate::telemetry::SYNCLOG => WARNING,
        MAINLOG => match level(line) {
            Some(b"ERROR") => ERROR,
            Some(b"WARN") => WARNING,
            Some(b"DEBUG" | b"TRACE") => DEBUG,
            _ => INFORMATIONAL,
        },
        _ => INFORMATIONAL,
    }
}

/// The level in a line of the main log, which writes it before anything that comes from outside.
fn level(line: &[u8]) -> Option<&[u8]> {
    match line {
        [b'{', ..] => line.split(|byte| *byte == b'"').nth(7),
        _ => line.split(|byte| *byte == b' ').nth(1),
    }
}

#[cfg(test)]
#[path = "syslog_tests.rs"]
mod tests;
