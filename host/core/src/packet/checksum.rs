//! The Internet checksum, computed and updated.
//!
//! Read first: RFC 1071 (the sum and its properties), RFC 1624 section 3 (the incremental update).
//!
//! One's complement arithmetic has two zeros, 0x0000 and 0xffff, and that is where updates go
//! wrong. Three types keep it apart: a [`Sum`] over data, the [`Difference`] between two sums, and
//! the complement of a sum as it stands in a header, which is a plain `u16` that only the
//! functions here touch.

/// A running one's complement sum of 16-bit words in network order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// Adds one word.
    #[inline]
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        // 2^48 words fit before the carries run over; the longest packet has 2^15.
        Self(self.0.wrapping_add(widen(word)))
    }

    /// Adds a length or another number of up to 32 bits, high word first.
    #[inline]
    #[must_use]
    pub const fn number(self, number: u32) -> Self {
        let [a, b, c, d] = number.to_be_bytes();
        self.word(u16::from_be_bytes([a, b])).word(u16::from_be_bytes([c, d]))
    }

    /// Adds octets; an odd last one is followed by a zero octet (RFC 1071 section 1).
    #[must_use]
    pub fn octets(self, octets: &[u8]) -> Self {
        let (words, rest) = octets.as_chunks::<2>();
        let sum = words.iter().fold(self, |sum, word| sum.word(u16::from_be_bytes(*word)));
        match rest {
            [last] => sum.word(u16::from_be_bytes([*last, 0])),
            _ => sum,
        }
    }

    /// Adds the pseudo-header of a TCP segment, UDP datagram or ICMPv6 message of `length` octets
    /// between two addresses with these sums (RFC 9293 section 3.1, RFC 8200 section 8.1; both
    /// families' have the same sum).
    #[must_use]
    pub fn pseudo_header(
        self,
        source: Self,
        destination: Self,
        protocol: u8,
        length: usize,
    ) -> Self {
        self.word(source.fold())
            .word(destination.fold())
            .number(u32::try_from(length).unwrap_or(u32::MAX))
            .word(u16::from(protocol))
    }

    /// The sum in 16 bits, carries added back in. 0 only when every word was 0.
    #[inline]
    #[must_use]
    pub const fn fold(self) -> u16 {
        let [a, b, c, d, e, f, g, h] = self.0.to_be_bytes();
        let sum = widen(u16::from_be_bytes([a, b]))
            .wrapping_add(widen(u16::from_be_bytes([c, d])))
            .wrapping_add(widen(u16::from_be_bytes([e, f])))
            .wrapping_add(widen(u16::from_be_bytes([g, h])));
        let [.., e, f, g, h] = sum.to_be_bytes();
        add(u16::from_be_bytes([e, f]), u16::from_be_bytes([g, h]))
    }

    /// The checksum that belongs into a header: the complement of the sum.
    #[inline]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// Whether data that includes its own checksum is intact: the sum is one of the two zeros.
    #[must_use]
    pub const fn is_intact(self) -> bool {
        matches!(self.fold(), 0 | 0xffff)
    }
}

/// What changes in a sum when some words of the data are replaced by others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Difference(u16);

impl Difference {
    /// From words that sum to `old` to words that sum to `new`: `~m + m'` of RFC 1624 equation 3.
    #[inline]
    #[must_use]
    pub const fn between(old: Sum, new: Sum) -> Self {
        Self(add(!old.fold(), new.fold()))
    }

    /// The change back.
    #[inline]
    #[must_use]
    pub const fn inverse(self) -> Self {
        Self(!self.0)
    }

    /// This change and another one.
    #[inline]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(add(self.0, other.0))
    }

    /// The updated form of a checksum in a header: RFC 1624 equation 3,
    /// `HC' = ~(~HC + ~m + m')`.
    ///
    /// Equal to a full recomputation as long as the data was not all zero, which no header with an
    /// address in its sum is. A wrong checksum stays wrong by as much as it was.
    #[inline]
    #[must_use]
    pub const fn update(self, checksum: u16) -> u16 {
        !add(!checksum, self.0)
    }

    /// As [`update`](Self::update) for UDP over IPv4, where 0 says that there is no checksum: that
    /// stays so, and a result of 0 is sent as 0xffff (RFC 768).
    #[inline]
    #[must_use]
    pub const fn update_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        match self.update(checksum) {
            0 => 0xffff,
            updated => updated,
        }
    }
}

/// One's complement addition: the carry comes back in at the low end.
#[inline]
const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    if carry { sum.wrapping_add(1) } else { sum }
}

/// `u64::from` for constant functions.
#[inline]
#[expect(clippy::as_conversions, reason = "a widening conversion; From is not const")]
const fn widen(word: u16) -> u64 {
    word as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sum_of_the_example_of_rfc_1071() {
        let sum = Sum::default().octets(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
        assert_eq!(sum.checksum(), 0x220d);
    }

    #[test]
    fn odd_last_octet_counts_as_the_high_half_of_a_word() {
        assert_eq!(Sum::default().octets(&[1, 2, 3]).fold(), 0x0402);
    }

    /// RFC 1624 section 4: the older equation gives 0xffff here, which is the wrong zero.
    #[test]
    fn update_of_the_example_of_rfc_1624() {
        let difference =
            Difference::between(Sum::default().word(0x5555), Sum::default().word(0x3285));
        assert_eq!(difference.update(0xdd2f), 0x0000);
        assert_eq!(difference.inverse().update(0x0000), 0xdd2f);
    }

    #[test]
    fn udp_without_checksum_stays_without_and_zero_is_sent_as_all_ones() {
        let difference =
            Difference::between(Sum::default().word(0x5555), Sum::default().word(0x3285));
        assert_eq!(difference.update_udp(0), 0);
        assert_eq!(difference.update_udp(0xdd2f), 0xffff);
        assert_eq!(difference.inverse().update_udp(0xffff), 0xdd2f);
    }

    proptest! {
        /// The words around the corners 0x0000 and 0xffff are drawn far more often than chance
        /// would.
        #[test]
        fn update_equals_recomputation(
            data in proptest::collection::vec(corner_word(), 2..40),
            replacement in proptest::collection::vec(corner_word(), 1..9),
            at in any::<prop::sample::Index>(),
        ) {
            let length = replacement.len().min(data.len() - 1);
            let at = at.index(data.len() - length);
            let mut changed = data.clone();
            changed[at..at + length].copy_from_slice(&replacement[..length]);
            // Neither version may be all zero: no packet with addresses is.
            prop_assume!(data.iter().any(|word| *word != 0));
            prop_assume!(changed.iter().any(|word| *word != 0));

            let difference =
                Difference::between(sum(&data[at..at + length]), sum(&changed[at..at + length]));
            prop_assert_eq!(difference.update(sum(&data).checksum()), sum(&changed).checksum());
            prop_assert_eq!(
                difference.inverse().update(sum(&changed).checksum()),
                sum(&data).checksum()
            );
        }

        #[test]
        fn sum_by_words_equals_sum_by_octets(data in proptest::collection::vec(any::<u16>(), 0..40)) {
            let octets: Vec<u8> = data.iter().flat_map(|word| word.to_be_bytes()).collect();
            prop_assert_eq!(Sum::default().octets(&octets), sum(&data));
        }
    }

    fn corner_word() -> impl Strategy<Value = u16> {
        prop_oneof![Just(0), Just(0xffff), Just(1), Just(0xfffe), any::<u16>()]
    }

    fn sum(words: &[u16]) -> Sum {
        words.iter().fold(Sum::default(), |sum, word| sum.word(*word))
    }
}
