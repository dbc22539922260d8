#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Sets itself up, checks the code's form and runs the tests; arguments go to pytest.

set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh requirements.txt requirements-dev.txt

status=0
ruff check --quiet . || status=$?
ruff format --check --quiet . || {
  status=$?
  echo "the files above are not formatted; run: ruff format ." >&2
}
# Files of tests are shared out to processes, which have a core each.
export OMP_NUM_THREADS=1
python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile "$@" || status=$?
exit "$status"
