//! The open sessions and their profiles: who has how much credit, and whose turn it is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use hashbrown::HashMap;

use super::lanes::Lanes;
use super::profile::{Kind, Profile};
use super::session::Session;
use crate::error::InvalidInput;

/// All open sessions. A profile lives as long as one of its sessions is open.
#[derive(Debug, Default)]
pub struct Roster {
    pack: bool,
    sessions: HashMap<i64, Session>,
    /// By number, which is never used again: a late assignment can't reach another profile.
    profiles: BTreeMap<u32, Profile>,
    profile_of_kind: HashMap<Kind, u32>,
    profiles_made: u32,
    /// When to look whether what a session finished still counts, the next first. Each session that finished any is
    /// here once, however many it finished: where nobody has work, each look only leads to the next.
    looks: BinaryHeap<Reverse<(i64, i64)>>,
    now_ms: i64,
}

/// What a session adds to the sums of its profile.
#[derive(PartialEq, Eq)]
struct Tally {
    credits: usize,
    outstanding: usize,
    lately: usize,
}

impl Tally {
    fn of(session: &Session) -> Self {
        Self {
            credits: session.credits() as usize,
            outstanding: session.outstanding() as usize,
            lately: session.finished_lately() as usize,
        }
    }
}

impl Roster {
    /// Nobody yet. With `pack`, a session is filled before the next gets anything.
    pub fn new(pack: bool) -> Self {
        Self {
            pack,
            ..Self::default()
        }
    }

    /// Open a session without slots. `lanes` is for a profile that is new.
    ///
    /// # Errors
    /// It is open already.
    pub fn open(
        &mut self,
        session: i64,
        kind: Kind,
        lanes: &mut Lanes,
    ) -> Result<(), InvalidInput> {
        if self.sessions.contains_key(&session) {
            return Err(InvalidInput::new(format!(
                "session: {session} is open already"
            )));
        }
        let number = *self.profile_of_kind.entry(kind).or_insert_with_key(|kind| {
            let number = self.profiles_made;
            self.profiles_made += 1;
            self.profiles
                .insert(number, Profile::new(kind.clone(), lanes));
            number
        });
        self.profile_mut(number).sessions += 1;
        self.sessions.insert(session, Session::new(number));
        Ok(())
    }

    /// Forget a session.
    pub fn close(&mut self, session: i64) {
        let now_ms = self.now_ms;
        self.change(session, |state| state.clear(now_ms));
        let Some(closed) = self.sessions.remove(&session) else {
            return;
        };
        self.looks.retain(|look| look.0.1 != session);
        let profile = self.profile_mut(closed.profile);
        profile.line.retain(|other| *other != session);
        profile.sessions -= 1;
        if profile.sessions == 0 {
            let profile = self.profiles.remove(&closed.profile);
            profile.and_then(|gone| self.profile_of_kind.remove(&gone.kind));
        }
    }

    /// Change a session and what its profile knows of it. Whether it is open.
    pub fn change(&mut self, session: i64, change: impl FnOnce(&mut Session)) -> bool {
        let Some(state) = self.sessions.get_mut(&session) else {
            return false;
        };
        let before = Tally::of(state);
        change(state);
        let after = Tally::of(state);
        if before == after {
            return true;
        }
        let joins = after.credits > 0 && !state.in_line;
        state.in_line |= joins;
        let (number, pack) = (state.profile, self.pack);
        let profile = self.profile_mut(number);
        profile.credits = profile.credits + after.credits - before.credits;
        profile.outstanding = profile.outstanding + after.outstanding - before.outstanding;
        profile.finished_lately = profile.finished_lately + after.lately - before.lately;
        if joins && pack {
            // The session that was filled last is filled up first; the others stay empty.
            profile.line.push_front(session);
        } else if joins {
            profile.line.push_back(session);
        }
        true
    }

    /// One job ended for each entry. Sessions that are not open are passed over.
    pub fn finished(&mut self, sessions: &[i64], now_ms: i64) {
        self.advance(now_ms);
        let now_ms = self.now_ms;
        for run in sessions.chunk_by(|one, next| one == next) {
            let (session, count) = (run[0], run.len() as u32);
            let mut look_ms = None;
            self.change(session, |state| look_ms = state.finish(count, now_ms));
            self.looks
                .extend(look_ms.map(|at_ms| Reverse((at_ms, session))));
        }
    }

    /// Let time pass: finished jobs older than the window no longer count. Time never runs back.
    pub fn advance(&mut self, now_ms: i64) {
        self.now_ms = self.now_ms.max(now_ms);
        let now_ms = self.now_ms;
        while let Some(Reverse((_, session))) = self.pop_due() {
            let mut look_ms = None;
            self.change(session, |state| look_ms = state.forget_old(now_ms));
            self.looks
                .extend(look_ms.map(|at_ms| Reverse((at_ms, session))));
        }
    }

    fn pop_due(&mut self) -> Option<Reverse<(i64, i64)>> {
        let Reverse((look_ms, _)) = self.looks.peek()?;
        if *look_ms > self.now_ms {
            return None;
        }
        self.looks.pop()
    }

    /// Set how many jobs a session has, from how many it had.
    pub fn count(&mut self, session: i64, count: impl FnOnce(u32) -> u32) {
        let now_ms = self.now_ms;
        self.change(session, |state| {
            state.set_outstanding(count(state.outstanding()), now_ms);
        });
    }

    /// Take one credit of the session whose turn it is in this profile.
    pub fn take_credit(&mut self, profile: u32) -> Option<i64> {
        let profile = self.profiles.get_mut(&profile)?;
        loop {
            let session = *profile.line.front()?;
            let state = self
                .sessions
                .get_mut(&session)
                .expect("who stands in line is open");
            if state.credits() > 0 {
                state.set_outstanding(state.outstanding() + 1, self.now_ms);
                profile.credits -= 1;
                profile.outstanding += 1;
                if !self.pack {
                    profile.line.rotate_left(1);
                }
                return Some(session);
            }
            state.in_line = false;
            profile.line.pop_front();
        }
    }

    /// An open session.
    pub fn session(&self, session: i64) -> Option<&Session> {
        self.sessions.get(&session)
    }

    /// How many sessions are open.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// The profiles, by number.
    pub fn profiles(&self) -> &BTreeMap<u32, Profile> {
        &self.profiles
    }

    /// All profiles, to change.
    pub fn profiles_mut(&mut self) -> impl Iterator<Item = &mut Profile> {
        self.profiles.values_mut()
    }

    /// A profile that is known to live.
    pub fn profile_mut(&mut self, number: u32) -> &mut Profile {
        self.profiles
            .get_mut(&number)
            .expect("a profile lives as long as its sessions")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_looked_at_once_however_much_it_finished() {
        let mut roster = Roster::new(false);
        let kind = Kind {
            queues: Vec::new(),
            labels: Vec::new(),
        };
        assert!(roster.open(7, kind, &mut Lanes::default()).is_ok());
        for now_ms in 0..500 {
            roster.finished(&[7, 7], now_ms);
        }
        assert_eq!(roster.looks.len(), 1);
        assert_eq!(roster.session(7).map(Session::finished_lately), Some(1000));

        // It had no work at any time, so that each counts for a second.
        roster.advance(1249);
        assert_eq!(roster.session(7).map(Session::finished_lately), Some(500));
        roster.advance(1500);
        assert_eq!(roster.session(7).map(Session::finished_lately), Some(0));
        assert!(roster.looks.is_empty());
    }
}
