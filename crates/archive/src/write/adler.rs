//! The checksum of zlib streams over parts whose own checksums are known.
