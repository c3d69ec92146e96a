//! The supervisor: a process of its own in which a worker's commands run and their results are kept,
//! so that both outlive the daemon that asked for them.
//!
//! One per worker, in the worker's folder, which holds its lock and its socket. It knows no jobs: a
//! command has a key and a tag that the daemon chose, and the daemon is told the end of each until it
//! says that it may be forgotten. Read it in this order:
//!
//! - `message`: what the two say to each other.
//! - `line`: a socket on which that goes, without ever waiting.
//! - `holdings`: what is held, and what has to be told. Pure.
//! - `record`: an end, as it is kept on disk and told.
//! - `disk`: whether the disk takes what it is given; `keep`: what the spool is asked when.
//! - `door`: how a daemon that comes later gets its line; `link`: the one that is connected.
//! - `gathering`: ends that come fast are taken together. `vigil`: how long to go on without a daemon.
//! - `hub`: the one thread that carries all this between daemon, executor and spool.
//! - `client`: the daemon's end.
//!
//! It ends when the daemon says so and the last command has ended; when no daemon has come for the
//! orphan timeout, after it has ended all commands; and a few seconds after the daemon if nothing runs.
//! Signals that ask a process to end are ignored: who stops a worker stops its daemon.
#![deny(unsafe_code)]

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

pub mod client;
mod disk;
mod door;
mod gathering;
mod holdings;
#[cfg(test)]
mod holdings_model;
mod hub;
mod keep;
mod line;
mod link;
pub mod message;
pub mod record;
#[cfg(test)]
mod roundtrips;
mod vigil;

use crate::executor::{self, Executor, Settings};
use crate::spool::{Record, Spool};
use crate::sys::process as child_process;
use crate::sys::{memory, own};
use hub::Hub;
use line::Line;
use message::{Attached, PROTOCOL};

/// The socket in the worker's folder.
pub const SOCKET: &str = "supervisor.sock";
/// The lock of the supervisor that lives there; it holds its pid.
const LOCK: &str = "supervisor.lock";
const SPOOL: &str = "spool";
/// The private folders of commands.
const JOBS: &str = "jobs";
/// When memory is short, the kernel takes half of it for free from those that look after commands.
const OOM_SCORE: i32 = -500;
/// A predecessor that was killed may still be on its way out.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_LOOK: Duration = Duration::from_millis(5);

/// Called with the name of a moment at which a test may hold the thread that calls.
pub type Reached = Arc<dyn Fn(&str) + Send + Sync>;

/// What a supervisor is started with.
pub struct Config {
    /// The worker's folder.
    pub directory: PathBuf,
    /// The connection to the daemon that started it.
    pub daemon: Option<UnixStream>,
    /// Its version, for people.
    pub version: String,
    /// What it is called: another one at each start.
    pub incarnation: String,
    /// How long commands go on without a daemon, until one says otherwise.
    pub orphan_timeout: Duration,
    /// Segments of the spool are begun up to this size.
    pub segment_bytes: u64,
    /// How commands are run; in control groups where they can be had.
    pub settings: Settings,
    /// For tests.
    pub reached: Reached,
}

/// What the hub begins with.
pub struct Begun {
    spool: Spool,
    recovered: Vec<Record>,
    introduction: Attached,
    listener: UnixListener,
    line: Option<Line>,
    reached: Reached,
    orphan_timeout: Duration,
}

/// Is the supervisor; returns when it is over.
///
/// # Errors
/// The folder can't be used, another supervisor lives in it, or the system gives no threads.
pub fn run(config: Config) -> io::Result<()> {
    own::be_deaf();
    // In all threads: the kernel wakes one of them at each end of a command that could take SIGCHLD.
    child_process::block_signals();
    own::outlast_others(OOM_SCORE);
    own::raise_descriptor_limit()?;
    // By where it works it is known for whose it is.
    env::set_current_dir(&config.directory)?;
    let _lock = lock(&config.directory)?;
    end_leftovers(&config.directory);
    empty_jobs(&config.directory.join(JOBS))?;
    let (spool, recovered) = Spool::open(&config.directory.join(SPOOL), config.segment_bytes)?;
    let introduction = Attached {
        protocol: PROTOCOL,
        version: config.version,
        incarnation: config.incarnation.clone(),
        pid: process::id(),
        torn: recovered.torn as u32,
        damaged: recovered.damaged as u32,
        held: Vec::new(),
    };
    let listener = listen(&config.directory)?;
    let mut settings = config.settings;
    let (group, _group_lock) = executor::usable_cgroup(&config.incarnation).unzip();
    settings.cgroup = group;
    let (executor, reaper) = Executor::prepare(settings)?;
    let begun = Begun {
        spool,
        recovered: recovered.records,
        introduction,
        listener,
        line: config.daemon.map(Line::new).transpose()?,
        reached: config.reached,
        orphan_timeout: config.orphan_timeout,
    };
    let hub = Hub::new(begun, executor)?;
    let hub = thread::Builder::new().name("hub".into()).spawn(move || {
        own::be_prompt();
        // Without it nobody would ever end this process.
        if panic::catch_unwind(AssertUnwindSafe(|| hub.run())).is_err() {
            process::abort();
        }
    })?;
    // Of the interpreter that this process was started with nothing is used from here on.
    memory::give_back_files();
    // Here, because the kernel brings orphans to the main thread.
    reaper.run();
    let _ = hub.join();
    fs::remove_file(config.directory.join(SOCKET))
}

/// Ends what commands of a predecessor have started: it was killed, and could not. Each was told of a
/// folder in here.
fn end_leftovers(directory: &Path) {
    let jobs = directory.join(JOBS);
    let mark = [b"ORQESTRA_TMPDIR=", jobs.as_os_str().as_bytes(), b"/"].concat();
    executor::kill_marked(&mark);
}

/// Removes what commands of a predecessor left, who could not.
fn empty_jobs(directory: &Path) -> io::Result<()> {
    match executor::remove_tree(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    DirBuilder::new().mode(0o711).create(directory)
}

/// Takes the lock of the folder; it goes when the process does.
fn lock(directory: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(directory.join(LOCK))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    while !own::lock(&file)? {
        if Instant::now() >= deadline {
            let what = "another supervisor lives in this folder";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
        }
        thread::sleep(LOCK_LOOK);
    }
    file.set_len(0)?;
    (&file).write_all(format!("{}\n", process::id()).as_bytes())?;
    Ok(file)
}

/// Listens for daemons that come later; for the owner of the folder alone.
fn listen(directory: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(directory.join(SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The path of a socket may have 107 bytes, that of the folder can have more.
    let folder = OwnedFd::from(File::open(directory)?);
    let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(SOCKET);
    let listener = UnixListener::bind(&short)?;
    fs::set_permissions(directory.join(SOCKET), Permissions::from_mode(0o600))?;
    Ok(listener)
}
