//! One connection to a backend, with an eye on what comes back while something is still being sent.
//!
//! Pingora's client session either writes or reads. A backend that answers early (a 403 before the body is
//! read) or closes must be noticed *while* a write blocks, and its answer must survive the reset that follows.
//! So the sending side is ours: bytes are queued as `Bytes` and leave in vectored writes, head and first body
//! bytes together; whatever arrives meanwhile is kept, and handed to Pingora's `HttpSession` through
//! [`AsyncRead`] when the answer is read. All polling keeps its state here and may be cancelled at any point.

mod early;
mod stream;

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use pingora_core::protocols::{
    Stream,
    l4::ext::{TCP_INFO, get_tcp_info},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::early::{First, first_answer};
use crate::telemetry::metrics::BackendMetrics;

/// Bytes of early answers that are kept; what is longer is left to the answer's parser to refuse.
const INBOUND_LIMIT: usize = 64 * 1024;
/// How much is read at once where less is asked for: a small object comes together with its head.
pub(super) const READ_AHEAD: usize = 16 * 1024;
/// Slices in one vectored write.
const SLICES: usize = 16;
/// `TCP_ESTABLISHED` of linux/tcp_states.h.
const ESTABLISHED: u8 = 1;

/// What became of an attempt to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// All that was queued is with the kernel.
    All,
    /// The backend has begun its final answer: stop sending and read it.
    Answering,
}

/// One step of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Progress,
    Finished(Sent),
}

/// A connection and what is queued in both directions.
pub(super) struct Wire {
    io: Stream,
    out: VecDeque<Bytes>,
    /// Bytes in `out`.
    queued: usize,
    inbound: BytesMut,
    /// Bytes of the current answer that have been read from the socket, and from here.
    taken: u64,
    delivered: u64,
    /// Bytes of informational answers that were passed over before the parser saw them.
    passed_over: u64,
    /// The peer closed its side.
    ended: bool,
    /// Writing failed: only an answer that is already on its way can come.
    broken: Option<io::Error>,
    /// `tcpi_bytes_acked` and `tcpi_bytes_received` when the current exchange began; at rest, the latter is what the
    /// kernel must have received if nothing unasked for has come.
    acked_before: u64,
    received_before: u64,
    /// The peer's receive window then.
    window: u64,
    /// Bytes of the current exchange that the kernel has taken.
    sent: u64,
    reused: bool,
    metrics: Arc<BackendMetrics>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.book();
    }
}

impl Wire {
    pub fn new(io: Stream, metrics: Arc<BackendMetrics>) -> Self {
        let mut wire = Wire {
            io,
            out: VecDeque::new(),
            queued: 0,
            inbound: BytesMut::new(),
            taken: 0,
            delivered: 0,
            passed_over: 0,
            ended: false,
            broken: None,
            acked_before: 0,
            received_before: 0,
            window: 0,
            sent: 0,
            reused: false,
            metrics,
        };
        if let Some(info) = wire.info() {
            wire.remember(&info);
        }
        wire
    }

    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Marks the end of an exchange. `false` if something is left over that has not gone to the answer's parser: it
    /// would be taken for the answer to the next request. What comes from now on is unasked for, and found out by
    /// [`Wire::is_idle`].
    pub fn rest(&mut self) -> bool {
        let parsed = self.taken == self.delivered + self.passed_over;
        // What is left of a request would go out before the next one.
        if !parsed || !self.out.is_empty() || self.broken.is_some() {
            return false;
        }
        self.book();
        self.reused = true;
        self.received_before += self.taken;
        (self.sent, self.taken, self.delivered, self.passed_over) = (0, 0, 0, 0);
        true
    }

    /// Whether an idle connection can carry another request: established, and the kernel has received nothing that
    /// was not part of the answers so far. The kernel is asked, since the reactor may not have been told yet of a
    /// FIN that is here.
    pub fn is_idle(&self) -> bool {
        self.info().is_some_and(|info| self.is_idle_by(&info))
    }

    /// [`Wire::is_idle`]; if it is, another exchange begins.
    pub fn wake(&mut self) -> bool {
        let Some(info) = self.info().filter(|info| self.is_idle_by(info)) else { return false };
        self.remember(&info);
        true
    }

    fn is_idle_by(&self, info: &TCP_INFO) -> bool {
        info.tcpi_state == ESTABLISHED && info.tcpi_bytes_received == self.received_before
    }

    /// Counts the bytes of the exchange that ends.
    fn book(&self) {
        self.metrics.sent_bytes.inc_by(self.sent);
        self.metrics.received_bytes.inc_by(self.taken);
    }

    fn remember(&mut self, info: &TCP_INFO) {
        self.acked_before = info.tcpi_bytes_acked;
        self.received_before = info.tcpi_bytes_received;
        self.window = info.tcpi_snd_wnd.into();
    }

    pub fn info(&self) -> Option<TCP_INFO> {
        get_tcp_info(self.io.id()).ok()
    }

    /// Whether the peer has acknowledged more of the current exchange than its kernel would take for an
    /// application that reads no more and is about to close. A connection that is closed at the other end
    /// acknowledges nothing at all. Where the window has room for all that was sent there is no proof, and all of
    /// it must do, but for two segments whose acknowledgement may be delayed (RFC 9293, 3.8.6.3): a backend that
    /// closes within that moment loses the upload.
    pub fn has_been_acknowledged(&self) -> bool {
        self.info().is_some_and(|info| {
            let acked = info.tcpi_bytes_acked.saturating_sub(self.acked_before);
            acked > unread(self.window, self.sent, info.tcpi_snd_mss.into())
        })
    }

    /// Whether the kernel has bytes of an answer that the reactor has not told of: while a task is busy sending,
    /// it does not hear what comes back.
    pub fn has_unread_answer(&self) -> bool {
        self.info().is_some_and(|info| info.tcpi_bytes_received > self.received_before + self.taken)
    }

    /// Queues bytes; they leave with the next [`Wire::poll_send`].
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queued += bytes.len();
            self.out.push_back(bytes);
        }
    }

    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Sends what is queued and watches for an early answer. An error is reported only when no answer can be
    /// read: a backend that answers, closes and so resets our writes has its answer heard (RFC 9112, 9.6).
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Step>> {
        // With nothing left to send, what comes back is the answer's reader's business. Nothing is left below either:
        // Pingora buffers what is written to its listeners' streams, not to its connectors'.
        if self.broken.is_none() && !self.out.is_empty() && self.poll_answering(cx)?.is_ready() {
            return Poll::Ready(Ok(Step::Finished(Sent::Answering)));
        }
        if self.broken.is_none() {
            match ready!(self.poll_write_out(cx)) {
                Ok(0) => return Poll::Ready(Ok(Step::Finished(Sent::All))),
                Ok(_) => return Poll::Ready(Ok(Step::Progress)),
                Err(error) => self.broken = Some(error),
            }
        }
        // The kernel has what came before the reset, but the reactor may not have heard of it yet.
        let answering = ready!(self.poll_answering(cx));
        Poll::Ready(match (answering, self.broken.take()) {
            (Err(_), Some(error)) => Err(error),
            (answering, _) => answering.map(|()| Step::Finished(Sent::Answering)),
        })
    }

    /// Writes once; 0 = nothing was left to write and all is flushed.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.out.is_empty() {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            return Poll::Ready(Ok(0));
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(&self.out) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..count]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.sent += written as u64;
        self.queued -= written;
        let mut left = written;
        while left > 0 {
            let Some(front) = self.out.front_mut() else { break };
            if left < front.len() {
                front.advance(left);
                break;
            }
            left -= front.len();
            self.out.pop_front();
        }
        Poll::Ready(Ok(written))
    }

    /// Ready when the first byte of a final answer is here; informational answers (RFC 9110, 15.2) are passed
    /// over. An error when the peer closed before that.
    pub fn poll_answering(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match first_answer(&self.inbound) {
                First::Final => return Poll::Ready(Ok(())),
                First::Informational(length) => {
                    self.inbound.advance(length);
                    self.passed_over += length as u64;
                    continue;
                }
                First::Incomplete if self.inbound.len() >= INBOUND_LIMIT => return Poll::Ready(Ok(())),
                First::Incomplete => {}
            }
            if self.ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            ready!(self.poll_read_ahead(cx))?;
        }
    }

    /// Reads once, and keeps what comes.
    fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [MaybeUninit::uninit(); READ_AHEAD];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        match buffer.filled() {
            [] => self.ended = true,
            bytes => {
                self.taken += bytes.len() as u64;
                self.inbound.extend_from_slice(bytes);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the kernel has taken any byte of the current exchange.
    pub fn has_sent(&self) -> bool {
        self.sent > 0
    }

    /// Whether any byte of an answer has come, be it an informational one.
    pub fn has_shown_life(&self) -> bool {
        self.taken > 0
    }

    /// Whether bytes are here that can be read without asking the kernel.
    pub fn has_read_ahead(&self) -> bool {
        !self.inbound.is_empty()
    }

    /// Bytes of the answer that its parser has read.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }
}

/// How much of what was sent may be acknowledged without any of it having been read.
fn unread(window: u64, sent: u64, segment: u64) -> u64 {
    window.min(sent.saturating_sub(2 * segment))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use pingora_core::{connectors::TransportConnector, upstreams::peer::BasicPeer};
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn what_is_written_is_with_the_kernel_without_a_flush() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stream = TransportConnector::new(None).new_stream(&BasicPeer::new(&address)).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut wire = Wire::new(stream, BackendMetrics::of(&address));
        wire.push(Bytes::from_static(b"hello"));
        // One step: the flush would be the next one.
        assert_eq!(poll_fn(|cx| wire.poll_send(cx)).await.unwrap(), Step::Progress);
        let mut taken = [0; 5];
        let reading = peer.read_exact(&mut taken);
        tokio::time::timeout(std::time::Duration::from_secs(5), reading).await.unwrap().unwrap();
        assert_eq!(&taken, b"hello");
    }

    #[test]
    fn what_the_peers_kernel_takes_is_no_sign_of_life() {
        // More than the window can only be taken if someone reads.
        assert_eq!(unread(65_536, 262_144, 1448), 65_536);
        // All of it fits: all of it but what may be acknowledged late.
        assert_eq!(unread(1 << 20, 262_144, 1448), 262_144 - 2 * 1448);
        // One byte is all that can be asked for.
        assert_eq!(unread(65_536, 2_000, 1448), 0);
    }
}
