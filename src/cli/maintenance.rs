//! `akubra maintenance`: asks the running gateway who is under maintenance, or changes that.
//!
//! It talks to the technical endpoint that the configuration names, with the token that the configuration names: so
//! who may read that file with its secrets may do this.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};

use crate::{
    config::{Config, Listen, Technical},
    technical::maintenance::{Change, PATH},
};

/// For the connection, and for each step of the talk; the endpoint gives up a change sooner.
const PATIENCE: Duration = Duration::from_secs(15);
const ANSWER_MOST: u64 = 4 << 20;

/// What is to be done.
#[derive(clap::Subcommand)]
pub enum Action {
    /// The backend gets nothing from now on; the writes that it misses are recorded
    On(Chosen),
    /// The backend is used again
    Off(Chosen),
    /// Show all backends, as JSON
    List {
        /// The configuration file of the running gateway
        #[arg(short, long, value_name = "FILE")]
        conf: String,
    },
}

#[derive(clap::Args)]
pub struct Chosen {
    /// Its URL, as in the configuration
    backend: String,
    /// The configuration file of the running gateway
    #[arg(short, long, value_name = "FILE")]
    conf: String,
    /// Shown on the status page
    #[arg(long, default_value = "")]
    reason: String,
}

impl Action {
    pub fn conf(&self) -> &str {
        match self {
            Action::On(chosen) | Action::Off(chosen) => &chosen.conf,
            Action::List { conf } => conf,
        }
    }
}

/// Does it, and prints what the gateway says.
pub fn run(config: &Config, action: &Action, out: &mut impl Write) -> anyhow::Result<()> {
    let technical = config.technical.as_ref().ok_or_else(|| {
        anyhow!("the configuration has no TechnicalEndpointListen: there is nobody to talk to")
    })?;
    let body = match action {
        Action::List { .. } => None,
        Action::On(chosen) => Some(change(chosen, true)?),
        Action::Off(chosen) => Some(change(chosen, false)?),
    };
    if body.is_some() && technical.token.is_none() {
        bail!(
            "the configuration has no TechnicalEndpointToken: without one nothing can be changed at run time"
        );
    }
    let answer = talk(technical, body.as_deref()).with_context(|| {
        format!("the gateway's technical endpoint at {} does not answer", technical.listen)
    })?;
    let (status, text) = parse(&answer).context("the technical endpoint gives no answer that makes sense")?;
    match status {
        200 => Ok(out.write_all(text)?),
        _ => bail!("{} ({status})", String::from_utf8_lossy(text).trim_end()),
    }
}

fn change(chosen: &Chosen, maintenance: bool) -> anyhow::Result<String> {
    let change = Change { backend: chosen.backend.clone(), maintenance, reason: chosen.reason.clone() };
    Ok(serde_json::to_string(&change)?)
}

/// One request and its answer, to the end of the connection.
fn talk(technical: &Technical, body: Option<&str>) -> io::Result<Vec<u8>> {
    let token = technical.token.as_ref().map_or("", |token| token.reveal());
    let request = match body {
        None => format!("GET {PATH} HTTP/1.1\r\nHost: akubra\r\nConnection: close\r\n\r\n"),
        Some(body) => format!(
            "POST {PATH} HTTP/1.1\r\nHost: akubra\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    };
    match &technical.listen {
        Listen::Tcp(address) => {
            let stream = TcpStream::connect_timeout(&reachable(*address), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            exchange(stream, &request)
        }
        Listen::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            exchange(stream, &request)
        }
    }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MOST).read_to_end(&mut answer)?;
    Ok(answer)
}

/// An address to listen on as one to connect to.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Status and body.
fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = memchr::memmem::find(answer, b"\r\n\r\n")?;
    let line = answer.split(|byte| *byte == b'\r').next()?;
    let status = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, &answer[end + 4..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        assert_eq!(parse(b"HTTP/1.1 404 Not Found\r\na: b\r\n\r\nno"), Some((404, b"no".as_slice())));
        for wrong in [b"".as_slice(), b"HTTP/1.1 200 OK\r\n", b"SSH-2.0\r\n\r\n", b"HTTP/1.1 2\r\n\r\n"] {
            assert_eq!(parse(wrong), None);
        }
    }

    #[test]
    fn an_address_for_all_is_reached_by_the_loopback_interface() {
        for (listen, connect) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")]
        {
            assert_eq!(reachable(listen.parse().unwrap()), connect.parse().unwrap());
        }
    }
}
