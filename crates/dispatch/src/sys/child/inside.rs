//! The child's side of a start: system calls and nothing else (see the parent module).

use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::Ordering;

use super::{Limit, Order, Step, User, last_errno};

/// Signals are numbered 1 to 64 on Linux.
const SIGNALS: libc::c_int = 64;
/// What others may not do with the files a command makes: write.
const UMASK: libc::mode_t = 0o022;

/// The child. Never returns.
pub(super) extern "C" fn run(order: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `start` passes an `Order`, which lives until this child is gone. All calls below are
    // system calls.
    unsafe {
        let order = &*order.cast::<Order<'_>>();
        reset_signals(order.signals);
        let step = if !set_up(order) {
            Step::Setup
        } else if !order.user.is_none_or(|user| become_user(user)) {
            Step::User
        } else if !stay_with(order.parent) {
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

/// The signals that this process handles or ignores. The C library keeps two to itself, and its
/// `sigaction` does not tell of them; the kernel's does.
pub fn unusual_signals() -> Vec<libc::c_int> {
    let is_unusual = |signal: &libc::c_int| {
        // As large as the largest action of any architecture; its first word is the handler.
        let mut action = [0_u64; 16];
        // SAFETY: the action outlives the call, which changes nothing.
        unsafe {
            let new = ptr::null::<libc::c_void>();
            let size = SIGNALS / 8;
            libc::syscall(
                libc::SYS_rt_sigaction,
                *signal,
                new,
                action.as_mut_ptr(),
                size,
            );
        }
        action[0] != libc::SIG_DFL as u64
    };
    (1..=SIGNALS).filter(is_unusual).collect()
}

/// Handlers are ours, and ignored signals stay ignored over exec (Python ignores SIGPIPE): all go
/// back to the default, before any can arrive.
unsafe fn reset_signals(signals: &[libc::c_int]) {
    let default = [0_u64; 16];
    for signal in signals {
        // SAFETY: the action, of zeros, outlives the call.
        unsafe {
            let old = ptr::null_mut::<libc::c_void>();
            libc::syscall(
                libc::SYS_rt_sigaction,
                *signal,
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
unsafe fn set_up(order: &Order<'_>) -> bool {
    // SAFETY: system calls on integers.
    unsafe {
        if libc::setsid() == -1 {
            return false;
        }
        if let Some(members) = order.enter {
            // 0 is whoever writes it.
            if libc::write(members, c"0".as_ptr().cast(), 1) != 1 {
                return false;
            }
        }
        if let Some(score) = order.oom_score {
            give_way(score);
        }
        libc::umask(UMASK);
        if let Some(niceness) = order.niceness {
            if libc::setpriority(libc::PRIO_PROCESS, 0, niceness) == -1 {
                return false;
            }
        }
        if !order.limits.iter().all(|limit| restrict(limit)) {
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

/// Is ended before us when memory is short; closed with all the others. As long as the program has not
/// replaced us the kernel does not take it for the parent's, whose memory we share.
unsafe fn give_way(score: &CStr) {
    // SAFETY: both strings outlive the calls. Where there is no such file it goes without.
    unsafe {
        let file = libc::open(
            c"/proc/self/oom_score_adj".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
        );
        libc::write(file, score.as_ptr().cast(), score.count_bytes());
    }
}

/// Sets one limit, at most to the hard one that we have: more is not ours to give.
unsafe fn restrict(limit: &Limit) -> bool {
    let mut bound = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let resource = limit.resource as _;
    // SAFETY: the bound outlives both calls.
    unsafe {
        if libc::getrlimit(resource, &raw mut bound) == -1 {
            return false;
        }
        bound.rlim_max = bound.rlim_max.min(limit.hard);
        bound.rlim_cur = bound.rlim_max.min(limit.soft);
        libc::setrlimit(resource, &raw const bound) == 0
    }
}

/// Becomes somebody else for good, and looks whether that is so.
///
/// The C library's functions would make all threads of the process do the same, and it believes that we
/// are one of the parent's: these are the kernel's calls, which change the caller alone. The kernel
/// makes the memory we share untouchable to other processes of that user (not dumpable); it has to
/// stay so in the parent, since another child may be at this point at any time.
unsafe fn become_user(user: &User) -> bool {
    let User { uid, gid, groups } = user;
    let (mut uids, mut gids) = ([0; 3], [0; 3]);
    // SAFETY: the list outlives its call; the rest is integers, and places for them.
    unsafe {
        if libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) != 0
            || libc::syscall(libc::SYS_setresgid, *gid, *gid, *gid) != 0
            || libc::syscall(libc::SYS_setresuid, *uid, *uid, *uid) != 0
        {
            return false;
        }
        let [real, effective, saved] = &mut uids;
        libc::getresuid(real, effective, saved);
        let [real, effective, saved] = &mut gids;
        libc::getresgid(real, effective, saved);
        let count = libc::getgroups(0, ptr::null_mut());
        if uids == [*uid; 3] && gids == [*gid; 3] && count as usize == groups.len() {
            return true;
        }
        *libc::__errno_location() = libc::EPERM;
        false
    }
}

/// Dies with the thread that started us. After the change of user, which cancels that.
unsafe fn stay_with(parent: libc::pid_t) -> bool {
    // SAFETY: system calls on integers.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 {
            return false;
        }
        // A parent that ended before the line above will send nothing any more.
        if libc::getppid() != parent {
            libc::_exit(127);
        }
        true
    }
}

/// Tries the paths one by one, as `execvp` does: what is missing is passed over, and so is what may
/// not be run, which is told at the end rather than that the last one was missing. Returns, with
/// `errno`, only if none could be run.
unsafe fn execute(order: &Order<'_>) {
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
