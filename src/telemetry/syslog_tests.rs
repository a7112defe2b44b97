//! Syslog daemons and collectors that take, are away, hang and come back.

use std::{net::Ipv4Addr, os::unix::net::UnixListener, path::PathBuf};

use super::*;
use crate::telemetry::scripted::PATIENCE as LONGEST;

fn sink(log: &'static str, address: SyslogAddress) -> SyslogSink {
    SyslogSink::new(log, Syslog { facility: 17, address })
}

fn place() -> (tempfile::TempDir, PathBuf, SyslogAddress) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let address = SyslogAddress::Unix(path.clone());
    (folder, path, address)
}

fn daemon(path: &Path) -> UnixDatagram {
    std::fs::remove_file(path).ok();
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(LONGEST)).unwrap();
    socket
}

fn heard(socket: &UnixDatagram) -> String {
    let mut bytes = vec![0; 1 << 16];
    let length = socket.recv(&mut bytes).unwrap();
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

/// Writes until it has to stop; how many bytes were taken, and the error.
fn write(sink: &mut SyslogSink, text: &str) -> (usize, io::Result<()>) {
    let mut taken = 0;
    let outcome = sink.write(text.as_bytes(), &mut |n| taken += n);
    (taken, outcome)
}

#[test]
fn a_local_daemon_gets_a_datagram_per_line_as_libc_sends_it() {
    let (_folder, path, address) = place();
    let daemon = daemon(&path);
    let (taken, outcome) = write(&mut sink("synclog", address), "{\"a\":1}\n{\"b\":2}\n");
    outcome.unwrap();
    assert_eq!(taken, 16);
    // local1, warning.
    let first = heard(&daemon);
    let (head, text) = first.split_once(": ").unwrap();
    assert_eq!(text, "{\"a\":1}");
    let (time, tag) = head.strip_prefix("<140>").unwrap().rsplit_once(' ').unwrap();
    assert_eq!((time.len(), tag), (15, format!("akubra[{}]", process::id()).as_str()));
    assert!(
        chrono::NaiveDateTime::parse_from_str(&format!("2024 {time}"), "%Y %b %e %H:%M:%S").is_ok(),
        "{time}"
    );
    assert!(heard(&daemon).ends_with(": {\"b\":2}"));
}

#[test]
fn a_collector_gets_rfc_5424() {
    let collector = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    collector.set_read_timeout(Some(LONGEST)).unwrap();
    let port = collector.local_addr().unwrap().port();
    let address = SyslogAddress::Udp { host: "localhost".into(), port };
    write(&mut sink("accesslog", address), "{}\n").1.unwrap();
    let mut bytes = [0; 2000];
    let length = collector.recv(&mut bytes).unwrap();
    let text = std::str::from_utf8(&bytes[..length]).unwrap();
    let parts: Vec<&str> = text.split(' ').collect();
    let pid = process::id().to_string();
    assert_eq!(
        (parts[0], parts[3], parts[4], &parts[5..]),
        ("<142>1", "akubra", pid.as_str(), &["accesslog", "-", "{}"][..])
    );
    assert!(chrono::DateTime::parse_from_rfc3339(parts[1]).is_ok(), "{text}");
    assert_eq!(parts[2], host());
}

#[test]
fn a_daemon_with_a_stream_gets_messages_that_end_in_nul() {
    let (_folder, path, address) = place();
    let daemon = UnixListener::bind(&path).unwrap();
    let mut sink = sink("clustersynclog", address);
    write(&mut sink, "one\ntwo\n").1.unwrap();
    drop(sink);
    let mut text = String::new();
    io::Read::read_to_string(&mut daemon.accept().unwrap().0, &mut text).unwrap();
    let messages: Vec<&str> = text.split_terminator('\0').collect();
    assert_eq!(messages.len(), 2);
    assert!(
        messages[0].starts_with("<142>")
            && messages[0].ends_with("]: one")
            && messages[1].ends_with("]: two")
    );
}

#[test]
fn a_daemon_that_was_restarted_gets_the_next_line_and_one_that_is_away_gets_it_later() {
    let (_folder, path, address) = place();
    let mut sink = sink("mainlog", address);
    let (taken, outcome) = write(&mut sink, "one\n");
    assert_eq!((taken, outcome.unwrap_err().kind()), (0, io::ErrorKind::NotFound));
    let first = daemon(&path);
    write(&mut sink, "one\n").1.unwrap();
    assert!(heard(&first).ends_with(": one"));
    drop(first);
    let second = daemon(&path);
    write(&mut sink, "two\n").1.unwrap();
    assert!(heard(&second).ends_with(": two"));
    drop(second);
    let (taken, outcome) = write(&mut sink, "three\nfour\n");
    assert_eq!((taken, outcome.unwrap_err().kind()), (0, io::ErrorKind::ConnectionRefused));
    let third = daemon(&path);
    write(&mut sink, "three\nfour\n").1.unwrap();
    assert!(heard(&third).ends_with(": three") && heard(&third).ends_with(": four"));
}

#[test]
fn a_collector_that_is_away_is_noticed_where_its_host_says_so() {
    // No other test listens at this address.
    let host = Ipv4Addr::new(127, 77, 0, 1);
    let port = UdpSocket::bind((host, 0)).unwrap().local_addr().unwrap().port();
    let mut sink = sink("accesslog", SyslogAddress::Udp { host: host.to_string(), port });
    // The first is lost; the answer to it comes with the second, which is not.
    write(&mut sink, "one\n").1.unwrap();
    let (taken, outcome) = write(&mut sink, "two\n");
    assert_eq!((taken, outcome.unwrap_err().kind()), (0, io::ErrorKind::ConnectionRefused));
    // As long as nobody listens it is not lost either.
    for _ in 0..3 {
        let (taken, outcome) = write(&mut sink, "two\n");
        assert_eq!((taken, outcome.unwrap_err().kind()), (0, io::ErrorKind::ConnectionRefused));
    }
    let collector = UdpSocket::bind((host, port)).unwrap();
    collector.set_read_timeout(Some(LONGEST)).unwrap();
    write(&mut sink, "two\n").1.unwrap();
    let mut bytes = [0; 2000];
    let length = collector.recv(&mut bytes).unwrap();
    assert!(bytes[..length].ends_with(b" two"));
}

#[test]
fn a_line_that_is_too_long_is_cut_at_a_character_and_says_so() {
    let (_folder, path, address) = place();
    let daemon = daemon(&path);
    let mut sink = sink("test-syslog-cut", address);
    for width in [1, 2, 3] {
        let line = "x".repeat(width) + &"ż".repeat(5000);
        write(&mut sink, &format!("{line}\n")).1.unwrap();
        let message = heard(&daemon);
        let (_, text) = message.split_once("]: ").unwrap();
        let (kept, note) = text.split_once("...[").unwrap();
        assert!(message.len() <= MOST && message.len() > MOST - 64, "{}", message.len());
        assert!(line.starts_with(kept));
        assert_eq!(note, format!("{} bytes cut]", line.len() - kept.len()));
    }
    assert_eq!(sink.metrics.cut.get(), 3);
}

#[test]
fn severity_is_the_main_logs_level_and_nobody_elses() {
    for (log, line, expected) in [
        (MAINLOG, "2026-01-02T03:04:05.678901Z ERROR akubra: x", ERROR),
        (MAINLOG, "2026-01-02T03:04:05.678901Z WARN akubra: x ERROR y", WARNING),
        (MAINLOG, "2026-01-02T03:04:05.678901Z INFO akubra: ERROR", INFORMATIONAL),
        (MAINLOG, "2026-01-02T03:04:05.678901Z DEBUG akubra: ERROR", DEBUG),
        (MAINLOG, r#"{"ts":"2026-01-02T03:04:05.678901Z","level":"ERROR","target":"t","msg":"m"}"#, ERROR),
        (
            MAINLOG,
            r#"{"ts":"2026-01-02T03:04:05.678901Z","level":"DEBUG","target":"ERROR","msg":"ERROR"}"#,
            DEBUG,
        ),
        (MAINLOG, "", INFORMATIONAL),
        ("synclog", r#"{"method":"PUT"}"#, WARNING),
        ("accesslog", "t ERROR x", INFORMATIONAL),
    ] {
        assert_eq!(severity(log, line.as_bytes()), expected, "{line}");
    }
}
