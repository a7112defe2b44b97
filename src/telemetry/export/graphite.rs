//! A report's way to a graphite collector: TCP, plain text.
//!
//! Each report has a connection of its own, so that the name is looked up anew, a balancer may choose anew, and
//! nothing is sent into a connection that has died since. It counts as taken when the collector, which has been told
//! that no more comes, closes its side: what only lies in a kernel's buffers may never be read.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use crate::config::Collector;

/// For a whole report, from connecting to the collector's close.
const LIMIT: Duration = Duration::from_secs(10);
/// For one of several addresses.
const DIAL: Duration = Duration::from_secs(3);

pub struct Graphite {
    collector: Collector,
    limit: Duration,
}

impl Graphite {
    pub fn new(collector: Collector) -> Graphite {
        Graphite { collector, limit: LIMIT }
    }

    pub fn collector(&self) -> &Collector {
        &self.collector
    }

    pub fn send(&self, report: &[u8]) -> io::Result<()> {
        // Names are resolved by the system, under its own deadlines; this thread may wait for them.
        let addresses = (self.collector.host.as_str(), self.collector.port).to_socket_addrs();
        let addresses = addresses.map_err(|error| told("its name does not resolve", &error))?;
        let deadline = Instant::now() + self.limit;
        let mut failure = io::Error::other("its name has no address");
        for address in addresses {
            let time = left(deadline)?.min(DIAL);
            match TcpStream::connect_timeout(&address, time) {
                Ok(stream) => return hand_over(stream, report, deadline),
                Err(error) => failure = told(&format!("no connection to {address}"), &error),
            }
        }
        Err(failure)
    }
}

fn hand_over(mut stream: TcpStream, mut report: &[u8], deadline: Instant) -> io::Result<()> {
    while !report.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(report) {
            Ok(count) => report = &report[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(told("it does not read", &error)),
        }
    }
    stream.shutdown(Shutdown::Write)?;
    let mut unwanted = [0; 1024];
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut unwanted) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(told("it does not close the connection after a report", &error)),
        }
    }
}

/// The time left; an error if there is none.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "it takes too long over a report"));
    }
    Ok(left)
}

/// The error with what it means here; an expired timeout of a socket says "Resource temporarily unavailable".
fn told(what: &str, error: &io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, format!("{what}: timed out")),
        kind => io::Error::new(kind, format!("{what}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// A connection to whoever listens there.
    fn graphite(listener: &TcpListener, limit: Duration) -> Graphite {
        let collector = Collector { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
        Graphite { collector, limit }
    }

    #[test]
    fn a_report_is_taken_when_the_collector_closes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let graphite = graphite(&listener, Duration::from_secs(60));
        let collector = thread::spawn(move || {
            let mut text = String::new();
            listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
            text
        });
        let report = "a.b 1 1700000000\n".repeat(200_000);
        graphite.send(report.as_bytes()).unwrap();
        assert!(collector.join().unwrap() == report);
    }

    #[test]
    fn a_collector_that_does_not_read_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let graphite = graphite(&listener, Duration::from_millis(100));
        // The kernel takes a small report; that it was read is not known.
        for size in [10, 64 << 20] {
            let error = graphite.send(&vec![b'x'; size]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        }
    }

    #[test]
    fn a_collector_that_is_not_there_is_told_by_its_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let graphite = graphite(&listener, Duration::from_secs(60));
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = graphite.send(b"x").unwrap_err().to_string();
        assert!(error.starts_with(&format!("no connection to {address}: ")), "{error}");
    }
}
