//! The stack that a child runs on until its program has replaced it.

use std::io;
use std::ptr;

use crate::sys::checked;

/// Room for the frames of `inside` and of the C library's wrappers of system calls.
const STACK_BYTES: usize = 64 * 1024;
const GUARD_BYTES: usize = 64 * 1024;

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

    /// The lowest address of it.
    pub(super) fn bottom(&self) -> *mut libc::c_void {
        // SAFETY: within the mapping.
        unsafe { self.0.byte_add(GUARD_BYTES) }
    }

    /// Where a stack that grows down begins.
    pub(super) fn top(&self) -> *mut libc::c_void {
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
