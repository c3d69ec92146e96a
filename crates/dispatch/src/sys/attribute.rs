//! Extended attributes of files.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether a file has this attribute with this value.
pub fn is(path: &Path, name: &CStr, value: &[u8]) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // One more than is expected, so that what is longer is seen to be.
    let mut found = vec![0_u8; value.len() + 1];
    // SAFETY: both texts and the buffer outlive the call, which writes at most as much as it is told.
    let length = unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            found.as_mut_ptr().cast(),
            found.len(),
        )
    };
    usize::try_from(length).is_ok_and(|length| &found[..length] == value)
}
