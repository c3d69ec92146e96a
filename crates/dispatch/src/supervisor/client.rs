//! The daemon's end of the line.

use std::io;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::line::Line;
use super::message::{Attach, Attached, ToDaemon, ToSupervisor};
use crate::sys::own;

/// A supervisor reads its whole spool before it answers.
const ATTACH: Duration = Duration::from_secs(30);
const LOOK_MS: i32 = 100;

/// A supervisor that has answered.
pub struct Client {
    shared: Arc<Shared>,
    raw: RawFd,
    /// How it introduced itself.
    pub attached: Attached,
}

struct Shared {
    state: Mutex<State>,
    /// Something waits to be written that could not be at once, or all is over.
    blocked: Condvar,
}

struct State {
    line: Line,
    closed: bool,
}

impl Client {
    /// Introduces a daemon over a connected socket.
    ///
    /// # Errors
    /// Nobody answers, or what answers is no supervisor.
    pub fn attach(socket: UnixStream, attach: Attach) -> io::Result<Self> {
        let mut line = Line::new(socket)?;
        line.put(&ToSupervisor::Attach(attach).encode());
        let attached = introduced(&mut line)?;
        let raw = line.raw();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                line,
                closed: false,
            }),
            blocked: Condvar::new(),
        });
        let writing = Arc::clone(&shared);
        thread::Builder::new()
            .name("supervision".into())
            .spawn(move || writing.write())?;
        Ok(Self {
            shared,
            raw,
            attached,
        })
    }

    /// A descriptor that is readable while `read` has something new; valid as long as this lives.
    #[must_use]
    pub fn fileno(&self) -> RawFd {
        self.raw
    }

    /// Says something; what can't be written at once is written when it can.
    pub fn say(&self, messages: impl IntoIterator<Item = ToSupervisor>) {
        let mut state = self.shared.lock();
        for message in messages {
            state.line.put(&message.encode());
        }
        state.flush();
        let blocked = state.line.backlog() > 0;
        drop(state);
        if blocked {
            self.shared.blocked.notify_one();
        }
    }

    /// Takes what the supervisor has said since the last time. Once it is gone, `is_closed`.
    #[must_use]
    pub fn read(&self) -> Vec<ToDaemon> {
        let mut state = self.shared.lock();
        if state.closed {
            return Vec::new();
        }
        let alive = state.line.fill();
        let mut said = Vec::new();
        let understood = loop {
            match state.line.next().map(|body| body.map(ToDaemon::decode)) {
                Ok(None) => break true,
                Ok(Some(Ok(message))) => said.push(message),
                Ok(Some(Err(_))) | Err(_) => break false,
            }
        };
        state.closed |= !alive || !understood;
        said
    }

    /// Says nothing more; what was said still arrives.
    pub fn hang_up(&self) {
        self.shared.lock().line.hang_up();
    }

    /// Whether the supervisor is gone, or can't be understood.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }
}

impl Drop for Client {
    /// Ends the thread; what waits is not written any more.
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.blocked.notify_one();
    }
}

impl Shared {
    /// Writes what could not be written at once, until all is over.
    fn write(&self) {
        let mut state = self.lock();
        loop {
            state = self
                .blocked
                .wait_while(state, |state| !state.closed && state.line.backlog() == 0)
                .unwrap_or_else(PoisonError::into_inner);
            if state.closed {
                return;
            }
            let raw = state.line.raw();
            drop(state);
            own::wait_for_room(raw, LOOK_MS);
            state = self.lock();
            state.flush();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn flush(&mut self) {
        // Nothing reads the descriptor of a line that is closed here: its end is told by `read`.
        if !self.closed && !self.line.flush() {
            self.line.discard();
        }
    }
}

/// Waits for the introduction of the other side; what it says next is still to be read.
fn introduced(line: &mut Line) -> io::Result<Attached> {
    let broken = |what| io::Error::new(io::ErrorKind::ConnectionAborted, what);
    let deadline = Instant::now() + ATTACH;
    loop {
        let alive = line.flush() && line.fill_frame();
        match line.next().map(|body| body.map(ToDaemon::decode)) {
            Ok(Some(Ok(ToDaemon::Attached(attached)))) => return Ok(attached),
            Ok(None) if alive => {}
            Ok(None) => return Err(broken("the supervisor ended while it started")),
            _ => return Err(broken("what answers is no supervisor")),
        }
        if Instant::now() >= deadline {
            let what = format!(
                "the supervisor did not answer within {} s",
                ATTACH.as_secs()
            );
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        own::wait_for_data(line.raw(), LOOK_MS);
    }
}
