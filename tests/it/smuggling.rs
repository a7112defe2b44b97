//! Request smuggling: messages that two servers could read as different requests.
//!
//! A table of raw bytes. Whatever they are, a backend gets exactly one complete request for each good answer,
//! in a head that leaves no doubt, and never the request that is hidden in them. What the gateway serves in
//! spite of its looks is in the table, too, so that nothing is refused that clients may send.

use crate::fixture::*;

/// The hidden request. Nothing may ever ask a backend for it, nor store under its name.
const HIDDEN: &str = "GET /bucket/hidden HTTP/1.1\r\nHost: h\r\n\r\n";
const PUT: &str = "PUT /bucket/key HTTP/1.1\r\nHost: h\r\n";
const GET: &str = "GET /bucket/key HTTP/1.1\r\nHost: h\r\n";

/// What is sent, and the statuses of the answers.
type Case = (String, &'static [u16]);

fn framed_twice() -> Vec<Case> {
    let length = HIDDEN.len() + 5;
    let chunked_body = format!("0\r\n\r\n{HIDDEN}");
    [
        // CL.TE and TE.CL
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n".to_string(),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
        // CL.CL
        format!("Content-Length: 5\r\nContent-Length: {length}\r\n"),
        format!("Content-Length: {length}\r\nContent-Length: 5\r\n"),
        "Content-Length: 5\r\nContent-Length: 5\r\n".to_string(),
        format!("Content-Length: 5, {length}\r\n"),
        "Content-Length: 5, 5\r\n".to_string(),
        "Content-Length: 5,\r\n".to_string(),
        // Numbers that are none
        "Content-Length: +5\r\n".to_string(),
        "Content-Length: -5\r\n".to_string(),
        "Content-Length: 0x5\r\n".to_string(),
        "Content-Length: 5 5\r\n".to_string(),
        "Content-Length: 5;\r\n".to_string(),
        "Content-Length: 5.0\r\n".to_string(),
        "Content-Length: \u{0665}\r\n".to_string(),
        "Content-Length:\r\n".to_string(),
        "Content-Length: five\r\n".to_string(),
        "Content-Length: 18446744073709551621\r\n".to_string(),
        // Names that are nearly right
        "Content-Length : 5\r\n".to_string(),
        "Content-Length\t: 5\r\n".to_string(),
        " Content-Length: 5\r\n".to_string(),
        "Content-Length\0: 5\r\n".to_string(),
        "Content-Length\u{a0}: 5\r\n".to_string(),
        // TE.TE
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n".to_string(),
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n".to_string(),
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n".to_string(),
        "Transfer-Encoding: chunked\r\nTransfer-encoding: x\r\n".to_string(),
        "Transfer-Encoding: chunked, chunked\r\n".to_string(),
        "Transfer-Encoding: chunked, identity\r\n".to_string(),
        "Transfer-Encoding: identity, chunked\r\n".to_string(),
        "Transfer-Encoding: gzip, chunked\r\n".to_string(),
        "Transfer-Encoding: chunked,\r\n".to_string(),
        "Transfer-Encoding: ,chunked\r\n".to_string(),
        "Transfer-Encoding: chunked;q=1\r\n".to_string(),
        "Transfer-Encoding: identity\r\n".to_string(),
        "Transfer-Encoding: xchunked\r\n".to_string(),
        "Transfer-Encoding: chunkedx\r\n".to_string(),
        "Transfer-Encoding: chun ked\r\n".to_string(),
        "Transfer-Encoding: 'chunked'\r\n".to_string(),
        "Transfer-Encoding: \"chunked\"\r\n".to_string(),
        "Transfer-Encoding:\r\n".to_string(),
        "Transfer-Encoding: \u{b}chunked\r\n".to_string(),
        "Transfer-Encoding: \u{c}chunked\r\n".to_string(),
        "Transfer-Encoding: \0chunked\r\n".to_string(),
        "Transfer-Encoding: chunked\0\r\n".to_string(),
        "Transfer-Encoding: \u{a0}chunked\r\n".to_string(),
        "Transfer-Encoding : chunked\r\n".to_string(),
        "Transfer-Encoding\t: chunked\r\n".to_string(),
        "Transfer-Encoding\u{b}: chunked\r\n".to_string(),
        " Transfer-Encoding: chunked\r\n".to_string(),
        "\tTransfer-Encoding: chunked\r\n".to_string(),
        "\u{b}Transfer-Encoding: chunked\r\n".to_string(),
        // Lines that continue, and lines that end too soon
        "X: y\r\n Transfer-Encoding: chunked\r\n".to_string(),
        "Transfer-Encoding:\r\n chunked\r\n".to_string(),
        "Transfer-Encoding:\r\n\tchunked\r\n".to_string(),
        "X: y\nTransfer-Encoding: chunked\r\n".to_string(),
        "X: y\rTransfer-Encoding: chunked\r\n".to_string(),
        "X: y\r\rTransfer-Encoding: chunked\r\n".to_string(),
        "X: y\n\rTransfer-Encoding: chunked\r\n".to_string(),
        "Transfer-Encoding: chunked\r\r\n".to_string(),
        "Transfer-Encoding: chunked\n".to_string(),
        "Foo\r\nTransfer-Encoding: chunked\r\n".to_string(),
        ": x\r\nTransfer-Encoding: chunked\r\n".to_string(),
    ]
    .into_iter()
    .map(|headers| (format!("{PUT}{headers}\r\n{chunked_body}"), &[400][..]))
    .collect()
}

/// The hidden request follows.
fn case(head: &str, statuses: &'static [u16]) -> Case {
    (format!("{head}{HIDDEN}"), statuses)
}

/// The hidden request is the body.
fn with_body(line: &str, statuses: &'static [u16]) -> Case {
    let length = HIDDEN.len();
    (format!("{line}\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"), statuses)
}

fn odd_heads() -> Vec<Case> {
    let many = "x: y\r\n".repeat(3000);
    let large = "y".repeat(70_000);
    vec![
        // Request lines
        case("GET /bucket/key\r\n", &[400]),
        case("GET /bucket/key\r\n\r\n", &[400]),
        case("GET /bucket/key HTTP/0.9\r\n\r\n", &[505]),
        case("GET /bucket/key HTTP/2.0\r\nHost: h\r\n\r\n", &[505]),
        case("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[505]),
        case("GET /bucket/key HTTP/1.11\r\nHost: h\r\n\r\n", &[400]),
        case("GET /bucket/key HTTP/1.1 \r\nHost: h\r\n\r\n", &[400]),
        case("GET  /bucket/key HTTP/1.1\r\nHost: h\r\n\r\n", &[400]),
        case("GET\t/bucket/key\tHTTP/1.1\r\nHost: h\r\n\r\n", &[400]),
        case(" GET /bucket/key HTTP/1.1\r\nHost: h\r\n\r\n", &[400]),
        case("GET /bucket/key HTTP/1.1\nHost: h\n\n", &[400]),
        case("GET /bucket/key HTTP/1.1\rHost: h\r\r", &[400]),
        case("GET /bucket/ /key HTTP/1.1\r\nHost: h\r\n\r\n", &[400]),
        case("GET /bucket/key\u{b} HTTP/1.1\r\nHost: h\r\n\r\n", &[400]),
        case("GET /bucket/k\0ey HTTP/1.1\r\nHost: h\r\n\r\n", &[400]),
        case("GET bucket/key HTTP/1.1\r\nHost: h\r\n\r\n", &[400]),
        case("GET ?x HTTP/1.1\r\nHost: h\r\n\r\n", &[400]),
        case("G@T /bucket/key HTTP/1.1\r\nHost: h\r\n\r\n", &[400]),
        case("CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n", &[405]),
        case("\0\0\0\r\n\r\n", &[400]),
        case("\u{16}\u{3}\u{1}\u{2}\0\u{1}\r\n\r\n", &[400]),
        // Absolute targets
        case("GET http://other/bucket/key HTTP/1.1\r\nHost: h\r\n\r\n", &[400]),
        case("GET http://h@other/bucket/key HTTP/1.1\r\nHost: h\r\n\r\n", &[400]),
        case("GET http://h\\other/bucket/key HTTP/1.1\r\nHost: h\r\n\r\n", &[400]),
        case("GET http:/bucket/key HTTP/1.1\r\nHost: h\r\n\r\n", &[400]),
        case("GET http:///bucket/key HTTP/1.1\r\nHost: h\r\n\r\n", &[400]),
        case("GET http://h#/bucket/key HTTP/1.1\r\nHost: h\r\n\r\n", &[400]),
        case("GET http://a%41/bucket/key HTTP/1.1\r\nHost: a%41\r\n\r\n", &[400]),
        // Hosts
        case("GET /bucket/key HTTP/1.1\r\n\r\n", &[400]),
        case("GET /bucket/key HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", &[400]),
        case("GET /bucket/key HTTP/1.1\r\nHost: a\r\nhost: h\r\n\r\n", &[400]),
        case("GET /bucket/key HTTP/1.1\r\nHost: u@h\r\n\r\n", &[400]),
        case("GET /bucket/key HTTP/1.1\r\nHost : h\r\n\r\n", &[400]),
        case("GET /bucket/key HTTP/1.1\r\nX: y\r\n\tHost: h\r\n\r\n", &[400]),
        // Refused by the gateway itself: where they end is clear
        ("GET /bucket/k#ey HTTP/1.1\r\nHost: h\r\n\r\n".to_string(), &[400]),
        ("GET /bucket/%zz HTTP/1.1\r\nHost: h\r\n\r\n".to_string(), &[400]),
        ("GET /bucket/key HTTP/1.1\r\nHost: a, h\r\n\r\n".to_string(), &[400]),
        ("GET /bucket/key HTTP/1.1\r\nHost: a h\r\n\r\n".to_string(), &[400]),
        ("GET /bucket/key HTTP/1.1\r\nHost: h/x\r\n\r\n".to_string(), &[400]),
        ("GET /bucket/key HTTP/1.1\r\nHost: h:x\r\n\r\n".to_string(), &[400]),
        // Bounds
        case(&format!("{GET}{many}\r\n"), &[431]),
        case(&format!("{GET}x: {large}\r\n\r\n"), &[431]),
        case(&format!("GET /bucket/{large} HTTP/1.1\r\nHost: h\r\n\r\n"), &[431]),
        // HTTP/1.0
        (
            format!(
                "PUT /bucket/key HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"
            ),
            &[400],
        ),
        (format!("GET /bucket/key HTTP/1.0\r\nHost: h\r\n\r\n{HIDDEN}"), &[200]),
        // A body that is not passed on with the request is not a request of its own
        with_body("GET /bucket/key HTTP/1.1", &[200]),
        with_body("HEAD /bucket/key HTTP/1.1", &[200]),
        with_body("DELETE /bucket/nothing HTTP/1.1", &[204]),
        with_body("OPTIONS /bucket/key HTTP/1.1", &[200]),
        (
            format!("{GET}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len()),
            &[200],
        ),
        with_body("PUT /bucket/key HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings", &[200]),
        with_body("PUT /bucket/key HTTP/1.1\r\nConnection: close, Content-Length", &[200]),
        with_body("PUT /bucket/key HTTP/1.1\r\nExpect: 100-continue", &[200]),
    ]
}

fn chunk_tricks() -> Vec<Case> {
    let refused = [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5h\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        ";x\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5;x=y\nhello\r\n0\r\n\r\n",
        "5\rXhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "6\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\n",
        "5\r\nhello\r\n0\r\nX: y\n\n",
        "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "00000000000000000000000000000005\r\nhello\r\n0\r\n\r\n",
    ];
    let mut cases: Vec<Case> = refused
        .iter()
        .map(|body| (format!("{PUT}Transfer-Encoding: chunked\r\n\r\n{body}{HIDDEN}"), &[400][..]))
        .collect();
    let served = [
        "5\r\nhello\r\n0\r\n\r\n",
        "5;name=value\r\nhello\r\n0;last\r\n\r\n",
        "05\r\nhello\r\n0000\r\n\r\n",
        "5\r\nhello\r\n0\r\nX-Trailer: y\r\nContent-Length: 7\r\n\r\n",
        "A\r\nhellohello\r\na\r\nhellohello\r\n0\r\n\r\n",
    ];
    cases.extend(
        served
            .iter()
            .map(|body| (format!("{PUT}Transfer-Encoding: chunked\r\n\r\n{body}{GET}\r\n"), &[200, 200][..])),
    );
    cases
}

fn served_as_they_are() -> Vec<Case> {
    let put = format!("{PUT}Content-Length: 5\r\n\r\nhello");
    vec![
        (put.clone(), &[200]),
        (format!("{put}{put}{GET}\r\n"), &[200, 200, 200]),
        (format!("{put}\r\n{put}"), &[200, 200]),
        (format!("\r\n\r\n{GET}\r\n"), &[200]),
        (format!("{PUT}content-length:5\r\n\r\nhello"), &[200]),
        (format!("{PUT}Content-Length: \t5\t \r\n\r\nhello"), &[200]),
        (format!("{PUT}Transfer-Encoding:\tchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), &[200]),
        (format!("{PUT}Transfer-Encoding: CHUNKED \r\n\r\n5\r\nhello\r\n0\r\n\r\n"), &[200]),
        (format!("{PUT}Content-Length: 5\r\nX-Empty:\r\nx-amz-meta-a: caf\u{e9}\r\n\r\nhello"), &[200]),
        ("GET http://h/bucket/key HTTP/1.1\r\nHost: h\r\n\r\n".to_string(), &[200]),
        ("GET /bucket/key HTTP/1.0\r\n\r\n".to_string(), &[200]),
        (format!("{GET}Connection: close\r\n\r\n"), &[200]),
        ("GET //bucket/key HTTP/1.1\r\nHost: h\r\n\r\n".to_string(), &[404]),
    ]
}

#[test]
fn a_request_that_is_framed_in_two_ways_is_refused() {
    run(all(framed_twice()));
}

#[test]
fn odd_heads_hide_no_request() {
    run(all(odd_heads()));
}

#[test]
fn odd_chunks_hide_no_request() {
    run(all(chunk_tricks()));
}

#[test]
fn odd_requests_that_are_clear_are_served() {
    run(all(served_as_they_are()));
}

/// Sends each case on a connection of its own, in one piece and in two, and looks at what came of it.
async fn all(cases: Vec<Case>) {
    let (a, b) = pair().await;
    let mut gateway = Gateway::over(&[&a, &b]).start().await;
    for backend in [&a, &b] {
        backend.holds("/bucket/key", "hello");
        backend.holds("/bucket/hidden", "hidden");
    }
    let mut failed = Vec::new();
    for (bytes, expected) in &cases {
        for cut in [0, bytes.len() / 2, bytes.len() - 1] {
            let statuses = send(&gateway, bytes.as_bytes(), cut).await;
            if statuses != *expected {
                failed.push(format!(
                    "{statuses:?} instead of {expected:?}, cut at {cut}: {:.200}",
                    bytes.escape_debug()
                ));
            }
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    gateway.stop_in_sync().await;
    let served = |(_, statuses): &&Case| statuses.iter().all(|status| *status < 300);
    let puts = |(bytes, _): &Case| 3 * bytes.matches("PUT /bucket/key").count();
    let expected: usize = cases.iter().filter(served).map(puts).sum();
    for backend in [&a, &b] {
        let requests = backend.requests();
        let complete = requests.iter().filter(|request| request.method == "PUT" && request.is_complete());
        assert_eq!(complete.count(), expected);
        requests.iter().for_each(assert_clear);
        assert_eq!(backend.stored_bytes("/bucket/hidden").unwrap(), "hidden");
    }
}

/// The statuses of all answers until the connection ends.
async fn send(gateway: &Gateway, bytes: &[u8], cut: usize) -> Vec<u16> {
    let mut client = gateway.client().await;
    let sent = client.try_send(&bytes[..cut]).await && {
        tokio::task::yield_now().await;
        client.try_send(&bytes[cut..]).await
    };
    if sent {
        client.finish_sending().await;
    }
    let method = if bytes.starts_with(b"HEAD") { "HEAD" } else { "GET" };
    let mut statuses = Vec::new();
    while let Some(reply) = client.reply_or_end(method).await {
        if reply.status >= 400 && !bytes.starts_with(b"HEAD") {
            let text = reply.text();
            assert!(
                text.contains("<Error><Code>"),
                "not an S3 error: {text:?} to {:?}",
                bytes.escape_ascii().to_string()
            );
            assert!(
                reply.header("x-amz-request-id").is_some() && reply.header("x-akubra-request-id").is_some()
            );
        }
        statuses.push(reply.status);
    }
    statuses
}

/// A head as RFC 9112 has it, framed in one way.
fn assert_clear(request: &Received) {
    let head = std::str::from_utf8(&request.head).unwrap_or_default();
    assert!(!request.target.contains("hidden"), "{request:?}");
    let lines: Vec<_> = head.strip_suffix("\r\n\r\n").unwrap_or_default().split("\r\n").collect();
    assert!(lines.len() > 1 && lines.iter().all(|line| !line.contains(['\r', '\n', '\0'])), "{head:?}");
    let named = |name: &str| request.headers.iter().filter(|(n, _)| n == name).count();
    assert!(named("content-length") + named("transfer-encoding") <= 1 && named("host") <= 1, "{head:?}");
    for (name, _) in &request.headers {
        let hop = ["connection", "keep-alive", "te", "trailer", "upgrade"].contains(&name.as_str());
        assert!(!hop && !name.starts_with("proxy-"), "{head:?}");
    }
}
