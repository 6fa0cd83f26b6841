//! `tests/conformance.md` says where Python's tests are, and `tests/cases.md` where those of situations that went wrong once are: they
//! had better be there.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// Checks that every test that the table names exists; returns how many it names.
fn named_tests_exist(table: &str) -> usize {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let table = fs::read_to_string(tests.join(table)).unwrap();
    let mut sources: HashMap<&str, String> = HashMap::new();
    let mut named = 0;
    // What stands between backticks is every second piece.
    for (module, name) in table.split('`').skip(1).step_by(2).filter_map(|code| code.rsplit_once("::")) {
        // Other code than names of tests may stand there as well.
        let is_path =
            |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c));
        if module == "module" || !is_path(module) || !is_path(name) {
            continue;
        }
        named += 1;
        let source = sources.entry(module).or_insert_with(|| {
            let path = tests.join("it").join(module.replace("::", "/")).with_extension("rs");
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        });
        assert!(source.contains(&format!("\nfn {name}()")), "there is no test {module}::{name}");
    }
    named
}

#[test]
fn the_tests_that_are_named_exist() {
    assert!(named_tests_exist("conformance.md") > 60, "the table was not read");
}

#[test]
fn the_tests_of_cases_exist() {
    named_tests_exist("cases.md");
}
