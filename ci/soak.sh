#!/usr/bin/env bash
# The process pool in bad weather, for so many minutes (default 10): workers are killed, stopped and continued, replaced and
# resized, there are no descriptors now and then, tasks panic, take too long, are cancelled, and carry megabytes. Afterwards the
# history of every ten seconds is checked, and nothing may be left of it. Needs nothing.
# Usage: ci/soak.sh [minutes]
set -euo pipefail
cd "$(dirname "$0")/.."
minutes="${1:-10}"
binary=$(cargo test --no-run --test it --message-format=json | grep -o '"executable":"[^"]*"' | cut -d'"' -f4)
for transport in shared-memory socket; do
    echo "== $transport"
    CONCURRENT_FUTURES_TRANSPORT=$transport SOAK_SECONDS=$((minutes * 30)) \
        "$binary" process::chaos::for_a_long_time --exact --include-ignored --nocapture --test-threads=1
done
