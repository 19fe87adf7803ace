//! A form for [`State`](crate::State): 64-bit words behind a mark.

use alloc::vec::Vec;

/// The octets of `words` behind `mark`, which names the scheduler and the form's version.
pub fn to_octets(mark: [u8; 4], words: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let mut octets = mark.to_vec();
    for word in words {
        octets.extend_from_slice(&word.to_le_bytes());
    }
    octets
}

/// The words behind `mark`; `None` when the octets begin with another one or end within a word.
#[must_use]
pub fn from_octets(mark: [u8; 4], octets: &[u8]) -> Option<impl Iterator<Item = u64>> {
    let (words, []) = octets.strip_prefix(&mark)?.as_chunks::<8>() else { return None };
    Some(words.iter().map(|word| u64::from_le_bytes(*word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_from_their_octets() {
        let octets = to_octets(*b"rr 1", [1, u64::MAX]);
        assert_eq!(octets, b"rr 1\x01\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff");
        let words = from_octets(*b"rr 1", &octets).unwrap();
        assert_eq!(words.collect::<Vec<_>>(), [1, u64::MAX]);
    }

    #[test]
    fn other_marks_and_halves_of_words_are_refused() {
        for octets in [&b"rr 2"[..], b"", b"rr", b"rr 1\0\0\0"] {
            assert!(from_octets(*b"rr 1", octets).is_none(), "{octets:?}");
        }
    }
}
