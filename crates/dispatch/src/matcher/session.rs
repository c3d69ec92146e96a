//! How many more jobs one session may be given.

/// For how long a finished job counts towards the prefetch. The next Assign message is under way for
/// about a round trip, and a worker gathers the ends of commands for up to 30 ms; 80 ms covers both
/// within a region and is far below what a person notices if the prefetched job has to wait for a slot
/// after all; what waits for a second is handed back.
pub const PREFETCH_WINDOW_MS: i64 = 80;

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
    /// Jobs that were given to it and have not ended.
    pub outstanding: u32,
    /// Jobs that it finished within the window.
    pub finished_lately: u32,
    /// Whether it stands in the line of its profile.
    pub in_line: bool,
}

impl Session {
    /// A session of that profile, with nothing to do and no slots yet.
    pub fn new(profile: u32) -> Self {
        Self {
            profile,
            slots: 0,
            outstanding: 0,
            finished_lately: 0,
            in_line: false,
        }
    }

    /// Slots plus prefetch minus what is outstanding. The prefetch is as many jobs as it finished
    /// lately, so nothing waits behind a long job: where nothing finishes, nothing is prefetched.
    pub fn credits(&self) -> u32 {
        if self.slots == 0 {
            return 0;
        }
        let prefetch = self.finished_lately.min(PREFETCH_MAX);
        self.slots
            .saturating_add(prefetch)
            .saturating_sub(self.outstanding)
    }
}
