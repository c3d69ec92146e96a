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

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use super::checked;
use super::process::reap_dying;

/// Room for the frames of `run` and of the C library's wrappers of system calls.
const STACK_BYTES: usize = 64 * 1024;
const GUARD_BYTES: usize = 64 * 1024;
/// Signals are numbered 1 to 64 on Linux.
const SIGNALS: libc::c_int = 64;
/// What others may not do with the files a command makes: write.
const UMASK: libc::mode_t = 0o022;

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

/// The step at which a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Step {
    /// Making the process.
    Fork = 1,
    /// Session, limits, descriptors.
    Setup = 2,
    /// Entering the working directory.
    Cwd = 3,
    /// Running the program.
    Exec = 4,
}

/// Why a program could not be started.
#[derive(Debug)]
pub struct Refusal {
    /// Where it failed.
    pub step: Step,
    /// With which `errno`.
    pub errno: i32,
}

/// The stack for a child. One per thread, used again and again: the thread sleeps while its child
/// uses it.
pub struct Stack(*mut libc::c_void);

// SAFETY: a mapping belongs to no thread, and only its owner uses it.
unsafe impl Send for Stack {}

impl Stack {
    /// Maps a stack with a guard below it.
    pub fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a new anonymous mapping, and a change of protection within it, touch no memory in
        // use.
        unsafe {
            let bottom = libc::mmap(
                ptr::null_mut(),
                GUARD_BYTES + STACK_BYTES,
                libc::PROT_NONE,
                flags,
                -1,
                0,
            );
            if bottom == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let stack = Self(bottom);
            checked(libc::mprotect(
                bottom.byte_add(GUARD_BYTES),
                STACK_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
            ))?;
            Ok(stack)
        }
    }

    /// Where a stack that grows down begins.
    fn top(&self) -> *mut libc::c_void {
        // SAFETY: one past the end of the mapping.
        unsafe { self.0.byte_add(GUARD_BYTES + STACK_BYTES) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our mapping, which no child uses any more: `start` returns only after its child
        // has left.
        unsafe { libc::munmap(self.0, GUARD_BYTES + STACK_BYTES) };
    }
}

/// Starts a program and returns once it has been executed.
///
/// It leads a session of its own, has exactly the three descriptors, no signal blocked or ignored,
/// umask 022, no core files, and is killed when the calling thread ends.
pub fn start(
    program: &Program,
    standard: &Standard<'_>,
    stack: &mut Stack,
) -> Result<Child, Refusal> {
    let order = Order {
        paths: pointers(&program.paths),
        argv: pointers(&program.argv),
        env: pointers(&program.env),
        cwd: program.cwd.as_deref().map_or(ptr::null(), CStr::as_ptr),
        standard: [standard.stdin, standard.stdout, standard.stderr].map(AsRawFd::as_raw_fd),
        // SAFETY: takes nothing and can't fail.
        parent: unsafe { libc::getpid() },
        step: AtomicI32::new(0),
        errno: AtomicI32::new(0),
    };
    let mut process: RawFd = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: the stack is large enough and used by nobody else. CLONE_VFORK suspends this thread
    // until the child has executed its program or exited, so that `order` and what it points to
    // outlive the child's use of them. `run` never returns and keeps to system calls.
    let pid = unsafe {
        libc::clone(
            run,
            stack.top(),
            flags,
            ptr::from_ref(&order).cast_mut().cast(),
            &raw mut process,
        )
    };
    if pid == -1 {
        return Err(Refusal {
            step: Step::Fork,
            errno: last_errno(),
        });
    }
    // SAFETY: CLONE_PIDFD has put a new descriptor there, which nobody else owns.
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
struct Order {
    paths: Vec<*const libc::c_char>,
    argv: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    cwd: *const libc::c_char,
    standard: [RawFd; 3],
    parent: libc::pid_t,
    step: AtomicI32,
    errno: AtomicI32,
}

impl Order {
    fn refusal(&self) -> Option<Refusal> {
        let step = match self.step.load(Ordering::Relaxed) {
            0 => return None,
            2 => Step::Setup,
            3 => Step::Cwd,
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

/// The child. Never returns.
extern "C" fn run(order: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `start` passes an `Order`, which lives until this child is gone. All calls below are
    // system calls.
    unsafe {
        let order = &*order.cast::<Order>();
        reset_signals();
        let step = if !set_up(order) {
            Step::Setup
        } else if !order.cwd.is_null() && libc::chdir(order.cwd) == -1 {
            Step::Cwd
        } else {
            unblock_signals();
            execute(order);
            Step::Exec
        };
        order.errno.store(last_errno(), Ordering::Relaxed);
        order.step.store(step as i32, Ordering::Relaxed);
        libc::_exit(127)
    }
}

/// Handlers are ours, and ignored signals stay ignored over exec (Python ignores SIGPIPE): all go
/// back to the default, before any can arrive.
unsafe fn reset_signals() {
    // The C library keeps two signals to itself, and its `sigaction` refuses them; the kernel's does
    // not. An action of zeros, as large as the largest of any architecture, is the default one.
    let default = [0_u64; 16];
    for signal in 1..=SIGNALS {
        // SAFETY: the action outlives the call. It fails for the two that can't be changed.
        unsafe {
            let old = ptr::null_mut::<libc::c_void>();
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                old,
                SIGNALS / 8,
            );
        }
    }
}

unsafe fn unblock_signals() {
    // SAFETY: sigemptyset makes the set whole, sigprocmask reads it.
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// False, with `errno`, if a step failed.
unsafe fn set_up(order: &Order) -> bool {
    // SAFETY: system calls on integers, and on a limit that outlives its call.
    unsafe {
        if libc::setsid() == -1 || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 {
            return false;
        }
        // A parent that ended before the line above will send nothing any more.
        if libc::getppid() != order.parent {
            libc::_exit(127);
        }
        libc::umask(UMASK);
        let none = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        if libc::setrlimit(libc::RLIMIT_CORE, &raw const none) == -1 {
            return false;
        }
        for (target, source) in (0..).zip(order.standard) {
            if libc::dup2(source, target) == -1 {
                return false;
            }
        }
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) == 0
    }
}

/// Tries the paths one by one, as `execvp` does: what is missing is passed over, and so is what may
/// not be run, which is told at the end rather than that the last one was missing. Returns, with
/// `errno`, only if none could be run.
unsafe fn execute(order: &Order) {
    let mut denied = false;
    for &path in &order.paths {
        if path.is_null() {
            break;
        }
        // SAFETY: all lists end with null and hold C strings that `start` keeps alive.
        unsafe { libc::execve(path, order.argv.as_ptr(), order.env.as_ptr()) };
        match last_errno() {
            libc::EACCES => denied = true,
            libc::ENOENT | libc::ENOTDIR => {}
            _ => return,
        }
    }
    if denied {
        // SAFETY: errno is ours: it belongs to the suspended thread.
        unsafe { *libc::__errno_location() = libc::EACCES };
    }
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
