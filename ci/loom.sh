#!/usr/bin/env bash
# Model-checks the lock-free parts: every interleaving with so many preemptions (default 3) that the memory model allows.
# Usage: ci/loom.sh [filter]
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS="--cfg loom ${RUSTFLAGS:-}"
export LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-3}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom"
cargo test --release --lib "${1:-models}"
