//! The checksum of zlib streams over parts whose own checksums are known.
//!
//! Source of facts: RFC 1950, 8.2 and 9. The checksum holds two sums modulo 65521: of the bytes
//! (from 1), and of the first sum after each byte.

const MODULUS: u64 = 65_521;
/// Checksum of nothing.
pub(crate) const EMPTY: u32 = 1;

/// The checksum of two parts, the second of which is `second_bytes` long.
pub(crate) fn combine(first: u32, second: u32, second_bytes: u64) -> u32 {
    let halves = |adler: u32| (u64::from(adler & 0xFFFF), u64::from(adler >> 16));
    let ((sum_1, sums_1), (sum_2, sums_2)) = (halves(first), halves(second));
    // The second part began with a sum of 1 and not with that of the first.
    let ahead = (sum_1 + MODULUS - 1) % MODULUS;
    let sum = (ahead + sum_2) % MODULUS;
    let sums = (sums_1 + sums_2 + ahead * (second_bytes % MODULUS)) % MODULUS;
    // Both are below 2^16.
    u32::try_from(sums << 16 | sum).unwrap_or(0)
}

/// The checksum of a few bytes.
pub(crate) fn adler(bytes: &[u8]) -> u32 {
    let (mut sum, mut sums) = (1, 0);
    for byte in bytes {
        sum = (sum + u64::from(*byte)) % MODULUS;
        sums = (sums + sum) % MODULUS;
    }
    u32::try_from(sums << 16 | sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{EMPTY, adler, combine};

    #[test]
    fn known_checksums() {
        // Of RFC 1950's algorithm over "Wikipedia", as its article works it out.
        assert_eq!(adler(b"Wikipedia"), 0x11E6_0398);
        assert_eq!(adler(b""), EMPTY);
        let long = vec![0xFF; 400_000];
        let combined = combine(adler(&long[..7]), adler(&long[7..]), long.len() as u64 - 7);
        assert_eq!(combined, adler(&long));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn parts_give_the_checksum_of_the_whole(
            bytes in prop::collection::vec(any::<u8>(), 0..20_000),
            at in any::<prop::sample::Index>(),
        ) {
            let (first, second) = bytes.split_at(at.index(bytes.len() + 1));
            let combined = combine(adler(first), adler(second), second.len() as u64);
            prop_assert_eq!(combined, adler(&bytes));
        }
    }
}
