#!/usr/bin/env bash
# The integration tests under ThreadSanitizer, those of worker processes with both ways of transport. std itself is not
# instrumented, so what happens inside its Arc, Mutex and thread hand-over is reported wrongly and suppressed here, by name; loom
# is the proof of the orderings, this looks for the rest. Reports of workers, whose output nobody sees, count as well. That races
# are found at all is tried first, with some on purpose (`tests/it/planted.rs`): between threads, in a pool, in a worker.
# Usage: ci/tsan.sh [filter] (all tests of threads, and all of processes twice, unless told otherwise)
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The last of an Arc's owners is behind a fence, which the sanitizer does not see; so is what was read through a SharedFuture, and
# is freed then. The deque's slots are read before it is known whether they may be. tokio has the locks of std: what it does itself,
# at the top, is not looked at. A ring is mapped by system calls that the sanitizer does not see, where another has been before.
# Never a frame that every thread has, such as those of std::thread.
cat >"$work/suppressions" <<END
race:alloc::sync::Arc
race:concurrent_futures::future::shared::SharedFuture
race:std::sync
race:crossbeam_epoch
race:crossbeam_deque
race_top:tokio
race:tokio::runtime::scheduler::multi_thread::idle
race:tokio::runtime::task::state::State>
race:tokio::loom::std::atomic
race:transport::ring::Producer>::write
END
# Instrumented frames are several times as large.
export RUST_MIN_STACK=67108864
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="--cfg tsan -Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/tsan"
# And everything is slower.
export CONCURRENT_FUTURES_TEST_PATIENCE=10
# Without backtraces: what std does under its lock for them is not instrumented either.
export RUST_BACKTRACE=0
# What cannot be here: signals that the sanitizer handles itself or puts off, address spaces smaller than its own, and the wish
# to have no child at all (it has one of its own when it looks up names); and there where it has no descriptor for that child,
# what is suppressed by name is not recognised; nor may another user write where the reports go. Nor chains of a length that makes
# stacks grow: the sanitizer is not told of segments; nor what counts time, memory or descriptors, of which it takes its share;
# nor forks of a process that has threads, nor another checker.
without=(
    process::crash::a_fault_says_at_which_address process::crash::a_stack_overflow_is_told_as_one
    process::crash::every_fatal_signal_is_named process::limits::memory_limit process::hygiene process::terminal
    process::limited process::descriptors process::start::a_privileged spawn_failure
    process_exit::a_stack_overflow process::crash::an_overflow_of_a_stack_that_has_grown depth:: costs:: memory::
    fork:: process::forked process::checkers
)
binary=$(cargo test --target x86_64-unknown-linux-gnu --all-features --test it --no-run --message-format=json |
    grep -o '"executable":"[^"]*"' | cut -d'"' -f4)
failed=0
# Each process writes its reports into a file of its own, for most of them have no standard error.
options() { echo "suppressions=$work/suppressions halt_on_error=0 log_path=$work/$1 die_after_fork=0"; }
run() {
    local label="$1"
    shift
    local skip=()
    for name in "${without[@]}"; do skip+=(--skip "$name"); done
    echo "== $label"
    TSAN_OPTIONS=$(options report) "$binary" --quiet "$@" "${skip[@]}" | tee "$work/log" || failed=1
    grep -qE "^test result: .* [1-9][0-9]* passed" "$work/log" || { echo "no test has passed"; failed=1; }
}
# A race on purpose.
planted() {
    echo "== $1"
    # Its exit status says that there was a report.
    TSAN_OPTIONS=$(options "${1//:/-}") "$binary" --quiet "planted::$1" --exact --ignored >"$work/log" 2>&1 || true
    if ! grep -q "1 passed" "$work/log"; then
        cat "$work/log"
        echo "it has not run"
        failed=1
    elif ! cat "$work/${1//:/-}".* 2>/dev/null | grep -q "planted::touch"; then
        echo "a race on purpose was not reported: neither would be others"
        failed=1
    fi
}
planted a_race_between_threads
planted a_race_in_a_pool
planted in_a_worker::a_race
if [ "$#" -gt 0 ]; then
    run "$*" "$@"
else
    run "threads" --skip process::
    CONCURRENT_FUTURES_TRANSPORT=shared-memory run "processes, shared memory" process::
    # Each byte of a long value goes through a queue there, which takes the sanitizer too long.
    CONCURRENT_FUTURES_TRANSPORT=socket run "processes, socket" process:: --skip process::large \
        --skip process::crash::what_runs_has_begun --skip process::map::large_items
fi
if compgen -G "$work/report.*" >/dev/null; then
    cat "$work"/report.*
    echo "$(cat "$work"/report.* | grep -c "^WARNING: ThreadSanitizer") reports"
    exit 66
fi
[ "$failed" -eq 0 ] || { echo "FAILED"; exit 1; }
echo "no report, but of those on purpose"
