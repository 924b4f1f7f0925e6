//! pgstow: back up and restore PostgreSQL wherever it runs.
fn main() {}
