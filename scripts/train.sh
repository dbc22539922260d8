#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Trains FastPitch with the settings of the published model, on all GPUs or on the CPU.
# Every setting is an environment variable; further arguments go to train.py as they are:
#     NUM_GPUS=1 BATCH_SIZE=32 bash scripts/train.sh --ema-decay 0.999
# DRY_RUN=true prints the command and stops.

set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh requirements.txt

: "${OUTPUT_DIR:=./output}"
: "${LOG_FILE:=$OUTPUT_DIR/nvlog.json}"
: "${DATASET_PATH:=data/LJSpeech-1.1}"
: "${TRAIN_FILELIST:=filelists/ljs_audio_pitch_text_train_v3.txt}"
: "${VAL_FILELIST:=filelists/ljs_audio_pitch_text_val.txt}"
: "${CHECKPOINT:=}" # resume from this file
: "${RESUME:=true}" # continue from the newest checkpoint in OUTPUT_DIR
: "${SEED:=1234}"
: "${AMP:=false}"

: "${NUM_GPUS:=}" # processes; unset: one for each GPU, or one on the CPU
: "${BATCH_SIZE:=16}" # of one process, one micro-batch
: "${GRAD_ACCUMULATION:=}" # micro-batches per step; unset: what makes the global batch 256
: "${EPOCHS:=1000}"
: "${EPOCHS_PER_CHECKPOINT:=20}"
: "${VALIDATION_FREQ:=10}"
: "${OPTIMIZER:=lamb}"
: "${LEARNING_RATE:=0.1}"
: "${WARMUP_STEPS:=1000}"
: "${KL_LOSS_WARMUP:=100}" # epochs

: "${PHONE:=true}" # phonemes in place of letters wherever the dictionary is sure
: "${ENERGY:=true}"
: "${TEXT_CLEANERS:=english_cleaners_v2}" # several are separated by spaces
: "${SYMBOL_SET:=english_basic}"
: "${APPEND_SPACES:=false}" # a space before and after every text
: "${NSPEAKERS:=1}"
: "${SAMPLING_RATE:=22050}" # or 44100
: "${LOAD_PITCH_FROM_DISK:=true}"
: "${LOAD_MEL_FROM_DISK:=false}"

fail() {
  echo "train.sh: $*" >&2
  exit 2
}

for switch in RESUME AMP PHONE ENERGY APPEND_SPACES LOAD_PITCH_FROM_DISK LOAD_MEL_FROM_DISK; do
  [[ "${!switch}" == true || "${!switch}" == false ]] ||
    fail "$switch must be true or false, got '${!switch}'"
done
for number in NUM_GPUS BATCH_SIZE GRAD_ACCUMULATION; do
  [[ "${!number:-1}" =~ ^[1-9][0-9]*$ ]] ||
    fail "$number must be a positive number, got '${!number}'"
done
[[ "$SAMPLING_RATE" == 22050 || "$SAMPLING_RATE" == 44100 ]] ||
  fail "SAMPLING_RATE must be 22050 or 44100, got '$SAMPLING_RATE'; for other rates call train.py" \
    "with --sampling-rate and the lengths in samples"

gpus_here="$(python -c 'import torch; print(torch.cuda.device_count())')"
: "${NUM_GPUS:=$((gpus_here > 0 ? gpus_here : 1))}"
if [[ -z "$GRAD_ACCUMULATION" ]]; then
  GRAD_ACCUMULATION=$((256 / (NUM_GPUS * BATCH_SIZE)))
  GRAD_ACCUMULATION=$((GRAD_ACCUMULATION > 0 ? GRAD_ACCUMULATION : 1))
fi
global_batch=$((NUM_GPUS * BATCH_SIZE * GRAD_ACCUMULATION))
if ((global_batch != 256)); then
  echo "train.sh: warning: the global batch is $NUM_GPUS x $BATCH_SIZE x $GRAD_ACCUMULATION =" \
    "$global_batch; LEARNING_RATE and WARMUP_STEPS are meant for 256" >&2
fi
if ((gpus_here > 0 && NUM_GPUS > gpus_here)); then
  fail "NUM_GPUS is $NUM_GPUS, but this machine has $gpus_here"
fi

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
  --optimizer "$OPTIMIZER"
  --learning-rate "$LEARNING_RATE"
  --warmup-steps "$WARMUP_STEPS"
  --weight-decay 1e-6
  --grad-clip-thresh 1000.0
  --dur-predictor-loss-scale 0.1
  --pitch-predictor-loss-scale 0.1
  --kl-loss-start-epoch 0
  --kl-loss-warmup-epochs "$KL_LOSS_WARMUP"
  --symbol-set "$SYMBOL_SET"
  --n-speakers "$NSPEAKERS"
)
read -ra cleaners <<<"$TEXT_CLEANERS"
arguments+=(--text-cleaners "${cleaners[@]}")

if ((SAMPLING_RATE == 44100)); then
  arguments+=(--sampling-rate 44100 --filter-length 2048 --hop-length 512 --win-length 2048
    --mel-fmax 22050)
fi
((gpus_here == 0)) || arguments+=(--cuda)
[[ "$AMP" == false ]] || arguments+=(--amp)
[[ "$RESUME" == false ]] || arguments+=(--resume)
[[ -z "$CHECKPOINT" ]] || arguments+=(--checkpoint-path "$CHECKPOINT")
[[ "$PHONE" == false ]] || arguments+=(--p-arpabet 1.0)
[[ "$ENERGY" == false ]] || arguments+=(--energy-conditioning)
[[ "$APPEND_SPACES" == false ]] || arguments+=(--prepend-space-to-text --append-space-to-text)
[[ "$LOAD_PITCH_FROM_DISK" == false ]] || arguments+=(--load-pitch-from-disk)
[[ "$LOAD_MEL_FROM_DISK" == false ]] || arguments+=(--load-mel-from-disk)

command=(python train.py)
if ((NUM_GPUS > 1)); then
  command=(torchrun --standalone --nproc-per-node "$NUM_GPUS" train.py)
fi
command+=("${arguments[@]}" "$@")

printf '%q ' "${command[@]}"
echo
if [[ "${DRY_RUN:-false}" == true ]]; then
  exit
fi
mkdir -p "$OUTPUT_DIR"
exec "${command[@]}"
