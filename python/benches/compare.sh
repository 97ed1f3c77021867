#!/usr/bin/env bash
# Compares the Python package, optimised, with the loaders that users have, on this machine: `make bench-python`. Arguments go
# to compare.py. The table and the picture lie in python/benches.
set -euo pipefail
cd "$(dirname "$0")/.."

export VIRTUAL_ENV=$PWD/.venv PATH=$PWD/.venv/bin:$PWD/../.venv/bin:$PATH PYTHONPATH=
if ! command -v maturin >/dev/null; then
    echo "python/.venv is not set up: run .ci/setup" >&2
    exit 1
fi
maturin develop --uv --quiet --release --locked
exec python benches/compare.py "$@"
