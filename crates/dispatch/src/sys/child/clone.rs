//! `clone` with a stack of its own, into a cgroup if one is wanted.
//!
//! Only `clone3` can make a process in a cgroup. The C library has no function for it, and calling it
//! through `syscall` would have parent and child return over the same stack: the child would overwrite
//! what the parent returns to. Hence the few instructions here, which call `inside::run` in the child.

use std::os::fd::RawFd;

use super::{Order, Stack, inside};

/// The child borrows our memory, we sleep meanwhile, and get a descriptor of it.
const FLAGS: libc::c_int = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD;

/// As the kernel defines it; the crate's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Makes a child that runs `inside::run`: its number and its descriptor, or -1 and `errno`.
///
/// # Safety
/// The calling thread has all signals blocked.
pub(super) unsafe fn clone(order: &Order<'_>, stack: &mut Stack) -> (libc::pid_t, RawFd) {
    let mut process: RawFd = -1;
    // SAFETY: the stack is large enough and used by nobody else. CLONE_VFORK suspends this thread until
    // the child has executed its program or exited, so that `order` and what it points to outlive the
    // child's use of them. `inside::run` never returns and keeps to system calls.
    let pid = unsafe {
        libc::clone(
            inside::run,
            stack.top(),
            FLAGS | libc::SIGCHLD,
            std::ptr::from_ref(order).cast_mut().cast(),
            &raw mut process,
        )
    };
    (pid, process)
}

/// The same in the cgroup with this directory. None: the system can't do that, or doesn't let us.
///
/// # Safety
/// As for `clone`.
pub(super) unsafe fn clone_into(
    group: RawFd,
    order: &Order<'_>,
    stack: &mut Stack,
) -> Option<(libc::pid_t, RawFd)> {
    let mut process: RawFd = -1;
    // SAFETY: zero is what each field is when it is not used.
    let mut wanted: libc::clone_args = unsafe { std::mem::zeroed() };
    wanted.flags = FLAGS as u64 | CLONE_INTO_CGROUP;
    wanted.pidfd = (&raw mut process) as u64;
    wanted.exit_signal = libc::SIGCHLD as u64;
    wanted.stack = stack.bottom() as u64;
    wanted.stack_size = stack.top() as u64 - wanted.stack;
    wanted.cgroup = group as u64;
    // SAFETY: as in `clone`; the arguments outlive the call.
    let result = unsafe { clone3(&wanted, order) };
    match i32::try_from(-result) {
        Ok(errno @ (libc::EAGAIN | libc::ENOMEM)) => {
            // SAFETY: errno is ours.
            unsafe { *libc::__errno_location() = errno };
            Some((-1, -1))
        }
        Ok(1..) => None,
        Ok(_) | Err(_) => Some((result as libc::pid_t, process)),
    }
}

/// The number of the child, or a negated `errno`.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(wanted: &libc::clone_args, order: &Order<'_>) -> isize {
    let mut result = libc::SYS_clone3 as isize;
    // SAFETY: the system call changes no register but those named. In the child, the stack is empty and
    // aligned, all other registers are the parent's, and `run` does not return.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") result,
            in("rdi") std::ptr::from_ref(wanted),
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") std::ptr::from_ref(order),
            in("r13") inside::run as *const (),
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// The same for the other architecture.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(wanted: &libc::clone_args, order: &Order<'_>) -> isize {
    let result: isize;
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk 1",
            "2:",
            inlateout("x0") std::ptr::from_ref(wanted) => result,
            in("x1") size_of::<libc::clone_args>(),
            in("x8") libc::SYS_clone3,
            in("x20") std::ptr::from_ref(order),
            in("x21") inside::run as *const (),
        );
    }
    result
}

/// Others have to do without.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn clone3(_: &libc::clone_args, _: &Order<'_>) -> isize {
    -(libc::ENOSYS as isize)
}
