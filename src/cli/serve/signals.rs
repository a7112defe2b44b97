//! Signals as the process hears them: three that ask for its end, and those that it is told of whatever it is doing.

use std::{fmt, io, sync::Arc};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::reload::Calls;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// SIGTERM: end when everything has ended.
    Terminate,
    /// SIGINT: end now.
    Interrupt,
    /// SIGQUIT: end when a successor serves.
    HandOver,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Asked::Terminate => "SIGTERM",
            Asked::Interrupt => "SIGINT",
            Asked::HandOver => "SIGQUIT",
        })
    }
}

/// Streams of all signals that the process hears. Those that come before it exists end the process.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    user: Signal,
    calls: Arc<Calls>,
}

impl Signals {
    /// `calls` is told of each SIGHUP.
    pub fn listen(calls: Arc<Calls>) -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
            calls,
        })
    }

    /// The next signal that asks for something. Cancel-safe.
    pub async fn next(&mut self) -> Asked {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Asked::Terminate,
                _ = self.interrupt.recv() => return Asked::Interrupt,
                _ = self.quit.recv() => return Asked::HandOver,
                _ = self.hangup.recv() => self.calls.hangup.notify_one(),
                _ = self.user.recv() => {
                    log::error!("SIGUSR1: reopening the logs is not supported yet; the gateway goes on as it is");
                }
            };
        }
    }

    /// The next one that asks for the end; a hand-over is not possible now, for the reason given.
    pub async fn next_end(&mut self, no_handover: &str) -> Asked {
        loop {
            match self.next().await {
                Asked::HandOver => log::error!("SIGQUIT is ignored: {no_handover}"),
                asked => return asked,
            }
        }
    }
}
