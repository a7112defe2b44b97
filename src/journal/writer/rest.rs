//! How the journal rests between two batches, while those that come meanwhile gather.
//!
//! A transaction costs the same whether one write is in it or thirty. On a disk that is fast each would leave with the
//! one or two writes that have come during the last, and most of what a write costs would be transactions. So there is a
//! rest after each, as long as it took itself: there are half as many at most, and no write waits longer for the rest
//! than for the disk.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Where a transaction takes longer, enough writes come during it.
const MOST: Duration = Duration::from_millis(1);

/// A timer of the kernel: tokio's counts whole milliseconds, and a transaction may take a tenth of one. Without one
/// there is no rest.
pub struct Rest(Option<AsyncFd<OwnedFd>>);

impl Rest {
    /// In a runtime with I/O.
    pub fn new() -> Rest {
        let timer = timer()
            .inspect_err(|error| log::warn!("journal: batches will be small, without a timer: {error}"));
        Rest(timer.ok())
    }

    /// Returns when enough time has passed after a batch that took so long.
    pub async fn after(&self, took: Duration) {
        if let Some(timer) = self.0.as_ref().filter(|_| !took.is_zero()) {
            // One that fails is over at once.
            wait(timer, took.min(MOST)).await.unwrap_or_default();
        }
    }
}

#[expect(deprecated, reason = "it is sound for a descriptor that is owned; what replaces it is unsafe code")]
fn timer() -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?)
}

async fn wait(timer: &AsyncFd<OwnedFd>, time: Duration) -> io::Result<()> {
    let once = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() },
    };
    timerfd_settime(timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
    loop {
        let mut ready = timer.readable().await?;
        if let Ok(read) = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut [0; 8])?)) {
            return read.map(drop);
        }
    }
}
