//! The structure that `docs/architecture.md` promises: which module may import which, and where unsafe code may stand.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// From the floor up. A module may import from its own line and from the lines above it in this list.
const LAYERS: &[&[&str]] = &[
    &["error", "fork", "lock", "sync", "quiet", "unwind", "current", "spin", "stack", "os"],
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
    "future/live.rs",
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
    "process/link/models.rs",
    "process/link/ring.rs",
    "process/worker/entry.rs",
    "process/worker/serve.rs",
    "process/worker/watch.rs",
    "stack.rs",
    "thread/injector.rs",
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

/// The two sides of the process pool share what lies beside them (`link`, `wire`, `call`, ...), and nothing else.
#[test]
fn parent_and_worker_do_not_import_each_other() {
    let (parent, worker) = ("process/parent/", "process/worker/");
    let imports = Imports::read();
    for side in [parent, worker] {
        assert!(imports.0.keys().any(|file| file.starts_with(side)), "the files of {side} were not found");
    }
    for (file, imported) in &imports.0 {
        for imported in imported {
            let meet = file.starts_with(parent) && imported.starts_with(worker)
                || file.starts_with(worker) && imported.starts_with(parent);
            assert!(!meet, "{file} imports {imported}");
        }
    }
}

#[test]
fn no_match_on_a_bool() {
    for (file, text) in sources() {
        let arm = code_lines(&text).find(|line| {
            let line = line.trim_start();
            ["true =>", "false =>", "true if ", "false if "].iter().any(|start| line.starts_with(start))
        });
        assert_eq!(arm, None, "{file}: `if` says which of the two is meant");
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

/// Files that import each other, directly or through others, in rooms where that has not been mended. A circle that goes has to go
/// from here as well.
const CIRCLES: &[&[&str]] = &[
    &[
        "future/inline_wait.rs",
        "future/block.rs",
        "future/cell.rs",
        "future/deadlock.rs",
        "future/handle.rs",
        "future/offload.rs",
        "future/poll.rs",
        "future/shared.rs",
        "future/spawned.rs",
        "future/task.rs",
        "future/live.rs",
    ],
    &["thread/core.rs", "thread/join.rs", "thread/registry.rs", "thread/spares.rs", "thread/worker.rs"],
];

#[test]
fn files_import_each_other_in_no_other_circle() {
    let imports = Imports::read();
    assert!(imports.0.values().map(BTreeSet::len).sum::<usize>() > 300, "the imports were not found");
    let expected: BTreeSet<BTreeSet<String>> =
        CIRCLES.iter().map(|circle| circle.iter().map(|file| (*file).to_owned()).collect()).collect();
    assert_eq!(imports.circles(), expected);
}

#[test]
fn use_trees_are_expanded() {
    let expanded = expand("super::{a, b::{self, C as D}, e::*}");
    assert_eq!(expanded, ["super::a", "super::b::self", "super::b::C", "super::e::*"]);
}

/// Which file imports which. What a module re-exports counts as the file that it comes from.
struct Imports(BTreeMap<String, BTreeSet<String>>);

impl Imports {
    fn read() -> Self {
        // Without what is for tests, which stands at the end.
        let code = |text: &str| {
            code_lines(text)
                .take_while(|line| !line.contains("cfg(test") && !line.contains("cfg(all(test"))
                .collect::<Vec<_>>()
                .join("\n")
        };
        let files: BTreeMap<Vec<String>, (String, String)> =
            sources().into_iter().map(|(file, text)| (module(&file), (file, code(&text)))).collect();
        let resolver = Resolver::new(&files);
        let found = files.iter().map(|(module, (file, text))| {
            let imported = paths(text).into_iter().filter_map(|path| resolver.file(module, &path));
            (file.clone(), imported.filter(|imported| imported != file).collect())
        });
        Self(found.collect())
    }

    fn reached_from(&self, file: &str) -> BTreeSet<String> {
        let mut reached = BTreeSet::new();
        let mut next = vec![file.to_owned()];
        while let Some(file) = next.pop() {
            for imported in self.0.get(&file).into_iter().flatten() {
                if reached.insert(imported.clone()) {
                    next.push(imported.clone());
                }
            }
        }
        reached
    }

    /// Sets of files each of which imports all others, directly or not.
    fn circles(&self) -> BTreeSet<BTreeSet<String>> {
        let reached: BTreeMap<_, _> = self.0.keys().map(|file| (file, self.reached_from(file))).collect();
        let circle = |file: &String| -> BTreeSet<String> {
            reached[file].iter().filter(|other| reached[other].contains(file)).cloned().collect()
        };
        self.0.keys().filter(|file| reached[file].contains(*file)).map(circle).collect()
    }
}

/// The path of a file's module.
fn module(file: &str) -> Vec<String> {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').filter(|name| *name != "lib").map(str::to_owned).collect()
}

struct Resolver<'a> {
    files: &'a BTreeMap<Vec<String>, (String, String)>,
    /// What is re-exported where, under which name, and its own module and name.
    exports: BTreeMap<(Vec<String>, String), (Vec<String>, String)>,
}

impl<'a> Resolver<'a> {
    fn new(files: &'a BTreeMap<Vec<String>, (String, String)>) -> Self {
        let mut resolver = Self { files, exports: BTreeMap::new() };
        for (module, (_, text)) in files {
            for (is_public, tree) in uses(text) {
                for path in expand(&tree).into_iter().filter(|_| is_public) {
                    let (from, rest) = resolver.walk(module, &path);
                    let name = path.rsplit("::").next().unwrap_or_default().to_owned();
                    if let [item] = &rest[..] {
                        resolver.exports.insert((module.clone(), name), (from, item.clone()));
                    }
                }
            }
        }
        resolver
    }

    /// The innermost module on that path, and what comes after it.
    fn walk(&self, here: &[String], path: &str) -> (Vec<String>, Vec<String>) {
        let mut names = path.split("::").filter(|name| *name != "self").peekable();
        let mut at = here.to_vec();
        if names.next_if_eq(&"crate").is_some() {
            at.clear();
        }
        while names.next_if_eq(&"super").is_some() {
            at.pop();
        }
        let mut rest: Vec<String> = names.map(str::to_owned).collect();
        while let Some(name) = rest.first() {
            let deeper = [&at[..], std::slice::from_ref(name)].concat();
            if !self.files.contains_key(&deeper) {
                break;
            }
            at = deeper;
            rest.remove(0);
        }
        (at, rest)
    }

    fn file(&self, here: &[String], path: &str) -> Option<String> {
        let (mut at, mut rest) = self.walk(here, path);
        while let Some((from, name)) = rest.first().and_then(|name| self.exports.get(&(at.clone(), name.clone()))) {
            at.clone_from(from);
            rest = vec![name.clone()];
            if rest
                .first()
                .is_some_and(|name| self.exports.get(&(at.clone(), name.clone())) == Some(&(at.clone(), name.clone())))
            {
                break;
            }
        }
        self.files.get(&at).map(|(file, _)| file.clone())
    }
}

/// The trees of all `use` declarations, and whether they are public.
fn uses(text: &str) -> Vec<(bool, String)> {
    let mut found = Vec::new();
    for declaration in text.split(';') {
        let Some((before, tree)) = declaration.rsplit_once("use ") else { continue };
        let start = before.rsplit('\n').next().unwrap_or_default().trim_start();
        if start.is_empty() || start.starts_with("pub") {
            found.push((start.starts_with("pub"), tree.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
    }
    found
}

/// All paths of this crate in a file: those of its `use` declarations, and those in its code.
fn paths(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (_, tree) in uses(text) {
        found.extend(
            expand(&tree)
                .into_iter()
                .filter(|path| ["crate", "super", "self"].contains(&path.split("::").next().unwrap())),
        );
    }
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c: char| !is_part(c));
    found.extend(
        words
            .filter(|word| word.starts_with("crate::") || word.starts_with("super::"))
            .map(|word| word.trim_matches(':').to_owned()),
    );
    found
}

/// `a::{b, c::{d}}` to `a::b`, `a::c::d`.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((prefix, inner)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().trim().to_owned()];
    };
    let inner = inner.rsplit_once('}').map_or(inner, |(inner, _)| inner);
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for c in inner.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(c);
    }
    let parts = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    parts.flat_map(expand).map(|path| format!("{prefix}{path}")).collect()
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
