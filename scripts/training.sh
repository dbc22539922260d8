#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# What the training scripts share; to be sourced. Settings are environment variables:
# NUM_GPUS (processes; unset: one for each GPU, or one on the CPU), BATCH_SIZE (of one process, one
# micro-batch), GRAD_ACCUMULATION (micro-batches per step; unset: what makes the global batch as
# large as the published model's), DRY_RUN (true: print the command and stop).

set -euo pipefail

fail() {
  echo "$(basename "$0"): $*" >&2
  exit 2
}

check_switches() {
  local switch
  for switch in "$@"; do
    [[ "${!switch}" == true || "${!switch}" == false ]] ||
      fail "$switch must be true or false, got '${!switch}'"
  done
}

check_numbers() {
  local number
  for number in "$@"; do
    [[ "${!number:-1}" =~ ^[1-9][0-9]*$ ]] ||
      fail "$number must be a positive number, got '${!number}'"
  done
}

# Sets gpus_here and what is unset of NUM_GPUS and GRAD_ACCUMULATION. Takes the published model's
# global batch.
divide_batch() {
  local published="$1" global_batch
  check_numbers NUM_GPUS BATCH_SIZE GRAD_ACCUMULATION
  gpus_here="$(python -c 'import torch; print(torch.cuda.device_count())')"
  : "${NUM_GPUS:=$((gpus_here > 0 ? gpus_here : 1))}"
  if [[ -z "${GRAD_ACCUMULATION:-}" ]]; then
    GRAD_ACCUMULATION=$((published / (NUM_GPUS * BATCH_SIZE)))
    GRAD_ACCUMULATION=$((GRAD_ACCUMULATION > 0 ? GRAD_ACCUMULATION : 1))
  fi
  global_batch=$((NUM_GPUS * BATCH_SIZE * GRAD_ACCUMULATION))
  if ((global_batch != published)); then
    echo "$(basename "$0"): warning: the global batch is $NUM_GPUS x $BATCH_SIZE x" \
      "$GRAD_ACCUMULATION = $global_batch; the learning rate is meant for $published" >&2
  fi
  if ((gpus_here > 0 && NUM_GPUS > gpus_here)); then
    fail "NUM_GPUS is $NUM_GPUS, but this machine has $gpus_here"
  fi
}

check_sampling_rate() {
  [[ "$SAMPLING_RATE" == 22050 || "$SAMPLING_RATE" == 44100 ]] ||
    fail "SAMPLING_RATE must be 22050 or 44100, got '$SAMPLING_RATE'; for other rates call $1 with" \
      "--sampling-rate and the lengths in samples"
}

# Sets arguments to the flags that all trainings have.
begin_arguments() {
  arguments=(
    --output "$OUTPUT_DIR"
    --log-file "$LOG_FILE"
    --dataset-path "$DATASET_PATH"
    --training-files "$TRAIN_FILELIST"
    --validation-files "$VAL_FILELIST"
    --seed "$SEED"
    --epochs "$EPOCHS"
    --batch-size "$BATCH_SIZE"
    --grad-accumulation "$GRAD_ACCUMULATION"
    --learning-rate "$LEARNING_RATE"
  )
  ((gpus_here == 0)) || arguments+=(--cuda)
  [[ "$AMP" == false ]] || arguments+=(--amp)
  [[ "$RESUME" == false ]] || arguments+=(--resume)
  if ((SAMPLING_RATE == 44100)); then
    arguments+=(--sampling-rate 44100 --filter-length 2048 --hop-length 512 --win-length 2048
      --mel-fmax 22050)
  fi
}

# Replaces the script by the training. Takes what python takes: a file or -m module, and arguments.
run_training() {
  local command=(python "$@")
  if ((NUM_GPUS > 1)); then
    command=(torchrun --standalone --nproc-per-node "$NUM_GPUS" "$@")
  fi
  show_command "${command[@]}"
  mkdir -p "$OUTPUT_DIR"
  exec "${command[@]}"
}

# Prints a command; in a dry run, that is all.
show_command() {
  printf '%q ' "$@"
  echo
  if [[ "${DRY_RUN:-false}" == true ]]; then
    exit
  fi
}
