//! The structure that `docs/architecture.md` promises: which module may import which, and where unsafe code may stand.

use std::fs;
use std::path::{Path, PathBuf};

/// From the floor up. A module may import from its own line and from the lines above it in this list.
const LAYERS: &[&[&str]] = &[
    &["error", "fork", "lock", "sync", "unwind", "current", "spin", "stack", "os"],
    &["future"],
    &["combine"],
    &["executor"],
    &["thread"],
    &["process"],
    &["lib"],
];

/// Executors do not know each other, whatever the layers would allow.
const STRANGERS: [(&str, &str); 2] = [("thread", "process"), ("process", "thread")];

/// The only files that may contain `unsafe`. Each states its invariants at its head.
const ISLANDS: &[&str] = &[
    "fork.rs",
    "future/cell.rs",
    "future/handle.rs",
    "future/park.rs",
    "future/poll.rs",
    "future/promise.rs",
    "future/remote.rs",
    "future/shared.rs",
    "future/spawned.rs",
    "future/task.rs",
    "future/unfinished.rs",
    "future/waiter.rs",
    "combine/set.rs",
    "os/cpu.rs",
    "os/fault.rs",
    "os/image.rs",
    "os/shm.rs",
    "os/socket.rs",
    "process/body.rs",
    "process/call.rs",
    "process/start.rs",
    "process/transport/models.rs",
    "process/transport/ring.rs",
    "process/worker/entry.rs",
    "process/worker/serve.rs",
    "process/worker/watch.rs",
    "stack.rs",
    "thread/join.rs",
    "thread/scope.rs",
    "thread/worker.rs",
];

fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, to: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, to) } else { to.push(path) }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    assert!(paths.len() > 20, "the sources were not found");
    paths
        .into_iter()
        .map(|path| (path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
        .collect()
}

fn layer(module: &str) -> usize {
    LAYERS.iter().position(|layer| layer.contains(&module)).unwrap_or_else(|| panic!("{module} is in no layer"))
}

fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn modules_import_only_from_below() {
    let mut imports = 0;
    for (file, text) in sources() {
        let module = file.split('/').next().unwrap().trim_end_matches(".rs");
        for line in code_lines(&text) {
            for import in line.split("crate::").skip(1) {
                let imported = import.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                if imported.chars().next().is_some_and(char::is_lowercase) {
                    imports += 1;
                    assert!(layer(imported) <= layer(module), "{file} imports crate::{imported}: {line}");
                    assert!(!STRANGERS.contains(&(module, imported)), "{file} imports crate::{imported}: {line}");
                }
            }
        }
    }
    assert!(imports > 50, "the imports were not found");
}

#[test]
fn unsafe_code_stands_on_its_islands_only() {
    for (file, text) in sources() {
        let allows = code_lines(&text).any(|line| line.contains("allow(unsafe_code)"));
        let island = ISLANDS.contains(&file.as_str());
        assert_eq!(allows, island, "{file}: the list of islands and the file disagree");
    }
}

/// The token of `std::thread::park` is the user's.
#[test]
fn threads_park_in_one_place() {
    for (file, text) in sources() {
        let own = file == "future/park.rs" || file.ends_with("models.rs");
        let found = code_lines(&text).find(|line| line.contains("thread::park"));
        assert!(
            own || found.is_none(),
            "{file}: every wait parks through `future/park.rs`: {}",
            found.unwrap_or_default()
        );
    }
}

/// A forked child inherits what is static, and a lock that is held by a thread which it does not have.
#[test]
fn what_is_static_and_has_a_lock_is_made_anew_in_a_forked_child() {
    const LOCKS: [&str; 7] = ["Mutex<", "RwLock<", "Condvar", "Once", "LazyLock<", "Image", "Shards<"];
    // Set before `main`, and only read from then on.
    const EXCEPTIONS: [(&str, &str); 1] = [("process/start.rs", "MAIN")];
    let mut statics = 0;
    for (file, text) in sources() {
        // Tests, and examples in documentation, are programs of their own.
        let code = text.split("#[cfg(test)]").next().unwrap().split("#[cfg(all(test").next().unwrap();
        for line in code_lines(code) {
            let Some((_, declared)) = line.split_once("static ").filter(|(_, rest)| rest.contains(": ")) else {
                continue;
            };
            let Some((name, what)) = declared.split_once(": ") else { continue };
            if name.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
                statics += 1;
                let has_lock = LOCKS.iter().any(|lock| what.contains(lock)) && !what.starts_with("PerProcess<");
                assert!(!has_lock || EXCEPTIONS.contains(&(&*file, name)), "{file}: {line}");
            }
        }
    }
    assert!(statics > 10, "the statics were not found");
}
