//! What commands find when they start, and why some never do.

use std::sync::Arc;

use orqestra_dispatch::executor::{Command, Ending, Exit, Reason, StartError};

use crate::harness::{Harness, command, shell};

#[test]
fn arguments_need_no_shell() {
    let exit = Harness::new().run(command(&["printf", "%s|", "a b", "$HOME", "*", "", "'\""]));
    assert_eq!(exit.stdout.bytes, b"a b|$HOME|*||'\"|");
}

#[test]
fn the_environment_is_exactly_the_given_one() {
    let env = vec![
        (b"B".to_vec(), b"1\n2".to_vec()),
        (b"A".to_vec(), b"\xff=".to_vec()),
    ];
    let exit = Harness::new().run(Command {
        env,
        ..command(&["/usr/bin/env", "-0"])
    });
    assert_eq!(exit.stdout.bytes, b"B=1\n2\0A=\xff=\0");
}

#[test]
fn exactly_three_descriptors_are_open() {
    // Descriptors that are not closed on exec, as a careless library may leave them.
    let file = std::fs::File::open("/dev/null").expect("a file");
    // SAFETY: F_DUPFD takes an integer.
    let careless =
        unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&file), libc::F_DUPFD, 50) };
    assert!(careless >= 50);
    let script = "n=0; while [ $n -lt 100 ]; do
        [ -e /proc/$$/fd/$n ] && echo $n; n=$((n+1)); done";
    let exit = Harness::new().run(shell(script));
    assert_eq!(exit.stdout.bytes, b"0\n1\n2\n");
    // SAFETY: the descriptor that was made above.
    unsafe { libc::close(careless) };
}

#[test]
fn signals_umask_and_limits_are_fresh() {
    // As Python does.
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let mut harness = Harness::new();
    let status = harness
        .run(command(&["cat", "/proc/self/status"]))
        .stdout
        .bytes;
    let status = String::from_utf8(status).expect("text");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} in {status}")).trim()
    };
    assert_eq!(field("Umask:"), "0022");
    let signals = [field("SigBlk:"), field("SigIgn:"), field("SigCgt:")];
    assert_eq!(signals, ["0000000000000000"; 3]);
    let leader = field("Pid:");
    assert_eq!([field("NSsid:"), field("NSpgid:")], [leader; 2]);
    let limits = harness.run(shell("ulimit -c; ulimit -Hc"));
    assert_eq!(limits.stdout.bytes, b"0\n0\n");
}

#[test]
fn standard_input_is_given_or_empty() {
    let mut harness = Harness::new();
    let payload: Vec<u8> = (0..1_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let exit = harness.run(Command {
        stdin: Some(payload.clone()),
        ..command(&["cat"])
    });
    assert!(exit.stdout.bytes == payload);
    let unread = harness.run(Command {
        stdin: Some(payload),
        ..command(&["true"])
    });
    assert_eq!(unread.ending, Some(Ending::Code(0)));
    assert_eq!(harness.run(command(&["cat"])).stdout.bytes, b"");
}

#[test]
fn it_runs_where_it_should() {
    let exit = Harness::new().run(Command {
        cwd: Some(b"/usr/bin".to_vec()),
        ..command(&["pwd"])
    });
    assert_eq!(exit.stdout.bytes, b"/usr/bin\n");
}

#[test]
fn what_cannot_be_run_says_why() {
    let long = "x".repeat(200_000);
    let nowhere = Command {
        cwd: Some(b"/not/there".to_vec()),
        ..command(&["true"])
    };
    let file_as_folder = Command {
        cwd: Some(b"/etc/passwd".to_vec()),
        ..command(&["true"])
    };
    for (command, stage, errno, words) in [
        (
            command(&["not-there"]),
            "exec",
            libc::ENOENT,
            "not-there (looked for in PATH /usr/bin:/bin)",
        ),
        (command(&["/not/there"]), "exec", libc::ENOENT, "/not/there"),
        (
            command(&["/etc/passwd"]),
            "exec",
            libc::EACCES,
            "cannot run /etc/passwd: Permission denied",
        ),
        (command(&["/usr"]), "exec", libc::EACCES, "/usr"),
        (
            command(&["true", &long]),
            "exec",
            libc::E2BIG,
            "Argument list too long",
        ),
        (
            nowhere,
            "cwd",
            libc::ENOENT,
            "cannot enter the working directory /not/there",
        ),
        (file_as_folder, "cwd", libc::ENOTDIR, "/etc/passwd"),
        (
            command(&[]),
            "command",
            libc::EINVAL,
            "argv: there is no program",
        ),
        (
            command(&["echo", "a\0b"]),
            "command",
            libc::EINVAL,
            "argv[1]: holds a NUL byte at 1",
        ),
    ] {
        let exit = Harness::new().run(command);
        assert_eq!(
            (exit.reason, exit.ending, exit.started_at_us),
            (Reason::SpawnFailed, None, 0)
        );
        let failure = exit.failure.expect("a failure");
        assert_eq!(
            (failure.stage, failure.errno),
            (stage, errno),
            "{}",
            failure.error
        );
        assert!(failure.error.contains(words), "{}", failure.error);
    }
}

#[test]
fn a_thousand_commands_are_all_told() {
    let mut harness = Harness::new();
    let commands: Vec<_> = (0..1000)
        .map(|key| {
            Arc::new(Command {
                key,
                ..shell(&format!("echo {key}"))
            })
        })
        .collect();
    harness.executor.start(&commands).expect("free keys");
    harness.until(|harness| harness.exits.len() == 1000);
    let mut exits: Vec<Exit> = harness.exits.drain(..).collect();
    exits.sort_by_key(|exit| exit.key);
    for (key, exit) in exits.iter().enumerate() {
        assert_eq!(exit.stdout.bytes, format!("{key}\n").into_bytes());
    }
    assert_eq!(harness.executor.running(), 0);
}

#[test]
fn a_key_names_one_command_at_a_time() {
    let mut harness = Harness::new();
    harness.start(command(&["sleep", "60"]));
    let batch = [2, 1].map(|key| {
        Arc::new(Command {
            key,
            ..command(&["true"])
        })
    });
    assert_eq!(harness.executor.start(&batch), Err(StartError::Key(1)));
    assert_eq!(harness.executor.running(), 1, "none of the batch was taken");
    harness.executor.kill(vec![1]);
    harness.exit();
    assert_eq!(
        harness.run(command(&["true"])).ending,
        Some(Ending::Code(0))
    );
}
