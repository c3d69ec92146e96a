//! Signals to a group, learning of an end, reaping, adopting.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use super::checked;
use super::memory::own_peak_kb;

/// What the kernel's count of memory may be off by, besides an eighth.
const ROUGHLY_KB: u64 = 1024;

/// How a main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// What a main process and the descendants that it waited for have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time in user mode.
    pub user_us: u64,
    /// Time in the kernel.
    pub system_us: u64,
    /// Peak of resident memory of the largest of them. 0 where the kernel can't tell: see `reap`.
    pub max_rss_kb: u64,
    /// Peak of the memory of all processes together; 0 without a cgroup that counts it.
    pub max_tree_kb: u64,
}

/// Sends `signal` to every process of the group led by `leader`, which must not have been reaped
/// yet.
pub fn signal_group(leader: libc::pid_t, signal: libc::c_int) {
    // SAFETY: killpg takes two integers. It fails when nobody is left or may be signalled: nothing
    // to do then.
    unsafe { libc::killpg(leader, signal) };
}

/// Whether the process has ended; a zombie stays one.
pub fn has_ended(process: &OwnedFd) -> bool {
    // An error means that somebody else has reaped it.
    look(process).map_or(true, |ending| ending.is_some())
}

/// Whether the process, alive or a zombie, was not reaped: its number is still its own.
pub fn is_held(process: &OwnedFd) -> bool {
    look(process).is_ok()
}

/// Reaps the process if it has ended: from here on its number may belong to somebody else. None
/// where it still lives, or where somebody else has reaped it.
///
/// The kernel counts the memory of the *parent* at the moment of exec into the peak of the child, and
/// it counts roughly: a peak that does not clearly exceed our own is unknown, and given as 0.
pub fn reap(process: &OwnedFd) -> Option<(Ending, Usage)> {
    let (ending, mut usage) = wait(process, libc::WEXITED | libc::WNOHANG).ok()?;
    if !exceeds_own_peak(usage.max_rss_kb) {
        usage.max_rss_kb = 0;
    }
    ending.map(|ending| (ending, usage))
}

/// Waits for the end of a process that is certain to come soon, and reaps it.
pub fn reap_dying(process: &OwnedFd) -> Option<Ending> {
    loop {
        match wait(process, libc::WEXITED) {
            Ok((ending, _)) => return ending,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// Makes this process the one that orphaned descendants come back to, not the init of the system. They
/// become children of its first living thread: the main one.
pub fn adopt_orphans() -> io::Result<()> {
    // SAFETY: prctl takes an integer here.
    checked(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) })?;
    Ok(())
}

/// Reaps all children of the calling *thread* that have ended; whether others of them live.
///
/// On the main thread of a process whose other threads start its children, those are the adopted
/// ones.
pub fn reap_adopted() -> bool {
    let options = libc::WEXITED | libc::WNOHANG | libc::__WNOTHREAD;
    loop {
        match wait_for(libc::P_ALL, 0, options) {
            Ok((Some(_), _)) => {}
            Ok((None, _)) => return true,
            // ECHILD, there are none: it has no other error.
            Err(_) => return false,
        }
    }
}

/// Whether this process is a child of the calling thread: see `reap_adopted`.
pub fn is_adopted(pid: libc::pid_t) -> bool {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WNOTHREAD;
    wait_for(libc::P_PID, pid, options).is_ok()
}

/// Whether the calling thread is the main one.
pub fn is_main_thread() -> bool {
    // SAFETY: both take nothing and can't fail.
    unsafe { libc::getpid() == libc::gettid() }
}

/// A descriptor of a process that may be anybody's, for `signal`.
pub fn open(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers.
    let raw = checked(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as libc::c_int)?;
    // SAFETY: it has just been made, closed on exec, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Sends `signal` to that very process.
pub fn signal(process: &OwnedFd, signal: libc::c_int) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    let descriptor = process.as_raw_fd();
    // SAFETY: takes integers; without `info`, the kernel makes it.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, descriptor, signal, info, 0) };
    checked(result as libc::c_int).map(drop)
}

/// Blocks every signal in the calling thread, for ever: signals are the business of the
/// interpreter's own threads, and a child that is being started must not run a handler in the
/// memory it shares with us.
pub fn block_signals() {
    let mut all = MaybeUninit::uninit();
    // SAFETY: sigfillset makes the set whole, pthread_sigmask reads it.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
    }
}

fn look(process: &OwnedFd) -> io::Result<Option<Ending>> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    wait(process, options).map(|(ending, _)| ending)
}

fn wait(process: &OwnedFd, options: libc::c_int) -> io::Result<(Option<Ending>, Usage)> {
    wait_for(libc::P_PIDFD, process.as_raw_fd(), options)
}

/// One `waitid`, in the form of the kernel, which also gives the usage.
fn wait_for(
    kind: libc::idtype_t,
    id: libc::c_int,
    options: libc::c_int,
) -> io::Result<(Option<Ending>, Usage)> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both buffers outlive the call. Zero is a valid value of either, should the kernel not
    // write it.
    let (info, usage) = unsafe {
        let result = libc::syscall(
            libc::SYS_waitid,
            kind,
            id,
            info.as_mut_ptr(),
            options,
            usage.as_mut_ptr(),
        );
        checked(result as libc::c_int)?;
        (info.assume_init(), usage.assume_init())
    };
    // SAFETY: these fields are set by waitid; zero where the process still lives.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let ending = match (pid, info.si_code) {
        (0, _) => None,
        (_, libc::CLD_EXITED) => Some(Ending::Code(status)),
        (_, libc::CLD_KILLED | libc::CLD_DUMPED) => Some(Ending::Signal(status)),
        // Stopped, for a tracer: told even to those that ask for ends alone.
        _ => None,
    };
    let usage = Usage {
        user_us: microseconds(usage.ru_utime),
        system_us: microseconds(usage.ru_stime),
        max_rss_kb: usage.ru_maxrss as u64,
        max_tree_kb: 0,
    };
    Ok((ending, usage))
}

fn microseconds(time: libc::timeval) -> u64 {
    time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64
}

/// Whether a peak is clearly above our own, which never falls: mostly the one known last tells.
fn exceeds_own_peak(peak_kb: u64) -> bool {
    static OWN_PEAK_KB: AtomicU64 = AtomicU64::new(0);
    let exceeds = |own: u64| peak_kb > own + own / 8 + ROUGHLY_KB;
    exceeds(OWN_PEAK_KB.load(Ordering::Relaxed))
        && own_peak_kb().is_some_and(|own| {
            OWN_PEAK_KB.store(own, Ordering::Relaxed);
            exceeds(own)
        })
}
