#!/usr/bin/env bash
# Model-checks the lock-free parts: every interleaving with so many preemptions (default 3) that the memory model allows.
# Usage: ci/loom.sh [filter] (all models unless told otherwise)
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS="--cfg loom ${RUSTFLAGS:-}"
export LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-3}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo test --release --lib "${1:-models}" 2>&1 | tee "$log"
ran=$(grep -E "^test result: ok" "$log" | grep -oE "[0-9]+ passed" | awk '{ sum += $1 } END { print sum + 0 }')
# Of each file of models every one.
least=1
[ "$#" -gt 0 ] || least=$(find src -path '*models*' -name '*.rs' -exec cat {} + | grep -c '^ *#\[test\]')
if [ "$ran" -lt "$least" ]; then
    echo "FAILED: $ran models have run, and there should be at least $least"
    exit 1
fi
