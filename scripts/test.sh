#!/usr/bin/env bash
# Everything a change must pass: lint, types, layers, dependencies, tests. Makes its own virtual environment when none
# is active or there.
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
# A worker per core, four at most, for each holds some gigabytes. A file's tests stay with one worker, since they share
# what its fixtures make; the longest files are in tests/e2e, which come first.
cores=$(python -c 'import os; print(min(os.cpu_count() or 1, 4))')
export OMP_WAIT_POLICY=PASSIVE # threads that wait leave the core to the other workers
python -m pytest -q -n "$cores" --dist loadfile --no-loadscope-reorder "$@"
