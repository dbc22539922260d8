#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# What the training scripts share; to be sourced. Settings are environment variables, explained at
# the top of scripts/train.sh: NUM_GPUS, BATCH_SIZE, GRAD_ACCUMULATION, MAX_RESTARTS, NNODES,
# NODE_RANK, MASTER_ADDR, MASTER_PORT, DRY_RUN.

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

# Sets what is unset of the settings of several nodes and of restarts; refuses contradictions.
check_nodes() {
  check_numbers NNODES MASTER_PORT
  : "${NNODES:=1}" "${MASTER_PORT:=29500}" "${MAX_RESTARTS:=0}"
  [[ "$MAX_RESTARTS" =~ ^(0|[1-9][0-9]*)$ ]] ||
    fail "MAX_RESTARTS must be 0 or a positive number, got '$MAX_RESTARTS'"
  [[ "$MAX_RESTARTS" == 0 || "$RESUME" == true ]] ||
    fail "MAX_RESTARTS needs RESUME=true: processes that failed go on from the newest checkpoint"
  if ((NNODES == 1)); then
    [[ "${NODE_RANK:-0}" == 0 ]] || fail "NODE_RANK is $NODE_RANK: set NNODES, the number of nodes"
    return
  fi
  [[ "${NODE_RANK:-}" =~ ^(0|[1-9][0-9]*)$ ]] && ((NODE_RANK < NNODES)) ||
    fail "NNODES is $NNODES: NODE_RANK must be 0 on the first node, 1 on the next, and so on, got" \
      "'${NODE_RANK:-}'"
  [[ -n "${MASTER_ADDR:-}" ]] ||
    fail "NNODES is $NNODES: set MASTER_ADDR, on all nodes, to the address of the first"
  [[ "$MAX_RESTARTS" == 0 ]] ||
    fail "MAX_RESTARTS is for one node: torchrun does not bring several together again. Run all" \
      "again, or let Slurm do it (scripts/train.sbatch)"
}

# Sets gpus_here and what is unset of NUM_GPUS and GRAD_ACCUMULATION. Takes the published model's
# global batch.
divide_batch() {
  local published="$1" processes global_batch factors
  check_nodes
  check_numbers NUM_GPUS BATCH_SIZE GRAD_ACCUMULATION
  gpus_here="$(python -c 'import torch; print(torch.cuda.device_count())')"
  : "${NUM_GPUS:=$((gpus_here > 0 ? gpus_here : 1))}"
  processes=$((NNODES * NUM_GPUS))
  if [[ -z "${GRAD_ACCUMULATION:-}" ]]; then
    GRAD_ACCUMULATION=$((published / (processes * BATCH_SIZE)))
    GRAD_ACCUMULATION=$((GRAD_ACCUMULATION > 0 ? GRAD_ACCUMULATION : 1))
  fi
  global_batch=$((processes * BATCH_SIZE * GRAD_ACCUMULATION))
  if ((global_batch != published)); then
    factors="$NUM_GPUS x $BATCH_SIZE x $GRAD_ACCUMULATION"
    ((NNODES == 1)) || factors="$NNODES nodes x $factors"
    echo "$(basename "$0"): warning: the global batch is $factors = $global_batch;" \
      "the learning rate is meant for $published" >&2
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

# Runs the training and ends with its code. Takes what python takes: a file or -m module, and
# arguments.
run_training() {
  local command=(python)
  if ((NNODES > 1)); then
    command=(torchrun --nnodes "$NNODES" --node-rank "$NODE_RANK" --master-addr "$MASTER_ADDR"
      --master-port "$MASTER_PORT" --nproc-per-node "$NUM_GPUS")
  elif ((NUM_GPUS > 1 || MAX_RESTARTS > 0)); then
    command=(torchrun --standalone --nproc-per-node "$NUM_GPUS")
  fi
  ((MAX_RESTARTS == 0)) || command+=(--max-restarts "$MAX_RESTARTS")
  command+=("$@")
  show_command "${command[@]}"
  mkdir -p "$OUTPUT_DIR"
  [[ "${command[0]}" != python ]] || exec "${command[@]}"
  run_torchrun "${command[@]}"
}

# Torchrun by itself gives its processes 30 seconds after TERM, ends with code 1 however they end,
# and dies of USR1. So the processes are told directly, and it only sees them end.
run_torchrun() {
  local status=0
  (
    trap - INT # a shell's background commands ignore it
    trap '' USR1 # so do the processes, until they can save
    exec "$@"
  ) &
  torchrun=$!
  trap : INT # torchrun hears it as well, and ends
  trap stop_training TERM USR1
  wait "$torchrun" || true # until it ends or a signal comes
  wait "$torchrun" || status=$?
  exit "$status"
}

# Says it again and again, since a process that is only starting does not hear it.
stop_training() {
  trap '' TERM USR1
  while kill -0 "$torchrun" 2>/dev/null; do
    kill -USR1 $(children_of "$torchrun") 2>/dev/null || true
    sleep 1
  done
}

children_of() {
  if [[ -d /proc/self ]]; then
    grep -lsx "PPid:[[:space:]]*$1" /proc/[0-9]*/status | cut -d / -f 3
  else
    pgrep -P "$1"
  fi
}

# Prints a command; in a dry run, that is all.
show_command() {
  printf '%q ' "$@"
  echo
  if [[ "${DRY_RUN:-false}" == true ]]; then
    exit
  fi
}
