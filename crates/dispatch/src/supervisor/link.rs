//! The daemon that is connected, if one is: what is written to it, and how much it may leave unread.

use std::io;

use super::line::Line;
use super::message::{ToDaemon, ToSupervisor};
use crate::sys::poll::Poll;

/// So much may wait to be read by the daemon; then ends wait here, and live output is dropped.
const LINE_BYTES_MAX: usize = 4 << 20;

/// The one line to a daemon.
pub struct Link {
    line: Option<Line>,
    /// Whether the daemon at the other end has introduced itself.
    pub attached: bool,
    /// Whether the poll tells when the line can be written.
    awaits_room: bool,
    /// What the poll calls the line.
    number: u64,
    /// What the daemon was told last of the health of the spool.
    health: String,
    /// Processes that belong to no command, found while nobody was there to be told.
    strays: Vec<u32>,
}

impl Link {
    /// Nobody is connected.
    pub fn new(number: u64) -> Self {
        Self {
            line: None,
            attached: false,
            awaits_room: false,
            number,
            health: String::new(),
            strays: Vec::new(),
        }
    }

    /// Whether nobody is connected.
    pub fn is_down(&self) -> bool {
        self.line.is_none()
    }

    /// Takes the line of a daemon, in place of any other.
    pub fn connect(&mut self, line: Line, poll: &Poll) -> io::Result<()> {
        self.hang_up(poll);
        poll.add(line.raw(), self.number)?;
        self.line = Some(line);
        Ok(())
    }

    /// Lets go of the line.
    pub fn hang_up(&mut self, poll: &Poll) {
        if let Some(line) = self.line.take() {
            poll.remove(line.raw());
        }
        self.attached = false;
        self.awaits_room = false;
        self.health.clear();
    }

    /// Takes what the daemon says. False: it is gone, or can't be understood; what it said before
    /// counts.
    pub fn read(&mut self) -> (Vec<ToSupervisor>, bool) {
        let mut messages = Vec::new();
        let Some(line) = &mut self.line else {
            return (messages, true);
        };
        let alive = line.fill();
        loop {
            match line.next().map(|frame| frame.map(ToSupervisor::decode)) {
                Ok(None) => return (messages, alive),
                Ok(Some(Ok(message))) => messages.push(message),
                Ok(Some(Err(_))) | Err(_) => return (messages, false),
            }
        }
    }

    /// Whether the daemon can be told more.
    pub fn has_room(&self) -> bool {
        let room = |line: &Line| line.backlog() < LINE_BYTES_MAX;
        self.attached && self.line.as_ref().is_some_and(room)
    }

    /// Puts a message behind those that wait to be written.
    pub fn put(&mut self, message: &ToDaemon) {
        if let Some(line) = &mut self.line {
            line.put(&message.encode());
        }
    }

    /// Tells of commands that the kernel does not end, and of processes that belong to none: of these
    /// the next daemon, if there is none.
    pub fn note(&mut self, stuck: Vec<u64>, strays: Vec<i32>) {
        self.strays.extend(strays.into_iter().map(|pid| pid as u32));
        if !self.attached {
            return;
        }
        if !stuck.is_empty() {
            self.put(&ToDaemon::Stuck(stuck));
        }
        if !self.strays.is_empty() {
            let pids = std::mem::take(&mut self.strays);
            self.put(&ToDaemon::Strays(pids));
        }
    }

    /// Tells how well the spool is, if the daemon does not know.
    pub fn tell_health(&mut self, health: &str) {
        if self.attached && self.health != health {
            health.clone_into(&mut self.health);
            self.put(&ToDaemon::Health(health.to_owned()));
        }
    }

    /// Writes what can be written now. False: the daemon is gone.
    pub fn flush(&mut self, poll: &Poll) -> bool {
        let Some(line) = &mut self.line else {
            return true;
        };
        if !line.flush() {
            return false;
        }
        let awaits_room = line.backlog() > 0;
        if awaits_room != self.awaits_room {
            poll.await_room(line.raw(), self.number, awaits_room);
            self.awaits_room = awaits_room;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn strays_found_without_a_daemon_are_told_to_the_next_one_and_once() -> io::Result<()> {
        let poll = Poll::new()?;
        let mut link = Link::new(1);
        link.note(vec![7], vec![42]);

        let (ours, theirs) = UnixStream::pair()?;
        link.connect(Line::new(ours)?, &poll)?;
        link.attached = true;
        for _ in 0..2 {
            link.note(Vec::new(), Vec::new());
        }
        assert!(link.flush(&poll));

        let mut daemon = Line::new(theirs)?;
        assert!(daemon.fill());
        let told = daemon.next().map(|frame| frame.map(ToDaemon::decode));
        assert_eq!(told, Ok(Some(Ok(ToDaemon::Strays(vec![42])))));
        assert_eq!(daemon.next(), Ok(None));
        Ok(())
    }
}
