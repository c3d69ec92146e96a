//! The end of a command, step by step: TERM, after the grace KILL, after the main process the drain of
//! its pipes, and then what is left of its processes.
//!
//! Decides from what it is told and the time it is given; the reaper acts.

use std::time::{Duration, Instant};

/// Nobody waits longer: a century.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// How long the kernel has to end a main process that was sent KILL before that is told.
const STUCK: Duration = Duration::from_secs(5);
/// How long what is left is killed again and again.
const SWEEPING: Duration = Duration::from_secs(2);
/// The pause after the first sweep, and the longest: each is twice the one before.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];

/// Why a command was made to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It ran longer than it may.
    Timeout,
    /// It was asked for.
    Cancel,
}

/// What the reaper has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Wait,
    /// Send TERM to all its processes.
    Terminate,
    /// Send KILL to all its processes.
    Kill,
    /// Tell that the kernel can't end it.
    Tell,
    /// Stop waiting for the pipes; see what is left of its processes.
    Sweep,
}

/// What those have coming who outlive the main process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// They had TERM and still have time.
    Grace,
    /// KILL.
    Kill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running {
        timeout_at: Option<Instant>,
    },
    Terminating {
        kill_at: Instant,
    },
    /// KILL was sent. There is nothing stronger: a process that the kernel can't end keeps its
    /// slot.
    Killing {
        tell_at: Option<Instant>,
    },
    /// The main process has ended. Others may still hold its pipes.
    Draining {
        until: Instant,
        kill_at: Instant,
    },
    /// Others may still live. Without `next`, a sweep is under way.
    Sweeping {
        next: Option<Instant>,
        pause: Duration,
        kill_at: Instant,
    },
}

/// Where one command stands.
pub struct Ladder {
    phase: Phase,
    grace: Duration,
    stop: Option<Stop>,
    killed: bool,
    outlasted: bool,
}

impl Ladder {
    /// A command that runs since `started`.
    pub fn new(started: Instant, timeout: Option<Duration>, grace: Duration) -> Self {
        // A timeout beyond what the clock can count is none.
        let timeout_at = timeout.and_then(|timeout| started.checked_add(timeout));
        Self {
            phase: Phase::Running { timeout_at },
            grace,
            stop: None,
            killed: false,
            outlasted: false,
        }
    }

    /// When `expire` is to be called, unless something happens before.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running { timeout_at } => timeout_at,
            Phase::Terminating { kill_at: at } | Phase::Draining { until: at, .. } => Some(at),
            Phase::Killing { tell_at: at } | Phase::Sweeping { next: at, .. } => at,
        }
    }

    /// The deadline is over.
    pub fn expire(&mut self, now: Instant) -> Action {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Action::Wait;
        }
        match self.phase {
            Phase::Running { .. } => self.terminate(now, Stop::Timeout),
            Phase::Terminating { .. } => {
                self.outlasted = true;
                self.kill(now)
            }
            Phase::Killing { .. } => {
                self.phase = Phase::Killing { tell_at: None };
                Action::Tell
            }
            Phase::Draining { .. } => self.drained(now),
            Phase::Sweeping { pause, kill_at, .. } => self.sweep_now(pause, kill_at),
        }
    }

    /// It is to end: TERM now, KILL after the grace. Only the first reason counts.
    pub fn cancel(&mut self, now: Instant) -> Action {
        match self.phase {
            Phase::Running { .. } => self.terminate(now, Stop::Cancel),
            _ => Action::Wait,
        }
    }

    /// It is to end at once.
    pub fn kill(&mut self, now: Instant) -> Action {
        match self.phase {
            Phase::Running { .. } | Phase::Terminating { .. } => {
                self.stop.get_or_insert(Stop::Cancel);
                self.killed = true;
                self.phase = Phase::Killing {
                    tell_at: Some(now + STUCK),
                };
                Action::Kill
            }
            Phase::Killing { .. } => Action::Wait,
            Phase::Draining { .. } => {
                self.phase = Phase::Draining {
                    until: now,
                    kill_at: now,
                };
                self.drained(now)
            }
            Phase::Sweeping { pause, kill_at, .. } => self.sweep_now(pause, kill_at.min(now)),
        }
    }

    /// The main process has ended. What the rest of its processes still write is read for `drain`, and
    /// after a TERM at least until the grace is over: that they hold the pipes shows that they are
    /// still cleaning up. After a KILL nobody has anything to say.
    pub fn main_ended(&mut self, now: Instant, drain: Duration) {
        let drained = after(now, drain);
        let (until, kill_at) = match self.phase {
            Phase::Running { .. } => (drained, now),
            Phase::Terminating { kill_at } => (kill_at.max(drained), kill_at),
            Phase::Killing { .. } => (now, now),
            Phase::Draining { .. } | Phase::Sweeping { .. } => return,
        };
        self.phase = Phase::Draining { until, kill_at };
    }

    /// The pipes are at their end, or it does not matter any more.
    pub fn drained(&mut self, now: Instant) -> Action {
        let Phase::Draining { kill_at, .. } = self.phase else {
            return Action::Wait;
        };
        self.sweep_now(PAUSES[0], kill_at.max(now))
    }

    /// Something is left: it gets KILL if that is due, and there will be another sweep, if `Some`.
    /// None: what is left can't be ended.
    pub fn sweep(&mut self, now: Instant) -> Option<Due> {
        let Phase::Sweeping { pause, kill_at, .. } = self.phase else {
            return None;
        };
        if now >= after(kill_at, SWEEPING) {
            return None;
        }
        self.phase = Phase::Sweeping {
            next: Some(now + pause),
            pause: PAUSES[1].min(pause * 2),
            kill_at,
        };
        Some(if now >= kill_at {
            Due::Kill
        } else {
            Due::Grace
        })
    }

    /// Whether the main process lives, as far as we know.
    pub fn is_alive(&self) -> bool {
        !matches!(self.phase, Phase::Draining { .. } | Phase::Sweeping { .. })
    }

    /// Whether the pipes are what we wait for.
    pub fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining { .. })
    }

    /// Why it was made to end; None: it ended by itself.
    pub fn stop(&self) -> Option<Stop> {
        self.stop
    }

    /// Whether the main process was sent KILL.
    pub fn killed(&self) -> bool {
        self.killed
    }

    /// Whether that was because it had a TERM and was there for the whole grace.
    pub fn outlasted(&self) -> bool {
        self.outlasted
    }

    fn sweep_now(&mut self, pause: Duration, kill_at: Instant) -> Action {
        self.phase = Phase::Sweeping {
            next: None,
            pause,
            kill_at,
        };
        Action::Sweep
    }

    fn terminate(&mut self, now: Instant, stop: Stop) -> Action {
        self.stop = Some(stop);
        self.phase = Phase::Terminating {
            kill_at: after(now, self.grace),
        };
        Action::Terminate
    }
}

/// `now + wait`, without overflow.
fn after(now: Instant, wait: Duration) -> Instant {
    now + wait.min(FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ladder(timeout: Option<Duration>) -> (Ladder, Instant) {
        let start = Instant::now();
        (Ladder::new(start, timeout, 5 * SECOND), start)
    }

    #[test]
    fn a_timeout_terminates_then_kills_after_the_grace() {
        let (mut ladder, start) = ladder(Some(10 * SECOND));
        assert_eq!(ladder.deadline(), Some(start + 10 * SECOND));
        assert_eq!(ladder.expire(start + 9 * SECOND), Action::Wait);
        assert_eq!(ladder.expire(start + 10 * SECOND), Action::Terminate);
        assert_eq!(ladder.deadline(), Some(start + 15 * SECOND));
        assert_eq!(ladder.cancel(start + 11 * SECOND), Action::Wait);
        assert_eq!(ladder.expire(start + 15 * SECOND), Action::Kill);
        assert_eq!(ladder.stop(), Some(Stop::Timeout));
        assert!(ladder.killed() && ladder.outlasted());
    }

    #[test]
    fn what_the_kernel_cannot_end_is_told_once() {
        let (mut ladder, start) = ladder(None);
        assert_eq!(ladder.kill(start), Action::Kill);
        assert_eq!(ladder.deadline(), Some(start + 5 * SECOND));
        assert_eq!(ladder.expire(start + 5 * SECOND), Action::Tell);
        assert_eq!(ladder.deadline(), None);
        assert!(ladder.is_alive());
    }

    #[test]
    fn a_natural_end_is_drained_and_not_cancelled() {
        let (mut ladder, start) = ladder(None);
        assert_eq!(ladder.deadline(), None);
        ladder.main_ended(start + SECOND, 2 * SECOND);
        assert!(ladder.is_draining());
        assert_eq!(ladder.cancel(start + SECOND), Action::Wait);
        assert_eq!(ladder.expire(start + 3 * SECOND), Action::Sweep);
        assert_eq!(ladder.sweep(start + 3 * SECOND), Some(Due::Kill));
        assert_eq!((ladder.stop(), ladder.killed()), (None, false));
    }

    #[test]
    fn the_others_keep_their_grace_when_the_leader_obeys_at_once() {
        let (mut ladder, start) = ladder(None);
        assert_eq!(ladder.cancel(start), Action::Terminate);
        ladder.main_ended(start, 2 * SECOND);
        assert_eq!(ladder.deadline(), Some(start + 5 * SECOND));
        assert_eq!(ladder.drained(start + SECOND), Action::Sweep);
        assert_eq!(ladder.drained(start + SECOND), Action::Wait);
        assert_eq!(ladder.sweep(start + SECOND), Some(Due::Grace));
        assert_eq!(ladder.expire(start + 5 * SECOND), Action::Sweep);
        assert_eq!(ladder.sweep(start + 5 * SECOND), Some(Due::Kill));
        assert_eq!(ladder.stop(), Some(Stop::Cancel));
        assert!(!ladder.killed() && !ladder.outlasted());
    }

    #[test]
    fn sweeps_have_an_end() {
        let (mut ladder, start) = ladder(None);
        ladder.main_ended(start, SECOND);
        assert_eq!(ladder.drained(start), Action::Sweep);
        let mut now = start;
        while ladder.sweep(now).is_some() {
            now = ladder.deadline().expect("the next sweep");
        }
        assert!((SWEEPING..SWEEPING + PAUSES[1]).contains(&(now - start)));
    }

    #[test]
    fn kill_skips_the_grace_and_the_drain() {
        let (mut first, start) = ladder(None);
        assert_eq!(first.cancel(start), Action::Terminate);
        assert_eq!(first.kill(start), Action::Kill);
        assert_eq!(first.kill(start), Action::Wait);
        first.main_ended(start, SECOND);
        assert_eq!(first.expire(start), Action::Sweep);
        assert_eq!(first.sweep(start), Some(Due::Kill));
        assert_eq!(
            (first.stop(), first.outlasted()),
            (Some(Stop::Cancel), false)
        );
        let (mut second, _) = ladder(None);
        second.cancel(start);
        second.main_ended(start, SECOND);
        assert_eq!(second.kill(start), Action::Sweep);
        assert_eq!(second.sweep(start), Some(Due::Kill));
    }

    #[test]
    fn a_timeout_that_the_clock_cannot_count_is_none() {
        assert_eq!(ladder(Some(Duration::MAX)).0.deadline(), None);
    }
}
