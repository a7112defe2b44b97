//! When the wait for an answer has lasted too long.
//!
//! The deadline starts when the backend has taken the last byte of the request, and megabytes may sit in our own
//! socket's buffer. So when it has passed by the clock the kernel is asked whether it has passed by the rule; asking
//! only then keeps the common case free of system calls.

use std::time::{Duration, Instant};

use pingora_core::protocols::l4::ext::{TCP_INFO, get_tcp_info};

use super::exchange::Limits;

/// What is known of one exchange while its answer is waited for.
pub(super) struct Probe {
    fd: i32,
    /// Bytes acknowledged when last asked, and since when.
    acked: u64,
    since: Instant,
    /// When the backend had taken the whole request; from then on nothing moves the deadline.
    taken_at: Option<Instant>,
}

impl Probe {
    pub(super) fn new(fd: i32) -> Self {
        Probe { fd, acked: 0, since: Instant::now(), taken_at: None }
    }

    /// How much longer to wait for the answer's head; `None` = no longer.
    pub(super) fn patience(&mut self, limits: &Limits, detached: bool) -> Option<Duration> {
        let header = limits.transport.response_header_timeout;
        let header = if detached { header.min(limits.stall) } else { header };
        let now = Instant::now();
        self.look(&get_tcp_info(self.fd).ok()?, now);
        self.left(now, header, limits.stall)
    }

    fn look(&mut self, info: &TCP_INFO, now: Instant) {
        if info.tcpi_bytes_acked > self.acked {
            (self.acked, self.since) = (info.tcpi_bytes_acked, now);
        }
        if info.tcpi_unacked == 0 && info.tcpi_notsent_bytes == 0 {
            let last_ack = Duration::from_millis(info.tcpi_last_ack_recv.into());
            self.taken_at.get_or_insert(now.checked_sub(last_ack).unwrap_or(now));
        }
    }

    fn left(&self, now: Instant, header: Duration, stall: Duration) -> Option<Duration> {
        const LOOK_AGAIN: Duration = Duration::from_millis(500);
        let left = match self.taken_at {
            // Not longer than the stall time at once: the request may be detached meanwhile.
            Some(taken_at) => header.checked_sub(now.saturating_duration_since(taken_at))?.min(stall),
            None => stall.checked_sub(now.saturating_duration_since(self.since))?.min(LOOK_AGAIN),
        };
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Duration = Duration::from_secs(5);
    const STALL: Duration = Duration::from_secs(60);

    fn info(unacked: u32, unsent: u32, last_ack_ms: u32) -> TCP_INFO {
        // A TCP_INFO can only be had from a socket: any will do, the fields are set here.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
        let mut info = pingora_core::protocols::l4::ext::get_tcp_info(fd).unwrap();
        (info.tcpi_unacked, info.tcpi_notsent_bytes, info.tcpi_last_ack_recv) =
            (unacked, unsent, last_ack_ms);
        info
    }

    #[test]
    fn the_answers_deadline_starts_when_the_last_byte_was_taken_and_nothing_moves_it() {
        let now = Instant::now();
        let ms = Duration::from_millis;
        let left = |infos: &[TCP_INFO]| {
            let mut probe = Probe { fd: -1, acked: 0, since: now, taken_at: None };
            infos.iter().for_each(|info| probe.look(info, now));
            probe.left(now, HEADER, STALL)
        };
        assert_eq!(left(&[info(0, 0, 5_000)]), None);
        assert_eq!(left(&[info(0, 0, 9_000)]), None);
        assert_eq!(left(&[info(0, 0, 1_200)]), Some(ms(3_800)));
        assert_eq!(left(&[info(3, 0, 9_000)]), Some(ms(500)));
        assert_eq!(left(&[info(0, 9, 9_000)]), Some(ms(500)));
        // A later segment of the backend's is no reason to wait longer.
        assert_eq!(left(&[info(0, 0, 4_000), info(0, 0, 0)]), Some(ms(1_000)));
    }

    #[test]
    fn a_backend_that_takes_nothing_for_the_stall_time_is_given_up() {
        let then = Instant::now();
        let mut probe = Probe { fd: -1, acked: u64::MAX, since: then, taken_at: None };
        probe.look(&info(0, 9, 100), then + STALL);
        assert_eq!(probe.left(then + STALL, HEADER, STALL), None);
    }
}
