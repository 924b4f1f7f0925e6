//! Order-independent fingerprints: sums of hashes.
//!
//! A set of rows has the same fingerprint in whatever order its rows come, and a row that is
//! there twice counts twice. The fingerprint tells of accidents and differences, not of somebody who
//! chooses rows: with XXH3, which is no cryptographic hash, two tables with the same one are made
//! without effort, and with SHA-256 a sum of 128 bits asks for not many more than 2^40 hashes. What
//! is stored is protected by the SHA-256 of each file in the manifest.

use std::fmt;
use std::str::FromStr;

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};
use twox_hash::xxhash3_128::{DEFAULT_SECRET_LENGTH, Hasher, RawHasher, SecretBuffer};

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

/// The hash of the items that a fingerprint adds up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ItemHash {
    /// The first 16 bytes of SHA-256: of rows and large objects in manifests of format 1, and of
    /// what a catalogue holds.
    Sha256,
    /// XXH3 with 128 bits and without a seed: of rows and large objects.
    #[default]
    Xxh3,
}

/// Sum, modulo 2^128, of the hash of each item. Held as bytes, big endian: as a number each of
/// 100,000 tables would take twice the room for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 16]);

/// Hashes an item that comes in pieces. The states are large, and mostly no item is under way.
#[derive(Clone)]
pub(crate) enum ItemHasher {
    Sha256(Box<Sha256>),
    Xxh3(Box<RawHasher<&'static [u8; DEFAULT_SECRET_LENGTH]>>),
}

impl ItemHash {
    /// The hash that is added for an item.
    pub(crate) fn of(self, item: &[u8]) -> u128 {
        match self {
            Self::Sha256 => sha256(item),
            Self::Xxh3 => Hasher::oneshot(item),
        }
    }

    /// Its name in manifests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Xxh3 => "xxh3_128",
        }
    }
}

/// As [`ItemHash::as_str`].
impl fmt::Display for ItemHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Fingerprint {
    /// Adds an item.
    pub fn add(&mut self, hash: ItemHash, item: &[u8]) {
        self.add_hash(hash.of(item));
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
    pub(crate) fn new(hash: ItemHash) -> Self {
        match hash {
            ItemHash::Sha256 => Self::Sha256(Box::default()),
            ItemHash::Xxh3 => Self::Xxh3(Box::new(RawHasher::new(SecretBuffer::default()))),
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(state) => state.update(bytes),
            Self::Xxh3(state) => state.write(bytes),
        }
    }

    pub(crate) fn finish(self) -> u128 {
        match self {
            Self::Sha256(state) => first_half(&state.finalize()),
            Self::Xxh3(state) => state.finish_128(),
        }
    }
}

/// The first half of SHA-256. Rows are short, so that the hasher's own bookkeeping would take as long
/// as the hash: the blocks are made here, as FIPS 180-4 says (5.1.1).
fn sha256(item: &[u8]) -> u128 {
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

/// A text that names no hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rows are hashed by {text:?}, which this program does not know: use a newer pgstow")]
pub struct NoItemHash {
    text: String,
}

impl FromStr for ItemHash {
    type Err = NoItemHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Sha256, Self::Xxh3]
            .into_iter()
            .find(|hash| hash.as_str() == text)
            .ok_or_else(|| NoItemHash {
                text: text.chars().take(40).collect(),
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `xxhsum -H2` says of the bytes 0, 1, … 250, 0, 1, … of these numbers: every branch of
    /// XXH3, with its first and last length.
    const XXH3: &[(usize, &str)] = &[
        (0, "99aa06d3014798d86001c324468d497f"),
        (1, "a6cd5e9392000f6ac44bdff4074eecdb"),
        (2, "6a4a5274c1b0d3add6645fc3051a9457"),
        (3, "e3b55f57945a17cf5f4299fc161c9cbb"),
        (4, "eb70bf5fc779e9e6a6111d53e80a3db5"),
        (8, "e1e4432a62217fe4cfd50c61c8bb98c1"),
        (9, "16c769d83e4aebce907931979dca3746"),
        (16, "72950631827607e2842812cc870dcae2"),
        (17, "685bc458b37d057fc06e233df7729217"),
        (32, "25e7c9b3424ceed2457d9566b6fcd697"),
        (33, "02175c3aabb00637e08d84951339de86"),
        (64, "9c6e140a465545e590c1971ddb04ce74"),
        (65, "ebedf05eeadc28f11aee64a1615de88f"),
        (96, "c57556e9ccb97efa6e53ab55b4f5558b"),
        (97, "9b09227e063da5a25b3284a61f91e97d"),
        (128, "14792fc3af88dc6c05321a0b64d67b41"),
        (129, "dd5e74ac6b45f54ebc30b63382b09a3b"),
        (160, "4e95c1cd6dc7bb85c67fcd13c31b09f4"),
        (240, "65b5be86da5540e7c92b68e16f83bbb6"),
        (241, "1da1cb61bcb8a2a102e8cd95421c6d02"),
        (255, "65652759c081c563074191baf9c49567"),
        (512, "5884ea91ad7102d75c021aac13954143"),
        (1024, "d0ac1f7b93bf57b9e5d78bafa45b2aa5"),
        (1025, "2882ebca04ec915ce95c42288f28186e"),
        (4096, "e12cd72144990fe57135ffa504f1bc71"),
        (65537, "0924e7a3a30e818770331d53d92bbc56"),
    ];

    fn of(hash: ItemHash, items: &[Vec<u8>]) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        items.iter().for_each(|item| fingerprint.add(hash, item));
        fingerprint
    }

    fn in_pieces(hash: ItemHash, item: &[u8], piece: usize) -> u128 {
        let mut hasher = ItemHasher::new(hash);
        item.chunks(piece).for_each(|piece| hasher.push(piece));
        hasher.finish()
    }

    #[test]
    fn the_hashes_are_those_of_their_programs() {
        // printf abc | sha256sum; printf abc | xxhsum -H2
        for (hash, expected) in [
            (ItemHash::Sha256, "ba7816bf8f01cfea414140de5dae2223"),
            (ItemHash::Xxh3, "06b05ab6733a618578af5f94892f3950"),
        ] {
            assert_eq!(of(hash, &[b"abc".to_vec()]).to_string(), expected);
            assert_eq!(hash.to_string().parse(), Ok(hash));
        }
        assert_eq!(Fingerprint::default().to_string(), "0".repeat(32));
        let unknown = "xxh4".parse::<ItemHash>().unwrap_err();
        assert!(unknown.to_string().contains("newer pgstow"), "{unknown}");
    }

    #[test]
    fn xxh3_of_every_branch_at_once_and_in_pieces() {
        let bytes: Vec<u8> = (0..=250).cycle().take(65537).collect();
        for (length, expected) in XXH3 {
            let item = &bytes[..*length];
            let at_once = ItemHash::Xxh3.of(item);
            assert_eq!(format!("{at_once:032x}"), *expected, "{length}");
            for piece in [1, 7, 64, 256, 1000, 65537] {
                let pieces = in_pieces(ItemHash::Xxh3, item, piece);
                assert_eq!(pieces, at_once, "{length} in {piece}");
            }
        }
    }

    #[test]
    fn what_is_no_fingerprint() {
        for text in ["", "0", &"0".repeat(33), &"A".repeat(32), &"é".repeat(16)] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }

    #[test]
    fn sha_256_of_every_length_is_that_of_the_library() {
        let bytes: Vec<u8> = (0..=255).cycle().take(700).collect();
        for length in 0..bytes.len() {
            let item = &bytes[..length];
            let expected = first_half(&Sha256::digest(item));
            assert_eq!(ItemHash::Sha256.of(item), expected, "{length}");
        }
    }

    fn hashes() -> impl Strategy<Value = ItemHash> {
        prop::sample::select(vec![ItemHash::Sha256, ItemHash::Xxh3])
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_content_does(
            hash in hashes(),
            items in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..90), 1..20),
            at in any::<prop::sample::Index>(),
            split in any::<prop::sample::Index>(),
        ) {
            let whole = of(hash, &items);
            let mut reversed = items.clone();
            reversed.reverse();
            prop_assert_eq!(of(hash, &reversed), whole);
            prop_assert_eq!(whole.to_string().parse(), Ok(whole));
            let (left, right) = items.split_at(split.index(items.len()));
            let mut merged = of(hash, left);
            merged.merge(of(hash, right));
            prop_assert_eq!(merged, whole);
            let mut fewer = items.clone();
            let item = fewer.remove(at.index(items.len()));
            prop_assert_ne!(of(hash, &fewer), whole);
            fewer.push(item.clone());
            fewer.push(item);
            prop_assert_ne!(of(hash, &fewer), whole);
        }

        #[test]
        fn pieces_do_not_matter(
            hash in hashes(),
            item in prop::collection::vec(any::<u8>(), 0..600),
            piece in 1_usize..300,
        ) {
            prop_assert_eq!(in_pieces(hash, &item, piece), hash.of(&item));
        }
    }
}
