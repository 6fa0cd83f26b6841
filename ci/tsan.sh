#!/usr/bin/env bash
# The integration tests under ThreadSanitizer, those of worker processes with both ways of transport. std itself is not
# instrumented, so what happens inside its Arc, Mutex and thread hand-over is reported wrongly and suppressed here; loom is the
# proof of the orderings, this looks for the rest. Reports of workers, whose output nobody sees, count as well.
# Usage: ci/tsan.sh [filter] (all tests of threads, and all of processes twice, unless told otherwise)
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/suppressions" <<END
race:alloc::sync::Arc
race:std::sync
race:std::thread
race:crossbeam_epoch
race:crossbeam_deque
END
# Instrumented frames are several times as large.
export RUST_MIN_STACK=67108864
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="--cfg tsan -Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
# Each process writes its reports into a file of its own, for most of them have no standard error.
export TSAN_OPTIONS="suppressions=$work/suppressions halt_on_error=0 log_path=$work/report die_after_fork=0"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/tsan"
# Without backtraces: what std does under its lock for them is not instrumented either.
export RUST_BACKTRACE=0
# What cannot be here: signals that the sanitizer handles itself or puts off, address spaces smaller than its own, and the wish
# to have no child at all (it has one of its own when it looks up names); and there where it has no descriptor for that child,
# what is suppressed by name is not recognised; nor may another user write where the reports go. Nor chains of a length that makes
# stacks grow: the sanitizer is not told of segments.
without=(
    process::crash::a_fault_says_at_which_address process::crash::a_stack_overflow_is_told_as_one
    process::crash::every_fatal_signal_is_named process::limits::memory_limit process::hygiene process::terminal
    process::limited process::descriptors process::start::a_privileged spawn_failure
    process_exit::a_stack_overflow process::crash::an_overflow_of_a_stack_that_has_grown depth::
)
binary=$(cargo test --target x86_64-unknown-linux-gnu --test it --no-run --message-format=json |
    grep -o '"executable":"[^"]*"' | cut -d'"' -f4)
run() {
    local label="$1"
    shift
    local skip=()
    for name in "${without[@]}"; do skip+=(--skip "$name"); done
    echo "== $label"
    "$binary" --quiet "$@" "${skip[@]}"
}
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
echo "no report"
