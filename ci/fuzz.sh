#!/usr/bin/env bash
# Fuzzes every decoder of bytes that a worker process controls, so many seconds each (default 60). Needs a nightly compiler and
# cargo-fuzz (`cargo install --locked cargo-fuzz`).
set -euo pipefail
cd "$(dirname "$0")/.."
for target in messages replies; do
    cargo +nightly fuzz run "$target" -- -max_total_time="${1:-60}" -max_len=5000 -rss_limit_mb=4096
done
