//! The processes of this machine, as `/proc` shows them at one moment.

use std::time::Duration;
use std::{fs, thread};

use hashbrown::HashMap;

use crate::sys::process;

/// How often, and how far apart, a process is looked at that is between two programs.
const LOOKS: usize = 50;
const BETWEEN_LOOKS: Duration = Duration::from_micros(100);
/// Where `fields` has the bytes of virtual memory and the address at which the environment ends.
const MEMORY: usize = 20;
const ENVIRONMENT_END: usize = 48;

/// One process. Its number may belong to another soon; number and start together never do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// The number of its parent.
    pub parent: i32,
    /// The number of its group.
    pub group: i32,
    /// The number of its session.
    pub session: i32,
    /// When it started, in ticks since boot.
    pub start: u64,
    /// Whether it lives; else it is a zombie.
    pub lives: bool,
}

/// All processes.
#[derive(Default)]
pub struct Census {
    processes: HashMap<i32, Process>,
}

impl Census {
    /// Counts all that are there now. Costs some 10 microseconds for each.
    pub fn take() -> Self {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.filter_map(Process::look).collect()
    }

    /// The process with this number.
    pub fn get(&self, pid: i32) -> Option<&Process> {
        self.processes.get(&pid)
    }

    /// All of them, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Process> {
        self.processes.values()
    }
}

/// KILLs all processes whose environment holds these bytes: those of commands whose supervisor was
/// killed. One round, which is enough for what does not fork all the time.
pub fn kill_marked(mark: &[u8]) {
    for process in Census::take().all() {
        let marked = || {
            let environment = process.environment();
            environment.windows(mark.len()).any(|at| at == mark)
        };
        if process.lives && marked() {
            process.signal(libc::SIGKILL);
        }
    }
}

impl FromIterator<Process> for Census {
    fn from_iter<T: IntoIterator<Item = Process>>(processes: T) -> Self {
        let processes = processes.into_iter();
        Self {
            processes: processes.map(|process| (process.pid, process)).collect(),
        }
    }
}

impl Process {
    /// The process with this number, as it is now.
    pub fn look(pid: i32) -> Option<Self> {
        // The name may hold any byte.
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&stat)
    }

    /// Whether it is the one that has its number now, and lives.
    pub fn is_still(&self, now: Option<&Self>) -> bool {
        now.is_some_and(|now| now.lives && now.start == self.start)
    }

    /// Its environment, as it was when its program began; empty if that is not for us to see.
    pub fn environment(&self) -> Vec<u8> {
        let path = format!("/proc/{}/environ", self.pid);
        match fs::read(&path) {
            Ok(environment) if environment.is_empty() => {}
            visible => return visible.unwrap_or_default(),
        }
        // Empty it may be, or it is not there yet: whoever executes another program is without for a moment.
        for _ in 0..LOOKS {
            if !self.is_between_programs() {
                break;
            }
            thread::sleep(BETWEEN_LOOKS);
        }
        fs::read(&path).unwrap_or_default()
    }

    /// Whether it has memory, and in it no place for an environment yet.
    fn is_between_programs(&self) -> bool {
        let stat = fs::read(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let number = |index: usize| Some(fields(&stat)?.get(index)?.parse::<u64>().ok()? > 0);
        (number(MEMORY), number(ENVIRONMENT_END)) == (Some(true), Some(false))
    }

    /// Sends it a signal, if the number still is its own. Whether it was sent.
    pub fn signal(&self, signal: libc::c_int) -> bool {
        // Held by a descriptor first, the number can't change hands between the look and the signal.
        process::open(self.pid).is_ok_and(|held| {
            let same = Self::look(self.pid).is_some_and(|now| now.start == self.start);
            same && process::signal(&held, signal).is_ok()
        })
    }

    /// A line of `/proc/PID/stat`.
    fn parse(stat: &[u8]) -> Option<Self> {
        let pid = stat.split(|&byte| byte == b' ').next()?;
        let fields = fields(stat)?;
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        // A process whose first thread has ended looks like a zombie while others go on.
        let ended = matches!(*fields.first()?, "Z" | "X" | "x");
        Some(Self {
            pid: std::str::from_utf8(pid).ok()?.parse().ok()?,
            parent: number(1)? as i32,
            group: number(2)? as i32,
            session: number(3)? as i32,
            start: number(19)?,
            lives: !ended || number(17)? > 1,
        })
    }
}

/// The fields of a line of `/proc/PID/stat` that follow the name of the program.
fn fields(stat: &[u8]) -> Option<Vec<&str>> {
    // The name, in parentheses, may hold spaces and parentheses of its own.
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 2..)?).ok()?;
    Some(rest.split_ascii_whitespace().collect())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_name_cannot_pretend_to_be_another_field() {
        let line = b"42 (a) Z 1 (b\xff) S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 9 9\n";
        let expected = Process {
            pid: 42,
            parent: 7,
            group: 8,
            session: 9,
            start: 12345,
            lives: true,
        };
        assert_eq!(Process::parse(line), Some(expected));
    }

    #[test]
    fn a_zombie_does_not_live_unless_it_has_threads() {
        let zombie = |threads: u8| {
            let line = format!("1 (a) Z 7 8 9 0 -1 0 1 2 3 4 5 6 7 8 20 0 {threads} 0 5 0");
            Process::parse(line.as_bytes()).expect("a line").lives
        };
        assert_eq!((zombie(1), zombie(2)), (false, true));
    }

    #[test]
    fn an_environment_is_seen_however_often_programs_are_executed() {
        // A shell that replaces itself again and again, and so is between two programs much of the time.
        let again = r#"test "$1" -gt 0 && exec sh -c "$0" "$0" $(($1 - 1)); read _"#;
        let mut shell = Command::new("sh")
            .args(["-c", again, again, "1000"])
            .env_clear()
            .env("MARK", "here")
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let seen = Process::look(shell.id() as i32).expect("it lives");
        for _ in 0..1000 {
            let environment = seen.environment();
            assert!(environment.windows(9).any(|at| at == b"MARK=here"));
        }
        drop(shell.stdin.take());
        shell.wait().expect("it ends");
    }

    #[test]
    fn we_are_among_all() {
        let own = std::process::id() as i32;
        let census = Census::take();
        let found = census.get(own).expect("we are running");
        assert!(found.lives);
        assert_eq!(Process::look(own).map(|now| now.start), Some(found.start));
    }
}
