#!/usr/bin/env bash
# Lines of the readers that the corpus reaches, in a table: fuzz/coverage.sh [NAME of a test of striate-io …; default: corpus].
# LLVM_BIN is the folder of llvm-profdata and llvm-cov where they are not on the path; their LLVM must be that of rustc.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${LLVM_BIN:+$LLVM_BIN/}
host=$(rustc -vV | sed -n 's/^host: //p')
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
"${bin}llvm-profdata" merge -sparse "$profile"/*.profraw -o "$profile/all"
"${bin}llvm-cov" report "${options[@]}" -instr-profile "$profile/all" \
  -ignore-filename-regex='(registry|rustc|tests|fuzz/src|onnx/export|striate-(graph|kernels|nn))' | cut -c1-200
