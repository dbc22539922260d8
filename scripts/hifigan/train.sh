#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Trains HiFi-GAN with the settings of the published model, on all GPUs or on the CPU.
# Every setting is an environment variable; further arguments go to hifigan.train as they are:
#     NUM_GPUS=1 BATCH_SIZE=32 bash scripts/hifigan/train.sh --ema-decay 0.999
# Several nodes, restarts, signals: as in scripts/train.sh. DRY_RUN=true prints the command and stops.

set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/setup.sh requirements.txt
source scripts/training.sh

: "${OUTPUT_DIR:=./output/hifigan}"
: "${LOG_FILE:=$OUTPUT_DIR/nvlog.json}"
: "${DATASET_PATH:=data/LJSpeech-1.1}"
: "${TRAIN_FILELIST:=filelists/ljs_audio_text_train_v3.txt}" # only the first column counts
: "${VAL_FILELIST:=filelists/ljs_audio_text_val.txt}"
: "${RESUME:=true}" # continue from the newest checkpoint in OUTPUT_DIR
: "${SEED:=1234}"
: "${AMP:=false}"

: "${VARIANT:=V1}"  # generator: V1, V2 or V3
: "${NUM_GPUS:=}"   # processes on this node; unset: one for each GPU, or one on the CPU
: "${BATCH_SIZE:=16}" # of one process, one micro-batch
: "${GRAD_ACCUMULATION:=}" # micro-batches per step; unset: what makes the global batch 128
: "${EPOCHS:=6500}"
: "${CHECKPOINT_INTERVAL:=50}" # epochs
: "${VALIDATION_INTERVAL:=10}"
: "${SAMPLES_INTERVAL:=100}"
: "${LEARNING_RATE:=0.0003}"
: "${LEARNING_RATE_DECAY:=0.9998}" # factor after each epoch
: "${SAMPLING_RATE:=22050}" # or 44100

# For fine-tuning, see fine_tune.sh
: "${FINE_TUNE_DIR:=}"       # folder of FastPitch's mels; unset: no fine-tuning
: "${FINE_TUNE_LR_FACTOR:=3}" # of the learning rate
: "${CHECKPOINT_GEN:=}"      # weights to begin with
: "${CHECKPOINT_DISCRIM:=}"

check_switches RESUME AMP
check_sampling_rate hifigan.train
divide_batch 128

begin_arguments
arguments+=(
  --checkpoint-interval "$CHECKPOINT_INTERVAL"
  --validation-interval "$VALIDATION_INTERVAL"
  --samples-interval "$SAMPLES_INTERVAL"
  --lr-decay "$LEARNING_RATE_DECAY"
)
if ((SAMPLING_RATE == 44100)); then
  arguments+=(--segment-size 16384 --upsample-rates "[8,8,4,2]"
    --upsample-kernel-sizes "[16,16,8,4]")
fi
# A checkpoint says which generator it is.
[[ -n "$CHECKPOINT_GEN" ]] || arguments+=(--variant "$VARIANT")
[[ -z "$CHECKPOINT_GEN" ]] || arguments+=(--checkpoint-path-gen "$CHECKPOINT_GEN")
[[ -z "$CHECKPOINT_DISCRIM" ]] || arguments+=(--checkpoint-path-discrim "$CHECKPOINT_DISCRIM")
[[ -z "$FINE_TUNE_DIR" ]] || arguments+=(--fine-tuning --input-mels-dir "$FINE_TUNE_DIR"
  --fine-tune-lr-factor "$FINE_TUNE_LR_FACTOR")

run_training -m hifigan.train "${arguments[@]}" "$@"
