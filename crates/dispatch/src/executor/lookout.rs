//! Finds what commands leave behind, and what they have let loose.
//!
//! A command leaves nothing behind, nearly always: then no adopted child lives, which one cheap call
//! tells for all that ended in a round. Only else all processes of the machine are looked at.

use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};

use super::census::{Census, Process};
use super::cgroup::Group;
use super::directory::Directory;
use super::kinship::{self, Claim, Mark, Surroundings};
use crate::sys::process;

/// How often it is seen whether those that were left still live.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A process for good: number and start.
pub type Identity = (i32, u64);

/// Shared by all commands.
pub struct Lookout {
    /// Whether orphans come to us.
    adopting: bool,
    /// Whether adopted children live.
    adopted: bool,
    left: Vec<Left>,
    /// What those have used who have ended since the last time.
    vacated: Vec<Belongings>,
    looked: Instant,
    strays: HashSet<Identity>,
}

/// What a command has left running for good.
struct Left {
    members: Vec<Process>,
    mark: Option<Mark>,
    since: u64,
    belongings: Belongings,
}

/// What the processes of a command use until the last of them has ended.
#[derive(Default)]
pub struct Belongings {
    /// Its private directory.
    pub directory: Option<Directory>,
    /// Its group.
    pub group: Option<Group>,
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
            vacated: Vec::new(),
            looked: Instant::now(),
            strays: HashSet::new(),
        }
    }

    /// Reaps the adopted children that have ended. Once for each round, before it asks anything.
    pub fn reap(&mut self) {
        self.adopted = self.adopting && process::reap_adopted();
        if !self.adopted {
            if self.adopting {
                self.left.iter_mut().for_each(|left| left.members.clear());
            }
            self.vacate();
            self.strays.clear();
        }
    }

    /// Whether it is time to look whether those that were left still live: all that were known of one
    /// command have ended. From time to time, because it costs a look at each.
    pub fn is_due(&mut self) -> bool {
        if self.left.is_empty() || self.looked.elapsed() < LOOK_EVERY {
            return false;
        }
        self.looked = Instant::now();
        self.left.iter().any(|left| !left.is_known_to_live())
    }

    /// What nobody uses any more.
    pub fn take_vacated(&mut self) -> Vec<Belongings> {
        std::mem::take(&mut self.vacated)
    }

    /// What is used by whoever was left.
    pub fn take_left(&mut self) -> impl Iterator<Item = Belongings> {
        self.left.drain(..).map(|left| left.belongings)
    }

    fn vacate(&mut self) {
        let left = std::mem::take(&mut self.left).into_iter();
        let (over, left): (Vec<_>, Vec<_>) = left.partition(Left::is_over);
        self.left = left;
        self.vacated
            .extend(over.into_iter().map(|left| left.belongings));
    }

    /// Whether adopted children live.
    pub fn has_adopted(&self) -> bool {
        self.adopted
    }

    /// Whether somebody may live whom a command has left.
    pub fn has_left(&self) -> bool {
        !self.left.is_empty()
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
        self.vacate();
        let strays = kin.strays.iter();
        self.strays
            .extend(strays.map(|stray| (stray.pid, stray.start)));
        Found {
            members: traces.iter().map(|trace| trace.key).zip(kin.of).collect(),
            strays: kin.strays.iter().map(|stray| stray.pid).collect(),
        }
    }

    /// These stay: no other command gets them as its own, nor what descends from them.
    pub fn leave(&mut self, members: Members, mark: Option<Mark>, belongings: Belongings) {
        let since = members.iter().map(|member| member.start).min();
        self.left.push(Left {
            members,
            mark,
            since: since.unwrap_or(u64::MAX),
            belongings,
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

    fn is_known_to_live(&self) -> bool {
        let mut members = self.members.iter();
        members.any(|member| member.is_still(Process::look(member.pid).as_ref()))
    }

    /// Whether nobody lives any more. A group knows more members than can be found.
    fn is_over(&self) -> bool {
        let group = self.belongings.group.as_ref();
        self.members.is_empty() && group.is_none_or(Group::is_empty)
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
