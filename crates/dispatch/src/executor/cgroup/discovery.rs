//! Where control groups can be made, if anywhere.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{entrance, remove, value};
use crate::sys::child::{self, Program, Stack, Standard};
use crate::sys::process::Ending;
use crate::sys::{attribute, descriptors, own, process};

/// How long the members of groups that somebody left have to end after their KILL.
const PATIENCE: Duration = Duration::from_secs(2);
/// The controllers that are of use, if they are to be had.
const CONTROLLERS: [&str; 2] = ["+memory", "+pids"];

/// All our groups begin so.
const PREFIX: &str = "orqestra-";
/// Where the name of a supervisor, which is a UUID, has dashes, and how long it is.
const DASHES: [usize; 4] = [8, 13, 18, 23];
const UUID_LENGTH: usize = 36;

/// A new directory `orqestra-<name>` below the group of this process, if groups can be made in it and
/// commands be put there, and the lock by which others know that it is in use. What supervisors, whose names are
/// UUIDs, have left there who hold no lock any more is killed and removed.
///
/// Starts a program to try it out.
#[must_use]
pub fn usable_cgroup(name: &str) -> Option<(PathBuf, File)> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let place = place(own_directory(&mounts, &groups)?);
    clear_abandoned(&place);
    let base = place.join(format!("{PREFIX}{name}"));
    fs::create_dir(&base).ok()?;
    let lock = lock(&base)?;
    let gives = may_give(&place).then_some(&place);
    for controller in CONTROLLERS {
        // Fails where they belong to others.
        for directory in gives.into_iter().chain([&base]) {
            fs::write(directory.join("cgroup.subtree_control"), controller).ok();
        }
    }
    if try_out(&base.join("trial")).is_ok() {
        return Some((base, lock));
    }
    clear(&base);
    None
}

/// Where groups are made: in the group of this process. If that is the place of a service's own processes in a group
/// that was handed over to it (`DelegateSubgroup` of systemd), in that one, which can give controllers away.
fn place(own: PathBuf) -> PathBuf {
    match own.parent() {
        Some(parent) if is_delegated(parent) => parent.to_owned(),
        _ => own,
    }
}

/// Whether systemd has handed a group over to who runs in it.
fn is_delegated(group: &Path) -> bool {
    let mut names = [c"user.delegate", c"trusted.delegate"].into_iter();
    names.any(|name| attribute::is(group, name, b"1"))
}

/// Whether a group may give controllers away: one without members, or the root. Another would give `pids`, which counts
/// threads as well; and then nothing can be started in the groups in it any more.
fn may_give(group: &Path) -> bool {
    let members = fs::read_to_string(group.join("cgroup.procs"));
    !group.join("cgroup.type").exists() || members.is_ok_and(|members| members.is_empty())
}

/// Clears the groups of supervisors that were killed.
fn clear_abandoned(own: &Path) {
    for entry in fs::read_dir(own).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(is_of_supervisor);
        if ours && lock(&entry.path()).is_some() {
            clear(&entry.path());
        }
    }
}

/// Whether a supervisor has made a group of this name. Somebody else's `orqestra-server` is left alone.
fn is_of_supervisor(group: &str) -> bool {
    let Some(name) = group.strip_prefix(PREFIX) else {
        return false;
    };
    let fits = |(at, sign): (usize, u8)| {
        if DASHES.contains(&at) {
            sign == b'-'
        } else {
            sign.is_ascii_hexdigit()
        }
    };
    name.len() == UUID_LENGTH && name.bytes().enumerate().all(fits)
}

/// The lock of a group, unless somebody has it.
fn lock(group: &Path) -> Option<File> {
    let directory = File::open(group).ok()?;
    own::lock(&directory)
        .is_ok_and(|locked| locked)
        .then_some(directory)
}

/// The directory of the group of this process, in the one hierarchy of version 2.
fn own_directory(mounts: &str, own: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut fields = place.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        if !kind.starts_with("cgroup2 ") {
            return None;
        }
        // In a container, only a part may be mounted.
        let below = Path::new("/").join(path);
        let below = below.strip_prefix(root).ok()?;
        Some(Path::new(point).join(below))
    })
}

/// Makes a group, runs a program in it, sees that the group can be killed, and removes it.
fn try_out(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    let group = entrance(path)?;
    let null = descriptors::null()?;
    // A thread of its own, because it must not get signals.
    let trial = thread::spawn(move || {
        process::block_signals();
        let standard = Standard {
            stdin: &null,
            stdout: &null,
            stderr: &null,
        };
        let child = child::start(
            &nothing(),
            &standard,
            Some(&group),
            &child::unusual_signals(),
            &mut Stack::new()?,
        )
        .map_err(|refusal| io::Error::from_raw_os_error(refusal.errno))?;
        match process::reap_dying(&child.process) {
            Some(Ending::Code(0)) => Ok(()),
            _ => Err(io::ErrorKind::Other.into()),
        }
    });
    let tried = trial
        .join()
        .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
    tried.and_then(|()| fs::write(path.join("cgroup.kill"), "1"))?;
    fs::remove_dir(path)
}

/// A program that every system has and that does nothing.
fn nothing() -> Program {
    let word = |text: &str| CString::new(text).unwrap_or_default();
    Program {
        paths: vec![word("/bin/true"), word("/usr/bin/true")],
        argv: vec![word("true")],
        env: Vec::new(),
        cwd: None,
        niceness: None,
        limits: Vec::new(),
        user: None,
        oom_score: None,
    }
}

/// Kills all that is in a group and removes it with the groups in it, as far as that goes.
fn clear(path: &Path) {
    if fs::write(path.join("cgroup.kill"), "1").is_err() {
        return;
    }
    let deadline = Instant::now() + PATIENCE;
    let occupied = || {
        let events = fs::read_to_string(path.join("cgroup.events")).unwrap_or_default();
        value(&events, "populated") != 0
    };
    while occupied() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    remove(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_directory_is_found_in_pure_and_mixed_systems() {
        let mixed = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/a\n0::/b/c\n";
        let expected = Path::new("/sys/fs/cgroup/unified/b/c");
        assert_eq!(own_directory(mixed, own).as_deref(), Some(expected));
        let part = "41 31 0:38 /b /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let expected = Path::new("/sys/fs/cgroup/c");
        assert_eq!(own_directory(part, own).as_deref(), Some(expected));
        assert_eq!(own_directory(mixed, "4:memory:/a\n"), None);
        assert_eq!(own_directory("", own), None);
    }

    #[test]
    fn only_what_a_supervisor_is_called_is_ever_cleared() {
        let name = "orqestra-3f0c1d52-8d5e-4b8a-9c55-0a1b2c3d4e5f";
        assert!(is_of_supervisor(name));
        for other in [
            "orqestra-server",
            "orqestra-",
            "orqestra-3f0c1d52-8d5e-4b8a-9c55-0a1b2c3d4e5g",
            "orqestra-3f0c1d52x8d5e-4b8a-9c55-0a1b2c3d4e5f",
            "orqestra-3f0c1d52-8d5e-4b8a-9c55-0a1b2c3d4e5f0",
            "3f0c1d52-8d5e-4b8a-9c55-0a1b2c3d4e5f",
        ] {
            assert!(!is_of_supervisor(other), "{other}");
        }
    }
}
