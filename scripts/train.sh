#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Trains FastPitch with the settings of the published model, on all GPUs or on the CPU.
# Every setting is an environment variable; further arguments go to train.py as they are:
#     NUM_GPUS=1 BATCH_SIZE=32 bash scripts/train.sh --ema-decay 0.999
# On several nodes, run it on each, on the same folders, with NNODES (how many), NODE_RANK (0 on the
# first, 1 on the next), MASTER_ADDR (the first one's address) and MASTER_PORT (free there; 29500);
# with Slurm: scripts/train.sbatch. On one node, MAX_RESTARTS=3 starts processes that failed again
# from the newest checkpoint, thrice at most. After TERM or USR1, the training saves and ends with
# code 0. DRY_RUN=true prints the command and stops.

set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh requirements.txt
source scripts/training.sh

: "${OUTPUT_DIR:=./output}"
: "${LOG_FILE:=$OUTPUT_DIR/nvlog.json}"
: "${DATASET_PATH:=data/LJSpeech-1.1}"
: "${TRAIN_FILELIST:=filelists/ljs_audio_pitch_text_train_v3.txt}"
: "${VAL_FILELIST:=filelists/ljs_audio_pitch_text_val.txt}"
: "${CHECKPOINT:=}" # resume from this file
: "${INIT_FROM_CHECKPOINT:=}" # fine-tune: begin with the weights of this file
: "${RESUME:=true}" # continue from the newest checkpoint in OUTPUT_DIR
: "${SEED:=1234}"
: "${AMP:=false}"

: "${NUM_GPUS:=}" # processes on this node; unset: one for each GPU, or one on the CPU
: "${BATCH_SIZE:=16}" # of one process, one micro-batch
: "${GRAD_ACCUMULATION:=}" # micro-batches per step; unset: what makes the global batch 256
: "${EPOCHS:=1000}"
: "${EPOCHS_PER_CHECKPOINT:=20}"
: "${VALIDATION_FREQ:=10}"
: "${OPTIMIZER:=lamb}"
: "${LEARNING_RATE:=0.1}"
: "${WARMUP_STEPS:=1000}"
: "${KL_LOSS_WARMUP:=100}" # epochs

# What CHECKPOINT or INIT_FROM_CHECKPOINT says for itself, unless it is set here.
if [[ -z "$CHECKPOINT$INIT_FROM_CHECKPOINT" ]]; then
  : "${PHONE:=true}" # phonemes in place of letters wherever the dictionary is sure
  : "${ENERGY:=true}"
  : "${TEXT_CLEANERS:=english_cleaners_v2}" # several are separated by spaces
fi
: "${PHONE:=}"
: "${ENERGY:=false}" # true adds it where a checkpoint is without
: "${TEXT_CLEANERS:=}"
: "${SYMBOL_SET:=}" # unset: english_basic
: "${NSPEAKERS:=}" # unset: 1
: "${APPEND_SPACES:=false}" # a space before and after every text
: "${SAMPLING_RATE:=22050}" # or 44100
: "${LOAD_PITCH_FROM_DISK:=true}"
: "${LOAD_MEL_FROM_DISK:=false}"

[[ -z "$PHONE" ]] || check_switches PHONE
check_numbers NSPEAKERS
check_switches RESUME AMP ENERGY APPEND_SPACES LOAD_PITCH_FROM_DISK LOAD_MEL_FROM_DISK
check_sampling_rate train.py
divide_batch 256

begin_arguments
arguments+=(
  --epochs-per-checkpoint "$EPOCHS_PER_CHECKPOINT"
  --validation-freq "$VALIDATION_FREQ"
  --optimizer "$OPTIMIZER"
  --warmup-steps "$WARMUP_STEPS"
  --weight-decay 1e-6
  --grad-clip-thresh 1000.0
  --dur-predictor-loss-scale 0.1
  --pitch-predictor-loss-scale 0.1
  --kl-loss-start-epoch 0
  --kl-loss-warmup-epochs "$KL_LOSS_WARMUP"
)
read -ra cleaners <<<"$TEXT_CLEANERS"
[[ -z "$TEXT_CLEANERS" ]] || arguments+=(--text-cleaners "${cleaners[@]}")
[[ -z "$SYMBOL_SET" ]] || arguments+=(--symbol-set "$SYMBOL_SET")
[[ -z "$NSPEAKERS" ]] || arguments+=(--n-speakers "$NSPEAKERS")
[[ -z "$CHECKPOINT" ]] || arguments+=(--checkpoint-path "$CHECKPOINT")
[[ -z "$INIT_FROM_CHECKPOINT" ]] || arguments+=(--init-from-checkpoint "$INIT_FROM_CHECKPOINT")
[[ "$PHONE" != true ]] || arguments+=(--p-arpabet 1.0)
[[ "$PHONE" != false ]] || arguments+=(--p-arpabet 0.0)
[[ "$ENERGY" == false ]] || arguments+=(--energy-conditioning)
[[ "$APPEND_SPACES" == false ]] || arguments+=(--prepend-space-to-text --append-space-to-text)
[[ "$LOAD_PITCH_FROM_DISK" == false ]] || arguments+=(--load-pitch-from-disk)
[[ "$LOAD_MEL_FROM_DISK" == false ]] || arguments+=(--load-mel-from-disk)

run_training train.py "${arguments[@]}" "$@"
