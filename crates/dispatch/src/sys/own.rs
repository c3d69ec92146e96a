//! What a process can be on its own account: locked, deaf, the parent of orphans.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

use super::checked;

/// Takes the lock of this file; false if another process has it. It goes with the file.
pub fn lock(file: &File) -> io::Result<bool> {
    // SAFETY: flock takes two integers.
    match checked(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EWOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Ignores what is sent to end this process in good order: it ends when its daemon says so.
pub fn be_deaf() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: SIG_IGN is no function of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Has as many descriptors as it may. Commands get what they would have had otherwise: see `child`.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit outlives both calls.
    unsafe {
        checked(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
        limit.rlim_cur = limit.rlim_max;
        checked(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
    }
    Ok(limit.rlim_cur)
}

const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// How much sooner (or later, below zero) than by its size the kernel ends this process when memory is short.
pub fn oom_score() -> i32 {
    let score = fs::read_to_string(OOM_SCORE).ok();
    score.map_or(0, |score| score.trim().parse().unwrap_or(0))
}

/// Has the kernel end others first, unless somebody has said something else; only root may.
pub fn outlast_others(score: i32) {
    if oom_score() == 0 {
        fs::write(OOM_SCORE, score.to_string()).ok();
    }
}

/// A turn on a processor, in nanoseconds. Whoever asks for none has one of some milliseconds.
const SHORT_TURN_NS: u64 = 100_000;
/// As the kernel defines it: what the thread starts is scheduled as if the thread had asked for nothing.
const RESET_ON_FORK: u64 = 1;

/// Has the calling thread run as soon as it is woken, for short turns, and not only once whoever woke it waits for
/// something: on an idle machine as well, these may share a processor. What it starts gets turns like others.
///
/// Kernels before 6.12 know no such wish. One that somebody has given another policy or priority keeps that.
pub fn be_prompt() {
    let Some(mut wish) = scheduling() else { return };
    if wish.sched_policy == libc::SCHED_OTHER as u32 && wish.sched_nice >= 0 {
        wish.sched_flags |= RESET_ON_FORK;
        wish.sched_runtime = SHORT_TURN_NS;
        // SAFETY: 0 is the calling thread, and the wish outlives the call.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wish, 0) };
    }
}

/// Whether the calling thread takes its turn when it is woken, as threads do, or gives way.
pub struct Turns {
    /// Nobody has given the thread another policy, which it would keep.
    is_ordinary: bool,
    gives_way: bool,
}

impl Turns {
    /// Of the calling thread, as it was started.
    pub fn new() -> Self {
        let told = scheduling();
        Self {
            is_ordinary: told.is_some_and(|told| told.sched_policy == libc::SCHED_OTHER as u32),
            gives_way: false,
        }
    }

    /// Has the calling thread wait, when it is woken, until a processor is free or its turn has come; or no longer.
    /// Otherwise it takes the processor of whoever woke it.
    pub fn give_way(&mut self, wanted: bool) {
        if !self.is_ordinary || wanted == self.gives_way {
            return;
        }
        let policy = if wanted {
            libc::SCHED_BATCH
        } else {
            libc::SCHED_OTHER
        };
        let none = libc::sched_param { sched_priority: 0 };
        // SAFETY: 0 is the calling thread, and the priority outlives the call.
        unsafe { libc::sched_setscheduler(0, policy, &raw const none) };
        self.gives_way = wanted;
    }
}

/// How the calling thread is scheduled.
fn scheduling() -> Option<libc::sched_attr> {
    // SAFETY: zero is a value of each field; 0 is the calling thread, and what is told outlives the call.
    unsafe {
        let mut told: libc::sched_attr = std::mem::zeroed();
        let size = size_of_val(&told);
        let result = libc::syscall(libc::SYS_sched_getattr, 0, &raw mut told, size, 0);
        (result == 0).then_some(told)
    }
}

/// Microseconds since the machine was started, suspended times included.
pub fn boot_us() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the time outlives the call, which fails for no clock that exists.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

/// Waits until something can be written to a descriptor, or `milliseconds` are over.
pub fn wait_for_room(descriptor: std::os::fd::RawFd, milliseconds: i32) {
    wait_for(descriptor, libc::POLLOUT, milliseconds);
}

/// Waits until something can be read from a descriptor, or `milliseconds` are over.
pub fn wait_for_data(descriptor: std::os::fd::RawFd, milliseconds: i32) {
    wait_for(descriptor, libc::POLLIN, milliseconds);
}

fn wait_for(descriptor: std::os::fd::RawFd, events: libc::c_short, milliseconds: i32) {
    let mut watched = libc::pollfd {
        fd: descriptor,
        events,
        revents: 0,
    };
    // SAFETY: the one entry outlives the call. Whatever it returns, the caller tries.
    unsafe { libc::poll(ptr::from_mut(&mut watched), 1, milliseconds) };
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn turn_ns() -> u64 {
        scheduling().map_or(0, |told| told.sched_runtime)
    }

    #[test]
    fn a_prompt_thread_has_short_turns_and_what_it_starts_has_not() {
        let before = turn_ns();
        be_prompt();
        let of_child = thread::spawn(turn_ns).join();

        // Where the kernel tells of no turns it has none of different length.
        let expected = if before == 0 { 0 } else { SHORT_TURN_NS };
        assert_eq!(turn_ns(), expected);
        assert_eq!(of_child.ok(), Some(before));
    }

    fn policy() -> Option<i32> {
        scheduling().map(|told| told.sched_policy as i32)
    }

    /// In a thread of its own, whose policy is nobody else's.
    fn policies(run: fn(&mut Turns) -> Vec<Option<i32>>) -> Option<Vec<Option<i32>>> {
        thread::spawn(move || run(&mut Turns::new())).join().ok()
    }

    #[test]
    fn a_thread_gives_way_until_it_does_no_longer() {
        let seen = policies(|turns| {
            [true, false]
                .into_iter()
                .map(|wanted| {
                    turns.give_way(wanted);
                    policy()
                })
                .collect()
        });
        let expected = [libc::SCHED_BATCH, libc::SCHED_OTHER].map(Some);
        assert_eq!(seen, Some(expected.to_vec()));
    }

    #[test]
    fn a_policy_that_somebody_has_given_stays() {
        let seen = policies(|turns| {
            turns.give_way(true);
            let mut others = Turns::new();
            others.give_way(true);
            others.give_way(false);
            vec![policy()]
        });
        assert_eq!(seen, Some(vec![Some(libc::SCHED_BATCH)]));
    }
}
