//! `docs/reliability.md` names every test of a bar line, and no test that is not there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
}

/// Words that start with `bar_` and a digit.
fn names(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| {
            word.strip_prefix("bar_")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
        .map(str::to_owned)
}

fn tests_below(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).expect("a folder of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            let functions = text.lines().filter_map(|line| {
                line.trim_start()
                    .trim_start_matches("async ")
                    .strip_prefix("fn ")
            });
            found.extend(functions.flat_map(|line| names(line).take(1).collect::<Vec<_>>()));
        }
    }
}

#[test]
fn the_page_and_the_tests_agree() {
    let page = fs::read_to_string(root().join("docs/reliability.md")).expect("the page");
    let on_page: BTreeSet<String> = names(&page).collect();
    let mut in_code = BTreeSet::new();
    tests_below(&root().join("crates"), &mut in_code);
    assert!(
        in_code.len() > 50,
        "only {} tests were found",
        in_code.len()
    );
    let unknown: Vec<_> = on_page.difference(&in_code).collect();
    let missing: Vec<_> = in_code.difference(&on_page).collect();
    assert!(
        unknown.is_empty(),
        "on the page, but not in the code: {unknown:?}"
    );
    assert!(
        missing.is_empty(),
        "in the code, but not on the page: {missing:?}"
    );
}
