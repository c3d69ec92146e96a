//! What commands leave running because they may, and the directory that is theirs meanwhile.

use std::path::Path;
use std::time::Instant;

use orqestra_dispatch::executor::Command;

use crate::harness::{Harness, PATIENCE, dies, lives, said};
use crate::leftovers::{DAEMON, kill, marked};

pub fn what_stays_keeps_its_directory_until_it_ends(harness: &mut Harness) {
    // Given
    let (pid, directory) = leave(harness, 1, DAEMON);
    assert!(Path::new(&directory).join("fifo").exists());
    // When
    kill(&pid);
    // Then
    goes(&directory);
}

pub fn who_stays_may_leave_somebody_himself(harness: &mut Harness) {
    // Given
    let daemon = "setsid sh -c 'mkfifo gate; echo $$ > fifo; read go < gate; sleep 600 & echo $! > heir.new; \
                  mv heir.new heir' >/dev/null 2>&1 </dev/null";
    let (pid, directory) = leave(harness, 1, daemon);
    // When: he ends, and later it is looked for whoever stayed, of which that of others goes.
    std::fs::write(Path::new(&directory).join("gate"), "go\n").expect("he reads");
    assert!(dies(&pid));
    let (other, place) = leave(harness, 2, DAEMON);
    kill(&other);
    goes(&place);
    // Then
    let heir = std::fs::read_to_string(Path::new(&directory).join("heir")).expect("it stays");
    assert!(lives(heir.trim()));
    kill(heir.trim());
    goes(&directory);
}

/// Runs a command that leaves this running; its number, and where its directory is.
pub fn leave(harness: &mut Harness, key: u64, daemon: &str) -> (String, String) {
    let script = format!("({daemon} &); read line < fifo; echo $line $TMPDIR");
    let exit = harness.run(Command {
        allow_background: true,
        ..marked(key, &script)
    });
    assert_eq!(
        (exit.left_processes, exit.killed_processes),
        (1, 0),
        "{exit:?}"
    );
    let said = said(&exit);
    let (pid, directory) = said.split_once(' ').expect("both");
    (pid.to_owned(), directory.to_owned())
}

/// Waits until a directory is gone.
pub fn goes(directory: &str) {
    let deadline = Instant::now() + PATIENCE;
    while Path::new(directory).exists() {
        assert!(Instant::now() < deadline, "{directory} is left");
        std::thread::yield_now();
    }
}
