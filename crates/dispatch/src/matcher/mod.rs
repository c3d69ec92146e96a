//! Which session gets which job: demand first (who could take how many from which lanes), then
//! assignment of what Redis gave.
//!
//! The work per job is a step in the line of a profile and a look at one session; it does not grow
//! with the sessions or lanes there are. Only `demand` looks at profiles and, 64 at a time, at lanes.

mod bits;
mod fairness;
mod lanes;
mod profile;
mod roster;
mod session;

use self::fairness::{Rotation, fair_shares};
use self::lanes::Lanes;
use self::profile::Kind;
use self::roster::Roster;
use self::session::Session;
use crate::error::InvalidInput;
use crate::hint::{self, HINT_BYTES};

pub use self::session::{PREFETCH_MAX, PREFETCH_STALE_MS, PREFETCH_TIMES, PREFETCH_WINDOW_MS};

/// Matches hints to sessions. It knows nothing of clocks and streams: its caller tells it what
/// happened, in order, and has one take under way at a time.
#[derive(Debug, Default)]
pub struct Matcher {
    lanes: Lanes,
    roster: Roster,
    turn: Rotation,
    direct_turn: Rotation,
    assigned: u64,
}

/// What one profile could take now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// The profile, for `assign`.
    pub profile: u32,
    /// How many hints it has credit for.
    pub budget: usize,
    /// The lanes to ask, as `12,15;7`: commas within a queue, semicolons between queues.
    pub lanes: String,
}

/// Who gets what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The jobs that were assigned, in the order of their hints.
    pub ids: Vec<i64>,
    /// The session of each.
    pub sessions: Vec<i64>,
    /// The lanes of all the hints, each once.
    pub lanes: Vec<i32>,
    /// Where the hints begin that found no credit.
    pub leftover_from: usize,
}

/// What new jobs of a lane would meet: sums over the sessions that serve it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// For how many of them `direct` would take credit.
    pub free: usize,
    /// Jobs that were given out and have not ended.
    pub outstanding: usize,
    /// Jobs that finished within the window of the prefetch.
    pub lately: usize,
    /// Hints that `assign` gave to sessions, of whatever lane, since there is this matcher.
    pub assigned: u64,
}

/// How much the matcher holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Open sessions.
    pub sessions: usize,
    /// Kinds of open sessions.
    pub profiles: usize,
    /// Known lanes.
    pub lanes: usize,
    /// Lanes that may have something.
    pub suspects: usize,
    /// Credits of all sessions.
    pub credits: usize,
}

impl Matcher {
    /// An empty matcher. It spreads jobs over the sessions of a profile or, with `pack`, fills one
    /// before the next.
    #[must_use]
    pub fn new(pack: bool) -> Self {
        Self {
            roster: Roster::new(pack),
            ..Self::default()
        }
    }

    /// Make a lane known; a new lane may have something. Saying the same again does nothing.
    ///
    /// # Errors
    /// The lane is known with another queue or other labels.
    pub fn set_lane(
        &mut self,
        lane: i32,
        queue: &str,
        requires: Vec<String>,
    ) -> Result<(), InvalidInput> {
        if let Some(place) = self.lanes.add(lane, queue, sorted(requires))? {
            let lane = &self.lanes.at(place.queue).lanes[place.bit];
            for profile in self.roster.profiles_mut() {
                profile.meet(place, lane);
            }
        }
        Ok(())
    }

    /// Begin to give jobs to a session.
    ///
    /// # Errors
    /// It is open already.
    pub fn open_session(
        &mut self,
        session: i64,
        slots: u32,
        queues: Vec<String>,
        labels: Vec<String>,
    ) -> Result<(), InvalidInput> {
        let kind = Kind {
            queues: sorted(queues),
            labels: sorted(labels),
        };
        self.roster.open(session, kind, &mut self.lanes)?;
        self.set_slots(session, slots);
        Ok(())
    }

    /// Give nothing more to a session and forget it. What it had is the caller's to bring back.
    pub fn close_session(&mut self, session: i64) {
        self.roster.close(session);
    }

    /// Set how many jobs a session runs at once; 0 means that it gets nothing more.
    pub fn set_slots(&mut self, session: i64, slots: u32) {
        self.roster.change(session, |state| state.slots = slots);
    }

    /// A session that opens has `count` more jobs already.
    pub fn hold(&mut self, session: i64, count: u32) {
        self.roster
            .count(session, |held| held.saturating_add(count));
    }

    /// One job ended for each entry. Sessions that are not open are passed over.
    pub fn finished(&mut self, sessions: &[i64], now_ms: i64) {
        self.roster.finished(sessions, now_ms);
    }

    /// One job that was assigned did not start, for each entry: its credit is back.
    pub fn release(&mut self, sessions: &[i64]) {
        for session in sessions {
            self.roster.count(*session, |held| held.saturating_sub(1));
        }
    }

    /// These lanes may have something. Returns those that are not known: they have to be set.
    pub fn wake(&mut self, lanes: &[i32]) -> Vec<i32> {
        self.lanes.wake(lanes)
    }

    /// All lanes may have something: something that somebody waits for, if they are `filled`; else nobody
    /// said so, and new jobs may still be given out directly.
    pub fn suspect_all(&mut self, filled: bool) {
        self.lanes.suspect_all(filled);
    }

    /// The take that the last demand led to found these of its lanes empty, and none of the others. One that
    /// was woken since that demand is still asked, because the take may have looked before the wake.
    pub fn found_empty(&mut self, lanes: &[i32]) {
        self.lanes.found_empty(lanes);
    }

    /// The take that the last demand led to found that Postgres holds more of these lanes than Redis.
    pub fn found_partial(&mut self, lanes: &[i32]) {
        self.lanes.found_partial(lanes);
    }

    /// Take credit for at most `count` new jobs of a lane, which then need no hint: of profiles for which
    /// nothing waits, in whatever lane, so that nobody who came before is passed. The session of each.
    pub fn direct(&mut self, lane: i32, count: usize, now_ms: i64) -> Vec<i64> {
        self.roster.advance(now_ms);
        let Some(place) = self.lanes.place(lane) else {
            return Vec::new();
        };
        let (profiles, lanes) = (self.roster.profiles(), &self.lanes);
        let chosen = self.direct_turn.pick(count, |start| {
            let start = start as u32;
            let circle = profiles.range(start..).chain(profiles.range(..start));
            let clear = circle.filter(|(_, profile)| {
                profile.credits > 0 && profile.serves(place) && profile.is_clear(lanes)
            });
            clear.map(|(number, _)| *number as usize)
        });
        let numbers: Vec<u32> = chosen.into_iter().map(|number| number as u32).collect();
        let credits: Vec<usize> = numbers
            .iter()
            .map(|number| profiles[number].credits)
            .collect();
        let mut sessions = Vec::new();
        for (profile, share) in numbers.into_iter().zip(fair_shares(&credits, count)) {
            sessions.extend((0..share).map_while(|_| self.roster.take_credit(profile)));
        }
        sessions
    }

    /// What new jobs of a lane would meet.
    pub fn room(&mut self, lane: i32, now_ms: i64) -> Room {
        self.roster.advance(now_ms);
        let mut room = Room {
            assigned: self.assigned,
            ..Room::default()
        };
        let Some(place) = self.lanes.place(lane) else {
            return room;
        };
        let profiles = self.roster.profiles().values();
        for profile in profiles.filter(|profile| profile.serves(place)) {
            room.outstanding += profile.outstanding;
            room.lately += profile.finished_lately;
            if profile.is_clear(&self.lanes) {
                room.free += profile.credits;
            }
        }
        room
    }

    /// What could be taken now: for every profile in turn that has credit and lanes that may have
    /// something, those lanes, at most `max_lanes` in all, and its share of `max_hints`.
    pub fn demand(&mut self, now_ms: i64, max_lanes: usize, max_hints: usize) -> Vec<Demand> {
        self.roster.advance(now_ms);
        self.lanes.begin_asking();
        let chosen = self.choose_profiles(max_lanes.min(max_hints));
        let (mut credits, mut suspects) = (Vec::new(), Vec::new());
        for number in &chosen {
            let profile = &self.roster.profiles()[number];
            credits.push(profile.credits);
            suspects.push(profile.suspects(&self.lanes));
        }
        let budgets = fair_shares(&credits, max_hints);
        let limits = fair_shares(&suspects, max_lanes);
        let mut demands = Vec::with_capacity(chosen.len());
        for ((profile, budget), limit) in chosen.into_iter().zip(budgets).zip(limits) {
            let lanes = self.roster.profile_mut(profile).ask(limit, &mut self.lanes);
            demands.push(Demand {
                profile,
                budget,
                lanes,
            });
        }
        demands
    }

    /// Whether any session could be given a job, whatever there is to be given.
    #[must_use]
    pub fn has_credit(&self) -> bool {
        let mut profiles = self.roster.profiles().values();
        profiles.any(|profile| profile.credits > 0)
    }

    /// Give packed hints to sessions of a profile, in their order, as far as there is credit. All
    /// are left over if the last session of the profile closed meanwhile.
    ///
    /// # Errors
    /// A malformed hint, by its index; then nothing is assigned.
    pub fn assign(&mut self, profile: u32, hints: &[u8]) -> Result<Assignment, InvalidInput> {
        let hints = hint::read_all(hints)?;
        let mut lanes: Vec<i32> = hints.iter().map(|hint| hint.lane as i32).collect();
        lanes.dedup();
        lanes.sort_unstable();
        lanes.dedup();
        let mut ids = Vec::with_capacity(hints.len());
        let mut sessions = Vec::with_capacity(hints.len());
        for hint in hints {
            let Some(session) = self.roster.take_credit(profile) else {
                break;
            };
            ids.push(hint.id);
            sessions.push(session);
        }
        self.assigned += ids.len() as u64;
        let leftover_from = ids.len() * HINT_BYTES;
        Ok(Assignment {
            ids,
            sessions,
            lanes,
            leftover_from,
        })
    }

    /// The credits of a session; 0 if it is not open.
    #[must_use]
    pub fn free(&self, session: i64) -> u32 {
        self.roster.session(session).map_or(0, Session::credits)
    }

    /// How much there is of everything.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let profiles = self.roster.profiles();
        Stats {
            sessions: self.roster.len(),
            profiles: profiles.len(),
            lanes: self.lanes.len(),
            suspects: self.lanes.suspects(),
            credits: profiles.values().map(|profile| profile.credits).sum(),
        }
    }

    fn choose_profiles(&mut self, limit: usize) -> Vec<u32> {
        let (profiles, lanes) = (self.roster.profiles(), &self.lanes);
        let chosen = self.turn.pick(limit, |start| {
            let start = start as u32;
            let circle = profiles.range(start..).chain(profiles.range(..start));
            let wanting = circle.filter(|(_, profile)| profile.wants(lanes));
            wanting.map(|(number, _)| *number as usize)
        });
        chosen.into_iter().map(|number| number as u32).collect()
    }
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names.dedup();
    names
}
