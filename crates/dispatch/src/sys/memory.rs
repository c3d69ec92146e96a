//! What this process takes of the machine's memory.

use std::fs;

/// Gives back what is mapped from files and was never written to, and counts the peak anew from there. What is
/// still needed comes back from the kernel's cache, page by page.
///
/// A process that has loaded an interpreter which it does not use any more takes less than half from then on.
pub fn give_back_files() {
    let Ok(maps) = fs::read_to_string("/proc/self/smaps") else {
        return;
    };
    for (start, bytes) in unwritten_files(&maps) {
        // SAFETY: no page of the mapping was written to, and none can be: what is read there next is what the file
        // has there, as before.
        unsafe { libc::madvise(start as *mut libc::c_void, bytes, libc::MADV_DONTNEED) };
    }
    // 5: its peak becomes what it has now. Without it the peak stays, which is no harm.
    fs::write("/proc/self/clear_refs", "5").ok();
}

/// The most memory that this process has had since it was executed, or since it gave some back.
///
/// `getrusage` would tell more: it counts whoever executed this process as well.
pub fn own_peak_kb() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| kilobytes(line, "VmHWM:"))
}

/// Start and length of each mapping of a file that can't be written to, and has not been: where the linker resolved
/// addresses, and forbade writing afterwards, there are pages that no file has.
fn unwritten_files(maps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in maps.lines() {
        if let Some(mapping) = mapping(line) {
            candidate = mapping.is_file.then_some((mapping.start, mapping.bytes));
        } else if kilobytes(line, "Anonymous:") == Some(0) {
            found.extend(candidate.take());
        }
    }
    found
}

struct Mapping {
    start: usize,
    bytes: usize,
    /// Of a file, private, and not to be written to.
    is_file: bool,
}

/// A line that begins a mapping: `START-END rwxp OFFSET DEVICE INODE PATH`, addresses in hexadecimal.
fn mapping(line: &str) -> Option<Mapping> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let (rights, inode) = (words.next()?, words.nth(2)?);
    let address = |word| usize::from_str_radix(word, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    Some(Mapping {
        start,
        bytes: end - start,
        is_file: inode != "0" && matches!(rights, "r--p" | "r-xp"),
    })
}

/// The figure of a line of this name.
fn kilobytes(line: &str, name: &str) -> Option<u64> {
    let (figure, unit) = line.strip_prefix(name)?.trim().split_once(' ')?;
    (unit == "kB").then(|| figure.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
7f10-7f30 r-xp 00001000 fe:00 4242                       /usr/lib/libsome.so
Rss:                   8 kB
Anonymous:             0 kB
7f30-7f40 r--p 00003000 fe:00 4242                       /usr/lib/libsome.so
Anonymous:             4 kB
7f40-7f50 rw-p 00004000 fe:00 4242                       /usr/lib/libsome.so
Anonymous:             0 kB
7f50-7f60 r--s 00000000 fe:00 4243                       /var/shared
Anonymous:             0 kB
7f60-7f70 r--p 00000000 00:00 0                          [vvar]
Anonymous:             0 kB
7f70-7f90 r--p 00000000 fe:00 4244                       /usr/share/table of some kind
Anonymous:             0 kB
";

    #[test]
    fn only_what_the_file_still_has_is_given_back() {
        assert_eq!(unwritten_files(MAPS), [(0x7f10, 0x20), (0x7f70, 0x20)]);
    }

    #[test]
    fn what_is_used_again_is_there_again() {
        let before: u64 = MAPS.bytes().map(u64::from).sum();
        give_back_files();
        assert_eq!(MAPS.bytes().map(u64::from).sum::<u64>(), before);
        assert!(own_peak_kb().is_some_and(|peak| peak > 0));
    }
}
