#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Checks on this machine's GPU what only a GPU can show, in at most eight minutes: runs the tests
# that need one, trains an epoch of each model on generated data and looks for places where its
# steps wait for the GPU, trains at full speed, and speaks. Writes OUTPUT_DIR/report.md, report.json
# and performance.md; exit code 1 if anything failed. Further arguments go to benchmarks.gpu:
#     OUTPUT_DIR=output/gpu_check bash scripts/gpu_check.sh --seconds 1200
#     bash scripts/gpu_check.sh --only tests kernels  # stages whose names contain such a word
#     bash scripts/gpu_check.sh --device cpu --quick  # without a GPU: tries the check itself
# SETUP=false takes python3 as it is found and installs nothing.

set -euo pipefail
cd "$(dirname "$0")/.."

: "${OUTPUT_DIR:=./output/gpu_check}"
: "${SETUP:=true}"

if [[ "$SETUP" != true && "$SETUP" != false ]]; then
  echo "gpu_check.sh: SETUP must be true or false, got '$SETUP'" >&2
  exit 2
fi
if [[ "$SETUP" == true ]]; then
  source scripts/setup.sh requirements.txt requirements-dev.txt # gives PYTHON
fi
exec "${PYTHON:-python3}" -m benchmarks.gpu --output "$OUTPUT_DIR" "$@"
