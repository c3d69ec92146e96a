//! Cancel, kill and stop.

use std::sync::Arc;
use std::time::Duration;

use orqestra_dispatch::executor::{Command, Ending, Reason, StartError};

use crate::harness::{Harness, command, dies, shell};

#[test]
fn what_waits_is_withdrawn_and_never_started() {
    let mut harness = Harness::new();
    let commands: Vec<_> = (0..500)
        .map(|key| {
            Arc::new(Command {
                key,
                ..command(&["true"])
            })
        })
        .collect();
    harness.executor.start(&commands).expect("free keys");
    harness.executor.cancel((250..500).rev().collect());
    harness.until(|harness| harness.exits.len() == 500);
    let last = harness
        .exits
        .iter()
        .find(|exit| exit.key == 499)
        .expect("a report");
    assert_eq!(
        (last.reason, last.ending, last.started_at_us),
        (Reason::Cancelled, None, 0)
    );
    let first = harness
        .exits
        .iter()
        .find(|exit| exit.key == 0)
        .expect("a report");
    assert_eq!(first.reason, Reason::Exited);
}

#[test]
fn kill_does_not_wait_for_the_grace() {
    let mut harness = Harness::new();
    harness.start(shell("trap '' TERM; echo ready; while :; do sleep 1; done"));
    harness.see(1, b"ready\n");
    harness.executor.cancel(vec![1]);
    harness.executor.kill(vec![1]);
    let exit = harness.exit();
    assert_eq!(
        (exit.reason, exit.ending),
        (Reason::Cancelled, Some(Ending::Signal(9)))
    );
    assert!(exit.killed && exit.wall_us < 5_000_000);
}

#[test]
fn unknown_keys_are_passed_over() {
    let mut harness = Harness::new();
    harness.executor.cancel(vec![77]);
    harness.executor.kill(vec![77]);
    harness.executor.follow(77, 0, 0);
    harness.executor.unfollow(77);
    assert_eq!(harness.run(command(&["true"])).reason, Reason::Exited);
}

#[test]
fn stop_kills_all_and_reports_all() {
    let mut harness = Harness::new();
    let script = "trap '' TERM; sleep 600 & echo $!; wait; wait";
    let commands: Vec<_> = (0..20)
        .map(|key| {
            Arc::new(Command {
                key,
                ..shell(script)
            })
        })
        .collect();
    harness.executor.start(&commands).expect("free keys");
    harness.see(0, b"");
    harness.until(|harness| !harness.live.is_empty());
    harness.executor.stop(true);
    assert_eq!(harness.executor.running(), 0);
    assert_eq!(harness.executor.start(&commands), Err(StartError::Stopped));
    harness.until(|harness| harness.exits.len() == 20);
    for exit in &harness.exits {
        assert_eq!(exit.reason, Reason::Cancelled);
        let sleeper = String::from_utf8_lossy(&exit.stdout.bytes);
        assert!(sleeper.is_empty() || dies(sleeper.trim()));
    }
}

#[test]
fn stop_without_kill_lets_commands_end() {
    let mut harness = Harness::new();
    harness.start(shell("echo ready; sleep 0.3; echo done"));
    harness.see(1, b"ready\n");
    harness.executor.stop(false);
    let exit = harness.exit();
    assert_eq!(
        (exit.reason, &exit.stdout.bytes[..]),
        (Reason::Exited, &b"ready\ndone\n"[..])
    );
}

#[test]
fn drop_kills_what_runs() {
    let mut harness = Harness::new();
    harness.start(shell("sleep 600 & echo $!; wait"));
    harness.see(1, b"");
    harness.until(|harness| harness.live.iter().any(|live| live.data.ends_with(b"\n")));
    let sleeper: Vec<u8> = harness
        .live
        .iter()
        .flat_map(|live| live.data.clone())
        .collect();
    drop(harness);
    assert!(dies(String::from_utf8_lossy(&sleeper).trim()));
}

#[test]
fn a_grace_of_none_kills_at_once() {
    let mut harness = Harness::new();
    let script = shell("trap '' TERM; echo ready; while :; do sleep 1; done");
    harness.start(Command {
        grace: Duration::ZERO,
        ..script
    });
    harness.see(1, b"ready\n");
    harness.executor.cancel(vec![1]);
    assert!(harness.exit().killed);
}

#[test]
fn what_the_kernel_does_not_end_is_told_and_keeps_its_place() {
    // Given: a command that is held between its death and its end, as by a disk that doesn't answer.
    let mut harness = Harness::new();
    harness.start(shell("echo $$; exec sleep 600"));
    harness.see(1, b"");
    harness.until(|harness| harness.live.iter().any(|live| live.data.ends_with(b"\n")));
    let said: Vec<u8> = harness.live.drain(..).flat_map(|live| live.data).collect();
    let pid: libc::pid_t = String::from_utf8_lossy(&said)
        .trim()
        .parse()
        .expect("a number");
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: traces a child of this process, and touches none of its memory.
    let held = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, none, libc::PTRACE_O_TRACEEXIT) };
    assert_eq!(held, 0, "{}", std::io::Error::last_os_error());
    // When
    harness.executor.kill(vec![1]);
    harness.until(|harness| !harness.stuck.is_empty());
    // Then
    assert_eq!((&harness.stuck[..], harness.exits.len()), (&[1][..], 0));
    assert_eq!(harness.executor.running(), 1);
    // When it is let go
    // SAFETY: as above.
    unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, none, none) };
    let exit = harness.exit();
    // Then
    assert_eq!(
        (exit.reason, exit.ending, exit.killed),
        (Reason::Cancelled, Some(Ending::Signal(9)), true)
    );
}
