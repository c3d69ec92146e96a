//! Waiting for many descriptors at once (epoll, level-triggered).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::checked;

/// Events taken in one wait.
const BATCH: usize = 256;

/// A set of descriptors, each under a number chosen by the caller.
pub struct Poll {
    set: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poll {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1 takes an integer and returns a new descriptor that nobody else
        // owns.
        let set =
            unsafe { OwnedFd::from_raw_fd(checked(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(Self {
            set,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; BATCH],
        })
    }

    /// Watches `descriptor` for something to read, or its end.
    pub fn add(&self, descriptor: RawFd, number: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: number,
        };
        // SAFETY: the event outlives the call.
        checked(unsafe {
            libc::epoll_ctl(
                self.set.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                descriptor,
                &raw mut event,
            )
        })?;
        Ok(())
    }

    /// Watches a descriptor that is in the set for room to write as well, or no longer.
    pub fn await_room(&self, descriptor: RawFd, number: u64, wanted: bool) {
        let room = if wanted { libc::EPOLLOUT } else { 0 };
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | room) as u32,
            u64: number,
        };
        // SAFETY: the event outlives the call. EPOLL_CTL_MOD fails only for what is not in the set.
        unsafe {
            libc::epoll_ctl(
                self.set.as_raw_fd(),
                libc::EPOLL_CTL_MOD,
                descriptor,
                &raw mut event,
            );
        }
    }

    /// Forgets `descriptor`. Needed before it is closed: a child that is just being started holds a
    /// copy of it for a moment, which would keep it in the set.
    pub fn remove(&self, descriptor: RawFd) {
        // SAFETY: EPOLL_CTL_DEL takes no event. It fails only for what is not in the set.
        unsafe {
            libc::epoll_ctl(
                self.set.as_raw_fd(),
                libc::EPOLL_CTL_DEL,
                descriptor,
                std::ptr::null_mut(),
            );
        }
    }

    /// Waits until something is ready or `timeout` is over; appends the numbers of what is ready to
    /// `ready`.
    pub fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<u64>) {
        // Rounded up, so that a deadline is over when its wait is.
        let milliseconds = timeout.map_or(-1, |left| {
            left.as_micros().div_ceil(1000).min(60_000) as libc::c_int
        });
        // SAFETY: the buffer has room for BATCH events.
        let count = unsafe {
            libc::epoll_wait(
                self.set.as_raw_fd(),
                self.events.as_mut_ptr(),
                BATCH as libc::c_int,
                milliseconds,
            )
        };
        // Below zero only when a signal came in between: nothing is ready then.
        let count = usize::try_from(count).unwrap_or(0);
        ready.extend(self.events.iter().take(count).map(|event| event.u64));
    }
}
