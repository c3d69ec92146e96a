//! TERM and KILL for all processes of a command.

use std::time::{Duration, Instant};

use orqestra_dispatch::executor::{Command, Reason};

use crate::harness::{Harness, dies, said};
use crate::leftovers::{DAEMON, marked};

/// A daemon that says when it has TERM, and one that doesn't care.
const POLITE: &str = "(setsid sh -c 'trap \"echo bye; exit\" TERM; echo > fifo; while :; do sleep 0.02; done' &); read line < fifo";
const STUBBORN: &str = "(setsid sh -c 'trap \"\" TERM; echo $$ > fifo; while :; do sleep 0.02; done' >/dev/null 2>&1 &); read line < fifo";

pub fn term_reaches_who_left_the_group(harness: &mut Harness) {
    harness.start(marked(1, &format!("{POLITE}; echo ready; exec sleep 600")));
    let exit = cancel(harness);
    assert_eq!((exit.reason, exit.killed), (Reason::Cancelled, false));
    assert_eq!(exit.stdout.bytes, b"ready\nbye\n");
    assert_eq!((exit.killed_processes, exit.left_processes), (0, 0));
}

pub fn who_outlasts_his_grace_outside_the_group_is_killed(harness: &mut Harness) {
    // The main process obeys: it did not outlast anything.
    harness.start(Command {
        grace: Duration::from_millis(300),
        ..marked(1, &format!("{STUBBORN}; echo ready; exec sleep 600"))
    });
    let start = Instant::now();
    let exit = cancel(harness);
    assert_eq!((exit.reason, exit.killed), (Reason::Cancelled, true));
    assert!(
        exit.killed_processes >= 1 && exit.left_processes == 0,
        "{exit:?}"
    );
    assert!(start.elapsed() >= Duration::from_millis(300));
}

pub fn the_grace_is_over_when_nobody_is_left(harness: &mut Harness) {
    harness.start(Command {
        grace: Duration::from_secs(60),
        ..marked(
            1,
            &format!("({DAEMON} &); read line < fifo; echo ready; exec sleep 600"),
        )
    });
    let exit = cancel(harness);
    assert_eq!((exit.killed, exit.killed_processes), (false, 0), "{exit:?}");
}

pub fn kill_reaches_all_at_once(harness: &mut Harness) {
    harness.start(marked(
        1,
        &format!("{STUBBORN}; echo $line; exec sleep 600"),
    ));
    harness.see(1, b"");
    harness.until(|harness| !harness.live.is_empty());
    harness.executor.kill(vec![1]);
    let exit = harness.exit();
    assert_eq!((exit.reason, exit.killed), (Reason::Cancelled, true));
    assert!(exit.killed_processes >= 1, "{exit:?}");
    assert!(dies(&said(&exit)));
}

/// Cancels a command that has said so when it was ready.
fn cancel(harness: &mut Harness) -> orqestra_dispatch::executor::Exit {
    harness.see(1, b"ready\n");
    harness.executor.cancel(vec![1]);
    harness.exit()
}
