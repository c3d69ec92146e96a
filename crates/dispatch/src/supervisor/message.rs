//! What daemon and supervisor say to each other: one frame each, the length of it first.
//!
//! The first frame on either side, `Attach` and `Attached`, stays as it is in every version: it is how
//! two versions find out that they don't understand each other.

use std::sync::Arc;
use std::time::Duration;

use crate::codec::{Decoder, Encoder, Malformed};
use crate::executor::packing::{command, put_command};
use crate::executor::{Command, Live, Window};

/// Raised whenever an older end would misread a frame.
pub const PROTOCOL: u32 = 1;
/// The length of a frame, which stands in front of it.
pub const LENGTH_BYTES: usize = 4;
/// No frame is longer: a record of the spool and some.
pub const FRAME_BYTES_MAX: usize = 64 << 20;

/// What the daemon says.
#[derive(Debug)]
pub enum ToSupervisor {
    /// First of all: who comes.
    Attach(Attach),
    /// Run this; `tag` comes back with its end.
    Start {
        /// What is to be run.
        command: Arc<Command>,
        /// For the daemon alone.
        tag: Vec<u8>,
    },
    /// Start what waits within this window.
    Window(Window),
    /// Start none of these that still wait.
    Withdraw(Vec<u64>),
    /// TERM these, after their grace KILL.
    Cancel(Vec<u64>),
    /// KILL these.
    Kill(Vec<u64>),
    /// Live output of this one from these offsets on.
    Follow(u64, [u64; 2]),
    /// No more of it.
    Unfollow(u64),
    /// The ends of these need not be kept any more.
    Forget(Vec<u64>),
    /// Nor those of these, but somebody may want to look at them.
    SetAside(Vec<u64>),
    /// End with the last command, and take none any more.
    Stop,
}

/// How a daemon introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// The protocol it speaks.
    pub protocol: u32,
    /// Its version, for people.
    pub version: String,
    /// How long commands may go on without a daemon.
    pub orphan_timeout: Duration,
}

/// What the supervisor says.
#[derive(Debug, PartialEq, Eq)]
pub enum ToDaemon {
    /// First of all: who answers, and what is here.
    Attached(Attached),
    /// A command has ended: its record (`record`), durable or not to be had durable.
    Exit {
        /// Which command.
        key: u64,
        /// Its end.
        record: Vec<u8>,
    },
    /// Live output.
    Live {
        /// Which command.
        key: u64,
        /// 1: standard output, 2: standard error.
        stream: u8,
        /// Where it begins.
        offset: u64,
        /// The bytes.
        data: Vec<u8>,
        /// How many bytes the stream has.
        total: u64,
    },
    /// What the supervisor suffers from; empty: nothing.
    Health(String),
    /// The kernel does not end these commands, though they got KILL.
    Stuck(Vec<u64>),
    /// Of these processes can't be told which command they come from.
    Strays(Vec<u32>),
    /// This command has ended, and the disk has lost how.
    Gone(u64),
}

/// How a supervisor introduces itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// The protocol it speaks.
    pub protocol: u32,
    /// Its version, for people.
    pub version: String,
    /// What the daemon that started it called it: another one after each start.
    pub incarnation: String,
    /// Its process.
    pub pid: u32,
    /// Segments of the spool whose end was cut off, and places that were damaged, at its start.
    pub torn: u32,
    /// See `torn`.
    pub damaged: u32,
    /// All that was taken and not forgotten.
    pub held: Vec<Held>,
}

/// A command that was taken and not forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its key.
    pub key: u64,
    /// What the daemon gave along with it.
    pub tag: Vec<u8>,
    /// Whether it has ended; then its `Exit` follows.
    pub ended: bool,
}

impl ToSupervisor {
    /// The frame, its length included.
    pub(super) fn encode(&self) -> Vec<u8> {
        frame(|body| match self {
            Self::Attach(attach) => {
                body.byte(0);
                body.int(attach.protocol);
                body.bytes(attach.version.as_bytes());
                body.long(attach.orphan_timeout.as_millis() as u64);
            }
            Self::Start { command, tag } => {
                body.byte(1);
                put_command(body, command);
                body.bytes(tag);
            }
            Self::Cancel(keys) => put_keys(body, 2, keys),
            Self::Kill(keys) => put_keys(body, 3, keys),
            Self::Follow(key, offsets) => {
                body.byte(4);
                body.long(*key);
                body.long(offsets[0]);
                body.long(offsets[1]);
            }
            Self::Unfollow(key) => {
                body.byte(5);
                body.long(*key);
            }
            Self::Forget(keys) => put_keys(body, 6, keys),
            Self::SetAside(keys) => put_keys(body, 7, keys),
            Self::Stop => body.byte(8),
            Self::Window(window) => {
                body.byte(9);
                body.long(window.running as u64);
                body.long(window.until_us);
            }
            Self::Withdraw(keys) => put_keys(body, 10, keys),
        })
    }

    /// Reads a frame without its length.
    pub(super) fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut body = Decoder::new(body);
        Ok(match body.byte()? {
            0 => Self::Attach(Attach {
                protocol: body.int()?,
                version: body.text()?,
                orphan_timeout: Duration::from_millis(body.long()?),
            }),
            1 => Self::Start {
                command: Arc::new(command(&mut body)?),
                tag: body.bytes()?.to_vec(),
            },
            2 => Self::Cancel(body.list(Decoder::long)?),
            3 => Self::Kill(body.list(Decoder::long)?),
            4 => Self::Follow(body.long()?, [body.long()?, body.long()?]),
            5 => Self::Unfollow(body.long()?),
            6 => Self::Forget(body.list(Decoder::long)?),
            7 => Self::SetAside(body.list(Decoder::long)?),
            8 => Self::Stop,
            9 => Self::Window(Window {
                running: body.long()? as usize,
                until_us: body.long()?,
            }),
            10 => Self::Withdraw(body.list(Decoder::long)?),
            _ => return Err(Malformed),
        })
    }
}

impl ToDaemon {
    /// The frame, its length included.
    pub(super) fn encode(&self) -> Vec<u8> {
        frame(|body| match self {
            Self::Attached(attached) => {
                body.byte(0);
                body.int(attached.protocol);
                body.bytes(attached.version.as_bytes());
                body.bytes(attached.incarnation.as_bytes());
                body.int(attached.pid);
                body.int(attached.torn);
                body.int(attached.damaged);
                body.list(attached.held.iter(), |body, held| {
                    body.long(held.key);
                    body.bytes(&held.tag);
                    body.flag(held.ended);
                });
            }
            Self::Exit { key, record } => {
                body.byte(1);
                body.long(*key);
                body.bytes(record);
            }
            Self::Live {
                key,
                stream,
                offset,
                data,
                total,
            } => {
                body.byte(2);
                body.long(*key);
                body.byte(*stream);
                body.long(*offset);
                body.bytes(data);
                body.long(*total);
            }
            Self::Health(health) => {
                body.byte(3);
                body.bytes(health.as_bytes());
            }
            Self::Stuck(keys) => put_keys(body, 4, keys),
            Self::Strays(pids) => {
                body.byte(6);
                body.list(pids.iter(), |body, pid| body.int(*pid));
            }
            Self::Gone(key) => {
                body.byte(5);
                body.long(*key);
            }
        })
    }

    /// Reads a frame without its length.
    pub(super) fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut body = Decoder::new(body);
        Ok(match body.byte()? {
            0 => Self::Attached(Attached {
                protocol: body.int()?,
                version: body.text()?,
                incarnation: body.text()?,
                pid: body.int()?,
                torn: body.int()?,
                damaged: body.int()?,
                held: body.list(held)?,
            }),
            1 => Self::Exit {
                key: body.long()?,
                record: body.bytes()?.to_vec(),
            },
            2 => Self::Live {
                key: body.long()?,
                stream: body.byte()?,
                offset: body.long()?,
                data: body.bytes()?.to_vec(),
                total: body.long()?,
            },
            3 => Self::Health(body.text()?),
            4 => Self::Stuck(body.list(Decoder::long)?),
            6 => Self::Strays(body.list(Decoder::int)?),
            5 => Self::Gone(body.long()?),
            _ => return Err(Malformed),
        })
    }

    /// Live output, as the executor tells it.
    pub(super) fn live(live: Live) -> Self {
        Self::Live {
            key: live.key,
            stream: live.stream as u8,
            offset: live.offset,
            data: live.data,
            total: live.total,
        }
    }
}

fn frame(put: impl FnOnce(&mut Encoder)) -> Vec<u8> {
    let mut frame = Encoder::default();
    frame.int(0);
    put(&mut frame);
    let mut bytes = frame.finish();
    let length = (bytes.len() - LENGTH_BYTES) as u32;
    bytes[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    bytes
}

fn put_keys(body: &mut Encoder, kind: u8, keys: &[u64]) {
    body.byte(kind);
    body.list(keys.iter(), |body, key| body.long(*key));
}

fn held(body: &mut Decoder<'_>) -> Result<Held, Malformed> {
    Ok(Held {
        key: body.long()?,
        tag: body.bytes()?.to_vec(),
        ended: body.flag()?,
    })
}
