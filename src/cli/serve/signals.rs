//! Signals as the process hears them: three that ask for something, one that is obeyed right here (SIGUSR1: the logs'
//! files are opened anew), and one that is refused for now.

use std::{fmt, io};

use tokio::signal::unix::{Signal, SignalKind, signal};

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
    logs: Logs,
}

impl Signals {
    /// `logs` are opened anew when that is asked for, whatever the process is doing.
    pub fn listen(logs: Logs) -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
            logs,
        })
    }

    /// The next signal that asks for something. Cancel-safe.
    pub async fn next(&mut self) -> Asked {
        loop {
            let refused = tokio::select! {
                _ = self.terminate.recv() => return Asked::Terminate,
                _ = self.interrupt.recv() => return Asked::Interrupt,
                _ = self.quit.recv() => return Asked::HandOver,
                _ = self.hangup.recv() => "SIGHUP: reloading the configuration",
                _ = self.user.recv() => {
                    log::info!("SIGUSR1: opening the logs' files anew");
                    self.logs.reopen();
                    continue;
                }
            };
            log::error!("{refused} is not supported yet; the gateway goes on as it is");
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
