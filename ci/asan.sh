#!/usr/bin/env bash
# The unit and integration tests under AddressSanitizer and LeakSanitizer. Reports of workers, whose output nobody sees, count as
# well. That they find anything at all is tried first, with a use after free and a leak on purpose (`tests/it/planted.rs`), here
# and in a worker.
# Usage: ci/asan.sh [filter]
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=address -Cunsafe-allow-abi-mismatch=sanitizer"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/asan"
# Instrumented frames are several times as large.
export RUST_MIN_STACK=16777216
export RUST_BACKTRACE=0
export CONCURRENT_FUTURES_TEST_PATIENCE=4
# The crate's own handlers see the signals, as they would without a sanitizer. Each process writes its reports into a file of its
# own, for most of them have no standard error.
options() {
    echo "log_path=$work/$1 handle_segv=0 handle_sigbus=0 handle_sigfpe=0 handle_sigill=0 handle_abort=0 use_sigaltstack=0"
}
# What cannot be here: address spaces smaller than the sanitizer's own, stacks that overflow or grow, and what counts memory or
# time, of which it takes its share; forks of a process that has threads; another checker; a system that refuses threads; another
# user, who may not write where the reports go; and programs that end in the middle of their work, or leave what they must not touch
# any more, which it takes for leaks.
without=(
    process::limits::memory_limit process::limited memory:: process::crash::a_process_that_may_have_run_out_of_memory
    spawn_failure process::crash::a_stack_overflow_is_told_as_one process_exit::a_stack_overflow
    process::crash::an_overflow_of_a_stack_that_has_grown depth:: costs:: fork:: process::forked process::checkers
    process::refused::threads_in_the_workers process::start::a_privileged process_exit:: process::shutdown::exit_
    process::shutdown::main_returns process::lost
)
# What tests leave on purpose, and what runtimes and the test harness keep to the end.
cat >"$work/suppressions" <<END
leak:it::spare_threads::wait_for
leak:it::scope::the_end_of_a_scope_runs_what_is_detached
leak:it::thread_pool::the_default_executor_is_always_the_same
leak:it::process::limits::max_rss_per_child
leak:it::process::environment::constructor
leak:async_io::
leak:__cxa_thread_atexit_impl
leak:test::run_test
END
export LSAN_OPTIONS="suppressions=$work/suppressions print_suppressions=0"
mapfile -t binaries < <(cargo test --target x86_64-unknown-linux-gnu --all-features --lib --test it --no-run --message-format=json |
    grep -o '"executable":"[^"]*"' | cut -d'"' -f4)
[ "${#binaries[@]}" -eq 2 ] || { echo "FAILED: the tests were not built"; exit 1; }
it=""
for binary in "${binaries[@]}"; do [[ "$(basename "$binary")" != it-* ]] || it="$binary"; done
failed=0
# A fault on purpose, and what is to be reported of it.
planted() {
    local log="$work/${1//:/-}"
    echo "== $1"
    ASAN_OPTIONS=$(options "${1//:/-}") "$it" --quiet "planted::$1" --exact --ignored >"$work/log" 2>&1 || true
    if ! cat "$log".* 2>/dev/null | grep -q "$2"; then
        cat "$work/log" "$log".* 2>/dev/null || true
        echo "a fault on purpose was not reported: neither would be others"
        failed=1
    fi
}
planted a_use_after_free "heap-use-after-free"
planted a_leak "1234 byte(s) leaked"
planted in_a_worker::a_use_after_free "heap-use-after-free"
planted in_a_worker::a_leak "1234 byte(s) leaked"
run() {
    local label="$1" binary="$2"
    shift 2
    local skip=()
    for name in "${without[@]}"; do skip+=(--skip "$name"); done
    echo "== $label"
    ASAN_OPTIONS=$(options report) "$binary" --quiet "$@" "${skip[@]}" 2>&1 | tee "$work/log" || failed=1
    # A filter may fit in one of the two only.
    ! grep -qE "^test result: .* [1-9][0-9]* passed" "$work/log" || ran=1
}
ran=0
for binary in "${binaries[@]}"; do run "$(basename "$binary")" "$binary" "$@"; done
[ "$ran" -eq 1 ] || { echo "no test has passed"; failed=1; }
if compgen -G "$work/report.*" >/dev/null; then
    cat "$work"/report.*
    echo "$(cat "$work"/report.* | grep -cE "^(==[0-9]+==)?ERROR: ") reports"
    failed=1
fi
[ "$failed" -eq 0 ] || { echo "FAILED"; exit 1; }
echo "no report, but of those on purpose"
