#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Fine-tunes HiFi-GAN on what FastPitch makes: first FastPitch predicts the mel of every clip, with
# the clip's own durations and pitch; then HiFi-GAN learns to turn these mels into the recordings.
# Run again, both continue where they stopped. Settings are environment variables, those of
# scripts/hifigan/train.sh besides; further arguments go to hifigan.train as they are:
#     FASTPITCH=output/FastPitch_checkpoint_1000.pt \
#       CHECKPOINT_GEN=output/hifigan/hifigan_gen_checkpoint_6500.pt bash scripts/hifigan/fine_tune.sh
# DRY_RUN=true prints the commands and stops.

set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/setup.sh requirements.txt
source scripts/training.sh

newest() { # of the checkpoints of whole epochs whose path begins so
  find "$(dirname "$1")" -maxdepth 1 -name "$(basename "$1")*.pt" ! -name '*_step_*' 2>/dev/null |
    sort -V | tail -n 1
}

: "${FASTPITCH:=$(newest output/FastPitch_checkpoint_)}" # the newest in output/ unless given
: "${CHECKPOINT_GEN:=$(newest output/hifigan/hifigan_gen_checkpoint_)}" # likewise
: "${CHECKPOINT_DISCRIM:=}" # unset: those beside CHECKPOINT_GEN, if they are there
: "${OUTPUT_DIR:=./output/hifigan_fine_tuned}"
: "${FINE_TUNE_DIR:=$OUTPUT_DIR/mels}"
: "${DATASET_PATH:=data/LJSpeech-1.1}"
# With texts, and pitch where LOAD_PITCH_FROM_DISK is true.
: "${TRAIN_FILELIST:=filelists/ljs_audio_pitch_text_train_v3.txt}"
: "${VAL_FILELIST:=filelists/ljs_audio_pitch_text_val.txt}"
: "${LOAD_PITCH_FROM_DISK:=true}"
: "${EMA:=false}" # take FastPitch's averaged weights
: "${EPOCHS:=3500}"

check_switches LOAD_PITCH_FROM_DISK EMA
[[ -n "$FASTPITCH" ]] ||
  fail "output/ holds no FastPitch_checkpoint_*.pt; train one, or set FASTPITCH to a checkpoint"
[[ -n "$CHECKPOINT_GEN" ]] ||
  fail "output/hifigan holds no hifigan_gen_checkpoint_*.pt; run scripts/hifigan/train.sh, or" \
    "scripts/download_models.sh hifigan and set CHECKPOINT_GEN to what that names"
if [[ -z "$CHECKPOINT_DISCRIM" ]]; then
  beside="${CHECKPOINT_GEN/hifigan_gen_checkpoint_/hifigan_discrim_checkpoint_}"
  if [[ "$beside" != "$CHECKPOINT_GEN" && -f "$beside" ]]; then
    CHECKPOINT_DISCRIM="$beside"
  else
    echo "fine_tune.sh: no discriminators beside $CHECKPOINT_GEN: they begin anew" >&2
  fi
fi

extraction=(
  python -m fastpitch.extract_mels
  --fastpitch "$FASTPITCH"
  --output "$FINE_TUNE_DIR"
  --dataset-path "$DATASET_PATH"
  --input-files "$TRAIN_FILELIST" "$VAL_FILELIST"
)
[[ "$LOAD_PITCH_FROM_DISK" == false ]] || extraction+=(--load-pitch-from-disk)
[[ "$EMA" == false ]] || extraction+=(--ema)
if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  extraction+=(--cuda)
fi
printf '%q ' "${extraction[@]}"
echo
# Of several nodes, the first extracts; the others wait for it where the training begins, a quarter
# of an hour at most: where it takes longer, run the printed command beforehand.
if [[ "${DRY_RUN:-false}" != true && "${NODE_RANK:-0}" == 0 ]]; then
  "${extraction[@]}"
fi

export OUTPUT_DIR FINE_TUNE_DIR DATASET_PATH TRAIN_FILELIST VAL_FILELIST EPOCHS \
  CHECKPOINT_GEN CHECKPOINT_DISCRIM
exec bash scripts/hifigan/train.sh "$@"
