//! CRC-32C (Castagnoli), eight bytes at a step.
//!
//! Our own: the crates that offer it bring build scripts and `unsafe` for an instruction that this
//! does not need. A spool checks what a disk takes, and this is several times as fast as that.

/// The polynomial, bits reversed (RFC 3720, B.4).
const POLYNOMIAL: u32 = 0x82F6_3B78;

const TABLES: [[u32; 256]; 8] = tables();

/// The checksum of what was fed so far, beginning with none.
#[derive(Clone, Copy)]
pub struct Crc(u32);

impl Crc {
    /// Of nothing.
    pub fn new() -> Self {
        Self(!0)
    }

    /// And these bytes.
    #[must_use]
    pub fn feed(self, bytes: &[u8]) -> Self {
        let mut crc = self.0;
        let steps = bytes.chunks_exact(8);
        let rest = steps.remainder();
        for step in steps {
            let word = u64::from_le_bytes(step.try_into().expect("eight bytes")) ^ u64::from(crc);
            crc = 0;
            for (table, byte) in TABLES.iter().rev().zip(word.to_le_bytes()) {
                crc ^= table[byte as usize];
            }
        }
        for byte in rest {
            crc = TABLES[0][usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
        }
        Self(crc)
    }

    /// The checksum.
    pub fn sum(self) -> u32 {
        !self.0
    }
}

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut step = 0;
        while step < 8 * 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            step += 1;
            if step % 8 == 0 {
                tables[step / 8 - 1][byte] = crc;
            }
        }
        byte += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> u32 {
        Crc::new().feed(bytes).sum()
    }

    #[test]
    fn the_published_examples_come_out() {
        assert_eq!(of(b""), 0);
        assert_eq!(of(b"123456789"), 0xE306_9283);
        assert_eq!(of(&[0; 32]), 0x8A91_36AA);
        assert_eq!(of(&[0xFF; 32]), 0x62A8_AB43);
    }

    #[test]
    fn parts_make_the_whole_wherever_it_is_cut() {
        let bytes: Vec<u8> = (0..100).map(|number| number ^ 0xA5).collect();
        for cut in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            assert_eq!(Crc::new().feed(head).feed(tail).sum(), of(&bytes));
        }
    }
}
