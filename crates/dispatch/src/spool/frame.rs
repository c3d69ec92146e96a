//! How entries stand in a segment, and what can be read of a segment that was cut or damaged. Pure.
//!
//! ```text
//! salt u32 | crc u32 | kind u8 | key u64 | length u32 | payload      all little-endian
//! ```
//!
//! The salt is the segment's own; the CRC covers it, the place of the frame and all that follows. So a
//! frame is one only where it was written: the bytes of a spool that a command printed, and that are
//! now the payload of a record, are never taken for records.

use super::crc::Crc;

/// What a frame adds to its payload.
pub const HEADER_BYTES: usize = 21;
/// No payload is longer.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 28;

const RECORD: u8 = 1;
const DELETED: u8 = 2;
const KEY_BYTES: usize = size_of::<u64>();

/// What a frame says.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A record and its key.
    Record(u64, &'a [u8]),
    /// The records with these keys are not wanted any more.
    Deleted(Vec<u64>),
}

/// What was read of a segment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reading<'a> {
    /// What is whole, with its place, in order.
    pub entries: Vec<(usize, Entry<'a>)>,
    /// Where the last whole frame ends.
    pub end: usize,
    /// How often something that is no frame stands before one that is.
    pub gaps: usize,
}

/// Appends the frame of a record to `buffer`, to be written at `offset`.
pub fn put_record(buffer: &mut Vec<u8>, salt: u32, offset: u64, key: u64, payload: &[u8]) {
    put(buffer, salt, offset, RECORD, key, payload);
}

/// Appends a frame that says which records are not wanted any more.
pub fn put_deleted(buffer: &mut Vec<u8>, salt: u32, offset: u64, keys: &[u64]) {
    let payload: Vec<u8> = keys.iter().flat_map(|key| key.to_le_bytes()).collect();
    put(buffer, salt, offset, DELETED, 0, &payload);
}

/// Reads all that is whole. Behind what is not, it goes on at the next frame that is.
pub fn read(salt: u32, segment: &[u8]) -> Reading<'_> {
    let mut reading = Reading::default();
    let mut at = 0;
    while let Some((entry, bytes)) = read_frame(salt, at as u64, &segment[at..]).or_else(|| {
        at = next_candidate(salt, segment, at)?;
        read_frame(salt, at as u64, &segment[at..])
    }) {
        reading.gaps += usize::from(at > reading.end);
        reading.entries.push((at, entry));
        at += bytes;
        reading.end = at;
    }
    reading
}

/// The frame that begins here and how long it is; None if there is no whole one.
pub fn read_frame(salt: u32, offset: u64, bytes: &[u8]) -> Option<(Entry<'_>, usize)> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let payload = rest.get(..number(17) as usize)?;
    if number(0) != salt || number(4) != checksum(salt, offset, &header[8..], payload) {
        return None;
    }
    let key = u64::from_le_bytes(header[9..17].try_into().expect("eight bytes"));
    let entry = match header[8] {
        RECORD => Entry::Record(key, payload),
        DELETED => {
            let keys = payload.chunks_exact(KEY_BYTES);
            let key = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
            Entry::Deleted(keys.map(key).collect())
        }
        // A checksum that is right, and a kind of a later version.
        _ => return None,
    };
    Some((entry, HEADER_BYTES + payload.len()))
}

/// The next place, behind `at`, at which a whole frame begins.
fn next_candidate(salt: u32, segment: &[u8], at: usize) -> Option<usize> {
    let places = segment.windows(4).enumerate().skip(at + 1);
    let mut places = places.filter(|(_, window)| *window == salt.to_le_bytes());
    places
        .find(|(place, _)| read_frame(salt, *place as u64, &segment[*place..]).is_some())
        .map(|(place, _)| place)
}

fn put(buffer: &mut Vec<u8>, salt: u32, offset: u64, kind: u8, key: u64, payload: &[u8]) {
    let mut covered = [kind; HEADER_BYTES - 8];
    covered[1..9].copy_from_slice(&key.to_le_bytes());
    covered[9..].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&salt.to_le_bytes());
    buffer.extend_from_slice(&checksum(salt, offset, &covered, payload).to_le_bytes());
    buffer.extend_from_slice(&covered);
    buffer.extend_from_slice(payload);
}

fn checksum(salt: u32, offset: u64, covered: &[u8], payload: &[u8]) -> u32 {
    Crc::new()
        .feed(&salt.to_le_bytes())
        .feed(&offset.to_le_bytes())
        .feed(covered)
        .feed(payload)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u32 = 0x5EED_CAFE;
    const PAYLOADS: [&[u8]; 4] = [
        b"first",
        b"",
        b"the third is longer than the others",
        b"last",
    ];

    /// A segment, and where its frames end.
    fn segment() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for (key, payload) in (1..).zip(PAYLOADS) {
            let offset = bytes.len() as u64;
            put_record(&mut bytes, SALT, offset, key, payload);
            ends.push(bytes.len());
        }
        let offset = bytes.len() as u64;
        put_deleted(&mut bytes, SALT, offset, &[2, 4]);
        ends.push(bytes.len());
        (bytes, ends)
    }

    fn written<'a>() -> Vec<Entry<'a>> {
        let records = (1..).zip(PAYLOADS);
        let records = records.map(|(key, payload)| Entry::Record(key, payload));
        records.chain([Entry::Deleted(vec![2, 4])]).collect()
    }

    fn entries(reading: Reading<'_>) -> Vec<Entry<'_>> {
        reading
            .entries
            .into_iter()
            .map(|(_, entry)| entry)
            .collect()
    }

    #[test]
    fn what_was_put_is_read() {
        let (bytes, _) = segment();
        let reading = read(SALT, &bytes);
        assert_eq!((reading.end, reading.gaps), (bytes.len(), 0));
        assert_eq!(entries(reading), written());
    }

    #[test]
    fn wherever_it_is_cut_all_before_is_there_and_nothing_else() {
        let (bytes, ends) = segment();
        for cut in 0..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let reading = read(SALT, &bytes[..cut]);
            assert_eq!(reading.end, ends[..whole].last().copied().unwrap_or(0));
            assert_eq!(reading.gaps, 0);
            assert!(entries(reading).iter().eq(written().iter().take(whole)));
        }
    }

    #[test]
    fn whatever_byte_is_changed_only_its_frame_is_missing() {
        let (bytes, ends) = segment();
        for place in 0..bytes.len() {
            let hit = ends.iter().filter(|end| **end <= place).count();
            for change in [0x01, 0x80, 0xFF] {
                let mut damaged = bytes.clone();
                damaged[place] ^= change;
                let reading = read(SALT, &damaged);
                assert_eq!(reading.gaps, usize::from(hit + 1 < ends.len()), "{place}");
                let mut expected = written();
                expected.remove(hit);
                assert_eq!(entries(reading), expected, "{place}");
            }
        }
    }

    #[test]
    fn frames_within_a_payload_are_never_records() {
        let (inner, _) = segment();
        let mut bytes = Vec::new();
        put_record(&mut bytes, SALT, 0, 7, &inner);
        let end = bytes.len() as u64;
        put_record(&mut bytes, SALT, end, 8, b"next");
        bytes[10] ^= 1;
        assert_eq!(entries(read(SALT, &bytes)), [Entry::Record(8, b"next")]);
    }

    #[test]
    fn a_segment_of_zeros_or_of_another_salt_is_empty() {
        assert_eq!(read(SALT, &[0; 4096]), Reading::default());
        assert_eq!(read(0, &[0; 4096]).entries, []);
        assert_eq!(read(SALT + 1, &segment().0), Reading::default());
    }
}
