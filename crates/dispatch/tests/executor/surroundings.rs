//! Private directories, other users, limits of the single process.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Instant;

use orqestra_dispatch::executor::{Command, Ending, Limits, Reason, User, remove_tree};

use crate::harness::{Harness, PATIENCE, command, shell};

/// Exists everywhere, and nothing is his.
const NOBODY: User = User {
    uid: 65534,
    gid: 65534,
    groups: Vec::new(),
};

#[test]
fn a_private_directory_is_made_and_removed() {
    let place = Place::new("made");
    let inside = Command {
        previous_output: Some(b"a\0b".to_vec()),
        ..place.command("stat -c '%a %u' . previous-output; cat $ORQESTRA_PREVIOUS_OUTPUT_FILE")
    };
    let exit = Harness::new().run(inside);
    let own = uid();
    let expected = format!("700 {own}\n600 {own}\na\0b");
    assert_eq!(exit.stdout.bytes, expected.as_bytes());
    place.is_gone();
}

#[test]
fn an_empty_directory_is_used_again_and_any_other_is_not() {
    let place = Place::new("again");
    let mut harness = Harness::new();
    let mut told = |script| {
        let exit = harness.run(place.command(script));
        String::from_utf8(exit.stdout.bytes).expect("text")
    };
    let first = told("echo $TMPDIR; touch file; rm file");
    assert_eq!(told("echo $ORQESTRA_TMPDIR; chmod 755 ."), first);
    let third = told("echo $TMPDIR; touch file");
    assert_ne!(third, first, "its mode had changed");
    let fourth = told("echo $TMPDIR; ls -A");
    assert_ne!(fourth, third, "it was not empty");
    assert_eq!(fourth.lines().count(), 1, "something was left: {fourth}");
}

#[test]
fn whatever_is_in_a_directory_goes_with_it() {
    let place = Place::new("full");
    let kept = Place::new("kept");
    fs::write(kept.0.join("file"), b"kept").expect("a file");
    let script = format!(
        "ln -s {0} link; ln -s {0}/file file; mkfifo fifo; mkdir -p 1/2/3 locked/in; touch 1/2/f .hidden
        ln -s {0} 1/2/3/link; touch locked/in/x; chmod 000 locked/in locked 1/2",
        kept.0.display()
    );
    let exit = Harness::new().run(place.command(&script));
    assert_eq!(exit.ending, Some(Ending::Code(0)), "{exit:?}");
    place.is_gone();
    assert_eq!(fs::read(kept.0.join("file")).expect("untouched"), b"kept");
    let mode = fs::metadata(&kept.0).expect("a mode").permissions().mode();
    assert_ne!(mode & 0o777, 0o700, "nor was its mode");
}

#[test]
fn no_tree_is_too_deep() {
    let place = Place::new("deep");
    // More levels than most systems let a process hold open.
    let script =
        "p=$(printf 'd/%.0s' $(seq 900)); mkdir -p $p && cd $p && mkdir -p $p && touch $p/end";
    let exit = Harness::new().run(place.command(script));
    assert_eq!(exit.ending, Some(Ending::Code(0)), "{exit:?}");
    place.is_gone();
}

#[test]
fn who_is_not_root_can_remove_what_he_has_locked() {
    let place = Place::new("locked");
    fs::create_dir_all(place.0.join("a/b/c")).expect("directories");
    fs::write(place.0.join("a/b/file"), b"").expect("a file");
    for name in ["a/b/c", "a/b", "a", ""] {
        let path = place.0.join(name);
        std::os::unix::fs::chown(&path, Some(NOBODY.uid), None)
            .or_else(|error| if uid() == 0 { Err(error) } else { Ok(()) })
            .expect("root may");
        let mode = if name.is_empty() { 0o700 } else { 0 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    }
    // The top lies where nobody may remove it; what is in it, he may.
    let path = place.0.clone();
    let removed = std::thread::spawn(move || {
        // SAFETY: changes the user of this thread alone.
        unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
        remove_tree(&path).is_ok()
    });
    let removed = removed.join().expect("no panic");
    let empty = || {
        fs::read_dir(&place.0)
            .expect("a directory")
            .next()
            .is_none()
    };
    assert!(removed || empty(), "something was left");
    fs::remove_dir_all(&place.0).ok();
}

#[test]
fn a_command_that_never_ran_leaves_no_directory() {
    let place = Place::new("never");
    let exit = Harness::new().run(Command {
        argv: vec![b"/not/there".to_vec()],
        previous_output: Some(b"x".to_vec()),
        ..place.command("")
    });
    assert_eq!(exit.reason, Reason::SpawnFailed);
    place.is_gone();
}

#[test]
fn a_directory_that_cannot_be_made_refuses_the_command() {
    let exit = Harness::new().run(Command {
        directory: Some(b"/proc/not-here".to_vec()),
        ..shell("true")
    });
    let failure = exit.failure.expect("a failure");
    assert_eq!(
        (failure.stage, exit.reason),
        ("directory", Reason::SpawnFailed)
    );
    assert!(
        failure.error.contains("/proc/not-here"),
        "{}",
        failure.error
    );
    let homeless = Harness::new().run(Command {
        previous_output: Some(Vec::new()),
        ..shell("true")
    });
    assert_eq!(homeless.failure.expect("a failure").stage, "command");
}

#[test]
fn a_command_runs_as_its_user_or_not_at_all() {
    let place = Place::new("user");
    let user = User {
        groups: vec![4, 5],
        ..NOBODY
    };
    let script = "grep -E '^(Uid|Gid|Groups|CapEff)' /proc/self/status; stat -c '%u %g %a' .;
        cat previous-output; touch mine && rm previous-output && kill -0 $PPID || echo denied";
    let exit = Harness::new().run(Command {
        user: Some(user),
        cwd: Some(place.bytes()),
        previous_output: Some(b"before\n".to_vec()),
        ..place.command(script)
    });
    if uid() != 0 {
        let failure = exit.failure.expect("only root can change the user");
        assert_eq!((failure.stage, failure.errno), ("user", libc::EPERM));
        return;
    }
    let text = String::from_utf8(exit.stdout.bytes).expect("text");
    let words: Vec<&str> = text.split_whitespace().collect();
    let nobody = ["65534"; 4].join(" ");
    let expected = format!(
        "Uid: {nobody} Gid: {nobody} Groups: 4 5 CapEff: 0000000000000000 65534 65534 700 before denied"
    );
    assert_eq!(words.join(" "), expected);
    place.is_gone();
}

#[test]
fn a_user_may_not_enter_what_only_root_may() {
    if uid() != 0 {
        return;
    }
    let place = Place::new("closed");
    fs::set_permissions(&place.0, fs::Permissions::from_mode(0o700)).expect("ours");
    let exit = Harness::new().run(Command {
        user: Some(NOBODY),
        cwd: Some(place.bytes()),
        ..shell("true")
    });
    let failure = exit.failure.expect("a failure");
    assert_eq!((failure.stage, failure.errno), ("cwd", libc::EACCES));
}

#[test]
fn limits_are_those_of_the_command() {
    let limits = Limits {
        nice: Some(7),
        open_files: Some(99),
        file_bytes: Some(512 * 1024),
        cpu_seconds: Some(30),
        address_space_bytes: Some(1 << 30),
        ..Limits::default()
    };
    let exit = Harness::new().run(Command {
        limits,
        ..command(&[
            "bash",
            "-c",
            "nice; ulimit -n; ulimit -Hn; ulimit -f; ulimit -t; ulimit -Ht; ulimit -v",
        ])
    });
    assert_eq!(exit.stdout.bytes, b"7\n99\n99\n512\n30\n31\n1048576\n");
}

#[test]
fn without_limits_descriptors_are_as_many_as_usual() {
    let exit = Harness::new().run(shell("ulimit -n; ulimit -c; ulimit -f"));
    assert_eq!(exit.stdout.bytes, b"1024\n0\nunlimited\n");
}

#[test]
fn more_than_we_have_ourselves_is_as_much_as_we_have() {
    let limits = Limits {
        open_files: Some(u64::MAX),
        ..Limits::default()
    };
    let exit = Harness::new().run(Command {
        limits,
        ..shell("ulimit -n")
    });
    let mut own = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit outlives the call.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut own) };
    assert_eq!(exit.stdout.bytes, format!("{}\n", own.rlim_max).as_bytes());
}

#[test]
fn who_writes_too_much_ends_by_his_limit() {
    let place = Place::new("large");
    let limits = Limits {
        file_bytes: Some(4096),
        ..Limits::default()
    };
    // Itself, and behind a shell.
    for script in [
        "exec head -c 9999 /dev/zero > file",
        "head -c 9999 /dev/zero > file; exit $?",
    ] {
        let exit = Harness::new().run(Command {
            limits,
            ..place.command(script)
        });
        assert_eq!(exit.reason, Reason::ResourceLimit, "{exit:?}");
        place.is_gone();
    }
    // Pipes are no files.
    let exit = Harness::new().run(Command {
        limits,
        ..shell("head -c 9999 /dev/zero")
    });
    assert_eq!((exit.reason, exit.stdout.total), (Reason::Exited, 9999));
}

#[test]
fn who_uses_the_processor_too_long_ends_by_his_limit() {
    let limits = Limits {
        cpu_seconds: Some(1),
        ..Limits::default()
    };
    for (script, signal) in [
        ("while :; do :; done", libc::SIGXCPU),
        ("trap '' XCPU; while :; do :; done", libc::SIGKILL),
    ] {
        let exit = Harness::new().run(Command {
            limits,
            ..shell(script)
        });
        assert_eq!(exit.reason, Reason::ResourceLimit, "{exit:?}");
        assert_eq!(exit.ending, Some(Ending::Signal(signal)));
    }
}

#[test]
fn whose_processes_are_counted_gets_no_more() {
    if uid() != 0 {
        return;
    }
    let user = User {
        uid: 2_000_000 + std::process::id(),
        ..NOBODY
    };
    let limits = Limits {
        processes: Some(3),
        ..Limits::default()
    };
    let exit = Harness::new().run(Command {
        user: Some(user),
        limits,
        ..shell("ulimit -p 2>/dev/null || ulimit -u; sleep 60 & sleep 60 & sleep 60 & sleep 60 & echo never")
    });
    assert_eq!(exit.stdout.bytes, b"3\n");
    assert_ne!(exit.ending, Some(Ending::Code(0)));
}

/// A directory that nobody else uses.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let name = format!("orqestra-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711)).expect("ours");
        Self(path)
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.as_os_str().as_bytes().to_vec()
    }

    /// A command that works in a directory of its own here.
    fn command(&self, script: &str) -> Command {
        Command {
            directory: Some(self.bytes()),
            ..shell(&format!("cd $TMPDIR || exit 9; {script}"))
        }
    }

    /// What is not empty is removed behind the report, the rest with the executor.
    fn is_gone(&self) {
        let deadline = Instant::now() + PATIENCE;
        while fs::read_dir(&self.0).expect("a directory").next().is_some() {
            let place = self.0.display();
            assert!(Instant::now() < deadline, "something is left in {place}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn uid() -> u32 {
    // SAFETY: takes nothing and can't fail.
    unsafe { libc::geteuid() }
}
