//! Signals as the process hears them: three that ask for its end, and two that are obeyed whatever it is doing: SIGHUP
//! has the configuration read again, SIGUSR1 the logs' files opened anew.

use std::{fmt, io, sync::Arc};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::reload::Calls;
use crate::telemetry::Logs;

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
    logs: Logs,
}

impl Signals {
    /// `calls` is told of each SIGHUP; `logs` are opened anew when that is asked for.
    pub fn listen(calls: Arc<Calls>, logs: Logs) -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
            calls,
            logs,
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
                    log::info!("SIGUSR1: opening the logs' files anew");
                    self.logs.reopen();
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
