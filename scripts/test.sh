#!/usr/bin/env bash
# Everything a change must pass: lint, types, layers, dependencies, tests. Makes its own virtual environment when none is active or there.
# Usage: bash scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
export MPLBACKEND=Agg
ruff check .
ruff format --check .
mypy -p degstalk_ns
python scripts/check_layers.py
deptry .
deptry tests tests/e2e --exclude '\.git' --ignore DEP002,DEP004 # what tests import is declared too
python -m pytest -q "$@"
