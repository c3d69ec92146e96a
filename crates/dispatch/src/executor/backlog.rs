//! The commands that wait for a spawner, and the keys in use.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;

use super::command::Command;
use super::packing::Packed;
use crate::sys::own;

/// Keys are below this: the numbers of descriptors are made of them.
pub const KEY_END: u64 = 1 << 62;

/// So many commands wait as they are; the rest is packed.
const WHOLE: usize = 256;

/// Why commands were not taken. None of the batch was.
#[derive(Debug, PartialEq, Eq)]
pub enum StartError {
    /// The executor is stopped.
    Stopped,
    /// This key is too large, or belongs to a command that has not ended.
    Key(u64),
}

/// How far a command has come.
enum Phase {
    Waiting(Waiting),
    /// In the hands of a spawner, or of the reaper.
    Begun,
}

/// A command that waits.
enum Waiting {
    Whole(Arc<Command>),
    Packed(Packed),
}

impl Waiting {
    /// One before which so many wait.
    fn behind(waiting: usize, command: &Arc<Command>) -> Self {
        if waiting < WHOLE {
            Self::Whole(Arc::clone(command))
        } else {
            Self::Packed(Packed::of(command))
        }
    }

    fn take(self) -> Arc<Command> {
        match self {
            Self::Whole(command) => command,
            Self::Packed(packed) => Arc::new(packed.unpack()),
        }
    }
}

/// What `withdraw` found.
#[derive(Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// It was waiting and will never start.
    Withdrawn,
    /// Too late: a spawner has it and will tell how that went, or has told it.
    Begun,
    /// There is no such key.
    Unknown,
}

/// Shared by the caller (`add`, `open`), the spawners (`next`) and the reaper (all else).
#[derive(Default)]
pub struct Backlog {
    inner: Mutex<Inner>,
    /// One spawner is woken for each command that may start: who is woken for nothing costs the others a turn.
    startable: Condvar,
    closed: Condvar,
}

/// When commands that wait may start.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// While fewer than this many run.
    pub running: usize,
    /// Until this time, in microseconds since the machine was started, suspended times included.
    pub until_us: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            running: usize::MAX,
            until_us: u64::MAX,
        }
    }
}

#[derive(Default)]
struct Inner {
    phases: HashMap<u64, Phase>,
    /// How many of them are not waiting.
    running: usize,
    window: Window,
    /// Keys in order of arrival, withdrawn ones included.
    order: VecDeque<u64>,
    /// Nothing is taken any more.
    refusing: bool,
    /// Spawners end.
    closed: bool,
}

impl Backlog {
    /// Takes a batch, or none of it.
    pub fn add(&self, commands: &[Arc<Command>]) -> Result<(), StartError> {
        let mut inner = self.lock();
        if inner.refusing {
            return Err(StartError::Stopped);
        }
        inner.accept(commands)?;
        drop(inner);
        self.wake(commands.len());
        Ok(())
    }

    /// Has commands start within this window from now on.
    pub fn open(&self, window: Window) {
        let mut inner = self.lock();
        inner.window = window;
        let waiting = inner.order.len();
        drop(inner);
        self.wake(waiting);
    }

    /// The next command to start; waits for one that may. None: the spawner is to end.
    pub fn next(&self) -> Option<Arc<Command>> {
        let mut inner = self.lock();
        loop {
            if inner.closed {
                return None;
            }
            if inner.may_start()
                && let Some(waiting) = inner.pop()
            {
                drop(inner);
                return Some(waiting.take());
            }
            inner = self
                .startable
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes a waiting command back.
    pub fn withdraw(&self, key: u64) -> Withdrawal {
        let mut inner = self.lock();
        match inner.phases.get(&key) {
            Some(Phase::Waiting(_)) => {
                inner.phases.remove(&key);
                Withdrawal::Withdrawn
            }
            Some(Phase::Begun) => Withdrawal::Begun,
            None => Withdrawal::Unknown,
        }
    }

    /// Takes no new commands from now on.
    pub fn refuse(&self) {
        self.lock().refusing = true;
    }

    /// The commands that still wait.
    pub fn waiting(&self) -> Vec<u64> {
        self.lock().keys(|phase| matches!(phase, Phase::Waiting(_)))
    }

    /// The commands that were started, or are just being started, and have not ended.
    pub fn begun(&self) -> Vec<u64> {
        self.lock().keys(|phase| matches!(phase, Phase::Begun))
    }

    /// Whether this command was taken and has not ended.
    pub fn holds(&self, key: u64) -> bool {
        self.lock().phases.contains_key(&key)
    }

    /// These have ended: their keys are free again.
    pub fn forget(&self, keys: impl Iterator<Item = u64>) {
        let mut inner = self.lock();
        let before = inner.running;
        for key in keys {
            let phase = inner.phases.remove(&key);
            inner.running -= usize::from(matches!(phase, Some(Phase::Begun)));
        }
        let startable = inner.order.len().min(before - inner.running);
        drop(inner);
        self.wake(startable);
    }

    /// How many commands have been taken and not ended.
    pub fn len(&self) -> usize {
        self.lock().phases.len()
    }

    /// Whether any of them waits.
    pub fn has_waiting(&self) -> bool {
        let inner = self.lock();
        inner.phases.len() > inner.running
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the spawners.
    pub fn close(&self) {
        self.lock().closed = true;
        self.startable.notify_all();
        self.closed.notify_all();
    }

    /// Waits for `close`, for at most `patience`.
    pub fn wait_closed(&self, patience: Duration) {
        // The lock comes back poisoned or not; either way the wait is over.
        drop(
            self.closed
                .wait_timeout_while(self.lock(), patience, |inner| !inner.closed),
        );
    }

    /// So many commands may be started that could not be before. A spawner that is busy looks by itself.
    fn wake(&self, startable: usize) {
        match startable {
            0 => {}
            1 => self.startable.notify_one(),
            _ => self.startable.notify_all(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn accept(&mut self, commands: &[Arc<Command>]) -> Result<(), StartError> {
        for (position, command) in commands.iter().enumerate() {
            let phase = Phase::Waiting(Waiting::behind(self.order.len() + position, command));
            let usable = command.key < KEY_END && !self.phases.contains_key(&command.key);
            if !usable {
                for taken in &commands[..position] {
                    self.phases.remove(&taken.key);
                }
                return Err(StartError::Key(command.key));
            }
            self.phases.insert(command.key, phase);
        }
        self.order
            .extend(commands.iter().map(|command| command.key));
        Ok(())
    }

    fn may_start(&self) -> bool {
        self.running < self.window.running
            && !self.order.is_empty()
            && (self.window.until_us == u64::MAX || own::boot_us() < self.window.until_us)
    }

    fn keys(&self, chosen: impl Fn(&Phase) -> bool) -> Vec<u64> {
        self.phases
            .iter()
            .filter(|(_, phase)| chosen(phase))
            .map(|(key, _)| *key)
            .collect()
    }

    fn pop(&mut self) -> Option<Waiting> {
        while let Some(key) = self.order.pop_front() {
            let Some(phase) = self.phases.get_mut(&key) else {
                continue;
            };
            if let Phase::Waiting(waiting) = std::mem::replace(phase, Phase::Begun) {
                self.running += 1;
                return Some(waiting);
            }
        }
        None
    }
}
