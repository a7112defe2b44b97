//! The backend that proxies are measured in front of: takes every body, keeps none, and answers as S3 would.
//!
//! PUT is answered 200 with an ETag, DELETE 204, and GET with as many bytes as the path names
//! (`/bucket/4096/anything`). All sinks answer with the same ETag, as replicas of one object do.

use std::{
    cell::{Cell, RefCell},
    fs::File,
    io::{self, BufWriter, Write},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::Instant,
};

use crate::wire::{Connection, Framing, Pace, Unpaced, field, invalid};

/// The largest object that can be read.
const LARGEST: usize = 64 << 20;
/// Connections that wait to be accepted; the usual 1024 overflow when a proxy opens thousands at once.
const BACKLOG: u32 = 4096;
/// What is granted at once where the rate is limited: small, so that all connections get their share.
const SLICE: usize = 16 << 10;
const FIELDS: &str = "ETag: \"9bb58f26192e4ba00f01e2e7b136bbd8\"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
    x-amz-request-id: tx000000000000000000001-0067e1a4c2-1001-default\r\nContent-Type: application/octet-stream\r\n";

/// What a sink does beyond answering.
#[derive(Default)]
pub struct Options {
    /// Bytes of bodies per second that are read, over all connections.
    pub rate: Option<u64>,
    /// Gets a line for the path of each PUT that was received whole.
    pub paths: Option<File>,
}

/// A sink that listens.
pub struct Sink {
    listener: TcpListener,
    shared: Rc<Shared>,
}

struct Shared {
    rate: Option<Rate>,
    paths: RefCell<Option<BufWriter<File>>>,
    body: Vec<u8>,
}

impl Sink {
    /// Needs a runtime.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn bind(address: SocketAddr, options: Options) -> io::Result<Self> {
        let shared = Shared {
            rate: options.rate.map(Rate::new),
            paths: RefCell::new(options.paths.map(BufWriter::new)),
            // Zeroed and never written to: the kernel backs all of it with one page.
            body: vec![0; LARGEST],
        };
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Sink { listener: socket.listen(BACKLOG)?, shared: Rc::new(shared) })
    }

    /// # Errors
    /// When the system does not know it.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `end`; then the paths are written. Needs a `LocalSet`.
    ///
    /// # Errors
    /// When the paths cannot be written.
    pub async fn serve(self, end: impl Future<Output = ()>) -> io::Result<()> {
        let shared = self.shared.clone();
        tokio::select! {
            () = self.accept() => {}
            () = end => {}
        }
        match shared.paths.borrow_mut().as_mut() {
            Some(paths) => paths.flush(),
            None => Ok(()),
        }
    }

    async fn accept(&self) {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                // Out of file descriptors, most likely.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let shared = self.shared.clone();
            tokio::task::spawn_local(async move {
                // A peer that breaks off is the peer's concern: it counts its own errors.
                shared.converse(stream).await.ok();
            });
        }
    }
}

enum Method {
    Get,
    Head,
    Put,
    Delete,
    Other,
}

struct Request {
    method: Method,
    path: String,
    framing: Framing,
    expects_continue: bool,
}

impl Request {
    fn parse(bytes: &[u8]) -> io::Result<Option<(usize, Self)>> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(invalid("a request's head")),
        };
        let method = match request.method {
            Some("GET") => Method::Get,
            Some("HEAD") => Method::Head,
            Some("PUT") => Method::Put,
            Some("DELETE") => Method::Delete,
            _ => Method::Other,
        };
        let found = Request {
            method,
            path: request.path.unwrap_or_default().to_owned(),
            framing: Framing::of(request.headers)?,
            expects_continue: field(request.headers, "expect").is_some(),
        };
        Ok(Some((length, found)))
    }

    /// The second part of the path, where an object's size is.
    fn size(&self) -> Option<usize> {
        let size = self.path.split('/').nth(2)?.parse().ok()?;
        (size <= LARGEST).then_some(size)
    }
}

impl Shared {
    async fn converse(&self, stream: TcpStream) -> io::Result<()> {
        let mut connection = Connection::new(stream)?;
        let mut head = Vec::with_capacity(512);
        while let Some(request) = connection.head(Request::parse).await? {
            if request.expects_continue {
                connection.write(b"HTTP/1.1 100 Continue\r\n\r\n", &[]).await?;
            }
            match &self.rate {
                Some(rate) => connection.discard(request.framing, rate).await?,
                None => connection.discard(request.framing, &Unpaced).await?,
            };
            let (status, length, body) = match (&request.method, request.size()) {
                (Method::Get, Some(size)) => ("200 OK", size, &self.body[..size]),
                (Method::Head, Some(size)) => ("200 OK", size, &[][..]),
                (Method::Get | Method::Head, None) => ("404 Not Found", 0, &[][..]),
                (Method::Put, _) => {
                    self.keep(&request.path)?;
                    ("200 OK", 0, &[][..])
                }
                (Method::Delete, _) => ("204 No Content", 0, &[][..]),
                (Method::Other, _) => ("501 Not Implemented", 0, &[][..]),
            };
            head.clear();
            write!(head, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{FIELDS}\r\n")?;
            connection.write(&head, body).await?;
        }
        Ok(())
    }

    fn keep(&self, path: &str) -> io::Result<()> {
        match self.paths.borrow_mut().as_mut() {
            Some(paths) => writeln!(paths, "{path}"),
            None => Ok(()),
        }
    }
}

/// A rate that all connections share.
struct Rate {
    per_second: u64,
    /// When the next slice may be read.
    next: Cell<Instant>,
}

impl Rate {
    fn new(per_second: u64) -> Self {
        Rate { per_second: per_second.max(1), next: Cell::new(Instant::now()) }
    }
}

impl Pace for Rate {
    async fn grant(&self, wanted: usize) -> usize {
        let granted = wanted.min(SLICE);
        let start = self.next.get().max(Instant::now());
        self.next.set(start + Duration::from_secs_f64(granted as f64 / self.per_second as f64));
        tokio::time::sleep_until(start).await;
        granted
    }
}
