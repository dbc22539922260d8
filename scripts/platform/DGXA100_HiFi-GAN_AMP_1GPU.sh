#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# HiFi-GAN on 1 GPU of a DGX A100, in mixed precision.

set -euo pipefail
export NUM_GPUS=1 AMP=true BATCH_SIZE="${BATCH_SIZE:-16}"
exec bash "$(dirname "$0")/../hifigan/train.sh" "$@"
