#!/usr/bin/env bash
# Fuzzes every decoder of bytes that a worker process controls, so many seconds each (default 60). That it finds faults at all is
# tried first, with one on purpose. Needs a C++ compiler, for libFuzzer. What it finds goes to fuzz/artifacts; what it has learnt is kept
# in fuzz/corpus.
# Usage: ci/fuzz.sh [seconds] [target ...] (all targets unless told otherwise)
set -euo pipefail
cd "$(dirname "$0")/.."
seconds="${1:-60}"
targets=("${@:2}")
[ "${#targets[@]}" -gt 0 ] || targets=(messages replies)
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/fuzz"
# What cargo-fuzz asks the compiler for. The address sanitizer is the only part that a stable compiler has to be talked into.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="--cfg fuzzing -Zsanitizer=address -Cunsafe-allow-abi-mismatch=sanitizer -Ccodegen-units=1 -Cdebug-assertions \
-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
triple=x86_64-unknown-linux-gnu
cargo build --release --target "$triple" --manifest-path fuzz/Cargo.toml
log=$(mktemp)
artifact=$(mktemp -u)
trap 'rm -f "$log" "$artifact"' EXIT
fuzz() {
    "$CARGO_TARGET_DIR/$triple/release/$1" -max_len=5000 -rss_limit_mb=4096 -print_final_stats=1 "${@:2}" 2>&1 | tee "$log" | tail -20
}

echo "== planted"
if fuzz planted -max_total_time=120 -exact_artifact_path="$artifact" >/dev/null || ! grep -q "a fault on purpose" "$log"; then
    tail -20 "$log"
    echo "FAILED: a fault on purpose was not found: neither would be others"
    exit 1
fi
echo "found: $(grep -m1 "a fault on purpose" "$log"), after $(grep -oE "number_of_executed_units: [0-9]+" "$log" | grep -oE "[0-9]+") runs"

for target in "${targets[@]}"; do
    echo "== $target"
    mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
    fuzz "$target" -max_total_time="$seconds" -artifact_prefix="fuzz/artifacts/$target/" "fuzz/corpus/$target"
    if ! grep -qE "^Done [0-9]{3,} runs" "$log"; then
        echo "FAILED: hardly anything was run"
        exit 1
    fi
done
