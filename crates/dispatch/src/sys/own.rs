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
