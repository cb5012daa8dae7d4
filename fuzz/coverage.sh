#!/usr/bin/env bash
# Lines of the readers that the corpus reaches, in a table: fuzz/coverage.sh [NAME of a test of striate-io …; default: corpus].
# Needs llvm-profdata and llvm-cov of rustc's own LLVM: those of `rustup component add llvm-tools`, or of the folder LLVM_BIN.
set -euo pipefail
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
bin=${LLVM_BIN:-$(rustc --print sysroot)/lib/rustlib/$host/bin}
export CARGO_TARGET_DIR=fuzz/target/coverage CARGO_PROFILE_DEV_OPT_LEVEL=0
export RUSTFLAGS="-Cinstrument-coverage"
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
options=()
for name in "${@:-corpus}"; do
  test=$(cargo test --target "$host" -p striate-io --test "$name" --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
  (cd crates/striate-io && LLVM_PROFILE_FILE="$profile/%p-%m.profraw" "$test")
  options+=(-object "$test")
done
"$bin/llvm-profdata" merge -sparse "$profile"/*.profraw -o "$profile/all"
"$bin/llvm-cov" report "${options[@]}" -instr-profile "$profile/all" \
  -ignore-filename-regex='(registry|rustc|tests|fuzz/src|onnx/export|/write\.rs|striate-(graph|kernels|nn))' | cut -c1-200
