#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Trains WaveGlow with the settings of the published model, on all GPUs or on the CPU.
# Every setting is an environment variable; further arguments go to waveglow.train as they are:
#     NUM_GPUS=1 BATCH_SIZE=20 bash scripts/waveglow/train.sh --ema-decay 0.999
# Several nodes, restarts, signals: as in scripts/train.sh. DRY_RUN=true prints the command and stops.

set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/setup.sh requirements.txt
source scripts/training.sh

: "${OUTPUT_DIR:=./output/waveglow}"
: "${LOG_FILE:=$OUTPUT_DIR/nvlog.json}"
: "${DATASET_PATH:=data/LJSpeech-1.1}"
: "${TRAIN_FILELIST:=filelists/ljs_audio_text_train_v3.txt}" # only the first column counts
: "${VAL_FILELIST:=filelists/ljs_audio_text_val.txt}"
: "${CHECKPOINT:=}" # resume from this file
: "${INIT_FROM:=}"  # begin with the weights of this file, those of the published model for example
: "${RESUME:=true}" # continue from the newest checkpoint in OUTPUT_DIR
: "${SEED:=1234}"
: "${AMP:=false}"

: "${WN_CHANNELS:=256}" # of the coupling networks; waveglow.train by itself takes 512
: "${NUM_GPUS:=}"       # processes on this node; unset: one for each GPU, or one on the CPU
: "${BATCH_SIZE:=10}"   # of one process, one micro-batch
: "${GRAD_ACCUMULATION:=}" # micro-batches per step; unset: what makes the global batch 80
: "${EPOCHS:=1000}"
: "${EPOCHS_PER_CHECKPOINT:=50}"
: "${VALIDATION_FREQ:=10}"
: "${SAMPLES_FREQ:=50}"
: "${OPTIMIZER:=adam}"
: "${LEARNING_RATE:=0.0001}"
: "${SAMPLING_RATE:=22050}"  # or 44100
: "${SEGMENT_LENGTH:=8000}" # samples

check_switches RESUME AMP
check_numbers SEGMENT_LENGTH WN_CHANNELS
check_sampling_rate waveglow.train
divide_batch 80

begin_arguments
arguments+=(
  --epochs-per-checkpoint "$EPOCHS_PER_CHECKPOINT"
  --validation-freq "$VALIDATION_FREQ"
  --samples-freq "$SAMPLES_FREQ"
  --optimizer "$OPTIMIZER"
  --segment-length "$SEGMENT_LENGTH"
)
# A checkpoint says its size.
[[ -n "$CHECKPOINT$INIT_FROM" ]] || arguments+=(--wn-channels "$WN_CHANNELS")
[[ -z "$CHECKPOINT" ]] || arguments+=(--checkpoint-path "$CHECKPOINT")
[[ -z "$INIT_FROM" ]] || arguments+=(--init-from-checkpoint "$INIT_FROM")

run_training -m waveglow.train "${arguments[@]}" "$@"
