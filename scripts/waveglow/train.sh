#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Trains WaveGlow with the settings of the published model, on all GPUs or on the CPU.
# Every setting is an environment variable; further arguments go to waveglow.train as they are:
#     NUM_GPUS=1 BATCH_SIZE=20 bash scripts/waveglow/train.sh --ema-decay 0.999
# DRY_RUN=true prints the command and stops.

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
: "${NUM_GPUS:=}"       # processes; unset: one for each GPU, or one on the CPU
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
[[ "$SAMPLING_RATE" == 22050 || "$SAMPLING_RATE" == 44100 ]] ||
  fail "SAMPLING_RATE must be 22050 or 44100, got '$SAMPLING_RATE'; for other rates call" \
    "waveglow.train with --sampling-rate and the lengths in samples"
divide_batch 80

arguments=(
  --output "$OUTPUT_DIR"
  --log-file "$LOG_FILE"
  --dataset-path "$DATASET_PATH"
  --training-files "$TRAIN_FILELIST"
  --validation-files "$VAL_FILELIST"
  --seed "$SEED"
  --batch-size "$BATCH_SIZE"
  --grad-accumulation "$GRAD_ACCUMULATION"
  --epochs "$EPOCHS"
  --epochs-per-checkpoint "$EPOCHS_PER_CHECKPOINT"
  --validation-freq "$VALIDATION_FREQ"
  --samples-freq "$SAMPLES_FREQ"
  --optimizer "$OPTIMIZER"
  --learning-rate "$LEARNING_RATE"
  --segment-length "$SEGMENT_LENGTH"
)
if ((SAMPLING_RATE == 44100)); then
  arguments+=(--sampling-rate 44100 --filter-length 2048 --hop-length 512 --win-length 2048
    --mel-fmax 22050)
fi
# A checkpoint says its size.
[[ -n "$CHECKPOINT$INIT_FROM" ]] || arguments+=(--wn-channels "$WN_CHANNELS")
((gpus_here == 0)) || arguments+=(--cuda)
[[ "$AMP" == false ]] || arguments+=(--amp)
[[ "$RESUME" == false ]] || arguments+=(--resume)
[[ -z "$CHECKPOINT" ]] || arguments+=(--checkpoint-path "$CHECKPOINT")
[[ -z "$INIT_FROM" ]] || arguments+=(--init-from-checkpoint "$INIT_FROM")

run_training -m waveglow.train "${arguments[@]}" "$@"
