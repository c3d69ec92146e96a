//! Finds what commands leave behind, and what they have let loose.
//!
//! A command leaves nothing behind, nearly always: then no adopted child lives, which one cheap call
//! tells for all that ended in a round. Only else all processes of the machine are looked at.

use hashbrown::{HashMap, HashSet};

use super::census::{Census, Process};
use super::kinship::{self, Claim, Mark, Surroundings};
use crate::sys::process;

/// A process for good: number and start.
pub type Identity = (i32, u64);

/// Shared by all commands.
pub struct Lookout {
    /// Whether orphans come to us.
    adopting: bool,
    /// Whether adopted children live.
    adopted: bool,
    left: Vec<Left>,
    strays: HashSet<Identity>,
}

/// What a command has left running for good.
struct Left {
    members: Vec<Process>,
    mark: Option<Mark>,
    since: u64,
}

/// The living processes of a command, its main process included.
pub type Members = Vec<Process>;

/// What a look around has found.
#[derive(Default)]
pub struct Found {
    /// The processes of commands, by their keys.
    pub members: HashMap<u64, Members>,
    /// Strays that were not known before.
    pub strays: Vec<i32>,
}

/// By what the processes of a command are found.
pub struct Trace<'a> {
    /// Whose.
    pub key: u64,
    /// Its main process, which leads its session.
    pub leader: i32,
    /// What its environment holds.
    pub mark: Option<&'a Mark>,
}

impl Lookout {
    /// Nothing seen. `adopting` if orphans come to the calling thread.
    pub fn new(adopting: bool) -> Self {
        Self {
            adopting,
            adopted: false,
            left: Vec::new(),
            strays: HashSet::new(),
        }
    }

    /// Reaps the adopted children that have ended. Once for each round, before it asks anything.
    pub fn reap(&mut self) {
        self.adopted = self.adopting && process::reap_adopted();
        if !self.adopted {
            self.left.clear();
            self.strays.clear();
        }
    }

    /// Whether adopted children live.
    pub fn has_adopted(&self) -> bool {
        self.adopted
    }

    /// Whether a command whose main process has ended may have left something. `in_reach`: that is worth
    /// a look also where orphans don't come to us.
    pub fn may_find(&self, in_reach: bool) -> bool {
        self.adopted || (!self.adopting && in_reach)
    }

    /// Looks at all processes, for all commands that run.
    pub fn look(&mut self, traces: &[Trace<'_>]) -> Found {
        let census = Census::take();
        for left in &mut self.left {
            left.members
                .retain(|member| member.is_still(census.get(member.pid)));
        }
        self.left.retain(|left| !left.members.is_empty());
        self.strays
            .retain(|(pid, start)| census.get(*pid).is_some_and(|now| now.start == *start));
        let running = traces.iter().map(|trace| trace.claim(&census));
        let claims: Vec<_> = running.chain(self.left.iter().map(Left::claim)).collect();
        let unclaimed = |process: &Process| {
            !self.strays.contains(&(process.pid, process.start)) && process::is_adopted(process.pid)
        };
        let mut kin = kinship::assign(
            &claims,
            &Surroundings {
                census: &census,
                own: std::process::id() as i32,
                adopting: self.adopting,
                unclaimed: &unclaimed,
                environment: &Process::environment,
            },
        );
        let of_left = kin.of.split_off(traces.len());
        for (left, members) in self.left.iter_mut().zip(of_left) {
            left.members = members;
        }
        let strays = kin.strays.iter();
        self.strays
            .extend(strays.map(|stray| (stray.pid, stray.start)));
        Found {
            members: traces.iter().map(|trace| trace.key).zip(kin.of).collect(),
            strays: kin.strays.iter().map(|stray| stray.pid).collect(),
        }
    }

    /// These stay: no other command gets them as its own, nor what descends from them.
    pub fn leave(&mut self, members: Members, mark: Option<Mark>) {
        let since = members.iter().map(|member| member.start).min();
        self.left.push(Left {
            members,
            mark,
            since: since.unwrap_or(u64::MAX),
        });
    }

    /// No command runs: kills what is adopted and may not stay, as far as that can be told.
    pub fn clear(&mut self) {
        if !self.adopted || self.left.iter().any(Left::is_complete) {
            return;
        }
        // Who stays may have children by now.
        if !self.left.is_empty() {
            self.look(&[]);
        }
        if !self.left.is_empty() {
            return;
        }
        let own = std::process::id() as i32;
        let census = Census::take();
        let children = census.all().filter(|process| process.parent == own);
        for child in children.filter(|child| child.lives && process::is_adopted(child.pid)) {
            child.signal(libc::SIGKILL);
        }
    }
}

impl<'a> Trace<'a> {
    fn claim(&self, census: &Census) -> Claim<'a> {
        let leader = census.get(self.leader);
        Claim {
            roots: vec![self.leader],
            sessions: vec![self.leader],
            mark: self.mark,
            since: leader.map_or(u64::MAX, |leader| leader.start),
        }
    }
}

impl Left {
    /// Whether all of them still live. Much cheaper than to look around.
    fn is_complete(&self) -> bool {
        let mut members = self.members.iter();
        members.all(|member| member.is_still(Process::look(member.pid).as_ref()))
    }

    fn claim(&self) -> Claim<'_> {
        let members = self.members.iter();
        Claim {
            roots: members.clone().map(|member| member.pid).collect(),
            sessions: members.map(|member| member.session).collect(),
            mark: self.mark.as_ref(),
            since: self.since,
        }
    }
}
