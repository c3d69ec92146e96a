//! How long commands, and the supervisor itself, go on without a daemon. Decides; the hub acts.

use std::time::{Duration, Instant};

/// How long a supervisor without daemon and without commands waits for the next daemon.
const IDLE: Duration = Duration::from_secs(5);
/// Between TERM and KILL for commands that nobody came for, whatever their own grace.
const GRACE: Duration = Duration::from_secs(5);

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// Nobody came: TERM to all commands.
    Terminate,
    /// They are still there: KILL.
    Kill,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Terminated,
    Killed,
}

/// The time since a daemon was last there.
pub struct Vigil {
    timeout: Duration,
    since: Option<Instant>,
    stage: Stage,
}

impl Vigil {
    /// Nobody has come yet. Commands go on for `timeout`.
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            since: Some(Instant::now()),
            stage: Stage::Waiting,
        }
    }

    /// A daemon is there. Those that were told to end do; the next are judged anew.
    pub fn ends(&mut self) {
        self.since = None;
        self.stage = Stage::Waiting;
    }

    /// It has said how long commands may go on without one.
    pub fn allow(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// The daemon has gone.
    pub fn begins(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// What is due now; each thing once.
    pub fn due(&mut self) -> Due {
        let Some(since) = self.since else {
            return Due::Nothing;
        };
        match self.stage {
            Stage::Waiting if since.elapsed() >= self.timeout => {
                self.stage = Stage::Terminated;
                Due::Terminate
            }
            Stage::Terminated if since.elapsed() >= self.timeout + GRACE => {
                self.stage = Stage::Killed;
                Due::Kill
            }
            Stage::Waiting | Stage::Terminated | Stage::Killed => Due::Nothing,
        }
    }

    /// Whether a supervisor without commands need not wait any longer. `settled`: all that it knows is
    /// on the disk; what a sick disk does not take is only here, and somebody may still come for it.
    pub fn is_over(&self, settled: bool) -> bool {
        let patience = if settled {
            IDLE.min(self.timeout)
        } else {
            self.timeout + GRACE
        };
        self.since.is_some_and(|since| since.elapsed() >= patience)
    }
}
