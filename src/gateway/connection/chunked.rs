//! A client's stream while a chunked body comes over it: Pingora's session reads the body through it, and gets
//! nothing but that body.
//!
//! Bytes behind the body stay here, for the next request. After bytes that are no chunked body reading fails, and
//! what comes then is swallowed: all that is left to do with it is to let the client hear its answer.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::chunks::Chunks;

/// The stream of one chunked request.
#[derive(Debug)]
pub struct Chunked {
    stream: Stream,
    chunks: Chunks,
    behind: BytesMut,
    malformed: bool,
}

impl Chunked {
    /// `chunks` has seen what was read of the body already.
    pub fn over(stream: Stream, chunks: Chunks) -> Stream {
        Box::new(Chunked { stream, chunks, behind: BytesMut::new(), malformed: false })
    }

    /// The stream itself, and the bytes behind the body, once the request is served.
    pub fn undo(stream: Stream) -> Option<(Stream, BytesMut)> {
        let chunked = stream.into_any().downcast::<Chunked>().ok()?;
        Some((chunked.stream, chunked.behind))
    }

    /// Looks at what was just read; how much of it is for the session.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let body = self.chunks.scan(bytes).inspect_err(|_| self.malformed = true).map_err(malformed)?;
        self.behind.extend_from_slice(&bytes[body..]);
        Ok(body)
    }
}

impl AsyncRead for Chunked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.chunks.is_at_end() {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        while self.malformed {
            ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
            if buffer.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(before);
        }
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let body = self.take(&buffer.filled()[before..]);
        buffer.set_filled(before + body.as_ref().unwrap_or(&0));
        Poll::Ready(body.map(drop))
    }
}

impl AsyncWrite for Chunked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Chunked {
    async fn shutdown(&mut self) {
        Shutdown::shutdown(&mut *self.stream).await;
    }
}

impl UniqueID for Chunked {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl GetTimingDigest for Chunked {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }
}

impl GetProxyDigest for Chunked {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream.get_proxy_digest()
    }
}

impl GetSocketDigest for Chunked {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }
}

impl Ssl for Chunked {}
impl Peek for Chunked {}
