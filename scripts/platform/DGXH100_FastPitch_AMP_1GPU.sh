#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# FastPitch on 1 GPU of a DGX H100, in mixed precision.

set -euo pipefail
export NUM_GPUS=1 AMP=true BATCH_SIZE="${BATCH_SIZE:-32}"
exec bash "$(dirname "$0")/../train.sh" "$@"
