//! A client's connection as Pingora's sessions see it, one after the other.
//!
//! Reading: of a chunked body a session gets nothing but that body. Bytes behind it stay here, for the next
//! request. After bytes that are no chunked body reading fails, and what comes then is swallowed: all that is left
//! to do with it is to let the client hear its answer.
//!
//! Writing: an answer's head waits for the first bytes of its body and leaves with them in one system call; what
//! waits has memory only as long as it waits, so that idle connections have none.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::chunks::Chunks;

/// What waits for more is no larger than this: a segment on most networks.
const SMALL: usize = 1460;

/// One connection.
#[derive(Debug)]
pub struct ClientStream {
    inner: Stream,
    /// The framing of the body that is being read, if that is chunked.
    chunks: Option<Chunks>,
    behind: BytesMut,
    malformed: bool,
    /// Small writes that wait to leave with what follows.
    pending: BytesMut,
}

impl ClientStream {
    /// `inner` has no buffers of its own.
    pub fn new(inner: Stream) -> ClientStream {
        let (behind, pending) = (BytesMut::new(), BytesMut::new());
        ClientStream { inner, chunks: None, behind, malformed: false, pending }
    }

    /// The stream that a session was made of.
    pub fn back(stream: Stream) -> Option<Box<ClientStream>> {
        stream.into_any().downcast().ok()
    }

    /// A chunked body is to be read, of which `chunks` has seen what is here already.
    pub fn expect(&mut self, chunks: Chunks) {
        self.chunks = Some(chunks);
    }

    /// The request is served: the bytes that came behind its body.
    pub fn served(&mut self) -> BytesMut {
        self.chunks = None;
        std::mem::take(&mut self.behind)
    }

    pub fn set_client(&mut self, digest: SocketDigest) {
        self.inner.set_socket_digest(digest);
    }

    /// Writes what waits, and `bytes` behind it; how much of `bytes` was written.
    fn poll_write_out(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        while !self.pending.is_empty() {
            let slices = [IoSlice::new(&self.pending), IoSlice::new(bytes)];
            let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(context, &slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let waited = self.pending.len();
            if written >= waited {
                self.pending = BytesMut::new();
                if written > waited || bytes.is_empty() {
                    return Poll::Ready(Ok(written - waited));
                }
            } else {
                self.pending.advance(written);
            }
        }
        match bytes.is_empty() {
            true => Poll::Ready(Ok(0)),
            false => Pin::new(&mut self.inner).poll_write(context, bytes),
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let ClientStream { inner, chunks, behind, malformed, .. } = &mut *self;
        let inner = Pin::new(inner);
        let Some(chunks) = chunks else { return inner.poll_read(context, buffer) };
        if *malformed {
            return swallow(inner, context, buffer);
        }
        if chunks.is_at_end() {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(inner.poll_read(context, buffer))?;
        let bytes = &buffer.filled()[before..];
        match chunks.scan(bytes) {
            Ok(body) => {
                behind.extend_from_slice(&bytes[body..]);
                buffer.set_filled(before + body);
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                *malformed = true;
                buffer.set_filled(before);
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)))
            }
        }
    }
}

/// Reads until there is no more, and gives nothing of it.
fn swallow(
    mut inner: Pin<&mut Stream>,
    context: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let before = buffer.filled().len();
    loop {
        ready!(inner.as_mut().poll_read(context, buffer))?;
        if buffer.filled().len() == before {
            return Poll::Ready(Ok(()));
        }
        buffer.set_filled(before);
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.pending.len() + bytes.len() <= SMALL {
            self.pending.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        self.poll_write_out(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(context, &[]))?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(context, &[]))?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// What an answer that breaks off had to say is still told, if the kernel takes it at once.
impl Drop for ClientStream {
    fn drop(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        if !self.pending.is_empty() && self.poll_write_out(&mut context, &[]).is_pending() {
            log::debug!("a client takes nothing: the rest of its answer is dropped");
        }
    }
}

#[async_trait]
impl Shutdown for ClientStream {
    async fn shutdown(&mut self) {
        let shutdown = std::future::poll_fn(|context| Pin::new(&mut *self).poll_shutdown(context));
        if let Err(error) = shutdown.await {
            log::debug!("a client's connection cannot be shut down: {error}");
        }
    }
}

impl UniqueID for ClientStream {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl GetTimingDigest for ClientStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl GetProxyDigest for ClientStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl GetSocketDigest for ClientStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

impl Ssl for ClientStream {}
impl Peek for ClientStream {}
