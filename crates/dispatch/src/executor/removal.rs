//! Removes a directory with all in it, whatever a stranger has put there.
//!
//! Never follows a link and never leaves the file system: everything is named relative to a directory
//! that is held open, and opened only if it is a directory itself, so that it doesn't matter who renames
//! what meanwhile. Never goes deeper
//! than two levels, however deep the tree is: directories below move up to the top until none has
//! directories in it, which needs no more than two descriptors, no stack and no long path.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::sys::descriptors::subdirectory;

/// Removes `path` with all in it.
///
/// # Errors
/// Something in it can't be removed: it belongs to somebody else, or something is mounted there. All
/// else is removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let mut options = OpenOptions::new();
    let top = Folder(options.read(true).custom_flags(flags).open(path)?);
    let mut names = 0;
    // Each round takes a level off; one that removes nothing is the last.
    while top.flatten(&mut names)? {}
    fs::remove_dir(path)
}

/// A directory that is held, by a descriptor that allows nothing but to be found by.
struct Folder(File);

impl Folder {
    fn open(&self, name: &OsStr) -> io::Result<Self> {
        subdirectory(&self.0, name).map(Self)
    }

    /// The directory itself, or with a name something in it.
    fn path(&self, name: &OsStr) -> PathBuf {
        let own = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        Path::new(&own).join(name)
    }

    /// Allows us everything in it, as far as it is ours.
    fn unlock(&self) {
        fs::set_permissions(self.path(OsStr::new("")), Permissions::from_mode(0o700)).ok();
    }

    fn entries(&self) -> io::Result<fs::ReadDir> {
        let path = self.path(OsStr::new(""));
        fs::read_dir(&path).or_else(|_| {
            self.unlock();
            fs::read_dir(&path)
        })
    }

    /// Removes what can be removed; moves the directories of its directories up into it. Whether
    /// anything was removed.
    fn flatten(&self, names: &mut u64) -> io::Result<bool> {
        self.unlock();
        let mut progress = false;
        for entry in self.entries()?.flatten() {
            let name = entry.file_name();
            let path = self.path(&name);
            if fs::remove_file(&path).is_ok() {
                progress = true;
            } else if let Ok(inner) = self.open(&name) {
                inner.lift(self, names)?;
                progress |= fs::remove_dir(&path).is_ok();
            }
        }
        Ok(progress)
    }

    /// Removes the files in it and moves its directories to `top`.
    fn lift(&self, top: &Self, names: &mut u64) -> io::Result<()> {
        self.unlock();
        for entry in self.entries()?.flatten() {
            let name = entry.file_name();
            let path = self.path(&name);
            if fs::remove_file(&path).is_ok() {
                continue;
            }
            if let Ok(inner) = self.open(&name) {
                // Where it lies is written in the directory itself: to move it is to write to it.
                inner.unlock();
                Self::rise(&path, top, names);
            }
        }
        Ok(())
    }

    /// Moves a directory to `top` under a free name; stays where it is if that is not allowed.
    fn rise(path: &Path, top: &Self, names: &mut u64) {
        loop {
            *names += 1;
            let free = top.path(OsStr::new(&format!("{names}")));
            match fs::rename(path, free) {
                Err(error) if is_taken(&error) => {}
                Ok(()) | Err(_) => return,
            }
        }
    }
}

/// Whether there is something under the new name already.
fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists | ErrorKind::NotADirectory
    )
}
