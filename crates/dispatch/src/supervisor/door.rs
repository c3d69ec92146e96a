//! Where daemons come in. Whoever connects is nobody until it has introduced itself.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;

use super::line::Line;
use super::message::{Attach, ToSupervisor};
use crate::sys::poll::Poll;

/// The socket, and who has come last and not yet said who it is.
pub struct Door {
    listener: UnixListener,
    newcomer: Option<Line>,
    /// What the poll calls the newcomer.
    number: u64,
}

impl Door {
    /// Has the poll tell of who comes as `listener`, and of what it says as `newcomer`.
    pub fn new(
        socket: UnixListener,
        poll: &Poll,
        listener: u64,
        newcomer: u64,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        poll.add(socket.as_raw_fd(), listener)?;
        Ok(Self {
            listener: socket,
            newcomer: None,
            number: newcomer,
        })
    }

    /// Lets in who stands there. Nobody waits for one that came before and said nothing.
    pub fn accept(&mut self, poll: &Poll) {
        while let Ok((socket, _)) = self.listener.accept() {
            self.dismiss(poll);
            // Without a place in the poll nobody would hear it; it comes again.
            if let Ok(line) = Line::new(socket)
                && poll.add(line.raw(), self.number).is_ok()
            {
                self.newcomer = Some(line);
            }
        }
    }

    /// Reads what the newcomer says; returns it once it has introduced itself, out of the poll.
    pub fn introduced(&mut self, poll: &Poll) -> Option<(Line, Attach)> {
        let line = self.newcomer.as_mut()?;
        let mut alive = true;
        // The length of a frame comes before the frame.
        for _ in 0..2 {
            alive &= line.fill_frame();
        }
        match line.next().map(|frame| frame.map(ToSupervisor::decode)) {
            Ok(None) if alive => None,
            Ok(Some(Ok(ToSupervisor::Attach(attach)))) => Some((self.dismiss(poll)?, attach)),
            _ => {
                self.dismiss(poll);
                None
            }
        }
    }

    fn dismiss(&mut self, poll: &Poll) -> Option<Line> {
        let line = self.newcomer.take()?;
        poll.remove(line.raw());
        Some(line)
    }
}
