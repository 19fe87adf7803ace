//! SipHash-1-3 (Aumasson, Bernstein 2012) of one word, as LVS uses it.

/// One of the two hashes that the table is built by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hash {
    key: u64,
}

/// Where a search begins.
pub(crate) const FIRST: Hash = Hash { key: 2_654_435_761 };

/// How far a server's search goes on.
pub(crate) const SECOND: Hash = Hash { key: 2_654_446_892 };

impl Hash {
    /// The lower half of the SipHash-1-3 of the word's four octets, under a key of twice the same.
    pub(crate) fn of(self, word: u32) -> u32 {
        // The last, incomplete block: its octets, and the message's length on top.
        let block = 4 << 56 | u64::from(word);
        let mut state = [
            self.key ^ 0x736f_6d65_7073_6575,
            self.key ^ 0x646f_7261_6e64_6f6d,
            self.key ^ 0x6c79_6765_6e65_7261,
            self.key ^ 0x7465_6462_7974_6573,
        ];
        state[3] ^= block;
        round(&mut state);
        state[0] ^= block;
        state[2] ^= 0xFF;
        for _ in 0..3 {
            round(&mut state);
        }
        let hash = state[0] ^ state[1] ^ state[2] ^ state[3];
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
        let hash = hash as u32;
        hash
    }
}

fn round([a, b, c, d]: &mut [u64; 4]) {
    *a = a.wrapping_add(*b);
    *b = b.rotate_left(13) ^ *a;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*d);
    *d = d.rotate_left(16) ^ *c;
    *a = a.wrapping_add(*d);
    *d = d.rotate_left(21) ^ *a;
    *c = c.wrapping_add(*b);
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_the_hashes_they_have_in_lvs() {
        assert_eq!(FIRST.of(0x0A00_0001), 0x0308_0CE4);
        assert_eq!(FIRST.of(0x0A00_0002), 0x41CF_DE13);
        assert_eq!(FIRST.of(0xC000_0201), 0x9288_9C88);
    }
}
