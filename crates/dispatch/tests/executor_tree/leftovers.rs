//! What commands leave behind when they end by themselves.

use std::path::PathBuf;

use orqestra_dispatch::executor::{Command, Ending, Exit, Limits, Reason, User};

use crate::harness::{Harness, dies, lives, said, shell};
use crate::namespace;

pub fn a_background_child_is_killed_and_counted(harness: &mut Harness) {
    let exit = harness.run(shell("sleep 600 >/dev/null 2>&1 & sleep 601 & echo $!"));
    is_killed(&exit, 2);
    assert_eq!((exit.reason, exit.killed), (Reason::Exited, false));
}

pub fn who_leaves_the_session_is_found(harness: &mut Harness) {
    let exit = harness.run(marked(1, "setsid sleep 600 >/dev/null 2>&1 & echo $!"));
    is_killed(&exit, 1);
}

pub fn who_has_forked_twice_is_found(harness: &mut Harness) {
    // Given: others that run, so that it could be anybody's.
    harness.start(marked(2, "exec sleep 600"));
    // When
    let exit = harness.run(marked(
        1,
        &format!("({DAEMON} &); read line < fifo; echo $line"),
    ));
    // Then
    is_killed(&exit, 1);
    end(harness, 2);
}

pub fn nohup_does_not_help(harness: &mut Harness) {
    let exit = harness.run(shell("nohup setsid sleep 600 >/dev/null 2>&1 & echo $!"));
    is_killed(&exit, 1);
}

pub fn who_has_cleared_his_environment_is_found_if_he_can_be_of_one_command_only(
    harness: &mut Harness,
) {
    let script = format!("(env -i {DAEMON} &); read line < fifo; echo $line");
    let exit = harness.run(marked(1, &script));
    is_killed(&exit, 1);
}

pub fn a_stray_is_told_and_dies_with_the_last_command(harness: &mut Harness) {
    // Given: two commands that it could be of.
    harness.start(marked(2, "echo here; exec sleep 600"));
    harness.see(2, b"here");
    // When
    let script = format!("(env -i {DAEMON} &); read line < fifo; echo $line");
    let exit = harness.run(marked(1, &script));
    // Then: it is told, and lives.
    assert_eq!(exit.killed_processes, 0);
    harness.until(|harness| !harness.strays.is_empty());
    assert_eq!(harness.strays.remove(0).to_string(), said(&exit));
    assert!(lives(&said(&exit)));
    // Until nothing runs.
    end(harness, 2);
    assert!(dies(&said(&exit)));
}

pub fn the_daemons_of_others_are_left_alone(harness: &mut Harness) {
    // Given: a command that runs, and its daemon.
    let script = format!("({DAEMON} &); read line < fifo; echo $line; exec sleep 600");
    harness.start(marked(2, &script));
    harness.see(2, b"");
    harness.until(|harness| harness.live.iter().any(|live| live.data.ends_with(b"\n")));
    let daemon: Vec<u8> = harness.live.drain(..).flat_map(|live| live.data).collect();
    let daemon = String::from_utf8_lossy(&daemon).trim().to_owned();
    // When: another leaves something behind.
    let exit = harness.run(marked(1, "sleep 600 >/dev/null 2>&1 & echo $!"));
    // Then
    is_killed(&exit, 1);
    assert!(lives(&daemon));
    let exit = end(harness, 2);
    assert!(exit.killed_processes >= 1 && dies(&daemon), "{exit:?}");
}

pub fn what_may_stay_stays_and_is_counted(harness: &mut Harness) {
    // Given
    let script =
        format!("({DAEMON} &); sleep 600 >/dev/null 2>&1 & read line < fifo; echo $line $!");
    let exit = harness.run(Command {
        allow_background: true,
        ..marked(1, &script)
    });
    assert_eq!((exit.left_processes, exit.killed_processes), (2, 0));
    let staying = said(&exit);
    let staying: Vec<&str> = staying.split(' ').collect();
    // When: others leave something behind, with or without a mark.
    let script = format!("(env -i {DAEMON} &); read line < fifo; echo $line");
    let stray = harness.run(marked(2, &script));
    let exit = harness.run(shell("sleep 600 >/dev/null 2>&1 & echo $!"));
    is_killed(&exit, 1);
    // Then
    assert!(staying.iter().all(|pid| lives(pid)));
    for pid in staying {
        kill(pid);
    }
    // What could have been theirs goes with them.
    assert!(stray.killed_processes == 1 || dies(&said(&stray)));
    harness.strays.clear();
}

pub fn what_may_stay_is_killed_with_a_command_that_is_cancelled(harness: &mut Harness) {
    harness.start(Command {
        allow_background: true,
        ..marked(
            1,
            "setsid sleep 600 >/dev/null 2>&1 & echo $!; exec sleep 601",
        )
    });
    harness.see(1, b"");
    harness.until(|harness| !harness.live.is_empty());
    harness.executor.cancel(vec![1]);
    let exit = harness.exit();
    assert_eq!((exit.reason, exit.left_processes), (Reason::Cancelled, 0));
    assert!(dies(&said(&exit)));
}

pub fn a_fork_bomb_has_an_end(harness: &mut Harness) {
    // Given: a real one where we can bound it, of a shell that tries again and again to fork; else one that has 255 processes.
    // SAFETY: takes nothing and can't fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    let uid = 1_000_000 + std::process::id();
    let user = is_root.then_some(User {
        uid,
        gid: uid,
        groups: Vec::new(),
    });
    let limits = Limits {
        processes: Some(300),
        ..Limits::default()
    };
    let bomb = if is_root {
        // It may choke on what it is refused, so that for a moment the one that sleeps is all there is.
        "exec bash -c 'sleep 600 & bomb() { echo lit >&2; bomb | bomb & }; bomb; exec sleep 600'"
    } else {
        "bomb() { echo lit; [ $1 = 0 ] || { bomb $(($1 - 1)) & bomb $(($1 - 1)) & }; sleep 600; }; bomb 7"
    };
    harness.start(Command {
        user,
        limits,
        ..marked(1, bomb)
    });
    harness.executor.follow(1, 0, 0);
    harness.until(|harness| {
        harness
            .live
            .iter()
            .map(|live| live.data.len())
            .sum::<usize>()
            > 100
    });
    // When
    harness.executor.kill(vec![1]);
    let exit = harness.exit();
    // Then
    assert_eq!(
        (exit.ending, exit.left_processes),
        (Some(Ending::Signal(9)), 0)
    );
    assert!(exit.killed_processes > 0);
}

/// A process that has left session and group, and wrote its number to the pipe `fifo`.
pub const DAEMON: &str = "setsid sh -c 'echo $$ > fifo; exec sleep 600' >/dev/null 2>&1 </dev/null";

/// A shell whose processes are marked as those of one job, in a directory of its own with a pipe `fifo`.
pub fn marked(key: u64, script: &str) -> Command {
    let plain = shell(&format!("cd $TMPDIR || exit 9; mkfifo fifo; {script}"));
    let marks = [("ORQESTRA_JOB_ID", key), ("ORQESTRA_FENCE", 1)];
    let marks = marks.map(|(name, value)| (name.into(), value.to_string().into_bytes()));
    Command {
        key,
        env: [&plain.env[..], &marks].concat(),
        directory: Some(place().into_os_string().into_encoded_bytes()),
        ..plain
    }
}

/// Where the directories of commands are.
pub fn place() -> PathBuf {
    let path = std::env::temp_dir().join(format!("orqestra-tree-{}", namespace::unique()));
    std::fs::create_dir_all(&path).expect("a directory");
    path
}

/// Kills a command and takes its end.
fn end(harness: &mut Harness, key: u64) -> Exit {
    harness.executor.kill(vec![key]);
    let exit = harness.exit();
    assert_eq!(exit.key, key);
    exit
}

/// It ended by itself, has written the number of a process, and this is gone, with others or not.
fn is_killed(exit: &Exit, count: u32) {
    assert_eq!(exit.ending, Some(Ending::Code(0)), "{exit:?}");
    assert_eq!(
        (exit.killed_processes, exit.left_processes),
        (count, 0),
        "{exit:?}"
    );
    assert!(!said(exit).is_empty() && !lives(&said(exit)), "{exit:?}");
}

pub fn kill(pid: &str) {
    let pid = pid.parse().expect("a number");
    // SAFETY: takes two integers; the process was made by this test.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}
