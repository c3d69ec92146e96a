//! What others tell the reaper.

use std::io;
use std::os::fd::RawFd;
use std::sync::{Mutex, PoisonError};

use super::report::Failure;
use super::spawn::Launched;
use crate::sys::descriptors::Event;

/// One thing to tell.
pub enum Message {
    /// A spawner started a command.
    Launched(Box<Launched>),
    /// A spawner could not.
    Refused(u64, Failure),
    /// Start none of these that still wait.
    Withdraw(Vec<u64>),
    /// TERM these, after their grace KILL.
    Cancel(Vec<u64>),
    /// KILL these.
    Kill(Vec<u64>),
    /// Live output of this one, of standard output and error from these offsets on.
    Follow(u64, [u64; 2]),
    /// No more live output of this one.
    Unfollow(u64),
    /// Start nothing more and end with the last command; if true, KILL all.
    Stop(bool),
}

/// Wakes the reaper when something was posted.
pub struct Mailbox {
    messages: Mutex<Vec<Message>>,
    event: Event,
}

impl Mailbox {
    /// An empty one.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            messages: Mutex::default(),
            event: Event::new()?,
        })
    }

    /// Tells the reaper.
    pub fn post(&self, message: Message) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = messages.is_empty();
        messages.push(message);
        drop(messages);
        // Whoever finds messages waiting knows that a wake is under way.
        if was_empty {
            self.event.set();
        }
    }

    /// All that was posted, in order.
    pub fn take(&self) -> Vec<Message> {
        // Before the messages are taken: what is posted after this line wakes again.
        self.event.clear();
        std::mem::take(&mut *self.messages.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The descriptor that is readable after a post.
    pub fn raw(&self) -> RawFd {
        self.event.raw()
    }
}
