#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# HiFi-GAN on 8 GPUs of a DGX H100, in mixed precision.

set -euo pipefail
export NUM_GPUS=8 AMP=true BATCH_SIZE="${BATCH_SIZE:-16}"
exec bash "$(dirname "$0")/../hifigan/train.sh" "$@"
