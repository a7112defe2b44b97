//! A client's stream as Pingora's session sees it.
//!
//! Of a chunked body the session gets nothing but that body: bytes behind it stay here, for the next request. After
//! bytes that are no chunked body reading fails, and what comes then is swallowed, up to a bound: all that is left to
//! do with it is to let the client hear its answer.
//!
//! An answer's head waits for what follows it, so that both leave in one write: the session writes them one after
//! the other, and a write costs more than most bodies.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::chunks::Chunks;
use crate::gateway::respond::LINGER_BYTES;

/// Slices in one vectored write.
const SLICES: usize = 8;

/// The stream of one client, while it is in the hands of a session.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    /// While a chunked body comes in.
    chunks: Option<Chunks>,
    behind: BytesMut,
    /// After bytes that are no chunked body: how many more are swallowed.
    swallow: Option<usize>,
    /// The first that the session writes is a head.
    begun: bool,
    held: Bytes,
}

impl Client {
    /// For one request. `chunks` has seen what was read of a chunked body already.
    pub fn serve(stream: Stream, chunks: Option<Chunks>) -> Stream {
        let (behind, held) = (BytesMut::new(), Bytes::new());
        Box::new(Client { stream, chunks, behind, swallow: None, begun: false, held })
    }

    /// The stream itself, and the bytes behind a chunked body, once the request is served.
    pub fn served(stream: Stream) -> Option<(Stream, BytesMut)> {
        let client = stream.into_any().downcast::<Client>().ok().filter(|client| client.held.is_empty())?;
        Some((client.stream, client.behind))
    }

    /// Looks at what was just read; how much of it is for the session.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(chunks) = &mut self.chunks else { return Ok(bytes.len()) };
        let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let body =
            chunks.scan(bytes).inspect_err(|_| self.swallow = Some(LINGER_BYTES)).map_err(malformed)?;
        self.behind.extend_from_slice(&bytes[body..]);
        Ok(body)
    }

    /// Writes what is held, and what is behind it as far as it goes; how many bytes of that.
    fn poll_write_both(
        &mut self,
        context: &mut Context<'_>,
        behind: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let more = behind.iter().any(|slice| !slice.is_empty());
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES];
            slices[0] = IoSlice::new(&self.held);
            let count = behind.len().min(SLICES - 1);
            slices[1..=count].copy_from_slice(&behind[..count]);
            let stream = Pin::new(&mut self.stream);
            let written = ready!(stream.poll_write_vectored(context, &slices[..=count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let held = written.min(self.held.len());
            self.held.advance(held);
            if self.held.is_empty() && (written > held || !more) {
                return Poll::Ready(Ok(written - held));
            }
        }
    }

    fn poll_write_held(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.held.is_empty() {
            true => Poll::Ready(Ok(())),
            false => self.poll_write_both(context, &[]).map_ok(|_| ()),
        }
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.chunks.as_ref().is_some_and(Chunks::is_at_end) {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        while let Some(left) = self.swallow.filter(|left| *left > 0) {
            ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
            let count = buffer.filled().len() - before;
            buffer.set_filled(before);
            if count == 0 {
                return Poll::Ready(Ok(()));
            }
            self.swallow = Some(left.saturating_sub(count));
        }
        if self.swallow.is_some() {
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let body = self.take(&buffer.filled()[before..]);
        buffer.set_filled(before + body.as_ref().unwrap_or(&0));
        Poll::Ready(body.map(drop))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !std::mem::replace(&mut self.begun, true) {
            self.held = Bytes::copy_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        match self.held.is_empty() {
            true => Pin::new(&mut self.stream).poll_write(context, bytes),
            false => self.poll_write_both(context, &[IoSlice::new(bytes)]),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match (self.begun, self.held.is_empty()) {
            (false, _) => {
                let first = slices.iter().find(|slice| !slice.is_empty());
                self.poll_write(context, first.map_or(&[], |slice| slice))
            }
            (true, true) => Pin::new(&mut self.stream).poll_write_vectored(context, slices),
            (true, false) => self.poll_write_both(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_held(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_held(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[async_trait]
impl Shutdown for Client {
    async fn shutdown(&mut self) {
        // An error shows in the next line, too.
        poll_fn(|context| self.poll_write_held(context)).await.ok();
        Shutdown::shutdown(&mut *self.stream).await;
    }
}

impl UniqueID for Client {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl GetTimingDigest for Client {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }
}

impl GetProxyDigest for Client {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream.get_proxy_digest()
    }
}

impl GetSocketDigest for Client {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }
}

impl Ssl for Client {}
impl Peek for Client {}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_follows_a_malformed_body_is_swallowed_up_to_a_bound() {
        const PIECE: usize = 1 << 20;
        let (mut sender, stream) = duplex(PIECE);
        let mut client = Client::serve(Box::new(stream), Some(Chunks::new()));
        sender.write_all(b"x\r\n").await.unwrap();
        let error = client.read(&mut [0; 100]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let endless = async {
            let mut sent = 0;
            loop {
                sender.write_all(&vec![b'y'; PIECE]).await.unwrap();
                sent += PIECE;
                assert!(sent <= LINGER_BYTES + PIECE);
            }
        };
        let mut space = vec![0; PIECE];
        tokio::select! {
            read = client.read(&mut space) => assert_eq!(read.unwrap(), 0),
            () = endless => unreachable!(),
        }
        assert_eq!(client.read(&mut space).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn nothing_behind_a_chunked_body_that_came_at_once_is_read() {
        let (mut sender, stream) = duplex(100);
        let mut chunks = Chunks::new();
        chunks.scan(b"0\r\n\r\n").unwrap();
        let mut client = Client::serve(Box::new(stream), Some(chunks));
        sender.write_all(b"GET /").await.unwrap();
        assert_eq!(client.read(&mut [0; 100]).await.unwrap(), 0);
        let (mut stream, behind) = Client::served(client).unwrap();
        let mut next = [0; 5];
        stream.read_exact(&mut next).await.unwrap();
        assert_eq!((&next, behind.len()), (b"GET /", 0));
    }
}
