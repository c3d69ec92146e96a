//! The hot path of Orqestra. This page is the table of contents.
//!
//! Pure first: these know no Python, no I/O and no clock, and `cargo test` runs them without an
//! interpreter. A job meets them in this order.
//!
//! 1. [`hint`]: how "this job may be claimable" is written.
//! 2. [`outbox`]: hints from Postgres to Redis.
//! 3. [`matcher`]: which session gets which job.
//! 4. [`wire`]: its way to the worker and back, as bytes and columns.
//! 5. [`backoff`]: when a failed attempt is followed by the next.
//!
//! Then those that touch the operating system, for a worker: [`executor`] runs commands, [`spool`] keeps
//! their results on disk, and [`supervisor`] is the process in which both live. `sys` is where they meet it.
//! They are for Linux; elsewhere workers do without (`python/orqestra/worker/portable`).
//!
//! `codec` is how values stand in the bytes that daemon, supervisor and disk exchange. [`error`] is what the pure ones answer to input that breaks their contract. [`bench`] measures how
//! fast commands could start at best. `python` holds the thin shells that make up
//! `orqestra._dispatch`; it is built with the feature of that name.

pub mod backoff;
pub mod bench;
#[cfg(target_os = "linux")]
mod codec;
pub mod error;
#[cfg(target_os = "linux")]
pub mod executor;
pub mod hint;
pub mod matcher;
pub mod outbox;
#[cfg(feature = "python")]
mod python;
#[cfg(target_os = "linux")]
pub mod spool;
#[cfg(target_os = "linux")]
pub mod supervisor;
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the system calls, and nothing else")]
mod sys;
pub mod wire;
