#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# HiFi-GAN on 8 GPUs of a DGX A100, in TF32.

set -euo pipefail
export NUM_GPUS=8 AMP=false BATCH_SIZE="${BATCH_SIZE:-16}"
exec bash "$(dirname "$0")/../hifigan/train.sh" "$@"
