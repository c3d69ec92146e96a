//! What a command may use.

use crate::sys::child::Limit;
use crate::sys::process::{Ending, Usage};

/// Descriptors of a command that says nothing: what most systems start with, since programs that loop
/// over all possible ones suffer from a large number. They can raise it themselves.
const OPEN_FILES: u64 = 1024;
/// A shell adds the number of a signal to it.
const SHELL_SIGNALLED: i32 = 128;
/// Beyond all hard limits.
const ALL: u64 = u64::MAX;

/// Bounds on one command. None: what this process may use itself. All of them hold for each process of
/// the command alone, except the last two, which hold for all of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// How nice it is to others: 0 to 19.
    pub nice: Option<i32>,
    /// Descriptors; None: 1,024, and up to what this process may have if it asks.
    pub open_files: Option<u64>,
    /// The size of a file that it writes.
    pub file_bytes: Option<u64>,
    /// Processor time: XCPU at this many seconds, KILL one later.
    pub cpu_seconds: Option<u64>,
    /// Virtual memory.
    pub address_space_bytes: Option<u64>,
    /// Memory. Needs a cgroup with that controller.
    pub memory_bytes: Option<u64>,
    /// Processes. Needs a cgroup with that controller; else it holds for all processes of the user, and
    /// only if that is not root.
    pub processes: Option<u64>,
}

impl Limits {
    /// The limits of the single process. `count_processes` if they are to include the number of
    /// processes of the user.
    pub(super) fn of_process(&self, count_processes: bool) -> Vec<Limit> {
        let of = |resource, soft, hard| Limit {
            resource,
            soft,
            hard,
        };
        let same = |resource, bound: Option<u64>| bound.map(|bound| of(resource, bound, bound));
        let processes = self.processes.filter(|_| count_processes);
        let cpu = |bound: u64| of(libc::RLIMIT_CPU, bound, bound.saturating_add(1));
        let files = same(libc::RLIMIT_NOFILE, self.open_files);
        [
            Some(of(libc::RLIMIT_CORE, 0, 0)),
            Some(files.unwrap_or(of(libc::RLIMIT_NOFILE, OPEN_FILES, ALL))),
            same(libc::RLIMIT_FSIZE, self.file_bytes),
            self.cpu_seconds.map(cpu),
            same(libc::RLIMIT_AS, self.address_space_bytes),
            same(libc::RLIMIT_NPROC, processes),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Whether it was a limit that ended a main process like this.
    pub(super) fn ended(&self, ending: Ending, usage: Usage) -> bool {
        let cpu = |seconds: u64| usage.user_us + usage.system_us >= seconds * 1_000_000;
        match ending {
            Ending::Signal(libc::SIGXCPU | libc::SIGXFSZ) => true,
            // Who ignores XCPU gets KILL a second later.
            Ending::Signal(libc::SIGKILL) => self.cpu_seconds.is_some_and(cpu),
            Ending::Signal(_) => false,
            // So a shell tells how the last program that it ran has ended.
            Ending::Code(code) => {
                (code == SHELL_SIGNALLED + libc::SIGXCPU && self.cpu_seconds.is_some())
                    || (code == SHELL_SIGNALLED + libc::SIGXFSZ && self.file_bytes.is_some())
            }
        }
    }
}
