//! Tables of contents: catalogues equal themselves, and selections hold what they need.
#![no_main]

use std::io::Cursor;

use archive::{Pattern, Selection, list_file, read_catalogue, read_toc, select};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(toc) = read_toc(Cursor::new(bytes)) else {
        return;
    };
    let catalogue = read_catalogue(Cursor::new(bytes)).expect("the same entries were read");
    assert!(catalogue.differences(&catalogue, true).is_empty());
    for (tables, schemas) in [(&["*"][..], &[][..]), (&["t*.a?"], &["s"]), (&[], &[])] {
        let parsed = |patterns: &[&str]| -> Vec<Pattern> {
            let patterns = patterns.iter();
            patterns
                .map(|text| Pattern::parse(text).expect("a pattern"))
                .collect()
        };
        let selection = Selection {
            tables: parsed(tables),
            schemas: parsed(schemas),
            ..Selection::default()
        };
        let selected = select(&toc, &selection);
        assert_eq!(selected.ids.len(), selected.order.len());
        assert_eq!(list_file(&selected).lines().count(), selected.ids.len());
    }
});
