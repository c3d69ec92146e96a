//! How many more jobs one session may be given.

use std::collections::VecDeque;

/// For how long a finished job counts towards the prefetch, counting only time in which its session had
/// jobs.
///
/// Time in which it waited for work says nothing of how fast it is: counted too, a busy system, whose next
/// jobs are longer under way than this, would never give more than the slots.
pub const PREFETCH_WINDOW_MS: i64 = 80;

/// So many jobs are sent ahead for each that counts: what the session ends in twice the window. That covers the
/// round trip of the next Assign, 50 ms on a busy machine, and the 80 ms for which a worker may gather ends of
/// commands. A job that has to wait for a slot after all is hardly late for a person, and is handed back after
/// a second. In a burst the session is given up to three times as much with each round trip; with one job ahead
/// for each it would be twice.
pub const PREFETCH_TIMES: u32 = 2;

/// For how long a finished job counts at most, whether its session had work or not.
pub const PREFETCH_STALE_MS: i64 = 1000;

/// The most jobs sent beyond the slots of a session: the largest batch, which bounds what goes back when
/// a session breaks. With a quarter of it each stage moved batches so small that they cost a third more.
pub const PREFETCH_MAX: u32 = 1000;

/// One stream of one worker.
#[derive(Debug)]
pub struct Session {
    /// The profile it belongs to.
    pub profile: u32,
    /// Jobs it runs at once; 0 while it drains.
    pub slots: u32,
    /// Jobs that were given to it and have not ended: `set_outstanding` changes it.
    outstanding: u32,
    /// Jobs that it finished within the window.
    finished_lately: u32,
    /// The same by when, the oldest first: it is also the first that ceases to count.
    finished: VecDeque<Finished>,
    /// Whether it stands in the line of its profile.
    pub in_line: bool,
    /// For how long it had jobs, up to `changed_ms`.
    busy_ms: i64,
    /// When its jobs were last counted.
    changed_ms: i64,
}

/// Jobs that a session finished at once.
#[derive(Debug)]
struct Finished {
    count: u32,
    at_ms: i64,
    /// How long the session had had jobs by then.
    busy_ms: i64,
}

impl Session {
    /// A session of that profile, with nothing to do and no slots yet.
    pub fn new(profile: u32) -> Self {
        Self {
            profile,
            slots: 0,
            outstanding: 0,
            finished_lately: 0,
            finished: VecDeque::new(),
            in_line: false,
            busy_ms: 0,
            changed_ms: 0,
        }
    }

    /// How many jobs it finished within the window.
    pub fn finished_lately(&self) -> u32 {
        self.finished_lately
    }

    /// So many of its jobs ended. If it had finished none lately: when the first of these ceases to count, at the
    /// earliest.
    pub fn finish(&mut self, count: u32, now_ms: i64) -> Option<i64> {
        self.set_outstanding(self.outstanding.saturating_sub(count), now_ms);
        let (busy_ms, is_first) = (self.busy_ms, self.finished.is_empty());
        self.finished_lately += count;
        match self.finished.back_mut() {
            Some(last) if last.at_ms == now_ms && last.busy_ms == busy_ms => last.count += count,
            _ => self.finished.push_back(Finished {
                count,
                at_ms: now_ms,
                busy_ms,
            }),
        }
        is_first.then(|| now_ms.saturating_add(PREFETCH_WINDOW_MS))
    }

    /// Drops what does not count any more; when the next ceases to count, at the earliest.
    pub fn forget_old(&mut self, now_ms: i64) -> Option<i64> {
        while let Some(oldest) = self.finished.front() {
            let passed = self.busy_ms(now_ms).saturating_sub(oldest.busy_ms);
            let left = PREFETCH_WINDOW_MS.saturating_sub(passed);
            let stale_ms = oldest.at_ms.saturating_add(PREFETCH_STALE_MS);
            let ends_ms = now_ms.saturating_add(left).min(stale_ms);
            if ends_ms > now_ms {
                return Some(ends_ms);
            }
            self.finished_lately -= oldest.count;
            self.finished.pop_front();
        }
        None
    }

    /// Forgets all that it had and did: it is closed.
    pub fn clear(&mut self, now_ms: i64) {
        self.slots = 0;
        self.finished_lately = 0;
        self.finished.clear();
        self.set_outstanding(0, now_ms);
    }

    /// For how long it had jobs until now.
    fn busy_ms(&self, now_ms: i64) -> i64 {
        let since = if self.outstanding > 0 {
            now_ms.saturating_sub(self.changed_ms)
        } else {
            0
        };
        self.busy_ms.saturating_add(since)
    }

    /// Note how many jobs it has from now on.
    pub fn set_outstanding(&mut self, count: u32, now_ms: i64) {
        self.busy_ms = self.busy_ms(now_ms);
        self.changed_ms = now_ms;
        self.outstanding = count;
    }

    /// How many jobs it has that have not ended.
    pub fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// Slots plus prefetch minus what is outstanding. The prefetch is a multiple of what it finished
    /// lately, so nothing waits behind a long job: where nothing finishes, nothing is prefetched.
    pub fn credits(&self) -> u32 {
        if self.slots == 0 {
            return 0;
        }
        let prefetch = self.finished_lately.saturating_mul(PREFETCH_TIMES);
        let prefetch = prefetch.min(PREFETCH_MAX);
        self.slots
            .saturating_add(prefetch)
            .saturating_sub(self.outstanding)
    }
}
