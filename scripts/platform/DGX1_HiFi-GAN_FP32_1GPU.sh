#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# HiFi-GAN on 1 GPU of a DGX-1, in float32.

set -euo pipefail
export NUM_GPUS=1 AMP=false BATCH_SIZE="${BATCH_SIZE:-16}"
exec bash "$(dirname "$0")/../hifigan/train.sh" --no-tf32 "$@"
