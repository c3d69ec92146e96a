//! Ends that come fast are taken together, so that they share a sync, a message to the server and a
//! commit. The first after a pause is taken at once.
//!
//! That is for when there is more to do than can be done. Where no command waits for its start, what
//! was gathered is what keeps the next ones from coming, and is soon taken.

use std::time::{Duration, Instant};

/// From one taking to the next, while commands wait.
const GATHER: Duration = Duration::from_millis(80);
/// From one taking to the next, while none does; looked at so often.
const GLANCE: Duration = Duration::from_millis(5);

/// When the executor is asked next.
#[derive(Default)]
pub struct Gathering {
    last: Option<Instant>,
    gathered: Option<Gathered>,
}

/// Something is there and was not taken.
struct Gathered {
    /// It is taken then in any case,
    until: Instant,
    /// and then if no command waits.
    glance: Instant,
}

impl Gathering {
    /// Something is there. True: take it now; else `is_over` says when.
    pub fn begin(&mut self) -> bool {
        let now = Instant::now();
        self.gathered = self.last.and_then(|last| {
            let (until, glance) = (last + GATHER, last + GLANCE);
            (now < until).then_some(Gathered { until, glance })
        });
        self.gathered.is_none()
    }

    /// Ends were taken.
    pub fn took_ends(&mut self) {
        self.last = Some(Instant::now());
    }

    /// How long it is until `is_over` is to be asked; None: nothing is gathered.
    pub fn left(&self) -> Option<Duration> {
        let gathered = self.gathered.as_ref()?;
        let next = gathered.until.min(gathered.glance);
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Whether what was gathered is to be taken now; said once.
    pub fn is_over(&mut self, has_waiting: impl FnOnce() -> bool) -> bool {
        let Some(gathered) = &mut self.gathered else {
            return false;
        };
        let now = Instant::now();
        let mut over = now >= gathered.until;
        if !over && now >= gathered.glance {
            over = !has_waiting();
            gathered.glance = now + GLANCE;
        }
        if over {
            self.gathered = None;
        }
        over
    }
}
