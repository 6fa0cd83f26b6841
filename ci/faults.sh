#!/usr/bin/env bash
# What the process pool survives that needs something from outside: control groups and another user (as root), strace, a build
# of its own. What this machine lacks is skipped, with a message; what fails is named, and the exit status says that there was.
# Usage: ci/faults.sh [memory|pids|user|signals|panic-abort|valgrind|long-run ...] (all of them unless told otherwise)
set -uo pipefail
cd "$(dirname "$0")/.."

# With it a panic takes a small worker from 4 MB to 66, and this counts what workers take.
export RUST_BACKTRACE=0

failed=()
skipped=()
passed=0
groups=()
work=$(mktemp -d)
chmod 755 "$work"
cleanup() {
    for group in "${groups[@]}"; do
        # Those that are left in it are ours alone.
        [ ! -s "$group/cgroup.procs" ] || kill -KILL $(cat "$group/cgroup.procs") 2>/dev/null
        for _ in 1 2 3 4 5 6 7 8 9 10; do rmdir "$group" 2>/dev/null && break || sleep 0.1; done
    done
    rm -rf "$work"
}
trap cleanup EXIT

executable() { cargo test "$@" --no-run --test it --message-format=json | grep -o '"executable":"[^"]*"' | cut -d'"' -f4; }
step() {
    echo
    echo "== $1"
}
skip() {
    echo "skipped: $1"
    skipped+=("$1")
}
verdict() {
    if [ "$1" -eq 0 ]; then
        echo "passed"
        passed=$((passed + 1))
    else
        echo "FAILED: $2"
        failed+=("$2")
    fi
}
# Makes a control group below $1, if there is that controller, and puts its path into $group.
make_group() {
    group=""
    local parent="/sys/fs/cgroup/$1"
    [ -d "$parent" ] || parent="/sys/fs/cgroup"
    [ -e "$parent/cgroup.procs" ] || return 1
    # Version 2: the controller has to be there for children.
    if [ "$parent" = /sys/fs/cgroup ]; then
        echo "+$1" >"$parent/cgroup.subtree_control" 2>/dev/null || return 1
    fi
    group="$parent/concurrent-futures-$$-$1"
    mkdir "$group" 2>/dev/null || return 1
    groups+=("$group")
}
# Runs a command in the group.
inside() {
    GROUP="$group" bash -c 'echo $$ >"$GROUP/cgroup.procs" && exec "$@"' -- "$@"
}
one() {
    local name="$1"
    shift
    "$@" "process::$name" --exact --include-ignored --nocapture --test-threads=1 >"$work/log" 2>&1
    local status=$?
    grep -E "^[0-9]+|with [0-9]+ more|million|bytes for each|tasks," "$work/log" || true
    # A name that does not fit would run no test, and succeed.
    grep -q " 1 passed" "$work/log" || status=1
    [ "$status" -eq 0 ] || tail -40 "$work/log"
    return "$status"
}

wanted=("$@")
[ "$#" -gt 0 ] || wanted=(memory pids user signals panic-abort valgrind long-run)
binary=$(executable) || exit 1
[ -x "$binary" ] || { echo "the tests were not built"; exit 1; }
tests=(timeout 300 "$binary")

for what in "${wanted[@]}"; do
    case "$what" in
    memory)
        step "a worker is killed for want of memory (control group of 128 MiB)"
        if make_group memory; then
            echo $((128 << 20)) >"$group/memory.limit_in_bytes" 2>/dev/null || echo $((128 << 20)) >"$group/memory.max"
            for transport in shared-memory socket; do
                CONCURRENT_FUTURES_TRANSPORT=$transport one outside::killed_for_want_of_memory inside "${tests[@]}"
                verdict $? "memory, $transport"
            done
        else
            skip "memory: needs root and a memory control group"
        fi
        ;;
    pids)
        step "no more processes (control group)"
        if make_group pids; then
            one outside::at_the_limit_of_processes inside "${tests[@]}"
            verdict $? "pids"
        else
            skip "pids: needs root and a pids control group"
        fi
        ;;
    user)
        step "no more processes (RLIMIT_NPROC, as nobody)"
        if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then
            cp "$binary" "$work/it"
            mkdir -m 777 "$work/tmp"
            (cd / && TMPDIR="$work/tmp" one outside::at_the_limit_of_processes \
                setpriv --reuid=65534 --regid=65534 --clear-groups timeout 300 "$work/it")
            verdict $? "user"
        else
            skip "user: needs root and setpriv"
        fi
        ;;
    signals)
        step "who is sent signals, and when (strace)"
        if command -v strace >/dev/null && strace -o /dev/null true 2>/dev/null; then
            for transport in shared-memory socket; do
                for test in cancel::what_runs_is_ended_with_its_worker limits::a_task_that_ignores_sigterm_is_ended_all_the_same \
                    limits::a_task_over_its_time_is_ended shutdown::within_ends_what_does_not_want_to_end shutdown::kill_workers; do
                    CONCURRENT_FUTURES_TRANSPORT=$transport one "$test" \
                        strace -f -o "$work/trace" -e trace=kill,pidfd_send_signal,wait4,waitid "${tests[@]}" &&
                        ci/signals.awk -v transport="$transport" "$work/trace"
                    verdict $? "signals: $test, $transport"
                done
            done
        else
            skip "signals: needs strace, and the right to use it"
        fi
        ;;
    panic-abort)
        step "a program that is built with panic = \"abort\""
        CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/panic-abort" timeout 600 \
            cargo run --quiet --manifest-path ci/panic-abort/Cargo.toml 2>"$work/log"
        status=$?
        [ "$status" -eq 0 ] || cat "$work/log"
        verdict "$status" "panic-abort"
        ;;
    valgrind)
        step "under valgrind, and the workers, too"
        if command -v valgrind >/dev/null; then
            one checkers::valgrind_with_the_workers "${tests[@]}"
            verdict $? "valgrind"
        else
            skip "valgrind: apt-get install valgrind"
        fi
        ;;
    long-run)
        step "what is left of a million tasks"
        for transport in shared-memory socket; do
            for test in in_the_long_run a_million_that_wait; do
                CONCURRENT_FUTURES_TRANSPORT=$transport one "outside::$test" "${tests[@]}"
                verdict $? "long-run: $test, $transport"
            done
        done
        ;;
    *)
        echo "there is no $what"
        exit 2
        ;;
    esac
done

echo
[ "${#skipped[@]}" -eq 0 ] || printf 'skipped: %s\n' "${skipped[@]}"
if [ "${#failed[@]}" -gt 0 ]; then
    printf 'FAILED: %s\n' "${failed[@]}"
    exit 1
fi
if [ "$passed" -eq 0 ]; then
    echo "FAILED: nothing was run"
    exit 1
fi
echo "all that was run has passed"
