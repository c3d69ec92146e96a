//! Runs commands: starts them, reads their output, ends them, reports how they ended.
//!
//! Knows no Python and no jobs. Read it in this order:
//!
//! - `command`: what is to be run, and within which `limits`.
//! - `backlog`: where commands wait for a spawner, in bytes (`packing`) if there are many.
//! - `spawn`: the spawners, a few threads that live as long as their children (`sys::child` tells
//!   why and how).
//! - `directory`: the private directories of commands; `removal`: how one goes, whatever is in it.
//! - `mailbox`: what spawners and callers tell the reaper.
//! - `reaper`: the one thread that owns all running commands, each a `job`.
//! - `ladder`: how a command is made to end: TERM, KILL, drain, and the sweep of what is left.
//! - `cgroup`: a group for each command, where the system lets us; else
//! - `lookout`: which processes belong to which command. `census` is what `/proc` shows, `kinship`
//!   what follows from it.
//! - `reading`: the pipes of a command; `capture`: what is kept of its output, in `pages`.
//! - `report`: what the caller gets to know.
//!
//! All processes of a command end with it, also those that have left its group and session, unless it
//! may leave them running. That takes a reaper on the main thread of a process of its own
//! (`Executor::prepare`): only there is known that a command has left something, and only there those
//! are found that have cleared their environment. With `Executor::new`, a command that ends by itself
//! takes its group along and nobody else.
#![deny(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

mod backlog;
mod capture;
mod census;
mod cgroup;
mod command;
mod directory;
mod job;
mod kinship;
mod ladder;
mod limits;
mod lookout;
mod mailbox;
pub(crate) mod packing;
mod pages;
mod reading;
mod reaper;
mod removal;
mod report;
mod spawn;

pub use crate::sys::child::User;
pub use crate::sys::process::{Ending, Usage};
pub use backlog::{KEY_END, StartError, Window};
pub use capture::{Bounds, Output};
pub use census::kill_marked;
pub use cgroup::usable_cgroup;
pub use command::Command;
pub use limits::Limits;
pub use reaper::Reaper;
pub use removal::remove_tree;
pub use report::{Exit, Failure, Live, Reason, Reports, Stream};

use crate::sys::{descriptors, own, process};
use backlog::Backlog;
use cgroup::Groups;
use directory::Directories;
use mailbox::{Mailbox, Message};
use reaper::Ways;
use report::Outbox;
use spawn::{Spawner, Supplies};

/// How long `stop` waits for commands that were sent KILL. Longer only if the kernel can't end one.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// When memory is short, the kernel ends whoever uses most of it, with so many thousandths of all memory
/// added: commands rather than those that look after them.
const OOM_SCORE: i32 = 500;
const OOM_SCORE_TEXT: &CStr = c"500";

/// How an executor is made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads that start commands.
    pub spawners: usize,
    /// What is kept of each output stream.
    pub bounds: Bounds,
    /// How long the pipes of a command are read after its main process has ended.
    pub drain: Duration,
    /// A directory in which control groups can be made, one for each command: see `usable_cgroup`.
    /// None: commands run where this process does.
    pub cgroup: Option<PathBuf>,
}

/// Runs commands until it is stopped or dropped.
pub struct Executor {
    backlog: Arc<Backlog>,
    mailbox: Arc<Mailbox>,
    outbox: Arc<Outbox>,
}

impl Executor {
    /// Starts the threads, the reaper's among them.
    ///
    /// # Errors
    /// The system gives no more threads or descriptors.
    pub fn new(settings: Settings) -> io::Result<Self> {
        let (executor, reaper) = Self::assemble(settings, false)?;
        thread::Builder::new()
            .name("reaper".into())
            .spawn(move || reaper.run())?;
        Ok(executor)
    }

    /// The same for a process of its own, to which orphans come back from here on: the caller runs the
    /// reaper on the *main* thread, which is where the kernel brings them to.
    ///
    /// The spawners, other threads, are the parents of the main processes: what the main thread finds
    /// as its children are adopted ones alone, so that it can't reap a command by mistake.
    ///
    /// # Errors
    /// The system gives no more threads or descriptors.
    pub fn prepare(settings: Settings) -> io::Result<(Self, Reaper)> {
        process::adopt_orphans()?;
        Self::assemble(settings, true)
    }

    /// A descriptor that is readable while reports wait; valid as long as the executor lives.
    #[must_use]
    pub fn fileno(&self) -> RawFd {
        self.outbox.fileno()
    }

    /// Takes a batch of commands and returns at once.
    ///
    /// # Errors
    /// The executor is stopped, or a key is in use; then none of the batch was taken.
    pub fn start(&self, commands: &[Arc<Command>]) -> Result<(), StartError> {
        self.backlog.add(commands)
    }

    /// Has commands start within this window from now on; they wait meanwhile, in the order in which
    /// they came.
    pub fn open(&self, window: Window) {
        self.backlog.open(window);
    }

    /// Takes back those of these commands that have not started: they are reported as cancelled.
    pub fn withdraw(&self, keys: Vec<u64>) {
        self.mailbox.post(Message::Withdraw(keys));
    }

    /// TERM to all processes of these commands, KILL after their grace. Those that have not started
    /// never will.
    pub fn cancel(&self, keys: Vec<u64>) {
        self.mailbox.post(Message::Cancel(keys));
    }

    /// KILL to all processes of these commands.
    pub fn kill(&self, keys: Vec<u64>) {
        self.mailbox.post(Message::Kill(keys));
    }

    /// Live output of a command from now on, beginning with what is kept of it from these offsets
    /// on.
    pub fn follow(&self, key: u64, stdout_offset: u64, stderr_offset: u64) {
        self.mailbox
            .post(Message::Follow(key, [stdout_offset, stderr_offset]));
    }

    /// No more live output of a command.
    pub fn unfollow(&self, key: u64) {
        self.mailbox.post(Message::Unfollow(key));
    }

    /// Takes all reports that wait; without `live`, the live output is left where the newest of it is
    /// kept.
    #[must_use]
    pub fn reports(&self, live: bool) -> Reports {
        self.outbox.take(live)
    }

    /// How many commands were taken and have not been reported as ended.
    #[must_use]
    pub fn running(&self) -> usize {
        self.backlog.len()
    }

    /// Whether any of them waits for its start.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        self.backlog.has_waiting()
    }

    /// Whether live output waits in the reports.
    #[must_use]
    pub fn has_live(&self) -> bool {
        self.outbox.has_live()
    }

    /// Takes no more commands and reports those that wait as cancelled. The threads end with the
    /// last command.
    ///
    /// With `kill`, all processes are sent KILL and their end is awaited, at most five seconds; else
    /// they go on.
    pub fn stop(&self, kill: bool) {
        self.backlog.refuse();
        self.mailbox.post(Message::Stop(kill));
        if kill {
            self.backlog.wait_closed(STOP_PATIENCE);
        }
    }

    /// The parts, with running spawners. They end with the reaper, also with one that never ran.
    fn assemble(settings: Settings, adopting: bool) -> io::Result<(Self, Reaper)> {
        let bounds = settings.bounds;
        let groups = settings.cgroup.map(|base| Arc::new(Groups::new(base)));
        let directories = Arc::new(Directories::default());
        let backlog = Arc::new(Backlog::default());
        let mailbox = Arc::new(Mailbox::new()?);
        let outbox = Arc::new(Outbox::new(bounds.head_bytes + bounds.tail_bytes)?);
        let reaper = Reaper::new(
            &backlog,
            &mailbox,
            &outbox,
            Ways {
                bounds,
                drain: settings.drain,
                groups: groups.clone(),
                directories: Arc::clone(&directories),
                adopting,
            },
        )?;
        let supplies = Supplies {
            null: Arc::new(descriptors::null()?),
            groups,
            directories,
            // Never less than ours, which somebody may have raised.
            oom_score: (own::oom_score() < OOM_SCORE).then_some(OOM_SCORE_TEXT),
        };
        for number in 0..settings.spawners {
            let spawner = Spawner::new(&backlog, &mailbox, supplies.clone())?;
            thread::Builder::new()
                .name(format!("spawner-{number}"))
                .spawn(move || spawner.run())?;
        }
        let executor = Self {
            backlog,
            mailbox,
            outbox,
        };
        Ok((executor, reaper))
    }
}

impl Drop for Executor {
    /// KILLs what still runs, without waiting for it.
    fn drop(&mut self) {
        self.backlog.refuse();
        self.mailbox.post(Message::Stop(true));
    }
}
