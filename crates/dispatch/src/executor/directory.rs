//! The private directories of commands: empty when one starts, and with nothing of it left after its end.
//!
//! To make and remove one for each command would cost more than to start it: both change the file system,
//! and wait for it while it syncs. So a directory that a command leaves as it was, empty, is the next
//! one's too; all others are removed, and so is the directory of a command that has a user of its own.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown, lchown};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use hashbrown::HashMap;

use super::command::Command;
use super::removal::remove_tree;
use crate::sys::child::User;
use crate::sys::descriptors::is_empty_directory;

/// The file that holds the output of the previous step.
const PREVIOUS_OUTPUT: &str = "previous-output";
const MODE: u32 = 0o700;
const MODE_BITS: u32 = 0o7777;

/// All of them.
#[derive(Default)]
pub struct Directories(Mutex<Rooms>);

#[derive(Default)]
struct Rooms {
    made: u64,
    /// Those that wait for a command, by the directory in which they are.
    free: HashMap<PathBuf, Vec<PathBuf>>,
}

/// The directory of a command.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    has_previous: bool,
    has_owner: bool,
}

impl Directories {
    /// A directory for a command, if it asks for one, with what it is to find there.
    pub fn take(&self, command: &Command) -> io::Result<Option<Directory>> {
        let Some(parent) = &command.directory else {
            return Ok(None);
        };
        let parent = Path::new(OsStr::from_bytes(parent));
        let has_owner = command.user.is_some();
        let free = (!has_owner).then(|| self.reuse(parent)).flatten();
        let mut directory = Directory {
            path: free.map_or_else(|| self.make(parent), Ok)?,
            has_previous: false,
            has_owner,
        };
        match directory.fill(command) {
            Ok(()) => Ok(Some(directory)),
            Err(error) => {
                // What we put in is all there is.
                fs::remove_file(directory.previous_output()).ok();
                fs::remove_dir(&directory.path).ok();
                Err(error)
            }
        }
    }

    /// Takes it back from a command that has ended; its path if it has to be removed, by a `Cleaner`.
    pub fn give_back(&self, directory: Directory) -> Result<(), PathBuf> {
        if directory.has_previous {
            // It may be gone, or be something else by now: the look below tells.
            fs::remove_file(directory.previous_output()).ok();
        }
        let Directory {
            path, has_owner, ..
        } = directory;
        if has_owner || !is_untouched(&path) {
            return match fs::remove_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(path),
                Ok(()) | Err(_) => Ok(()),
            };
        }
        let parent = path.parent().map(Path::to_owned).unwrap_or_default();
        self.rooms().free.entry(parent).or_default().push(path);
        Ok(())
    }

    /// Removes those that wait.
    pub fn remove_free(&self) {
        for path in self.rooms().free.drain().flat_map(|(_, paths)| paths) {
            fs::remove_dir(path).ok();
        }
    }

    fn reuse(&self, parent: &Path) -> Option<PathBuf> {
        self.rooms().free.get_mut(parent)?.pop()
    }

    fn make(&self, parent: &Path) -> io::Result<PathBuf> {
        loop {
            let number = {
                let mut rooms = self.rooms();
                rooms.made += 1;
                rooms.made
            };
            let path = parent.join(number.to_string());
            match DirBuilder::new().mode(MODE).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| path),
            }
        }
    }

    fn rooms(&self) -> std::sync::MutexGuard<'_, Rooms> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the output of the previous step is, if there is any.
    pub fn previous_output(&self) -> PathBuf {
        self.path.join(PREVIOUS_OUTPUT)
    }

    /// The user gets the directory last: he must not touch the file while we write it.
    fn fill(&mut self, command: &Command) -> io::Result<()> {
        let owner = command.user.as_ref();
        if let Some(output) = &command.previous_output {
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(self.previous_output())?;
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

/// Whether a directory is as it was made.
fn is_untouched(path: &Path) -> bool {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let found = OpenOptions::new().read(true).custom_flags(flags).open(path);
    found.is_ok_and(|found| {
        let as_made = found
            .metadata()
            .is_ok_and(|now| now.mode() & MODE_BITS == MODE);
        as_made && is_empty_directory(&found)
    })
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
