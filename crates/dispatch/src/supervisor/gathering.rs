//! Ends that come fast are taken together, so that they share a sync, a message to the server and a
//! commit. The first after a pause is taken at once.
//!
//! It pays while commands wait for a slot. While none does, the next ones come only once the server
//! knows of the ends: then they are taken soon.

use std::time::{Duration, Instant};

/// From one taking to the next, while it pays.
const GATHER: Duration = Duration::from_millis(80);
/// From one taking to the next, while it does not; and from one look whether it pays to the next.
const GLANCE: Duration = Duration::from_millis(5);

/// When the executor is asked next. Times come from the caller.
#[derive(Default)]
pub struct Gathering {
    last: Option<Instant>,
    gathered: Option<Gathered>,
}

/// Something is there and was not taken.
struct Gathered {
    /// When it is taken in any case.
    until: Instant,
    /// When it is taken if it does not pay to wait longer.
    glance: Instant,
}

impl Gathering {
    /// Something is there. True: take it now; else `is_over` says when.
    pub fn begin(&mut self, now: Instant) -> bool {
        self.gathered = self.last.and_then(|last| {
            let (until, glance) = (last + GATHER, last + GLANCE);
            (now < until).then_some(Gathered { until, glance })
        });
        self.gathered.is_none()
    }

    /// Ends were taken.
    pub fn took_ends(&mut self, now: Instant) {
        self.last = Some(now);
    }

    /// How long it is until `is_over` is to be asked; None: nothing is gathered.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let gathered = self.gathered.as_ref()?;
        let next = gathered.until.min(gathered.glance);
        Some(next.saturating_duration_since(now))
    }

    /// Whether what was gathered is to be taken now; said once.
    pub fn is_over(&mut self, now: Instant, pays: impl FnOnce() -> bool) -> bool {
        let Some(gathered) = &mut self.gathered else {
            return false;
        };
        let mut over = now >= gathered.until;
        if !over && now >= gathered.glance {
            over = !pays();
            gathered.glance = now + GLANCE;
        }
        if over {
            self.gathered = None;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn never() -> bool {
        unreachable!("it is not asked before its time")
    }

    #[test]
    fn the_first_after_a_pause_is_taken_at_once() {
        let (mut gathering, now) = (Gathering::default(), Instant::now());
        assert!(gathering.begin(now));
        gathering.took_ends(now);
        assert!(gathering.begin(now + GATHER));
        assert_eq!(gathering.left(now + GATHER), None);
        assert!(!gathering.is_over(now + GATHER, never));
    }

    #[test]
    fn while_it_pays_ends_are_gathered_to_the_end_and_looked_at_now_and_then() {
        let (mut gathering, now) = (Gathering::default(), Instant::now());
        gathering.took_ends(now);
        assert!(!gathering.begin(now + MS));
        assert_eq!(gathering.left(now), Some(GLANCE));
        assert!(!gathering.is_over(now + MS, never));
        let mut at = now + GLANCE;
        while at < now + GATHER {
            assert!(!gathering.is_over(at, || true));
            assert_eq!(gathering.left(at), Some(GLANCE), "a loop never spins");
            at += GLANCE;
        }
        assert!(gathering.is_over(at, never));
        assert!(!gathering.is_over(at, never), "it is said once");
    }

    #[test]
    fn what_does_not_pay_any_more_is_taken_at_the_next_look() {
        let (mut gathering, now) = (Gathering::default(), Instant::now());
        gathering.took_ends(now);
        assert!(!gathering.begin(now + MS));
        assert!(!gathering.is_over(now + GLANCE, || true));
        assert!(gathering.is_over(now + GLANCE + GLANCE, || false));
    }

    #[test]
    fn after_a_while_nothing_is_gathered_where_it_does_not_pay() {
        let (mut gathering, now) = (Gathering::default(), Instant::now());
        gathering.took_ends(now);
        assert!(!gathering.begin(now + GLANCE + MS));
        assert_eq!(gathering.left(now + GLANCE + MS), Some(Duration::ZERO));
        assert!(gathering.is_over(now + GLANCE + MS, || false));
    }
}
