//! Checks archives named as arguments and prints what was found.
fn main() {
    for path in std::env::args().skip(1) {
        let file = std::fs::File::open(&path).unwrap();
        match archive::check_custom(file) {
            Ok(s) => println!("{path}: ok {} entries {} rows {} lo {}/{} stored {} {:?}", s.entries, s.tables.len(), s.rows(), s.large_objects, s.large_object_bytes, s.stored_bytes, s.header),
            Err(e) => println!("{path}: {e}"),
        }
    }
}
