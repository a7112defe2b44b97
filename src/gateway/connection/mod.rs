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
//! - Between requests a connection holds no buffer: bytes are read into the stack and copied once.
//! - Pingora's session gets the bytes of one request only. Those of the next stay here, but behind a chunked body:
//!   there Pingora alone knows its end, and a client that sends more without waiting is not served any more.
//! - A client that has sent nothing is closed without an answer; one that has sent a part of a head gets one.

mod refuse;

use std::{future::poll_fn, io, mem::MaybeUninit, pin::Pin, sync::Arc, task::ready, time::Instant};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::{
    apps::{HttpServerApp, ServerApp},
    listeners::ConnectionFilter,
    protocols::{Stream, http::ServerSession},
    server::ShutdownWatch,
};
use pingora_proxy::HttpProxy;
use pingora_timeout::timeout;
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    Gateway, admit,
    drain::{Activity, Running},
};
use crate::{config::Config, s3::S3Error, telemetry::Logs, upstream::Framing};

/// How much is read at once while a head is waited for: a small request comes in one piece.
const PIECE: usize = 16 * 1024;

/// What all connections share; one per process.
pub struct Connections {
    proxy: Arc<HttpProxy<Gateway>>,
    config: Arc<Config>,
    logs: Logs,
    activity: Arc<Activity>,
}

/// Counts connections in the accept loop itself, before there is a task that could count its own.
#[derive(Debug)]
pub struct CountAccepted(pub Arc<Activity>);

#[async_trait]
impl ConnectionFilter for CountAccepted {
    async fn should_accept(&self, _: Option<&std::net::SocketAddr>) -> bool {
        self.0.accepted();
        true
    }
}

impl Connections {
    pub fn new(
        proxy: HttpProxy<Gateway>,
        config: Arc<Config>,
        logs: Logs,
        activity: Arc<Activity>,
    ) -> Connections {
        Connections { proxy: Arc::new(proxy), config, logs, activity }
    }
}

#[async_trait]
impl ServerApp for Connections {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        // The accept loop counts connections whose peer has an address, and no others.
        let counted = stream.get_socket_digest().is_some_and(|digest| digest.peer_addr().is_some());
        let running = self.activity.take_over(counted);
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
        let mut deadline = Some(Instant::now() + self.shared.config.client_header_timeout);
        loop {
            let head = match self.head(deadline.take()).await {
                Ok(head) => head,
                Err(End::Close) => return,
                Err(End::Refuse(refusal)) => return self.refuse(&refusal).await,
            };
            let request = self.cut(head);
            let mut session = ServerSession::new_http1(self.stream);
            session.set_pipelined_prefix(request);
            let Some(reused) = self.shared.proxy.process_new_http(session, shutdown).await else { return };
            self.stream = reused.consume().0;
        }
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
            let patience = self.shared.config.client_header_timeout;
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + patience);
            match self.read_until(deadline).await {
                Some(Ok(1..)) => {}
                Some(_) => return Err(End::Close),
                None => return Err(End::Refuse(S3Error::request_timeout())),
            }
        }
    }

    /// Waits for the first byte of a head; empty lines before one are passed over (RFC 9112, 2.2).
    async fn first_byte(&mut self, deadline: Option<Instant>) -> Result<(), End> {
        loop {
            while self.ahead.starts_with(b"\r\n") {
                self.ahead.advance(2);
            }
            if !self.ahead.is_empty() && self.ahead[..] != b"\r"[..] {
                self.running.get_or_insert_with(|| self.shared.activity.request());
                return Ok(());
            }
            let read = match deadline {
                Some(deadline) => self.read_until(deadline).await,
                None => {
                    self.running = None;
                    let patience = self.shared.config.client_idle_timeout;
                    timeout(patience, read(&mut self.stream, &mut self.ahead)).await.ok()
                }
            };
            if !matches!(read, Some(Ok(1..))) {
                return Err(End::Close);
            }
        }
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

    /// The bytes of one request that are here: those that Pingora's session begins with.
    fn cut(&mut self, head: admit::Whole) -> BytesMut {
        let behind = self.ahead.len() - head.length;
        let most = match head.framing {
            Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX).min(behind),
            Framing::Chunked => behind,
        };
        let mut request = std::mem::take(&mut self.ahead);
        if most < behind {
            self.ahead = request.split_off(head.length + most);
        }
        request
    }
}

/// Reads once, by way of the stack.
async fn read(stream: &mut Stream, buffer: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|context| {
        let mut space = [MaybeUninit::uninit(); PIECE];
        let mut piece = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *stream).poll_read(context, &mut piece))?;
        buffer.extend_from_slice(piece.filled());
        Ok(piece.filled().len()).into()
    })
    .await
}
