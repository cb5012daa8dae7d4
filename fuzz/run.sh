#!/usr/bin/env bash
# Fuzzes one target of src/harness.rs with libFuzzer: fuzz/run.sh TARGET [RUNS] [options of libFuzzer].
# Goes with a stable compiler: coverage is an LLVM pass that any rustc can be told to run. New inputs go to fuzz/found/TARGET, what
# crashes to fuzz/crashes.
set -euo pipefail
cd "$(dirname "$0")"
target=$1
runs=${2:-1000000}
host=$(rustc -vV | sed -n 's/^host: //p')
# With --target the flags are not those of build scripts and macros.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=4"
cargo build --release --quiet --target "$host"
mkdir -p "found/$target" crashes
export STRIATE_FUZZ=$target
exec "target/$host/release/fuzz" "found/$target" "corpus/$target" -runs="$runs" -max_len=4096 -timeout=2 \
  -rss_limit_mb=1024 -malloc_limit_mb=256 -artifact_prefix="crashes/$target-" -print_final_stats=1 "${@:3}"
