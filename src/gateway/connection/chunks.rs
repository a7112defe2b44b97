//! The framing of a chunked body, looked at while it passes.
//!
//! Pingora's parser takes a chunk without a size for the last one, so that a body that is damaged, or that another
//! server reads differently, would be stored cut short (httparse, `parse_chunk_size`). This scanner decodes
//! nothing: it only says whether the bytes are what RFC 9112, 7.1 allows, and where the body ends.

/// Digits of a size; more than a `u64` holds are refused even where they are zeros.
const MOST_DIGITS: u32 = 16;
/// Of one chunk's extensions, and of all trailers.
const MOST_EXTENSION: usize = 4 * 1024;
const MOST_TRAILERS: usize = 8 * 1024;

/// Why a body is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunked body is malformed")]
pub struct Malformed;

/// The scan of one body.
#[derive(Debug, Clone)]
pub struct Chunks {
    state: State,
    /// Of the chunk whose line is being read.
    size: u64,
    digits: u32,
    /// Bytes of the current extensions or of the trailers.
    extra: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    /// Between the size and the end of its line.
    Extension,
    /// After blanks, that only an extension may follow.
    Blanks,
    SizeLf,
    Data(u64),
    DataCr,
    DataLf,
    /// At the beginning of a line after the last chunk.
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

impl Chunks {
    pub fn new() -> Chunks {
        Chunks { state: State::Size, size: 0, digits: 0, extra: 0 }
    }

    pub fn is_at_end(&self) -> bool {
        self.state == State::End
    }

    /// Looks at the next bytes; how many of them belong to the body.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut rest = bytes;
        while let Some(byte) = rest.first().filter(|_| !self.is_at_end()) {
            if let State::Data(left) = self.state {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                self.state = match left - count as u64 {
                    0 => State::DataCr,
                    left => State::Data(left),
                };
                rest = &rest[count..];
                continue;
            }
            self.state = self.next(*byte)?;
            rest = &rest[1..];
        }
        Ok(bytes.len() - rest.len())
    }

    /// The state after a byte that is no data.
    fn next(&mut self, byte: u8) -> Result<State, Malformed> {
        let text = byte == b'\t' || !byte.is_ascii_control();
        Ok(match (self.state, byte) {
            (State::Size, _) if byte.is_ascii_hexdigit() && self.digits < MOST_DIGITS => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                self.size = self.size << 4 | u64::from(digit);
                self.digits += 1;
                State::Size
            }
            (State::Size | State::Extension, b'\r') if self.digits > 0 => State::SizeLf,
            (State::Size, b' ' | b'\t') if self.digits > 0 => self.extended(State::Blanks)?,
            (State::Size, b';') if self.digits > 0 => self.extended(State::Extension)?,
            (State::Blanks, b' ' | b'\t') => self.extended(State::Blanks)?,
            (State::Blanks, b';') => self.extended(State::Extension)?,
            (State::Extension, _) if text => self.extended(State::Extension)?,
            // Sizes that a signed number does not hold are attacks.
            (State::SizeLf, b'\n') if i64::try_from(self.size).is_ok() => self.line_ended(),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::TrailerStart, b'\r') => State::EndLf,
            // No blank: a line that continues the one before.
            (State::TrailerStart, b'!'..=b'~') => self.trailed()?,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::Trailer, _) if text => self.trailed()?,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::End,
            _ => return Err(Malformed),
        })
    }

    fn line_ended(&mut self) -> State {
        let size = std::mem::take(&mut self.size);
        (self.digits, self.extra) = (0, 0);
        if size == 0 { State::TrailerStart } else { State::Data(size) }
    }

    fn extended(&mut self, state: State) -> Result<State, Malformed> {
        self.extra += 1;
        if self.extra <= MOST_EXTENSION { Ok(state) } else { Err(Malformed) }
    }

    fn trailed(&mut self) -> Result<State, Malformed> {
        self.extra += 1;
        if self.extra <= MOST_TRAILERS { Ok(State::Trailer) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// In one piece, and in all pairs of pieces: how much belongs to the body, and whether its end was seen.
    fn scan(bytes: &[u8]) -> Result<(usize, bool), Malformed> {
        let mut chunks = Chunks::new();
        let whole = chunks.scan(bytes).map(|count| (count, chunks.is_at_end()));
        for cut in 0..bytes.len() {
            let mut chunks = Chunks::new();
            let parts = chunks.scan(&bytes[..cut]).and_then(|first| Ok(first + chunks.scan(&bytes[cut..])?));
            assert_eq!(parts.map(|count| (count, chunks.is_at_end())), whole, "{}", bytes.escape_ascii());
        }
        whole
    }

    #[test]
    fn a_body_ends_after_its_last_chunk_and_trailers() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "5;name=\"v\"\r\nhello\r\n0;last\r\n\r\n",
            "5 ;x\r\nhello\r\n0\r\n\r\n",
            "05\r\nhello\r\n000\r\n\r\n",
            "A\r\nhellohello\r\na\r\nhellohello\r\n0\r\nX: y\r\nZ:\r\n\r\n",
            "5\r\n\r\n0\r\n\r\n0\r\n\r\n",
        ] {
            assert_eq!(scan(body.as_bytes()), Ok((body.len(), true)), "{body:?}");
            assert_eq!(scan(format!("{body}GET /").as_bytes()), Ok((body.len(), true)), "{body:?}");
            assert_eq!(scan(&body.as_bytes()[..body.len() - 1]), Ok((body.len() - 1, false)), "{body:?}");
        }
    }

    #[test]
    fn what_is_no_chunked_body_is_malformed() {
        for body in [
            "\r\n\r\n",
            ";x\r\nhello\r\n0\r\n\r\n",
            " 5\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "+5\r\nhello\r\n",
            "-5\r\nhello\r\n",
            "5\nhello\r\n",
            "5;x\nhello\r\n",
            "5;x\r0\r\n\r\n",
            "5;x\0\r\nhello\r\n",
            "5\r\nhelloX",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello\r\n\r\n0\r\n\r\n",
            "5\r\nhello\r\n0\n\n",
            "0\r\nX: y\n\n",
            "0\r\n X: y\r\n\r\n",
            "0\r\nX: y\r\r\n\r\n",
            "ffffffffffffffff\r\nhello\r\n",
            "10000000000000005\r\nhello\r\n",
            "00000000000000005\r\nhello\r\n",
        ] {
            assert_eq!(scan(body.as_bytes()), Err(Malformed), "{body:?}");
        }
        let long = |length: usize| format!("1;{}\r\n", "x".repeat(length));
        assert!(Chunks::new().scan(long(MOST_EXTENSION - 1).as_bytes()).is_ok());
        assert!(Chunks::new().scan(long(MOST_EXTENSION).as_bytes()).is_err());
        let trailers = |count: usize| format!("0\r\n{}", "x: yz\r\n".repeat(count));
        assert!(Chunks::new().scan(trailers(MOST_TRAILERS / 5).as_bytes()).is_ok());
        assert!(Chunks::new().scan(trailers(MOST_TRAILERS / 5 + 1).as_bytes()).is_err());
        assert_eq!(Chunks::new().scan(b"7fffffffffffffff\r\nhello"), Ok(23));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, text in "[0-9a-f;x \r\n]{0,40}") {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                scan(bytes).ok();
            }
        }
    }
}
