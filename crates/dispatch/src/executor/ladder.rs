//! The end of a command, step by step: TERM, after the grace KILL, after the main process the drain
//! of its pipes.
//!
//! Decides from what it is told and the time it is given; the reaper acts.

use std::time::{Duration, Instant};

/// Nobody waits longer: a century.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

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
    /// Send TERM to the group.
    Terminate,
    /// Send KILL to the group.
    Kill,
    /// Stop waiting for the pipes: the command has ended.
    Finish,
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
    Killing,
    /// The main process has ended. Others may still hold its pipes.
    Draining {
        until: Instant,
    },
}

/// Where one command stands.
pub struct Ladder {
    phase: Phase,
    grace: Duration,
    stop: Option<Stop>,
    killed: bool,
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
        }
    }

    /// When `expire` is to be called, unless something happens before.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running { timeout_at } => timeout_at,
            Phase::Terminating { kill_at: at } | Phase::Draining { until: at } => Some(at),
            Phase::Killing => None,
        }
    }

    /// The deadline is over.
    pub fn expire(&mut self, now: Instant) -> Action {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Action::Wait;
        }
        match self.phase {
            Phase::Running { .. } => self.terminate(now, Stop::Timeout),
            Phase::Terminating { .. } => self.kill(),
            Phase::Killing => Action::Wait,
            Phase::Draining { .. } => self.finish(),
        }
    }

    /// It is to end: TERM now, KILL after the grace. Only the first reason counts.
    pub fn cancel(&mut self, now: Instant) -> Action {
        match self.phase {
            Phase::Running { .. } => self.terminate(now, Stop::Cancel),
            Phase::Terminating { .. } | Phase::Killing | Phase::Draining { .. } => Action::Wait,
        }
    }

    /// It is to end at once.
    pub fn kill(&mut self) -> Action {
        match self.phase {
            Phase::Running { .. } | Phase::Terminating { .. } => {
                self.stop.get_or_insert(Stop::Cancel);
                self.killed = true;
                self.phase = Phase::Killing;
                Action::Kill
            }
            Phase::Killing => Action::Wait,
            Phase::Draining { .. } => self.finish(),
        }
    }

    /// The main process has ended. What the rest of the group still writes is read for `drain`, and
    /// after a TERM at least until the grace is over: that they hold the pipes shows that they are
    /// still cleaning up.
    pub fn main_ended(&mut self, now: Instant, drain: Duration) {
        let drained = after(now, drain);
        let until = match self.phase {
            Phase::Terminating { kill_at } => kill_at.max(drained),
            Phase::Running { .. } | Phase::Killing => drained,
            Phase::Draining { until } => until,
        };
        self.phase = Phase::Draining { until };
    }

    /// Whether the main process has ended.
    pub fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining { .. })
    }

    /// Why it was made to end; None: it ended by itself.
    pub fn stop(&self) -> Option<Stop> {
        self.stop
    }

    /// Whether KILL was needed.
    pub fn killed(&self) -> bool {
        self.killed
    }

    /// Ends a drain that did not end by itself: whoever still holds the pipes gets KILL. After a TERM,
    /// that is one that was needed.
    fn finish(&mut self) -> Action {
        self.killed |= self.stop.is_some();
        Action::Finish
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
        assert_eq!(ladder.deadline(), None);
        assert_eq!(
            (ladder.stop(), ladder.killed()),
            (Some(Stop::Timeout), true)
        );
    }

    #[test]
    fn a_natural_end_is_drained_and_not_cancelled() {
        let (mut ladder, start) = ladder(None);
        assert_eq!(ladder.deadline(), None);
        ladder.main_ended(start + SECOND, 2 * SECOND);
        assert!(ladder.is_draining());
        assert_eq!(ladder.cancel(start + SECOND), Action::Wait);
        assert_eq!(ladder.expire(start + 3 * SECOND), Action::Finish);
        assert_eq!((ladder.stop(), ladder.killed()), (None, false));
    }

    #[test]
    fn the_group_keeps_its_grace_when_the_leader_obeys_at_once() {
        let (mut ladder, start) = ladder(None);
        assert_eq!(ladder.cancel(start), Action::Terminate);
        ladder.main_ended(start, 2 * SECOND);
        assert_eq!(ladder.deadline(), Some(start + 5 * SECOND));
        assert_eq!(ladder.expire(start + 5 * SECOND), Action::Finish);
        assert_eq!((ladder.stop(), ladder.killed()), (Some(Stop::Cancel), true));
    }

    #[test]
    fn kill_skips_the_grace_and_ends_a_drain() {
        let (mut first, start) = ladder(None);
        assert_eq!(first.kill(), Action::Kill);
        assert_eq!(first.kill(), Action::Wait);
        first.main_ended(start, SECOND);
        assert_eq!(first.kill(), Action::Finish);
        assert_eq!((first.stop(), first.killed()), (Some(Stop::Cancel), true));
    }

    #[test]
    fn a_timeout_that_the_clock_cannot_count_is_none() {
        assert_eq!(ladder(Some(Duration::MAX)).0.deadline(), None);
    }
}
