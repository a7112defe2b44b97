//! The client: one exchange at a time on each of its connections, one thread for all of them.
//!
//! Not wrk: that runs for a time, where requests are to be counted; knows nothing of fresh and reused
//! connections; and spends as much on a request with a Lua body as the proxies that it should measure.

pub mod idle;
pub mod load;
pub mod takeover;

use std::{
    io::{self, Write},
    net::SocketAddr,
};

use tokio::net::TcpStream;

use crate::wire::{Connection, Framing, Unpaced, invalid, keeps_alive};

/// What a signed request of an S3 client carries; nobody here checks it.
const FIELDS: &str = "User-Agent: aws-sdk-rust/1.3.7 os/linux lang/rust/1.95.0\r\n\
    x-amz-content-sha256: UNSIGNED-PAYLOAD\r\nx-amz-date: 20260101T000000Z\r\n\
    Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260101/us-east-1/s3/aws4_request, \
    SignedHeaders=host;x-amz-content-sha256;x-amz-date, \
    Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd\r\n";

/// A request's method, and with it what is expected of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Method {
    Put,
    Get,
}

/// Requests for objects of one size at one address.
pub struct Target {
    pub address: SocketAddr,
    pub method: Method,
    pub size: usize,
    body: Vec<u8>,
}

/// How an exchange failed.
#[derive(Debug)]
pub struct Failure {
    pub error: io::Error,
    /// Whether it failed before the first byte of an answer.
    pub unanswered: bool,
}

impl Failure {
    fn before(error: io::Error) -> Self {
        Failure { error, unanswered: true }
    }

    fn within(error: io::Error) -> Self {
        Failure { error, unanswered: false }
    }
}

struct Answer {
    status: u16,
    framing: Framing,
    keeps_alive: bool,
}

impl Answer {
    fn parse(bytes: &[u8]) -> io::Result<Option<(usize, Self)>> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut answer = httparse::Response::new(&mut headers);
        let length = match answer.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(invalid("an answer's head")),
        };
        let found = Answer {
            status: answer.code.unwrap_or_default(),
            framing: Framing::of(answer.headers)?,
            keeps_alive: keeps_alive(answer.headers),
        };
        Ok(Some((length, found)))
    }
}

impl Target {
    #[must_use]
    pub fn new(address: SocketAddr, method: Method, size: usize) -> Self {
        let body = if method == Method::Put { vec![b'a'; size] } else { Vec::new() };
        Target { address, method, size, body }
    }

    /// The path of an object: its size is the sink's to know.
    #[must_use]
    pub fn path(&self, name: impl std::fmt::Display) -> String {
        format!("/bucket/{}/{name}", self.size)
    }

    /// # Errors
    /// When the address does not take connections.
    pub async fn connect(&self) -> io::Result<Connection> {
        Connection::new(TcpStream::connect(self.address).await?)
    }

    /// One request and its whole answer, which must be 200 with a body of the right size. Tells whether the
    /// connection can be used again.
    ///
    /// # Errors
    /// For anything else.
    pub async fn exchange(&self, connection: &mut Connection, path: &str) -> Result<bool, Failure> {
        let mut head = Vec::with_capacity(FIELDS.len() + path.len() + 128);
        let Target { address, method, size, .. } = self;
        let written = match method {
            Method::Put => write!(
                head,
                "PUT {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {size}\r\n{FIELDS}\r\n"
            ),
            Method::Get => write!(head, "GET {path} HTTP/1.1\r\nHost: {address}\r\n{FIELDS}\r\n"),
        };
        written.map_err(Failure::before)?;
        let sent = connection.write(&head, &self.body).await;
        // Whoever refuses a body may have said why before it stopped reading.
        let answer = match (connection.head(Answer::parse).await, sent) {
            (Ok(Some(answer)), _) => answer,
            (_, Err(error)) => return Err(Failure::before(error)),
            (Ok(None), _) => return Err(Failure::before(io::ErrorKind::UnexpectedEof.into())),
            (Err(error), _) => {
                return Err(Failure { error, unanswered: !connection.has_read() });
            }
        };
        if answer.status != 200 {
            return Err(Failure::within(io::Error::other(format!("status {}", answer.status))));
        }
        let length = connection.discard(answer.framing, &Unpaced).await.map_err(Failure::within)?;
        let expected = if self.method == Method::Get { self.size as u64 } else { 0 };
        if length != expected {
            let wrong = format!("a body of {length} bytes instead of {expected}");
            return Err(Failure::within(io::Error::other(wrong)));
        }
        Ok(answer.keeps_alive)
    }
}

/// The first few errors, to be shown.
#[derive(Debug, Default)]
pub struct Complaints(Vec<String>);

impl Complaints {
    const SHOWN: usize = 5;

    pub fn add(&mut self, what: &str, failure: &Failure) {
        if self.0.len() < Self::SHOWN {
            let when = if failure.unanswered { "before an answer" } else { "in an answer" };
            self.0.push(format!("{what}: {when}: {}", failure.error));
        }
    }

    #[must_use]
    pub fn shown(&self) -> &[String] {
        &self.0
    }
}
