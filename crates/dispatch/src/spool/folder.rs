//! The directory of a spool: `NUMBER-SALT.spool`, both hexadecimal, and `aside/`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Nobody else's business.
const PRIVATE_DIRECTORY: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
const SUFFIX: &str = ".spool";
const ASIDE: &str = "aside";

/// The name of a segment: later ones have higher numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Which one it is.
    pub number: u64,
    /// What its frames begin with.
    pub salt: u32,
}

impl Name {
    /// The name after `number`. The salt is odd: no frame begins with a zero.
    pub fn after(number: u64) -> Self {
        let salt = RandomState::new().hash_one(number) as u32 | 1;
        Self {
            number: number + 1,
            salt,
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let (number, salt) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        Some(Self {
            number: u64::from_str_radix(number, 16).ok()?,
            salt: u32::from_str_radix(salt, 16).ok()?,
        })
    }

    fn file(self) -> String {
        format!("{:016x}-{:08x}{SUFFIX}", self.number, self.salt)
    }
}

/// An open directory.
pub struct Folder {
    path: PathBuf,
    handle: File,
}

impl Folder {
    /// Opens or makes it; when this returns, it is there for good.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(PRIVATE_DIRECTORY);
        builder.create(path.join(ASIDE))?;
        let folder = Self {
            path: path.to_path_buf(),
            handle: File::open(path)?,
        };
        folder.sync()?;
        if let Some(parent) = path.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(folder)
    }

    /// Makes the entries of the directory durable.
    pub fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    /// The segments that are there, oldest first.
    pub fn segments(&self) -> io::Result<Vec<Name>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().to_str().and_then(Name::parse));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Makes an empty segment. Its entry is durable after the next `sync`.
    pub fn create(&self, name: Name) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        options.mode(PRIVATE_FILE).open(self.path_of(name))
    }

    /// Opens a segment.
    pub fn segment(&self, name: Name) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).open(self.path_of(name))
    }

    /// Removes a segment. One that can't be removed, or comes back after a loss of power, does no
    /// harm: all that it says is known to whoever asks for it.
    pub fn remove(&self, name: Name) {
        let _ = fs::remove_file(self.path_of(name));
    }

    /// Keeps bytes for people to look at, if that is possible.
    pub fn set_aside(&self, key: u64, bytes: &[u8]) {
        let file = self.path.join(ASIDE).join(format!("{key:016x}"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        if let Ok(mut file) = options.mode(PRIVATE_FILE).open(file) {
            let _ = io::Write::write_all(&mut file, bytes);
        }
    }

    /// Removes what was set aside longer ago than that; how much is left.
    pub fn forget_aside(&self, age: Duration) -> io::Result<usize> {
        let mut left = 0;
        let now = SystemTime::now();
        for entry in fs::read_dir(self.path.join(ASIDE))? {
            let entry = entry?;
            let since = now.duration_since(entry.metadata()?.modified()?);
            if since.is_ok_and(|since| since > age) {
                fs::remove_file(entry.path())?;
            } else {
                left += 1;
            }
        }
        Ok(left)
    }

    fn path_of(&self, name: Name) -> PathBuf {
        self.path.join(name.file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let name = Name::after(41);
        assert_eq!(name.number, 42);
        assert_eq!(Name::parse(&name.file()), Some(name));
        for other in ["", "aside", "1.spool", "x-1.spool", "1-x.spool", "1-1.tmp"] {
            assert_eq!(Name::parse(other), None);
        }
    }
}
