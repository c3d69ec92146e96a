//! Control groups (cgroup v2): a command in a group of its own ends with one write, whatever its
//! processes have done, and its memory and its processes are bounded together.
//!
//! Measured with `cargo bench --bench executor` on two busy cores, in turns: 1,591 commands a second
//! without groups and 1,526 with, and another time 1,215 without and 1,246 with. Less than 5 %, so groups
//! are the better choice wherever they can be made.
//!
//! Groups are used again, because making one takes a good part of the time of a start. Not those that
//! were killed: Linux 6.14 and later believe that a process made in such a group from outside was meant,
//! too. `discovery` finds out where groups can be made.

mod discovery;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub use discovery::usable_cgroup;

use super::census::Process;
use super::limits::Limits;
use crate::sys::child::Entrance;

/// So many groups keep their way in open, which takes longer to find than to use. Not all of them:
/// thousands of commands may run, and each takes three descriptors as it is.
const ENTRANCES_KEPT: usize = 64;

/// The groups of all commands.
pub struct Groups {
    base: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    made: u64,
    /// How many keep their way in open.
    entrances: usize,
    free: Vec<Group>,
    /// Those that were not empty when they were given back.
    occupied: Vec<Group>,
    /// Those that are to be removed once they are empty.
    spent: Vec<PathBuf>,
}

/// The group of one command.
pub struct Group {
    path: PathBuf,
    entrance: Option<Arc<Entrance>>,
    limits: Limits,
    /// Whether the kernel tells the peak of its memory, which can't be set back in all versions: then it
    /// is one command's only.
    has_peak: bool,
    /// Whether its processes are counted.
    counts_processes: bool,
    /// How many members had been killed for want of memory before the command began.
    ooms: u64,
    /// How many processes it had been refused.
    refused: u64,
    killed: bool,
}

impl Groups {
    /// Makes groups in this directory.
    pub fn new(base: PathBuf) -> Self {
        Self {
            base,
            state: Mutex::default(),
        }
    }

    /// A group without members, with these limits as far as the machine has the controllers.
    pub fn take(&self, limits: &Limits) -> io::Result<Group> {
        let mut group = self.find()?;
        group.prepare(limits);
        Ok(group)
    }

    /// Takes a group back. It is used again, or removed, as soon as it has no members.
    pub fn give_back(&self, group: Group, is_empty: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if group.killed || group.has_peak {
            state.entrances -= usize::from(group.entrance.is_some());
            state.spent.push(group.path);
            state.spent.retain(|path| !remove(path));
        } else if is_empty {
            state.free.push(group);
        } else {
            state.occupied.push(group);
        }
    }

    /// Removes those that are empty, and the directory if that are all.
    pub fn remove(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State {
            free,
            occupied,
            spent,
            ..
        } = &mut *state;
        let groups = free.drain(..).chain(occupied.drain(..));
        for path in groups.map(|group| group.path).chain(spent.drain(..)) {
            remove(&path);
        }
        fs::remove_dir(&self.base).ok();
    }

    fn find(&self) -> io::Result<Group> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = state.free.pop() {
            return Ok(group);
        }
        if let Some(index) = state.occupied.iter().position(Group::is_empty) {
            return Ok(state.occupied.swap_remove(index));
        }
        state.made += 1;
        let path = self.base.join(format!("command-{}", state.made));
        drop(state);
        Group::make(path).map(|group| self.keep_open(group))
    }

    fn keep_open(&self, mut group: Group) -> Group {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.entrances < ENTRANCES_KEPT {
            group.entrance = entrance(&group.path).ok().map(Arc::new);
            state.entrances += usize::from(group.entrance.is_some());
        }
        group
    }
}

impl Group {
    fn make(path: PathBuf) -> io::Result<Self> {
        fs::create_dir(&path)?;
        Ok(Self::at(path))
    }

    /// The one with this directory, as it was made.
    fn at(path: PathBuf) -> Self {
        // Who is short of memory ends as a whole, not by the one process that happens to be the largest.
        fs::write(path.join("memory.oom.group"), "1").ok();
        Self {
            limits: Limits::default(),
            has_peak: path.join("memory.peak").exists(),
            counts_processes: path.join("pids.max").exists(),
            ooms: 0,
            refused: 0,
            killed: false,
            entrance: None,
            path,
        }
    }

    /// The way in.
    pub fn entrance(&self) -> io::Result<Arc<Entrance>> {
        match &self.entrance {
            Some(kept) => Ok(Arc::clone(kept)),
            None => entrance(&self.path).map(Arc::new),
        }
    }

    /// Whether its processes are counted.
    pub fn counts_processes(&self) -> bool {
        self.counts_processes
    }

    /// Its members that live, with those of groups that they have made in it.
    pub fn members(&self) -> Vec<Process> {
        let mut members = Vec::new();
        let mut paths = vec![self.path.clone()];
        while let Some(path) = paths.pop() {
            let list = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            let numbers = list.lines().filter_map(|line| line.parse().ok());
            let processes = numbers.filter_map(Process::look);
            members.extend(processes.filter(|process| process.lives));
            paths.extend(subgroups(&path));
        }
        members
    }

    /// KILL to all members, also to those that are just being made.
    pub fn kill(&mut self) {
        self.killed = true;
        // Fails only if the group is gone.
        fs::write(self.path.join("cgroup.kill"), "1").ok();
    }

    /// Whether a member was killed for want of memory.
    pub fn was_short_of_memory(&self) -> bool {
        self.limits.memory_bytes.is_some() && self.count_ooms() > self.ooms
    }

    /// Whether it was refused a process because it had as many as it may.
    pub fn had_too_many(&self) -> bool {
        self.limits.processes.is_some() && self.count_refused() > self.refused
    }

    /// The peak of the memory of all members together; 0 where the kernel does not tell.
    pub fn peak_kb(&self) -> u64 {
        if !self.has_peak {
            return 0;
        }
        let peak = fs::read_to_string(self.path.join("memory.peak"));
        let bytes = peak.ok().and_then(|text| text.trim().parse::<u64>().ok());
        bytes.map_or(0, |bytes| bytes / 1024)
    }

    fn prepare(&mut self, limits: &Limits) {
        self.limit("memory.max", self.limits.memory_bytes, limits.memory_bytes);
        // Or it would swap instead.
        let swap = |memory: Option<u64>| memory.map(|_| 0);
        let (before, now) = (swap(self.limits.memory_bytes), swap(limits.memory_bytes));
        self.limit("memory.swap.max", before, now);
        self.limit("pids.max", self.limits.processes, limits.processes);
        self.limits = *limits;
        if limits.memory_bytes.is_some() {
            self.ooms = self.count_ooms();
        }
        if limits.processes.is_some() {
            self.refused = self.count_refused();
        }
    }

    fn limit(&self, file: &str, before: Option<u64>, now: Option<u64>) {
        if before != now {
            let text = now.map_or("max".into(), |bound| bound.to_string());
            // Fails where the machine does not have the controller.
            fs::write(self.path.join(file), text).ok();
        }
    }

    fn count_ooms(&self) -> u64 {
        self.count("memory.events", "oom_kill")
    }

    fn count_refused(&self) -> u64 {
        self.count("pids.events", "max")
    }

    fn count(&self, file: &str, event: &str) -> u64 {
        let events = fs::read_to_string(self.path.join(file)).unwrap_or_default();
        value(&events, event)
    }

    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        // Members of groups within it count.
        let events = fs::read_to_string(self.path.join("cgroup.events"));
        events.is_ok_and(|events| value(&events, "populated") == 0)
    }
}

/// The way into the group with this directory.
fn entrance(path: &Path) -> io::Result<Entrance> {
    // Only to be named to the kernel, which is cheaper than to be read.
    let directory = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(path)?;
    Ok(Entrance {
        directory: OwnedFd::from(directory),
    })
}

/// The groups in the one with this directory.
fn subgroups(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.map(|group| group.path())
}

/// Removes a group with those in it, as far as they are empty. Whether it is gone.
fn remove(path: &Path) -> bool {
    subgroups(path).for_each(|group| {
        remove(&group);
    });
    fs::remove_dir(path).is_ok()
}

/// A value from a file of lines of a name and a number.
fn value(text: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let found = lines.find(|(key, _)| *key == name);
    found.map_or(0, |(_, number)| number.parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plain directory with the files of a group on a system with controllers, as they are read; what the
    /// kernel would do is done by hand. With the kernel's own: `tests/executor_tree`, where it has them.
    #[test]
    fn in_a_directory_that_looks_like_a_group_the_right_files_are_written_and_read() {
        // Given
        let name = format!("orqestra-not-a-group-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // A temporary directory that cannot be written is no matter of this test: it fails where that shows.
        fs::create_dir(&path).expect("a directory");
        let file = |name: &str| fs::read_to_string(path.join(name)).unwrap_or_default();
        // As above.
        let set = |name: &str, text: &str| fs::write(path.join(name), text).expect("a file");
        set("memory.peak", "0\n");
        set(
            "memory.events",
            "low 0\noom 1\noom_kill 1\noom_group_kill 0\n",
        );
        set("pids.max", "max\n");
        set("pids.events", "max 7\n");
        let mut group = Group::at(path.clone());
        assert!(group.counts_processes());
        assert_eq!(file("memory.oom.group"), "1");
        // When
        group.prepare(&Limits {
            memory_bytes: Some(512 << 20),
            processes: Some(64),
            ..Limits::default()
        });
        // Then
        let written = ["memory.max", "memory.swap.max", "pids.max"].map(file);
        assert_eq!(written, ["536870912", "0", "64"]);
        assert!(!group.was_short_of_memory() && !group.had_too_many());
        // When: the kernel refuses, kills and measures.
        set(
            "memory.events",
            "low 0\noom 2\noom_kill 2\noom_group_kill 1\n",
        );
        set("pids.events", "max 8\n");
        set("memory.peak", "536870912\n");
        // Then
        assert!(group.was_short_of_memory() && group.had_too_many());
        assert_eq!(group.peak_kb(), 512 << 10);
        // When: the next command has no limits.
        group.prepare(&Limits::default());
        // Then
        let written = ["memory.max", "memory.swap.max", "pids.max"].map(file);
        assert_eq!(written, ["max", "max", "max"]);
        assert!(!group.was_short_of_memory() && !group.had_too_many());
        // Left behind it would be found by the next test of this process number.
        fs::remove_dir_all(path).expect("it goes");
    }
}
