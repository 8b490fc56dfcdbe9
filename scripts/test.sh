#!/usr/bin/env bash
# Everything a change must pass: lint, types, layers, tests. Makes its own virtual environment when none is active or there.
# Usage: bash scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
export MPLBACKEND=Agg
ruff check .
ruff format --check .
mypy -p degstalk_ns
python scripts/check_layers.py
python -m pytest -q "$@"
