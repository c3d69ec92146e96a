//! System calls behind safe functions. All `unsafe` of this crate lives in this folder.
//!
//! - `attribute`: extended attributes of files.
//! - `descriptors`: pipes, event counters, in-memory files; reading without waiting.
//! - `poll`: waiting for many descriptors at once.
//! - `child`: starting a program. The one delicate piece.
//! - `memory`: what this process takes of it, and gives back.
//! - `own`: what a process can be on its own account: locked, deaf, the parent of orphans.
//! - `process`: signals to a group, learning of an end, reaping.
//!
//! Linux 5.9 or newer (`close_range`, and waiting by process descriptor).

pub mod attribute;
pub mod child;
pub mod descriptors;
pub mod memory;
pub mod own;
pub mod poll;
pub mod process;

use std::io;

/// The result of a system call that says -1 when it failed.
fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
