//! What has come back first: an answer that is final, or one that another will follow.

#[derive(Debug, PartialEq, Eq)]
pub(super) enum First {
    /// Too little to tell.
    Incomplete,
    /// An informational head of this many bytes.
    Informational(usize),
    /// Anything else, garbage included: the parser will judge it.
    Final,
}

/// What stands at the front of the bytes that came back.
pub(super) fn first_answer(bytes: &[u8]) -> First {
    const PREFIX: &[u8] = b"HTTP/1.";
    const STATUS_AT: usize = 9;
    let known = bytes.len().min(PREFIX.len());
    if bytes[..known] != PREFIX[..known] {
        return First::Final;
    }
    match bytes.get(STATUS_AT) {
        None => First::Incomplete,
        Some(b'1') if !bytes[STATUS_AT..].starts_with(b"101") => {
            match bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => First::Informational(at + 4),
                None => First::Incomplete,
            }
        }
        Some(_) => First::Final,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn informational_answers_are_told_from_final_ones() {
        let cases: &[(&[u8], First)] = &[
            (b"", First::Incomplete),
            (b"HTTP/1.", First::Incomplete),
            (b"HTTP/1.1 ", First::Incomplete),
            (b"HTTP/1.1 2", First::Final),
            (b"HTTP/1.1 100 Continue\r\n", First::Incomplete),
            (b"HTTP/1.1 100 Continue\r\n\r\n", First::Informational(25)),
            (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200", First::Informational(37)),
            (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", First::Final),
            (b"garbage", First::Final),
            (b"HTTQ", First::Final),
        ];
        for (bytes, expected) in cases {
            assert_eq!(first_answer(bytes), *expected, "{}", bytes.escape_ascii());
        }
    }
}
