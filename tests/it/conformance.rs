//! `tests/conformance.md` says where Python's tests are: they had better be there.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

#[test]
fn the_tests_that_are_named_exist() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let table = fs::read_to_string(tests.join("conformance.md")).unwrap();
    let mut sources: HashMap<&str, String> = HashMap::new();
    let mut named = 0;
    // What stands between backticks is every second piece.
    for (module, name) in table.split('`').skip(1).step_by(2).filter_map(|code| code.rsplit_once("::")) {
        if module == "module" {
            continue;
        }
        named += 1;
        let source = sources.entry(module).or_insert_with(|| {
            let path = tests.join("it").join(module.replace("::", "/")).with_extension("rs");
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        });
        assert!(source.contains(&format!("\nfn {name}()")), "there is no test {module}::{name}");
    }
    assert!(named > 60, "the table was not read");
}
