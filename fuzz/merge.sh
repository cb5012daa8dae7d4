#!/usr/bin/env bash
# Makes fuzz/corpus/TARGET a smallest set of inputs that reaches what seeds, corpus and found inputs reach: fuzz/merge.sh TARGET SEEDS
set -euo pipefail
cd "$(dirname "$0")"
target=$1
host=$(rustc -vV | sed -n 's/^host: //p')
merged=$(mktemp -d)
mkdir -p "found/$target" "corpus/$target" "$2/$target"
STRIATE_FUZZ=$target "target/$host/release/fuzz" -set_cover_merge=1 -use_counters=0 -use_cmp=0 -max_len=4096 -rss_limit_mb=1024 "$merged" \
  "found/$target" "corpus/$target" "$2/$target" 2>&1 | tail -1
rm -r "corpus/$target"
mv "$merged" "corpus/$target"
chmod 755 "corpus/$target"
