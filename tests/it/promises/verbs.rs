//! Every public function of the pools and of the handles has its place in the table, or a reason why it needs none. A new one fails
//! here until it has.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::table::{WayIn, WayOut};

enum Place {
    In(WayIn),
    Out(WayOut),
    /// It neither starts a task nor sees its end.
    Neither(&'static str),
}

use Place::{In, Neither, Out};

const READS: Place = Neither("reads a state, and never blocks");
const SETS: Place = Neither("sets an option of what is started later");
const MAKES: Place = Neither("makes a pool or a value");
const ENDS: Place = Neither("ends a pool: the rows about shutdowns");

/// The file, and what each of its public functions is.
const FILES: &[(&str, &[(&str, Place)])] = &[
    (
        "thread/mod.rs",
        &[
            ("new", MAKES),
            ("builder", MAKES),
            ("submit", In(WayIn::Submit)),
            ("try_submit", In(WayIn::TrySubmit)),
            ("submit_all", In(WayIn::SubmitAll)),
            ("spawn", In(WayIn::Spawn)),
            ("map", In(WayIn::Map)),
            ("map_with", In(WayIn::MapWith)),
            ("task", In(WayIn::Task)),
            ("scope", In(WayIn::Scope)),
            ("join", In(WayIn::Join)),
            ("stats", READS),
            ("resize", SETS),
            ("shutdown", ENDS),
            ("is_shut_down", READS),
            ("is_broken", READS),
        ],
    ),
    (
        "thread/options.rs",
        &[("name", SETS), ("priority", SETS), ("submit", In(WayIn::Task)), ("try_submit", In(WayIn::Task))],
    ),
    (
        "thread/scope.rs",
        &[
            ("submit", In(WayIn::Scope)),
            ("result", Out(WayOut::Result)),
            ("result_timeout", Out(WayOut::ResultTimeout)),
        ],
    ),
    ("thread/default.rs", &[("cpu_workers", READS), ("io_workers", READS), ("default_executor", MAKES)]),
    (
        "process/pool.rs",
        &[
            ("new", MAKES),
            ("builder", MAKES),
            ("build", MAKES),
            ("submit", In(WayIn::Submit)),
            ("try_submit", In(WayIn::TrySubmit)),
            ("map", In(WayIn::Map)),
            ("map_with", In(WayIn::MapWith)),
            ("task", In(WayIn::Task)),
            ("stats", READS),
            ("worker_pids", READS),
            ("resize", SETS),
            ("shutdown", ENDS),
            ("is_shut_down", READS),
            ("is_broken", READS),
            ("terminate_workers", ENDS),
            ("kill_workers", ENDS),
        ],
    ),
    (
        "process/options.rs",
        &[
            ("timeout", SETS),
            ("retries", SETS),
            ("name", SETS),
            ("priority", SETS),
            ("submit", In(WayIn::Task)),
            ("try_submit", In(WayIn::Task)),
        ],
    ),
    ("executor/any.rs", &[("submit_call", In(WayIn::SubmitCall)), ("map", In(WayIn::Map)), ("shutdown", ENDS)]),
    (
        "future/handle.rs",
        &[
            ("result", Out(WayOut::Result)),
            ("result_timeout", Out(WayOut::ResultTimeout)),
            ("try_result", READS),
            ("peek", READS),
            ("cancel", Neither("a row of the first table")),
            ("is_done", READS),
            ("is_running", READS),
            ("is_cancelled", READS),
            ("add_done_callback", Out(WayOut::Callback)),
            ("id", READS),
            ("shared", Out(WayOut::Shared)),
            ("detach", Out(WayOut::Drop)),
            ("cancel_on_drop", Neither("the row about cancelling, when it is dropped")),
            ("into_inner", MAKES),
        ],
    ),
    (
        "future/shared.rs",
        &[
            ("result", Out(WayOut::Shared)),
            ("get", Out(WayOut::Shared)),
            ("get_timeout", Out(WayOut::Shared)),
            ("peek", READS),
            ("cancel", Neither("a row of the first table")),
            ("is_done", READS),
            ("is_running", READS),
            ("is_cancelled", READS),
            ("add_done_callback", Out(WayOut::Callback)),
            ("id", READS),
        ],
    ),
    (
        "future/promise.rs",
        &[
            ("promise", In(WayIn::Promise)),
            ("set_result", In(WayIn::Promise)),
            ("set_error", In(WayIn::Promise)),
            ("is_cancelled", READS),
        ],
    ),
    ("future/block_on.rs", &[("block_on", Out(WayOut::BlockOn))]),
    (
        "combine/as_completed.rs",
        &[
            ("as_completed", Out(WayOut::AsCompleted)),
            ("as_completed_timeout", Out(WayOut::AsCompleted)),
            ("into_unfinished", MAKES),
        ],
    ),
    ("combine/stream.rs", &[("into_stream", Out(WayOut::Stream)), ("into_unfinished", MAKES)]),
    ("combine/wait.rs", &[("wait", Out(WayOut::Wait))]),
    ("combine/wait_async.rs", &[("wait_async", Out(WayOut::WaitAsync)), ("into_waited", MAKES)]),
];

#[test]
fn every_public_function_has_its_place() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (file, places) in FILES {
        let source = fs::read_to_string(src.join(file)).unwrap();
        // The functions of a public trait have no `pub`.
        let start = if *file == "executor/any.rs" { "    fn " } else { "pub fn " };
        let found: BTreeSet<&str> = source
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .filter_map(|line| line.trim_start_matches(if start == "pub fn " { ' ' } else { '\0' }).strip_prefix(start))
            .map(|rest| rest.split(['<', '(']).next().expect("a split has one piece"))
            .collect();
        let listed: BTreeSet<&str> = places.iter().map(|(name, _)| *name).collect();
        assert_eq!(listed.len(), places.len(), "{file}: a name is listed twice");
        assert_eq!(found, listed, "{file}: on the left what there is, on the right what has a place in this table");
    }
    let places = || FILES.iter().flat_map(|(_, places)| places.iter().map(|(_, place)| place));
    for way in WayIn::ALL {
        assert!(places().any(|place| matches!(place, In(listed) if *listed == way)), "{way:?} is no function");
    }
    for way in WayOut::ALL {
        // `.await` is a trait's function.
        let is_listed = places().any(|place| matches!(place, Out(listed) if *listed == way));
        assert!(is_listed || way == WayOut::Await, "{way:?} is no function");
    }
    assert!(places().all(|place| !matches!(place, Neither(""))), "a reason is empty");
}

/// Files with public types that are not pools or handles, and so not read by the test above.
#[test]
fn no_file_with_verbs_is_forgotten() {
    const OTHERS: &[&str] = &[
        "combine/map/mod.rs",
        "combine/set.rs",
        "current.rs",
        "thread/builder.rs",
        "thread/stats.rs",
        "process/builder.rs",
        "process/fuzzing.rs",
        "process/shared_bytes.rs",
        "process/stats.rs",
        "process/stderr.rs",
        "process/transport/mod.rs",
        "process/worker/mod.rs",
        "executor/capacity.rs",
        "executor/options.rs",
    ];
    fn walk(dir: &Path, base: &Path, to: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, base, to);
            } else {
                to.push(path.strip_prefix(base).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&src, &src, &mut files);
    for file in files {
        let is_listed = FILES.iter().any(|(listed, _)| *listed == file) || OTHERS.contains(&file.as_str());
        let source = fs::read_to_string(src.join(&file)).unwrap();
        let has_verbs = source.lines().any(|line| line.trim_start().starts_with("pub fn "));
        assert!(is_listed || !has_verbs || file.starts_with("error/"), "{file} has public functions and no list");
    }
}
