use proptest::prelude::*;

use super::*;

/// Whole, and byte by byte: both must come to the same.
fn of(head: &str) -> Result<Option<Whole>, String> {
    let whole = Scan::default().look(head.as_bytes()).map_err(|error| error.message);
    let mut scan = Scan::default();
    let piecewise = (1..=head.len())
        .map(|end| scan.look(&head.as_bytes()[..end]).map_err(|error| error.message))
        .find(|outcome| !matches!(outcome, Ok(None)))
        .unwrap_or(Ok(None));
    assert_eq!(piecewise, whole, "{head:?}");
    whole
}

fn with(headers: &str) -> Result<Option<Whole>, String> {
    of(&format!("PUT /b/k HTTP/1.1\r\nHost: a.b\r\n{headers}\r\n"))
}

#[test]
fn framing_that_is_clear_is_accepted() {
    for (headers, framing) in [
        ("Content-Length: 12\r\n", Framing::Length(12)),
        ("content-length:\t012 \r\n", Framing::Length(12)),
        ("Transfer-Encoding: Chunked\r\n", Framing::Chunked),
        ("Transfer-Encoding:\tchunked\t\r\n", Framing::Chunked),
        ("X-Content-Length: x\r\nX: \u{e9}\r\n", Framing::Length(0)),
    ] {
        let whole = with(headers).unwrap().unwrap();
        assert_eq!(whole.framing, framing, "{headers:?}");
        assert_eq!(whole.length, format!("PUT /b/k HTTP/1.1\r\nHost: a.b\r\n{headers}\r\n").len());
    }
}

#[test]
fn what_follows_a_head_is_not_looked_at() {
    let head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let whole = of(&format!("{head}\0\n\n")).unwrap().unwrap();
    assert_eq!(whole.length, head.len());
}

#[test]
fn framing_that_two_servers_could_read_differently_is_refused() {
    let refused = [
        "Content-Length: 12\r\nContent-Length: 12\r\n",
        "Content-Length: 12\r\nContent-Length: 13\r\n",
        "Content-Length: 12, 12\r\n",
        "Content-Length: +12\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x10\r\n",
        "Content-Length: 1 2\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length : 12\r\n",
        "Content-Length: 12\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 12\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\x0b: chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "X: y\r\n\tTransfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "X: y\0\r\n",
        "X y\r\n",
        ": y\r\n",
        "X\u{e9}: y\r\n",
        "Host: c\r\n",
    ];
    for headers in refused {
        assert!(with(headers).is_err(), "{headers:?}");
    }
}

#[test]
fn request_lines_other_than_an_origin_servers_are_refused() {
    let refused = [
        "GET /b/k\r\n",
        "GET  /b/k HTTP/1.1\r\n",
        "GET /b/k  HTTP/1.1\r\n",
        "GET /b/k HTTP/1.1 \r\n",
        " GET /b/k HTTP/1.1\r\n",
        "GET /a b HTTP/1.1\r\n",
        "GET\t/b/k\tHTTP/1.1\r\n",
        "GET /b/k http/1.1\r\n",
        "GET /b/k HTTP/1.11\r\n",
        "GET /b/k HTTP/2.0\r\n",
        "GET /b/k HTTP/0.9\r\n",
        "GET /b\0k HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET b/k HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://c/k HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http:///k HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a<b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a?b=\" HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a\\k HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://u@a/k HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a%41/k HTTP/1.1\r\nHost: a%41\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
        "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\n",
        "PRI * HTTP/2.0\r\n",
        "GET / HTTP/1.1\n",
        "\x16\x03\x01",
    ];
    for head in refused {
        assert!(of(head).is_err(), "{head:?}");
    }
    let latin = b"GET /caf\xe9 HTTP/1.1\r\nHost: a\r\n\r\n";
    assert!(Scan::default().look(latin).is_err());
    for head in [
        "GET /caf\u{e9}\"?`x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a:1/k HTTP/1.1\r\nHost: a:1\r\n\r\n",
        "GET /k HTTP/1.0\r\n\r\n",
    ] {
        assert!(of(head).unwrap().is_some(), "{head:?}");
    }
}

#[test]
fn heads_are_bounded_in_bytes_and_lines() {
    let status = |head: &str| Scan::default().look(head.as_bytes()).map_err(|error| error.status.as_u16());
    let head = |lines: usize, length: usize| {
        let line = format!("x: {}\r\n", "y".repeat(length));
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", line.repeat(lines))
    };
    assert!(status(&head(MOST_HEADERS - 1, 1)).unwrap().is_some());
    assert_eq!(status(&head(MOST_HEADERS, 1)), Err(431));
    assert!(status(&head(1, MOST_BYTES - 40)).unwrap().is_some());
    assert_eq!(status(&head(1, MOST_BYTES)), Err(431));
    assert_eq!(status(&"y".repeat(MOST_BYTES)), Ok(None));
    assert_eq!(status(&"y".repeat(MOST_BYTES + 1)), Err(431));
}

/// As a connection hands a head over.
fn taken_by_pingora(head: &str) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let nothing_more = Box::new(std::io::Cursor::new(Vec::new()));
        let mut session = pingora_core::protocols::http::ServerSession::new_http1(nothing_more);
        session.set_pipelined_prefix(head.as_bytes().into());
        matches!(session.read_request().await, Ok(true))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// What Pingora refuses itself is answered without a word to the client or to the logs.
    #[test]
    fn pingora_takes_every_head_that_is_admitted(
        method in "[A-Z!#$%&'*+.^_`|~a-z0-9-]{1,4}",
        scheme in "(|http://|HTTPS://|s3\\+x://|[a-z]{2}:/?/?)",
        authority in "([a-b%0-9:.@_~!$&'()*+,;=-]{0,6}|\\[[0-9a-f:]{0,5}\\](:[0-9]{0,6})?)",
        rest in "(|[/*?][!-~\u{a0}-\u{ff}]{0,6})",
        same in any::<bool>(),
        host in "[!-~]{0,4}",
        name in "[A-Z!#$%&'*+.^_`|~a-z0-9-]{1,3}",
        value in "[\t -~\u{a0}-\u{ff}]{0,4}",
        version in "[01]",
    ) {
        let host = if same { &authority } else { &host };
        let authority = if scheme.is_empty() { "" } else { &authority };
        let head = format!(
            "{method} {scheme}{authority}{rest} HTTP/1.{version}\r\nHost: {host}\r\n{name}:{value}\r\n\r\n"
        );
        if let Ok(Some(_)) = Scan::default().look(head.as_bytes()) {
            prop_assert!(taken_by_pingora(&head), "{head:?}");
        }
    }
}
