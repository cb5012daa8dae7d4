#!/usr/bin/env bash
# Prepares the Python in which PyTorch, ONNX Runtime and OpenVINO run, and prints its path:
#     $(tools/peers/setup.sh) tools/peers/compare.py infer
# Takes some GB, as PyPI's torch brings CUDA along (unused here). PEERS_VENV moves it. A second call finds all in place.
set -euo pipefail
list=$(dirname "$0")/requirements.txt
venv=${PEERS_VENV:-$HOME/.cache/striate/peers}
if ! [ -e "$venv/ready" ] || ! cmp -s "$list" "$venv/ready"; then
  python3 -m venv "$venv" >&2
  "$venv/bin/pip" install --quiet --requirement "$list" >&2
  cp "$list" "$venv/ready"
fi
echo "$venv/bin/python"
