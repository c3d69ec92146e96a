//! Ends that come fast are taken together, so that they share a sync, a message to the server and a
//! commit. The first after a pause is taken at once.

use std::time::{Duration, Instant};

/// From one taking to the next.
const GATHER: Duration = Duration::from_millis(30);

/// When the executor is asked next.
#[derive(Default)]
pub struct Gathering {
    last: Option<Instant>,
    until: Option<Instant>,
}

impl Gathering {
    /// Something is there. True: take it now; else `is_over` says when.
    pub fn begin(&mut self) -> bool {
        let next = self.last.map(|last| last + GATHER);
        self.until = next.filter(|next| Instant::now() < *next);
        self.until.is_none()
    }

    /// Ends were taken.
    pub fn took_ends(&mut self) {
        self.last = Some(Instant::now());
    }

    /// How long there is to wait for what is gathered; None: nothing is.
    pub fn left(&self) -> Option<Duration> {
        let until = self.until?;
        Some(until.saturating_duration_since(Instant::now()))
    }

    /// Whether what was gathered is to be taken now; said once.
    pub fn is_over(&mut self) -> bool {
        let over = self.until.is_some_and(|until| Instant::now() >= until);
        if over {
            self.until = None;
        }
        over
    }
}
