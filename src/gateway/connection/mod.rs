//! Client connections: from accept to close, one request after the other.
//!
//! In place of Pingora's own loop, which lets a silent client sit for a minute, bounds a head by a megabyte and
//! answers what it cannot parse without a word to the logs. Here each head is read under a deadline and a bound,
//! looked at ([`super::admit`]), and only then handed to Pingora, with what came behind it, as bytes already read.
//!
//! What holds:
//! - A connection is counted in [`Activity`] from accept until its first head has been served, and again from the
//!   first byte of each later head until that one has been. There is no gap between the two, nor between a head
//!   and its request, so a drain that counts nothing has nothing to wait for. An idle connection is not counted.
//! - Between requests a connection holds no buffer: each thread has one to read to, and what
//!   is small is copied from it once.
//! - Pingora's session gets the bytes of one request only. Those of the next stay here.
//! - A client that has sent nothing is closed without an answer; one that has sent a part of a head gets one.

mod accept;
mod chunks;
mod client;
mod proxied;
mod refuse;

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io,
    net::IpAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use log::Level;
use pingora_core::{
    apps::{HttpServerApp, ServerApp},
    protocols::{SocketDigest, Stream, http::ServerSession},
    server::ShutdownWatch,
};
use pingora_proxy::HttpProxy;
use pingora_timeout::timeout;
use tokio::io::AsyncReadExt;

pub use self::accept::{AcceptFilter, Room};
use self::{chunks::Chunks, client::Client};
use super::{
    Gateway, admit,
    drain::{Activity, Running},
    snapshot::Current,
};
use crate::{
    s3::S3Error,
    telemetry::{Logs, report::Report},
    upstream::Framing,
};

/// How much is read at once while a head is waited for: what comes with it of a body is not read again.
const PIECE: usize = 64 * 1024;
/// Up to here copying costs less than a buffer of [`PIECE`] bytes.
const SMALL: usize = 8 * 1024;

/// For the reactor to tell of what the kernel already has.
const LAST_LOOK: Duration = Duration::from_millis(5);

/// What all connections share; one per process.
pub struct Connections {
    proxy: Arc<HttpProxy<Gateway>>,
    current: Arc<Current>,
    logs: Logs,
    activity: Arc<Activity>,
    room: Arc<Room>,
    /// What is wrong with connections, told now and then.
    strange: Report,
}

impl Connections {
    pub fn new(
        proxy: HttpProxy<Gateway>,
        current: Arc<Current>,
        logs: Logs,
        activity: Arc<Activity>,
        room: Arc<Room>,
    ) -> Connections {
        let strange = Report::new("connections");
        Connections { proxy: Arc::new(proxy), current, logs, activity, room, strange }
    }
}

#[async_trait]
impl ServerApp for Connections {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        // The accept loop looks at connections whose peer has an address, and at no others.
        let looked_at = stream.get_socket_digest().is_some_and(|digest| digest.peer_addr().is_some());
        let running = self.activity.take_over(looked_at);
        let _open = self.room.enter(looked_at)?;
        let connection = Connection { shared: self, stream, ahead: BytesMut::new(), running: Some(running) };
        connection.serve(shutdown).await;
        None
    }
}

/// One connection between requests.
struct Connection<'a> {
    shared: &'a Connections,
    stream: Stream,
    /// What has been read and belongs to no request yet.
    ahead: BytesMut,
    /// While a request is under way or expected.
    running: Option<Running>,
}

/// Why there is no next request.
enum End {
    /// The client has gone or was silent.
    Close,
    Refuse(S3Error),
}

impl Connection<'_> {
    async fn serve(mut self, shutdown: &ShutdownWatch) {
        let snapshot = self.shared.current.pin();
        let deadline = Instant::now() + snapshot.config.client_header_timeout;
        if snapshot.config.proxy_protocol && self.proxied(deadline).await.is_none() {
            return;
        }
        // An idle connection keeps no snapshot.
        drop(snapshot);
        let mut deadline = Some(deadline);
        loop {
            let head = match self.head(deadline.take()).await {
                Ok(head) => head,
                Err(End::Close) => return,
                Err(End::Refuse(refusal)) => return self.refuse(&refusal).await,
            };
            let (request, chunks) = match self.cut(head) {
                Ok(cut) => cut,
                Err(refusal) => return self.refuse(&refusal).await,
            };
            let mut session = ServerSession::new_http1(Client::serve(self.stream, chunks));
            session.set_pipelined_prefix(request);
            let Some(reused) = self.shared.proxy.process_new_http(session, shutdown).await else { return };
            let Some((stream, behind)) = Client::served(reused.consume().0) else { return };
            self.stream = stream;
            if !behind.is_empty() {
                self.ahead = behind;
            }
        }
    }

    /// Reads the PROXY header that a trusted proxy's connection begins with, and takes its word. `None` = the
    /// connection is to be closed.
    async fn proxied(&mut self, deadline: Instant) -> Option<()> {
        if !self.shared.current.look().config.trusted_proxies.contain(self.peer()) {
            self.tell("it is no trusted proxy's");
            return None;
        }
        let header = loop {
            match proxied::parse(&self.ahead) {
                Ok(Some(header)) => break header,
                Ok(None) => {}
                Err(error) => {
                    self.tell(&error.to_string());
                    return None;
                }
            }
            self.read_until(deadline).await?.ok().filter(|count| *count > 0)?;
        };
        self.ahead.advance(header.length);
        if let Some(client) = header.client {
            let digest = SocketDigest::from_raw_fd(self.stream.id());
            digest.peer_addr.set(Some(client.into())).ok()?;
            self.stream.set_socket_digest(digest);
        }
        Some(())
    }

    /// The other end's address; `None` = it is a unix socket.
    fn peer(&self) -> Option<IpAddr> {
        let digest = self.stream.get_socket_digest()?;
        Some(digest.peer_addr()?.as_inet()?.ip())
    }

    /// Logs, now and then, why a connection is closed that an operator may have meant to be served.
    fn tell(&self, why: &str) {
        let who = self.peer().map_or("a unix socket".to_owned(), |peer| peer.to_string());
        self.shared.strange.at(Level::Warn, format_args!("refused a connection of {who}: {why}"));
    }

    /// Reads the next head. The first one of a connection has a deadline that began with the connection.
    async fn head(&mut self, deadline: Option<Instant>) -> Result<admit::Whole, End> {
        self.first_byte(deadline).await?;
        let mut scan = admit::Scan::default();
        let mut deadline = deadline;
        loop {
            if let Some(head) = scan.look(&self.ahead).map_err(End::Refuse)? {
                return Ok(head);
            }
            let patience = self.shared.current.look().config.client_header_timeout;
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + patience);
            match self.read_until(deadline).await {
                Some(Ok(1..)) => {}
                Some(_) => return Err(End::Close),
                None => return Err(End::Refuse(S3Error::request_timeout())),
            }
        }
    }

    /// Waits for the first byte of a head; empty lines before one are passed over (RFC 9112, 2.2). They gain a client
    /// no time: what bounds a silent one bounds one that sends nothing else, too.
    async fn first_byte(&mut self, deadline: Option<Instant>) -> Result<(), End> {
        let activity = &self.shared.activity;
        let idle_timeout = self.shared.current.look().config.client_idle_timeout;
        let end = deadline.unwrap_or_else(|| Instant::now() + idle_timeout);
        let mut idle = None;
        let mut over = false;
        loop {
            while self.ahead.starts_with(b"\r\n") {
                self.ahead.advance(2);
            }
            if !self.ahead.is_empty() && self.ahead[..] != b"\r"[..] {
                self.running.get_or_insert_with(|| activity.request());
                return Ok(());
            }
            if over {
                return Err(End::Close);
            }
            let read = match deadline {
                Some(_) => self.read_until(end).await,
                None => {
                    idle.get_or_insert_with(|| activity.idle());
                    self.running = None;
                    self.read_idle(end).await
                }
            };
            // A read that has something to give comes before all else: without a look at these it always would.
            let called = deadline.is_none() && activity.last_call.is_set();
            over = called || activity.stop.is_set() || Instant::now() >= end;
            if !matches!(read, Some(Ok(1..))) {
                return Err(End::Close);
            }
        }
    }

    /// A read that a drain does not wait for, but for what has come when it has nothing else to wait for.
    async fn read_idle(&mut self, end: Instant) -> Option<io::Result<usize>> {
        let activity = &self.shared.activity;
        let patience = end.saturating_duration_since(Instant::now());
        tokio::select! {
            biased;
            read = timeout(patience, read(&mut self.stream, &mut self.ahead)) => {
                return read.ok();
            }
            () = activity.last_call.wait() => {}
        }
        // After a stop a request could be cut off only.
        if activity.stop.is_set() {
            return None;
        }
        timeout(LAST_LOOK, read(&mut self.stream, &mut self.ahead)).await.ok()
    }

    /// A read that a drain waits for, and that ends when the drain has no more time.
    async fn read_until(&mut self, deadline: Instant) -> Option<io::Result<usize>> {
        let patience = deadline.saturating_duration_since(Instant::now());
        tokio::select! {
            biased;
            read = timeout(patience, read(&mut self.stream, &mut self.ahead)) => read.ok(),
            () = self.shared.activity.stop.wait() => Some(Ok(0)),
        }
    }

    /// Cuts off the bytes of one request that are here, those that Pingora's session begins with. The scan of a
    /// chunked body goes on with those that are still to come.
    fn cut(&mut self, head: admit::Whole) -> Result<(BytesMut, Option<Chunks>), S3Error> {
        let behind = &self.ahead[head.length..];
        let (body, chunks) = match head.framing {
            Framing::Length(length) => {
                (usize::try_from(length).unwrap_or(usize::MAX).min(behind.len()), None)
            }
            Framing::Chunked => {
                let mut chunks = Chunks::new();
                let body = chunks.scan(behind).map_err(|error| S3Error::bad_request(error.to_string()))?;
                (body, Some(chunks))
            }
        };
        let rest = body < behind.len();
        let mut request = std::mem::take(&mut self.ahead);
        if rest {
            self.ahead = request.split_off(head.length + body);
        }
        // Kept at the body's end, too: the session gets nothing behind it, whatever its parser makes of the body.
        Ok((request, chunks))
    }
}

thread_local! {
    /// Where connections of this thread read to: one that waits holds no memory.
    static SPARE: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// Reads once. What is small is copied, so that it holds on to no more memory than it needs.
async fn read(stream: &mut Stream, buffer: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|context| {
        let mut space = SPARE.take();
        space.reserve(PIECE);
        let read = pin!(stream.read_buf(&mut space)).poll(context);
        if buffer.is_empty() && space.len() > SMALL {
            *buffer = space.split();
        } else {
            buffer.extend_from_slice(&space);
            space.clear();
        }
        SPARE.set(space);
        read
    })
    .await
}
