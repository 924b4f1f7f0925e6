//! Order-independent fingerprints: sums of strong hashes.
//!
//! A set of rows has the same fingerprint in whatever order its rows come, and a row that is
//! there twice counts twice. The fingerprint tells of changes and accidents; whoever may choose
//! all rows of a table freely and has the time for 2^40 or so hashes could make two tables with
//! the same one.

use std::fmt;
use std::str::FromStr;

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};

/// State that SHA-256 begins with (FIPS 180-4, 5.3.3).
const BEGIN: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];
/// Bytes of a block.
const BLOCK: usize = 64;
/// Bytes that the end mark and the length take in the last block.
const END: usize = 9;

/// Sum, modulo 2^128, of the first 16 bytes of the SHA-256 of each item. Held as bytes, big endian:
/// as a number each of 100,000 tables would take twice the room for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 16]);

/// Hashes an item that comes in pieces.
#[derive(Clone, Default)]
pub(crate) struct ItemHasher(Sha256);

impl Fingerprint {
    /// Adds an item.
    pub fn add(&mut self, item: &[u8]) {
        self.add_hash(hash(item));
    }

    /// Adds all items that another fingerprint was made of.
    pub fn merge(&mut self, other: Self) {
        self.add_hash(other.number());
    }

    /// Adds what was fingerprinted, where it was, to a sum that begins with the first.
    pub(crate) fn merge_some(sum: &mut Option<Self>, other: Option<Self>) {
        if let Some(other) = other {
            sum.get_or_insert_default().merge(other);
        }
    }

    fn number(self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// Adds an item by its hash.
    pub(crate) fn add_hash(&mut self, hash: u128) {
        self.0 = self.number().wrapping_add(hash).to_be_bytes();
    }
}

impl ItemHasher {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> u128 {
        first_half(&self.0.finalize())
    }
}

/// The hash that is added for an item. Rows are short, so that the hasher's own bookkeeping would
/// take as long as the hash: the blocks are made here, as FIPS 180-4 says (5.1.1).
pub(crate) fn hash(item: &[u8]) -> u128 {
    let mut state = BEGIN;
    let (blocks, rest) = item.as_chunks::<BLOCK>();
    compress256(&mut state, blocks);
    let mut last = [[0; BLOCK]; 2];
    let count = if rest.len() + END <= BLOCK { 1 } else { 2 };
    let flat = last.as_flattened_mut();
    flat[..rest.len()].copy_from_slice(rest);
    flat[rest.len()] = 0x80;
    let bits = (item.len() as u64).wrapping_mul(8).to_be_bytes();
    flat[count * BLOCK - bits.len()..count * BLOCK].copy_from_slice(&bits);
    compress256(&mut state, &last[..count]);
    state[..4]
        .iter()
        .fold(0, |sum, word| (sum << 32) | u128::from(*word))
}

fn first_half(digest: &[u8]) -> u128 {
    digest[..size_of::<u128>()]
        .iter()
        .fold(0, |sum, byte| (sum << 8) | u128::from(*byte))
}

/// 32 lower-case hexadecimal digits.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.number())
    }
}

/// A text that is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no fingerprint, which has 32 hexadecimal digits in lower case")]
pub struct NoFingerprint {
    text: String,
}

impl FromStr for Fingerprint {
    type Err = NoFingerprint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 32
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        digits
            .then(|| u128::from_str_radix(text, 16).ok())
            .flatten()
            .map(|number| Self(number.to_be_bytes()))
            .ok_or_else(|| NoFingerprint {
                text: text.chars().take(40).collect(),
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(items: &[Vec<u8>]) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        items.iter().for_each(|item| fingerprint.add(item));
        fingerprint
    }

    #[test]
    fn the_hash_is_sha_256() {
        // printf abc | sha256sum
        let abc = of(&[b"abc".to_vec()]);
        assert_eq!(abc.to_string(), "ba7816bf8f01cfea414140de5dae2223");
        assert_eq!(Fingerprint::default().to_string(), "0".repeat(32));
    }

    #[test]
    fn what_is_no_fingerprint() {
        for text in ["", "0", &"0".repeat(33), &"A".repeat(32), &"é".repeat(16)] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_length_is_hashed_as_by_the_library() {
        let bytes: Vec<u8> = (0..=255).cycle().take(700).collect();
        for length in 0..bytes.len() {
            let item = &bytes[..length];
            assert_eq!(hash(item), first_half(&Sha256::digest(item)), "{length}");
        }
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_content_does(
            items in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..90), 1..20),
            at in any::<prop::sample::Index>(),
            split in any::<prop::sample::Index>(),
        ) {
            let whole = of(&items);
            let mut reversed = items.clone();
            reversed.reverse();
            prop_assert_eq!(of(&reversed), whole);
            prop_assert_eq!(whole.to_string().parse(), Ok(whole));
            let (left, right) = items.split_at(split.index(items.len()));
            let mut merged = of(left);
            merged.merge(of(right));
            prop_assert_eq!(merged, whole);
            let mut fewer = items.clone();
            let item = fewer.remove(at.index(items.len()));
            prop_assert_ne!(of(&fewer), whole);
            fewer.push(item.clone());
            fewer.push(item);
            prop_assert_ne!(of(&fewer), whole);
        }

        #[test]
        fn pieces_do_not_matter(item in prop::collection::vec(any::<u8>(), 0..300), piece in 1_usize..100) {
            let mut hasher = ItemHasher::default();
            item.chunks(piece).for_each(|piece| hasher.push(piece));
            prop_assert_eq!(hasher.finish(), hash(&item));
        }
    }
}
