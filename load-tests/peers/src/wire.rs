//! One side of an HTTP/1.1 connection, for client and sink: heads are buffered, bodies are discarded.
//!
//! `MSG_TRUNC` on a TCP socket takes bytes off the queue without copying them. Reading 5 MB with it costs a few
//! system calls; copying them would cost the two cores about as much as the proxy's own work.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, Interest},
    net::TcpStream,
};

/// The longest head, and what is read at once while looking for one: a small object comes with its head.
const BUFFER: usize = 16 << 10;
/// The most that is discarded at once. Nothing is ever written to this memory, so it costs none.
const DISCARD: usize = 1 << 20;

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
}

impl Framing {
    /// By the fields of a head; no field means no body.
    ///
    /// # Errors
    /// For a Content-Length that is no number.
    pub fn of(headers: &[httparse::Header<'_>]) -> io::Result<Self> {
        if let Some(value) = field(headers, "transfer-encoding") {
            return if value.eq_ignore_ascii_case("chunked") {
                Ok(Framing::Chunked)
            } else {
                Err(invalid("a Transfer-Encoding other than chunked"))
            };
        }
        match field(headers, "content-length").map(str::parse) {
            None => Ok(Framing::Length(0)),
            Some(Ok(length)) => Ok(Framing::Length(length)),
            Some(Err(_)) => Err(invalid("a Content-Length that is no number")),
        }
    }
}

/// The value of a field, if it is text.
#[must_use]
pub fn field<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a str> {
    let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(header.value).ok().map(str::trim)
}

/// Whether the sender of these fields keeps the connection.
#[must_use]
pub fn keeps_alive(headers: &[httparse::Header<'_>]) -> bool {
    !field(headers, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
}

/// An error of the peer's making.
#[must_use]
pub fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Decides how fast bodies are read.
pub trait Pace {
    /// Waits until some of the wanted bytes may be read, and says how many.
    fn grant(&self, wanted: usize) -> impl Future<Output = usize>;
}

/// As fast as they come.
pub struct Unpaced;

impl Pace for Unpaced {
    async fn grant(&self, wanted: usize) -> usize {
        wanted
    }
}

/// A connection and what was read from it but not used yet.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Connection {
    /// # Errors
    /// When the socket refuses to send small segments at once.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: vec![0; BUFFER].into(), start: 0, end: 0 })
    }

    /// Whether something was read that is not used yet.
    #[must_use]
    pub fn has_read(&self) -> bool {
        self.start < self.end
    }

    /// Reads until `parse` finds a whole head; it returns the head's length with what it made of it. `None` when
    /// the peer closed the connection before the first byte of one.
    ///
    /// # Errors
    /// When reading or parsing fails, or the peer closes in the middle.
    pub async fn head<T>(
        &mut self,
        parse: impl Fn(&[u8]) -> io::Result<Option<(usize, T)>>,
    ) -> io::Result<Option<T>> {
        loop {
            if self.has_read()
                && let Some((length, head)) = parse(&self.buffer[self.start..self.end])?
            {
                self.start += length;
                return Ok(Some(head));
            }
            let within = self.has_read();
            if self.fill().await? == 0 {
                return if within { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(None) };
            }
        }
    }

    /// Discards a body, and tells its length.
    ///
    /// # Errors
    /// When reading fails, the framing is wrong, or the peer closes in the middle.
    pub async fn discard(&mut self, framing: Framing, pace: &impl Pace) -> io::Result<u64> {
        match framing {
            Framing::Length(length) => self.skip(length, pace).await,
            Framing::Chunked => self.discard_chunks(pace).await,
        }
    }

    async fn discard_chunks(&mut self, pace: &impl Pace) -> io::Result<u64> {
        let mut total = 0;
        loop {
            let size = self.head(|bytes| match httparse::parse_chunk_size(bytes) {
                Ok(httparse::Status::Complete(found)) => Ok(Some(found)),
                Ok(httparse::Status::Partial) => Ok(None),
                Err(_) => Err(invalid("a chunk's size")),
            });
            let size = size.await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if size == 0 {
                // Trailers are nobody's concern here: only the empty line is waited for.
                self.trailers().await?;
                return Ok(total);
            }
            total += self.skip(size, pace).await?;
            self.skip(2, &Unpaced).await?;
        }
    }

    async fn trailers(&mut self) -> io::Result<()> {
        let line_length = |bytes: &[u8]| {
            Ok(bytes.windows(2).position(|two| two == b"\r\n").map(|length| (length + 2, length)))
        };
        while self.head(line_length).await?.ok_or(io::ErrorKind::UnexpectedEof)? > 0 {}
        Ok(())
    }

    async fn skip(&mut self, length: u64, pace: &impl Pace) -> io::Result<u64> {
        let mut left = length;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(DISCARD);
            let granted = pace.grant(wanted).await;
            let taken = if self.has_read() {
                let taken = granted.min(self.end - self.start);
                self.start += taken;
                taken
            } else {
                self.discard_some(granted).await?
            };
            left -= taken as u64;
        }
        Ok(length)
    }

    async fn discard_some(&self, limit: usize) -> io::Result<usize> {
        thread_local! {
            static NOWHERE: std::cell::RefCell<Vec<MaybeUninit<u8>>> =
                std::cell::RefCell::new(vec![MaybeUninit::uninit(); DISCARD]);
        }
        let discard = || {
            NOWHERE.with_borrow_mut(|nowhere| {
                SockRef::from(&self.stream).recv_with_flags(&mut nowhere[..limit], libc::MSG_TRUNC)
            })
        };
        match self.stream.async_io(Interest::READABLE, discard).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            taken => Ok(taken),
        }
    }

    /// Reads more behind what is there.
    async fn fill(&mut self) -> io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            return Err(invalid("a head that is too long"));
        }
        let read = self.stream.read(&mut self.buffer[self.end..]).await?;
        self.end += read;
        Ok(read)
    }

    /// Writes head and body, together where the system takes them.
    ///
    /// # Errors
    /// When writing fails.
    pub async fn write(&mut self, mut head: &[u8], mut body: &[u8]) -> io::Result<()> {
        while !head.is_empty() || !body.is_empty() {
            let send =
                || SockRef::from(&self.stream).send_vectored(&[IoSlice::new(head), IoSlice::new(body)]);
            let sent = self.stream.async_io(Interest::WRITABLE, send).await?;
            let of_head = sent.min(head.len());
            head = &head[of_head..];
            body = &body[sent - of_head..];
        }
        Ok(())
    }
}
