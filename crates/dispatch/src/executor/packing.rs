//! A command in bytes: so it comes from the daemon, and so it waits where many do. In pieces, it takes three
//! times the memory.

use std::time::Duration;

use super::{Command, Limits, User};
use crate::codec::{Decoder, Encoder, Malformed};

/// A command in as little memory as it can be.
pub struct Packed(Box<[u8]>);

impl Packed {
    /// Packs it.
    pub fn of(packed: &Command) -> Self {
        let mut body = Encoder::default();
        put_command(&mut body, packed);
        Self(body.finish().into_boxed_slice())
    }

    /// The command.
    pub fn unpack(&self) -> Command {
        // Only `of` makes these.
        command(&mut Decoder::new(&self.0)).expect("what was packed can be unpacked")
    }
}

/// Writes a command.
pub fn put_command(body: &mut Encoder, command: &Command) {
    body.long(command.key);
    body.list(command.argv.iter(), |body, word| body.bytes(word));
    body.list(command.env.iter(), |body, (name, value)| {
        body.bytes(name);
        body.bytes(value);
    });
    body.option(command.cwd.as_ref(), |body, cwd| body.bytes(cwd));
    body.option(command.stdin.as_ref(), |body, stdin| body.bytes(stdin));
    body.option(command.timeout, |body, timeout| {
        body.long(timeout.as_millis() as u64);
    });
    body.long(command.grace.as_millis() as u64);
    body.option(command.directory.as_ref(), |body, path| body.bytes(path));
    body.option(command.previous_output.as_ref(), |body, output| {
        body.bytes(output);
    });
    put_limits(body, &command.limits);
    body.option(command.user.as_ref(), |body, user| {
        body.int(user.uid);
        body.int(user.gid);
        body.list(user.groups.iter(), |body, group| body.int(*group));
    });
    body.flag(command.allow_background);
}

/// Reads a command.
pub fn command(body: &mut Decoder<'_>) -> Result<Command, Malformed> {
    let owned = |body: &mut Decoder<'_>| body.bytes().map(<[u8]>::to_vec);
    Ok(Command {
        key: body.long()?,
        argv: body.list(owned)?,
        env: body.list(|body| Ok((owned(body)?, owned(body)?)))?,
        cwd: body.option(owned)?,
        stdin: body.option(owned)?,
        timeout: body.option(Decoder::long)?.map(Duration::from_millis),
        grace: Duration::from_millis(body.long()?),
        directory: body.option(owned)?,
        previous_output: body.option(owned)?,
        limits: limits(body)?,
        user: body.option(|body| {
            Ok(User {
                uid: body.int()?,
                gid: body.int()?,
                groups: body.list(Decoder::int)?,
            })
        })?,
        allow_background: body.flag()?,
    })
}

fn put_limits(body: &mut Encoder, limits: &Limits) {
    body.option(limits.nice, Encoder::signed);
    for bound in [
        limits.open_files,
        limits.file_bytes,
        limits.cpu_seconds,
        limits.address_space_bytes,
        limits.memory_bytes,
        limits.processes,
    ] {
        body.option(bound, Encoder::long);
    }
}

fn limits(body: &mut Decoder<'_>) -> Result<Limits, Malformed> {
    let bound = |body: &mut Decoder<'_>| body.option(Decoder::long);
    Ok(Limits {
        nice: body.option(Decoder::signed)?,
        open_files: bound(body)?,
        file_bytes: bound(body)?,
        cpu_seconds: bound(body)?,
        address_space_bytes: bound(body)?,
        memory_bytes: bound(body)?,
        processes: bound(body)?,
    })
}
