//! The spawners: threads that take a command from the backlog, start it and hand it to the reaper.
//!
//! They live until the last command has ended: the death of a spawner would kill its children.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::backlog::Backlog;
use super::cgroup::{Group, Groups};
use super::command::Command;
use super::directory::{Directories, Directory};
use super::mailbox::{Mailbox, Message};
use super::report::Failure;
use crate::sys::child::{self, Child, Program, Refusal, Stack, Standard, Step};
use crate::sys::{descriptors, own, process};

/// A command that runs.
pub struct Launched {
    /// What was asked for.
    pub command: Arc<Command>,
    /// Its private directory.
    pub directory: Option<Directory>,
    /// Its group.
    pub group: Option<Group>,
    /// What was started for it.
    pub running: Running,
}

/// A main process, with the ends of its pipes that we read.
pub struct Running {
    /// The process.
    pub child: Child,
    /// Its standard output.
    pub stdout: File,
    /// Its standard error.
    pub stderr: File,
    /// When it was executed.
    pub started: Instant,
    /// The same, in microseconds of Unix time.
    pub started_at_us: u64,
}

/// What one spawner works with.
pub struct Spawner {
    backlog: Arc<Backlog>,
    mailbox: Arc<Mailbox>,
    supplies: Supplies,
    /// Those that commands must not inherit as they are. Nothing changes them any more.
    signals: Vec<libc::c_int>,
    stack: Stack,
}

/// What all spawners share.
#[derive(Clone)]
pub struct Supplies {
    /// The empty input, of all commands that have none.
    pub null: Arc<OwnedFd>,
    /// The groups of commands.
    pub groups: Option<Arc<Groups>>,
    /// Their directories.
    pub directories: Arc<Directories>,
    /// How soon the kernel ends them when memory is short.
    pub oom_score: Option<&'static CStr>,
}

impl Spawner {
    /// A spawner that has not begun.
    pub fn new(
        backlog: &Arc<Backlog>,
        mailbox: &Arc<Mailbox>,
        supplies: Supplies,
    ) -> io::Result<Self> {
        let (backlog, mailbox) = (Arc::clone(backlog), Arc::clone(mailbox));
        Ok(Self {
            backlog,
            mailbox,
            supplies,
            signals: child::unusual_signals(),
            stack: Stack::new()?,
        })
    }

    /// Starts commands until the backlog is closed.
    pub fn run(mut self) {
        process::block_signals();
        own::be_prompt();
        while let Some(command) = self.backlog.next() {
            let key = command.key;
            let message = match self.launch(command) {
                Ok(launched) => Message::Launched(Box::new(launched)),
                Err(failure) => Message::Refused(key, failure),
            };
            self.mailbox.post(message);
        }
    }

    fn launch(&mut self, command: Arc<Command>) -> Result<Launched, Failure> {
        // Where there is no group to be had, it runs without, as it would on another machine.
        let groups = self.supplies.groups.as_ref();
        let group = groups.and_then(|groups| groups.take(&command.limits).ok());
        match self.launch_in(&command, group.as_ref()) {
            Ok((directory, running)) => Ok(Launched {
                command,
                directory,
                group,
                running,
            }),
            Err(failure) => {
                if let (Some(groups), Some(group)) = (&self.supplies.groups, group) {
                    groups.give_back(group, true);
                }
                Err(failure)
            }
        }
    }

    fn launch_in(
        &mut self,
        command: &Command,
        group: Option<&Group>,
    ) -> Result<(Option<Directory>, Running), Failure> {
        let counted = group.is_some_and(Group::counts_processes);
        let directories = &self.supplies.directories;
        let directory = directories.take(command).map_err(|error| {
            let path = shown(command.directory.as_deref().unwrap_or_default());
            refused(
                "directory",
                &format!("cannot make a directory in {path}"),
                &error,
            )
        })?;
        let program = command.program(directory.as_ref(), counted);
        let program = program.map(|program| Program {
            oom_score: self.supplies.oom_score,
            ..program
        });
        let program = program.map_err(|error| Failure {
            stage: "command",
            errno: libc::EINVAL,
            error,
        });
        let running = program.and_then(|program| self.execute(command, &program, group));
        match running {
            Ok(running) => Ok((directory, running)),
            Err(failure) => {
                // Nothing but ours was in it.
                if let Some(directory) = directory {
                    let _ = self.supplies.directories.give_back(directory);
                }
                Err(failure)
            }
        }
    }

    fn execute(
        &mut self,
        command: &Command,
        program: &Program,
        group: Option<&Group>,
    ) -> Result<Running, Failure> {
        let payload = command
            .stdin
            .as_deref()
            .map(descriptors::memory_file)
            .transpose();
        let payload =
            payload.map_err(|error| refused("stdin", "cannot hold its standard input", &error))?;
        let pipe = || {
            descriptors::pipe()
                .map_err(|error| refused("pipe", "cannot make a pipe for its output", &error))
        };
        let ((stdout, to_stdout), (stderr, to_stderr)) = (pipe()?, pipe()?);
        let standard = Standard {
            stdin: payload.as_ref().unwrap_or(&self.supplies.null),
            stdout: &to_stdout,
            stderr: &to_stderr,
        };
        let entrance = group.map(Group::entrance).transpose();
        let entrance =
            entrance.map_err(|error| refused("fork", "cannot open its group", &error))?;
        let entrance = entrance.as_deref();
        let child = child::start(program, &standard, entrance, &self.signals, &mut self.stack)
            .map_err(|refusal| explain(command, program, &refusal))?;
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Ok(Running {
            child,
            stdout,
            stderr,
            started: Instant::now(),
            started_at_us: since_epoch.as_micros() as u64,
        })
    }
}
/// A failure of our own preparations.
pub fn refused(stage: &'static str, what: &str, error: &io::Error) -> Failure {
    Failure {
        stage,
        errno: error.raw_os_error().unwrap_or(libc::EIO),
        error: format!("{what}: {error}"),
    }
}

/// A failure of the child, told with the path that it is about.
fn explain(command: &Command, program: &Program, refusal: &Refusal) -> Failure {
    let error = io::Error::from_raw_os_error(refusal.errno);
    match refusal.step {
        // The kernel refuses no exec with this error for want of anything else.
        Step::Exec if refusal.errno == libc::EAGAIN && program.limits_processes() => refused(
            "limit",
            "its user has more processes than its limit allows",
            &error,
        ),
        Step::Fork => refused("fork", "cannot make a process", &error),
        Step::Setup => refused("setup", "cannot set up its process", &error),
        Step::User => {
            let uid = command.user.as_ref().map_or(0, |user| user.uid);
            refused("user", &format!("cannot run as user {uid}"), &error)
        }
        Step::Cwd => {
            let cwd = shown(command.cwd.as_deref().unwrap_or_default());
            refused(
                "cwd",
                &format!("cannot enter the working directory {cwd}"),
                &error,
            )
        }
        Step::Exec => refused(
            "exec",
            &format!("cannot run {}", sought(command, refusal.errno)),
            &error,
        ),
    }
}

/// The program, and where it was looked for.
fn sought(command: &Command, errno: i32) -> String {
    let name = command.argv.first().map_or(&[][..], Vec::as_slice);
    match (name.contains(&b'/'), errno) {
        (false, libc::ENOENT | libc::EACCES) => {
            format!(
                "{} (looked for in PATH {})",
                shown(name),
                shown(command.search_path())
            )
        }
        // A script whose interpreter is missing gives the same error.
        (true, libc::ENOENT) => format!(
            "{} (the file, or the interpreter that it names)",
            shown(name)
        ),
        _ => shown(name),
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
