//! Starting a program: `clone` with shared memory, the caller suspended until the program has
//! replaced the child.
//!
//! A plain `fork` copies the page tables of its caller, which in a Python daemon costs milliseconds
//! and grows with its memory. Here the child borrows our memory instead, so it is bound like a
//! signal handler: it runs on a stack of its own, makes system calls and nothing else (no
//! allocation, no lock, no panic), and everything it needs was prepared before. In return it can
//! say through that memory what failed.
//!
//! The kernel suspends only the calling *thread*. It must have all signals blocked
//! (`process::block_signals`), and it must live at least as long as its children:
//! `PR_SET_PDEATHSIG` fires when the parent *thread* ends.

mod clone;
mod inside;
mod stack;

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

pub use inside::unusual_signals;
pub use stack::Stack;

use super::process::reap_dying;

/// A program and all that surrounds it.
pub struct Program {
    /// Paths to try, in this order.
    pub paths: Vec<CString>,
    /// Its arguments, the first by custom its name.
    pub argv: Vec<CString>,
    /// Its whole environment, as `NAME=value`.
    pub env: Vec<CString>,
    /// Where it runs; None: where we are.
    pub cwd: Option<CString>,
    /// How nice it is to others; None: as nice as we are.
    pub niceness: Option<i32>,
    /// What it may use.
    pub limits: Vec<Limit>,
    /// Whom it runs as; None: whoever we are.
    pub user: Option<User>,
    /// How soon the kernel ends it when memory is short (`oom_score_adj`); None: as soon as us.
    pub oom_score: Option<&'static CStr>,
}

impl Program {
    /// Whether it is bound in how many processes its user may have.
    #[must_use]
    pub fn limits_processes(&self) -> bool {
        let mut limits = self.limits.iter();
        limits.any(|limit| limit.resource == libc::RLIMIT_NPROC)
    }
}

/// A bound on one resource. What is above the hard limit that we have ourselves is as good as that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// `RLIMIT_...`
    pub resource: u32,
    /// What counts; the program itself may raise it up to `hard`.
    pub soft: u64,
    /// The end.
    pub hard: u64,
}

/// Somebody else to run a program as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The number of the user.
    pub uid: u32,
    /// The number of the main group.
    pub gid: u32,
    /// The numbers of the other groups.
    pub groups: Vec<u32>,
}

/// The three descriptors that it gets.
pub struct Standard<'a> {
    /// To read from.
    pub stdin: &'a OwnedFd,
    /// To write to.
    pub stdout: &'a OwnedFd,
    /// To write complaints to.
    pub stderr: &'a OwnedFd,
}

/// A program that runs: the leader of a session and group of its own.
pub struct Child {
    /// Its number, also that of its group; its own until it is reaped.
    pub pid: libc::pid_t,
    /// A descriptor of it, readable once it has ended.
    pub process: OwnedFd,
}

/// The way into a cgroup.
pub struct Entrance {
    /// Its directory.
    pub directory: OwnedFd,
}

impl Entrance {
    /// The list of its members, to be written to.
    fn members(&self) -> io::Result<OwnedFd> {
        let flags = libc::O_WRONLY | libc::O_CLOEXEC;
        let directory = self.directory.as_raw_fd();
        // SAFETY: the name is a C string; openat returns a new descriptor that nobody else owns.
        unsafe {
            let raw = libc::openat(directory, c"cgroup.procs".as_ptr(), flags);
            super::checked(raw).map(|raw| OwnedFd::from_raw_fd(raw))
        }
    }
}

/// The step at which a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Step {
    /// Making the process.
    Fork = 1,
    /// Session, cgroup, limits, descriptors.
    Setup = 2,
    /// Becoming the user.
    User = 3,
    /// Entering the working directory.
    Cwd = 4,
    /// Running the program.
    Exec = 5,
}

/// Why a program could not be started.
#[derive(Debug)]
pub struct Refusal {
    /// Where it failed.
    pub step: Step,
    /// With which `errno`.
    pub errno: i32,
}

/// Starts a program and returns once it has been executed.
///
/// It leads a session of its own, has exactly the three descriptors, no signal blocked or ignored,
/// umask 022, is in the group if one is given, and is killed when the calling thread ends. The calling
/// thread must have all signals blocked.
///
/// `signals` are those that this process handles or ignores (`unusual_signals`).
pub fn start(
    program: &Program,
    standard: &Standard<'_>,
    group: Option<&Entrance>,
    signals: &[libc::c_int],
    stack: &mut Stack,
) -> Result<Child, Refusal> {
    let mut order = Order {
        paths: pointers(&program.paths),
        argv: pointers(&program.argv),
        env: pointers(&program.env),
        cwd: program.cwd.as_deref().map_or(ptr::null(), CStr::as_ptr),
        niceness: program.niceness,
        limits: &program.limits,
        user: program.user.as_ref(),
        oom_score: program.oom_score,
        enter: None,
        signals,
        standard: [standard.stdin, standard.stdout, standard.stderr].map(AsRawFd::as_raw_fd),
        // SAFETY: takes nothing and can't fail.
        parent: unsafe { libc::getpid() },
        step: AtomicI32::new(0),
        errno: AtomicI32::new(0),
    };
    let in_group = group.and_then(|group| {
        // SAFETY: callers have all signals blocked.
        unsafe { clone::clone_into(group.directory.as_raw_fd(), &order, stack) }
    });
    let (pid, process) = if let Some(child) = in_group {
        child
    } else {
        let members = group.map(Entrance::members).transpose();
        let members = members.map_err(|error| Refusal {
            step: Step::Fork,
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        })?;
        order.enter = members.as_ref().map(AsRawFd::as_raw_fd);
        // SAFETY: as above.
        unsafe { clone::clone(&order, stack) }
    };
    if pid == -1 {
        return Err(Refusal {
            step: Step::Fork,
            errno: last_errno(),
        });
    }
    // SAFETY: the kernel has made it for us, closed on exec, and nobody else owns it.
    let process = unsafe { OwnedFd::from_raw_fd(process) };
    match order.refusal() {
        None => Ok(Child { pid, process }),
        Some(refusal) => {
            reap_dying(&process);
            Err(refusal)
        }
    }
}

/// What the child reads, and where it writes what failed. Lists of pointers end with null.
struct Order<'a> {
    paths: Vec<*const libc::c_char>,
    argv: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    cwd: *const libc::c_char,
    niceness: Option<i32>,
    limits: &'a [Limit],
    user: Option<&'a User>,
    oom_score: Option<&'static CStr>,
    enter: Option<RawFd>,
    signals: &'a [libc::c_int],
    standard: [RawFd; 3],
    parent: libc::pid_t,
    step: AtomicI32,
    errno: AtomicI32,
}

impl Order<'_> {
    fn refusal(&self) -> Option<Refusal> {
        let step = match self.step.load(Ordering::Relaxed) {
            0 => return None,
            2 => Step::Setup,
            3 => Step::User,
            4 => Step::Cwd,
            _ => Step::Exec,
        };
        Some(Refusal {
            step,
            errno: self.errno.load(Ordering::Relaxed),
        })
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([ptr::null()])
        .collect()
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
