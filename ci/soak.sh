#!/usr/bin/env bash
# The process pool in bad weather, for so many minutes (default 10): workers are killed, stopped and continued, replaced and
# resized, there are no descriptors now and then, tasks panic, take too long, are cancelled, are tried again, and carry megabytes;
# callbacks submit others, and at last the pool is shut down in the middle of it. Afterwards the ledger of every ten seconds is
# checked, and nothing may be left of it. Needs nothing.
# Usage: ci/soak.sh [minutes]
set -euo pipefail
cd "$(dirname "$0")/.."
minutes="${1:-10}"
binary=$(cargo test --no-run --test it --message-format=json | grep -o '"executable":"[^"]*"' | cut -d'"' -f4)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for transport in shared-memory socket; do
    echo "== $transport"
    CONCURRENT_FUTURES_TRANSPORT=$transport SOAK_SECONDS=$((minutes * 30)) \
        "$binary" process::chaos::for_a_long_time --exact --include-ignored --nocapture --test-threads=1 2>&1 | tee "$log"
    # A name that does not fit would run no test, and succeed.
    grep -q " 1 passed" "$log" || { echo "FAILED: it has not run"; exit 1; }
    # And so would a storm without tasks.
    grep -qE "^[1-9][0-9]* tasks, [1-9][0-9]* workers killed" "$log" || { echo "FAILED: there was no storm"; exit 1; }
done
