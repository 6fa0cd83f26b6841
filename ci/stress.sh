#!/usr/bin/env bash
# Runs every test binary many times (default 100): as it is, on one test thread (then each test of worker processes must also give
# back all that it took), and with the CPUs kept busy.
# Usage: ci/stress.sh [times] [filter]
set -euo pipefail
cd "$(dirname "$0")/.."
times="${1:-100}"
filter="${2:-}"
log=$(mktemp)
burners=()
trap 'rm -f "$log"; [ "${#burners[@]}" -eq 0 ] || kill "${burners[@]}" 2>/dev/null || true' EXIT
cargo test --all-features --no-run --lib --tests --message-format=json >"$log" || { echo "FAILED: the tests were not built"; exit 1; }
mapfile -t all < <(grep -o '"executable":"[^"]*"' "$log" | cut -d'"' -f4)
# How many tests a list has.
tests() { "$@" --list $filter | grep -c ': test$' || true; }
# Those with a test that fits, and is not ignored.
binaries=()
for binary in "${all[@]}"; do
    [ "$(tests "$binary")" -le "$(tests "$binary" --ignored)" ] || binaries+=("$binary")
done
if [ "${#binaries[@]}" -eq 0 ]; then
    echo "FAILED: there is no test for '$filter'"
    exit 1
fi
run() {
    local label="$1"
    shift
    for binary in "${binaries[@]}"; do
        for ((i = 1; i <= times; i++)); do
            if ! timeout 600 "$binary" --quiet "$@" $filter >"$log" 2>&1; then
                cat "$log"
                echo "FAILED in run $i ($label): $binary"
                exit 1
            fi
            if ! grep -qE "^test result: ok\. [1-9][0-9]* passed" "$log"; then
                cat "$log"
                echo "FAILED: no test has run ($label): $binary"
                exit 1
            fi
        done
    done
    echo "$label: ${#binaries[@]} binaries x $times runs passed"
}
run "as it is"
run "one test thread" --test-threads=1
for ((i = 0; i < $(nproc); i++)); do
    (while :; do :; done) &
    burners+=($!)
done
run "under load"
