//! Numbers of processes that were ours and are a stranger's now, which must live.
//!
//! In a namespace of processes whoever is root there says which number comes next; ours is used up by
//! nobody else. This program is its first process then, as in a container.

use std::path::Path;
use std::process::{Child, Command as Program};
use std::time::Duration;

use orqestra_dispatch::executor::Command;

use crate::harness::{Harness, dies, lives, said, shell};
use crate::leftovers::{DAEMON, kill, marked};
use crate::staying::{goes, leave};

/// Says to this program that it is in one, and which number it has outside.
const ARGUMENT: &str = "--in-namespace=";
/// The number before the next.
const LAST: &str = "/proc/sys/kernel/ns_last_pid";
/// A thread of ours may take a number first.
const ATTEMPTS: usize = 100;

/// The number of this program outside, if it is in a namespace of its own.
pub fn outside() -> Option<u32> {
    let mut arguments = std::env::args();
    arguments.find_map(|word| word.strip_prefix(ARGUMENT)?.parse().ok())
}

/// A number that no other process has, nor one in another namespace.
pub fn unique() -> u32 {
    outside().unwrap_or_else(std::process::id)
}

/// Runs this program in a namespace of its own.
pub fn enter() {
    // SAFETY: takes nothing and can't fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    let owned: &[&str] = if is_root {
        &[]
    } else {
        &["--user", "--map-root-user"]
    };
    let status = Program::new("unshare")
        .args(owned)
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(std::env::current_exe().expect("a path"))
        .arg(format!("{ARGUMENT}{}", std::process::id()))
        .status()
        .expect("unshare, of util-linux");
    assert!(status.success(), "{status}");
}

pub fn the_number_of_a_command_that_has_ended_may_be_a_strangers(harness: &mut Harness) {
    // Given
    let exit = harness.run(shell("echo $$"));
    let mut stranger = stranger(&said(&exit));
    // When: all that is known of it is used, and others end.
    harness.executor.cancel(vec![exit.key]);
    harness.executor.kill(vec![exit.key]);
    harness.run(Command {
        key: 2,
        ..shell("setsid sleep 600 >/dev/null 2>&1 & exit 0")
    });
    // Then
    survives(&mut stranger);
}

pub fn the_number_of_who_stayed_may_be_a_strangers(harness: &mut Harness) {
    // Given: one who stayed has ended, and another still stays.
    let (pid, directory) = leave(harness, 1, DAEMON);
    let (other, place) = leave(harness, 2, DAEMON);
    kill(&pid);
    // It is reaped whenever a command ends, and looked for but once a second.
    while Path::new(&format!("/proc/{pid}")).exists() {
        harness.run(Command {
            key: 3,
            ..shell("exit 0")
        });
    }
    // When
    let mut stranger = stranger(&pid);
    // Then: he is not taken for the one who stayed, neither to be spared nor to be ended.
    goes(&directory);
    kill(&other);
    goes(&place);
    harness.run(marked(3, "setsid sleep 600 >/dev/null 2>&1 & exit 0"));
    survives(&mut stranger);
}

pub fn the_number_of_who_ended_in_his_grace_may_be_a_strangers(harness: &mut Harness) {
    // Given: a command that ignores TERM, and one of its processes, elsewhere, that ends by it.
    let script = format!(
        "trap '' TERM; (trap - TERM; {DAEMON} &); read line < fifo; echo $line; exec sleep 600"
    );
    harness.start(Command {
        grace: Duration::from_secs(2),
        ..marked(1, &script)
    });
    harness.executor.follow(1, 0, 0);
    harness.until(|harness| !harness.live.is_empty());
    let pid = String::from_utf8_lossy(&harness.live[0].data)
        .trim()
        .to_owned();
    // When
    harness.executor.cancel(vec![1]);
    vanishes(&pid);
    let mut stranger = stranger(&pid);
    // Then: KILL comes for the rest.
    let exit = harness.exit();
    assert!(exit.killed, "{exit:?}");
    survives(&mut stranger);
}

/// A process that is no command's, with this number.
fn stranger(pid: &str) -> Child {
    let wanted: u32 = pid.parse().expect("a number");
    // The kernel tells when a process started in hundredths of a second: in the same one, number and start
    // are those of whoever had the number, which takes longer than that where nobody helps.
    let ended = uptime();
    while uptime() < ended + 0.02 {
        std::thread::yield_now();
    }
    for _ in 0..ATTEMPTS {
        std::fs::write(LAST, (wanted - 1).to_string()).expect("root in a namespace");
        let mut child = Program::new("sleep").arg("600").spawn().expect("a process");
        if child.id() == wanted {
            return child;
        }
        end(&mut child);
    }
    panic!("{pid} was never free");
}

fn uptime() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").expect("a time");
    let seconds = text.split(' ').next().expect("two of them");
    seconds.parse().expect("a number")
}

fn survives(stranger: &mut Child) {
    assert!(lives(&stranger.id().to_string()), "a stranger was killed");
    end(stranger);
}

fn end(child: &mut Child) {
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
}

/// Waits until a number is free.
fn vanishes(pid: &str) {
    assert!(dies(pid));
    let path = format!("/proc/{pid}");
    goes(&path);
}
