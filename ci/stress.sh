#!/usr/bin/env bash
# Runs every test binary many times (default 100): as it is, on one test thread, and with the CPUs kept busy.
# Usage: ci/stress.sh [times] [filter]
set -euo pipefail
cd "$(dirname "$0")/.."
times="${1:-100}"
filter="${2:-}"
mapfile -t binaries < <(cargo test --all-features --no-run --lib --tests --message-format=json 2>/dev/null |
    grep -o '"executable":"[^"]*"' | cut -d'"' -f4)
log=$(mktemp)
burners=()
trap 'rm -f "$log"; [ "${#burners[@]}" -eq 0 ] || kill "${burners[@]}" 2>/dev/null || true' EXIT
run() {
    local label="$1"
    shift
    for binary in "${binaries[@]}"; do
        for ((i = 1; i <= times; i++)); do
            if ! timeout 300 "$binary" --quiet "$@" $filter >"$log" 2>&1; then
                cat "$log"
                echo "FAILED in run $i ($label): $binary"
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

