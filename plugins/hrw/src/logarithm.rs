//! The logarithm of a hash, in integers: the same on every machine.

/// 1 in 32 binary places.
const ONE: u64 = 1 << 32;

/// `ln 2` in 32 binary places.
const LN_2: u64 = 0xB172_17F8;

/// `-ln(hash / 2^64)` in 32 binary places: from 0 to below 2^38. All but the last few places
/// are right, and a higher hash never has a higher one.
pub(crate) fn minus_ln(hash: u64) -> u64 {
    // hash / 2^64 = m / 2^halvings with m in [1/2, 1). A hash of 0 counts as the least above it.
    let hash = hash.max(1);
    let halvings = u64::from(hash.leading_zeros());
    let m = (hash << halvings) >> 32;
    // -ln m = 2 artanh(s) with s = (1 - m) / (1 + m), which is at most 1/3.
    let s = ((ONE - m) << 32) / (ONE + m);
    let s_squared = (s * s) >> 32;
    // s + s^3/3 + s^5/5 + .., without the first factor s, from the end.
    const ODD: [u64; 8] = [15, 13, 11, 9, 7, 5, 3, 1];
    let series = ODD.iter().fold(0, |sum, odd| ONE / odd + ((sum * s_squared) >> 32));
    halvings * LN_2 + ((s * series) >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_right() {
        for hash in [
            1,
            2,
            3,
            1_000,
            1 << 31,
            0x5555_5555_5555_5555,
            1 << 63,
            (1 << 63) + 1,
            (1 << 63) - 1,
            0xC000_0000_0000_0000,
            u64::MAX - (1 << 50),
            u64::MAX - (1 << 54),
        ] {
            let exact = -((hash as f64).ln() - 64.0 * 2f64.ln());
            let found = minus_ln(hash) as f64 / 2f64.powi(32);
            assert!((found / exact - 1.0).abs() < 1e-4, "{hash:#x}: {found}, not {exact}");
        }
        assert_eq!(minus_ln(u64::MAX), 0);
        assert_eq!(minus_ln(0), minus_ln(1));
        assert!(minus_ln(0) < 1 << 38);
    }

    #[test]
    fn higher_hashes_never_have_higher_logarithms() {
        let hashes = (0..1 << 16).map(|upper: u64| upper << 48 | 0xFFFF);
        assert!(hashes.map(minus_ln).is_sorted_by(|a, b| a >= b));
    }
}
