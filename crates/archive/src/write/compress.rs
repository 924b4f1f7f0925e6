//! Compression of what is pushed in, into the pieces of a custom archive or a file's bytes.
