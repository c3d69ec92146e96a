//! Bytes that begin where a page of memory does.
//!
//! The kernel holds what is in a pipe in whole pages. Copied to 16 bytes behind the beginning of a page, which is
//! where `malloc` puts what is large, it took an AMD EPYC two and a half times as long: presumably each read of the
//! source looks to it as if it wanted what was just written, because the addresses agree in their last twelve bits.

const PAGE: usize = 4096;

/// Bytes up to a capacity that is given once.
#[derive(Default)]
pub struct Pages {
    /// Never more than was reserved, so that it stays where it is.
    buffer: Vec<u8>,
    start: usize,
}

impl Pages {
    /// Room for so many bytes, none used.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut buffer = Vec::<u8>::with_capacity(capacity + PAGE);
        let start = buffer.as_ptr().addr().wrapping_neg() % PAGE;
        buffer.resize(start, 0);
        Self { buffer, start }
    }

    /// So many zeros.
    pub fn zeroed(length: usize) -> Self {
        let mut pages = Self::with_capacity(length);
        pages.buffer.resize(pages.start + length, 0);
        pages
    }

    /// How many bytes it has room for.
    pub fn capacity(&self) -> usize {
        self.buffer.capacity().saturating_sub(PAGE)
    }

    /// Appends bytes for which there is room.
    pub fn append(&mut self, bytes: &[u8]) {
        debug_assert!(self.len() + bytes.len() <= self.capacity());
        self.buffer.extend_from_slice(bytes);
    }
}

impl std::ops::Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.start..]
    }
}

impl std::ops::DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_where_a_page_does_and_stays_there() {
        for capacity in [1, 300, 65_536, 786_432] {
            let mut pages = Pages::with_capacity(capacity);
            let start = pages.as_ptr();
            for number in 0..capacity {
                pages.append(&[number as u8]);
            }
            assert_eq!((start.addr() % PAGE, pages.as_ptr()), (0, start));
            assert_eq!(pages.len(), capacity);
            assert!(pages.iter().enumerate().all(|(at, byte)| *byte == at as u8));
        }
    }

    #[test]
    fn nothing_takes_nothing() {
        assert_eq!(
            (Pages::default().len(), Pages::default().capacity()),
            (0, 0)
        );
        assert_eq!(*Pages::zeroed(5), [0; 5]);
    }
}
