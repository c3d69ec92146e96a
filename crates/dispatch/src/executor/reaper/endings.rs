//! How commands end: by themselves, by a deadline, because it was asked for; and what they leave.

use std::mem;
use std::time::Instant;

use super::Reaper;
use hashbrown::HashMap;

use crate::executor::job::Job;
use crate::executor::ladder::{Action, Due, Ladder};
use crate::executor::lookout::{Belongings, Members};
use crate::executor::report::Stream;

/// What is to be done to all processes of a command. At the end of a round, so that one look around
/// does for all commands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// TERM to those that left the group, which has it already.
    Terminate,
    /// KILL to all.
    Kill,
    /// See what is left after the main process.
    Sweep,
}

impl Reaper {
    /// Serves the deadlines that are over.
    pub(super) fn expire(&mut self) {
        let now = Instant::now();
        while let Some(&(deadline, key)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.climb(key, Ladder::expire);
        }
    }

    /// Lets the ladder of a job decide, and does what it says.
    pub(super) fn climb(&mut self, key: u64, decide: impl FnOnce(&mut Ladder, Instant) -> Action) {
        let Some(job) = self.jobs.get_mut(&key) else {
            return;
        };
        // Nobody is cancelled who has ended by himself and only was not noticed yet. This also makes
        // sure that the number of the group is still his.
        if job.ladder.is_alive() && job.has_ended() {
            self.main_ended(key);
            return;
        }
        let before = job.ladder.deadline();
        let action = decide(&mut job.ladder, Instant::now());
        let after = job.ladder.deadline();
        match action {
            Action::Wait => {}
            Action::Terminate => {
                job.signal(libc::SIGTERM);
                self.due.push((key, Task::Terminate));
            }
            Action::Kill => self.due.push((key, Task::Kill)),
            Action::Tell => self.notes.stuck.push(key),
            Action::Sweep => self.due.push((key, Task::Sweep)),
        }
        self.reschedule(key, before, after);
        if action == Action::Sweep {
            self.close(key);
        }
    }

    pub(super) fn main_ended(&mut self, key: u64) {
        let Some(job) = self.jobs.get_mut(&key) else {
            return;
        };
        let now = Instant::now();
        let before = job.ladder.deadline();
        job.main_ended(now, &self.poll);
        job.ladder.main_ended(now, self.ways.drain);
        let after = job.ladder.deadline();
        self.reschedule(key, before, after);
        self.read_all(key);
        self.sweep_if_drained(key);
    }

    pub(super) fn sweep_if_drained(&mut self, key: u64) {
        let job = self.jobs.get(&key);
        if job.is_some_and(|job| job.ladder.is_draining() && job.is_drained()) {
            self.climb(key, Ladder::drained);
        }
    }

    /// Does at the end of a round what is due.
    pub(super) fn conclude(&mut self) {
        self.lookout.reap();
        let mut seen: Option<HashMap<u64, Members>> = None;
        for (key, task) in mem::take(&mut self.due) {
            let Some(job) = self.jobs.get(&key) else {
                continue;
            };
            let in_reach = job.group.is_some() || job.ladder.stop().is_some();
            if task == Task::Sweep && !self.lookout.may_find(in_reach) {
                self.finish(key, Members::new());
                continue;
            }
            let own = if let Some(group) = &job.group {
                group.members()
            } else {
                let members = seen.get_or_insert_with(|| self.look());
                members.get(&key).cloned().unwrap_or_default()
            };
            self.act(key, task, own);
        }
        if self.lookout.is_due() {
            self.look();
        }
        for Belongings { directory, group } in self.lookout.take_vacated() {
            self.clean(directory, true);
            self.give_back(group, true);
        }
    }

    /// The processes of all commands.
    fn look(&mut self) -> HashMap<u64, Members> {
        let traces: Vec<_> = self.jobs.values().map(Job::trace).collect();
        let found = self.lookout.look(&traces);
        self.notes.strays.extend(found.strays);
        found.members
    }

    fn act(&mut self, key: u64, task: Task, members: Members) {
        let Some(job) = self.jobs.get_mut(&key) else {
            return;
        };
        match task {
            Task::Terminate => job.terminate(&members),
            Task::Kill => job.kill(&members),
            Task::Sweep => self.sweep(key, members),
        }
    }

    /// A command whose main process has ended has left these.
    fn sweep(&mut self, key: u64, members: Members) {
        let Some(job) = self.jobs.get_mut(&key) else {
            return;
        };
        if members.is_empty() || job.may_leave() {
            return self.finish(key, members);
        }
        let before = job.ladder.deadline();
        match job.ladder.sweep(Instant::now()) {
            None => return self.finish(key, members),
            Some(Due::Grace) => {}
            Some(Due::Kill) => job.kill(&members),
        }
        let after = job.ladder.deadline();
        self.reschedule(key, before, after);
    }

    /// Reports a command. What it has left stays.
    fn finish(&mut self, key: u64, left: Members) {
        let Some(mut job) = self.jobs.remove(&key) else {
            return;
        };
        self.reschedule(key, job.ladder.deadline(), None);
        let (directory, mark) = (job.directory.take(), job.mark.take());
        let count = left.len() as u32;
        // What descends from a main process that has ended comes to us, if anything does.
        let alone = !self.lookout.may_find(true);
        let (exit, group) = job.finish(&self.poll, count, alone);
        self.ended.push(exit);
        if count > 0 {
            let belongings = Belongings { directory, group };
            self.lookout.leave(left, mark, belongings);
        } else {
            self.clean(directory, false);
            self.give_back(group, true);
        }
    }

    /// Lets go of the pipes. What is in them by now still counts: one round of reads empties them.
    fn close(&mut self, key: u64) {
        self.read_all(key);
        if let Some(job) = self.jobs.get_mut(&key) {
            job.close(&self.poll);
        }
    }

    fn read_all(&mut self, key: u64) {
        let Some(job) = self.jobs.get_mut(&key) else {
            return;
        };
        for stream in [Stream::Stdout, Stream::Stderr] {
            job.read(stream, &mut self.scratch, &self.poll, &self.outbox);
        }
    }

    fn reschedule(&mut self, key: u64, before: Option<Instant>, after: Option<Instant>) {
        if before != after {
            before.map(|deadline| self.deadlines.remove(&(deadline, key)));
            self.deadlines.extend(after.map(|deadline| (deadline, key)));
        }
    }
}
