#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# FastPitch on 4 GPUs of a DGX A100, in TF32.

set -euo pipefail
export NUM_GPUS=4 AMP=false BATCH_SIZE="${BATCH_SIZE:-32}"
exec bash "$(dirname "$0")/../train.sh" "$@"
