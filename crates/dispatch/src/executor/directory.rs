//! The private directory of a command: made before it starts, removed with all in it after its end.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, fchown, lchown};
use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

use super::command::Command;
use super::removal::remove_tree;
use crate::sys::child::User;

/// The file in it that holds the output of the previous step.
const PREVIOUS_OUTPUT: &str = "previous-output";

/// A directory that was made.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    has_previous: bool,
}

impl Directory {
    /// Makes the directory that a command asks for, if it does, for its user alone.
    pub fn make(command: &Command) -> io::Result<Option<Self>> {
        let Some(path) = &command.directory else {
            return Ok(None);
        };
        let path = PathBuf::from(std::ffi::OsString::from_vec(path.clone()));
        DirBuilder::new().mode(0o700).create(&path)?;
        let mut directory = Self {
            path,
            has_previous: false,
        };
        match directory.fill(command) {
            Ok(()) => Ok(Some(directory)),
            Err(error) => {
                // What we put in is all there is.
                directory.discard().ok();
                Err(error)
            }
        }
    }

    /// Removes it if nothing but what we put in is left; else gives back its path, for a `Cleaner`.
    pub fn discard(self) -> Result<(), PathBuf> {
        if self.has_previous {
            // It may be gone, or be something else by now: the next line tells.
            fs::remove_file(self.path.join(PREVIOUS_OUTPUT)).ok();
        }
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.path),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The user gets the directory last: he must not touch the file while we write it.
    fn fill(&mut self, command: &Command) -> io::Result<()> {
        let owner = command.user.as_ref();
        if let Some(output) = &command.previous_output {
            let path = self.path.join(PREVIOUS_OUTPUT);
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            self.has_previous = true;
            file.write_all(output)?;
            if let Some(User { uid, gid, .. }) = owner {
                fchown(&file, Some(*uid), Some(*gid))?;
            }
        }
        owner.map_or(Ok(()), |User { uid, gid, .. }| {
            lchown(&self.path, Some(*uid), Some(*gid))
        })
    }
}

/// Removes directories on a thread of its own, for those that hold much.
pub struct Cleaner {
    paths: Option<Sender<PathBuf>>,
    thread: Option<JoinHandle<()>>,
}

impl Cleaner {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let (paths, waiting) = mpsc::channel::<PathBuf>();
        let work = move || {
            for path in waiting {
                // What can't be removed stays where it is; there is nobody to tell.
                remove_tree(&path).ok();
            }
        };
        let thread = thread::Builder::new().name("cleaner".into()).spawn(work)?;
        Ok(Self {
            paths: Some(paths),
            thread: Some(thread),
        })
    }

    /// Removes a directory with all in it, soon.
    pub fn remove(&self, path: PathBuf) {
        if let Some(paths) = &self.paths {
            // Fails only if the thread has panicked.
            paths.send(path).ok();
        }
    }
}

impl Drop for Cleaner {
    /// Waits until all is removed.
    fn drop(&mut self) {
        self.paths = None;
        self.thread.take().map(JoinHandle::join);
    }
}
