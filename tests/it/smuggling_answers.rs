//! Answers of backends that two readers could frame differently: whatever they are, they harm no other request.

use crate::fixture::*;

/// An answer of a backend that two readers could frame differently, and what a client may see of it: the bodies
/// of good answers.
fn odd_answers() -> Vec<(String, &'static [&'static str])> {
    const HIDDEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhidden";
    let answer = |headers: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{headers}\r\n{body}");
    let chunked = |body: &str| answer("Transfer-Encoding: chunked\r\n", body);
    let length = HIDDEN.len() + 5;
    vec![
        (answer("Content-Length: 5\r\n", &format!("hello{HIDDEN}")), &["hello"]),
        (answer("Content-Length: 5\r\nContent-Length: 5\r\n", &format!("hello{HIDDEN}")), &["hello"]),
        (
            answer(&format!("Content-Length: 5\r\nContent-Length: {length}\r\n"), &format!("hello{HIDDEN}")),
            &[],
        ),
        (
            answer(&format!("Content-Length: {length}\r\nContent-Length: 5\r\n"), &format!("hello{HIDDEN}")),
            &[],
        ),
        (answer(&format!("Content-Length: 5, {length}\r\n"), &format!("hello{HIDDEN}")), &[]),
        (answer("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", &format!("0\r\n\r\n{HIDDEN}")), &[""]),
        (answer("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{HIDDEN}")), &[""]),
        (
            answer("X: y\r\n Content-Length: 50\r\nContent-Length: 5\r\n", &format!("hello{HIDDEN}")),
            &["hello"],
        ),
        (chunked(&format!("5\r\nhello\r\n0\r\n\r\n{HIDDEN}")), &["hello"]),
        (chunked(&format!("5\r\nhello\r\n0\r\nX: y\r\n\r\n{HIDDEN}")), &["hello"]),
        (chunked(&format!("0x5\r\nhello\r\n0\r\n\r\n{HIDDEN}")), &[]),
        (chunked(&format!("5\nhello\r\n0\r\n\r\n{HIDDEN}")), &[]),
        (chunked(&format!("5\r\nhelloXX0\r\n\r\n{HIDDEN}")), &[]),
        // Pingora takes a chunk without a size for the last one.
        (chunked(&format!("5\r\nhello\r\n\r\n\r\n{HIDDEN}")), &["hello"]),
        (format!("HTTP/1.1 204 No Content\r\nContent-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len()), &[""]),
        (format!("HTTP/1.1 304 Not Modified\r\nContent-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len()), &[""]),
        (
            format!(
                "{}{}",
                "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(2000),
                answer("Content-Length: 5\r\n", "hello")
            ),
            &["hello"],
        ),
        (format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n{HIDDEN}"), &[]),
    ]
}

#[test]
fn an_answer_that_is_framed_in_two_ways_harms_no_other() {
    run(async {
        let a = Misbehaving::start().await;
        a.holds("/bucket/key", "own");
        let mut failed = Vec::new();
        for method in ["GET", "PUT"] {
            let gateway = Gateway::over(&[&a]).set("ResponseHeaderTimeout", "1s").start().await;
            let mut client = gateway.client().await;
            for (answer, bodies) in odd_answers() {
                a.will_once(Behaviour::answers_raw(answer.clone()));
                let reply = gateway.request(method, "/bucket/odd", &[], b"").await;
                let seen = (reply.status < 400 && reply.complete).then(|| reply.text());
                if !(seen.is_none() || seen.as_ref().is_some_and(|seen| bodies.contains(&seen.as_str()))) {
                    failed.push(format!("{method}: {seen:?} of {:.150}", answer.escape_debug()));
                }
                for _ in 0..3 {
                    let reply = client.request("GET", "/bucket/key", &[], b"").await;
                    assert_eq!((reply.status, reply.text().as_str()), (200, "own"), "after {answer:.150}");
                }
            }
        }
        assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    });
}
