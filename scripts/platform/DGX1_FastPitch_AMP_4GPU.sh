#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# FastPitch on 4 GPUs of a DGX-1, in mixed precision.

set -euo pipefail
export NUM_GPUS=4 AMP=true BATCH_SIZE="${BATCH_SIZE:-16}"
exec bash "$(dirname "$0")/../train.sh" "$@"
