#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Makes the file lists of LJSpeech-1.1, or of a corpus laid out like it, and its mels and pitch.
# Run again, it continues where it stopped. Settings from the environment; further arguments go to
# prepare_dataset.py as they are:
#     DATA_DIR=/disk/my_corpus PREFIX=mine NUM_TEST=0 NUM_VALIDATION=50 bash scripts/prepare_dataset.sh

set -euo pipefail
cd "$(dirname "$0")/.."

: "${DATA_DIR:=data/LJSpeech-1.1}"
: "${PREFIX:=ljs}"       # of the file lists' names
: "${NUM_TEST:=500}"
: "${NUM_VALIDATION:=100}"
: "${FILELISTS:=filelists}" # folder for the file lists
if [[ "$PREFIX" == ljs ]]; then
  : "${TRAINING_SUFFIX:=_v3}" # the name that train.sh, and users of the public recipe, look for
fi

if [[ ! -f "$DATA_DIR/metadata.csv" ]]; then
  echo "prepare_dataset.sh: no $DATA_DIR/metadata.csv: run scripts/download_dataset.sh, or set" \
    "DATA_DIR to a corpus laid out like LJSpeech" >&2
  exit 2
fi
source scripts/setup.sh requirements.txt

suffix="${TRAINING_SUFFIX:-}"
python -m scripts.make_filelists --dataset-path "$DATA_DIR" --output "$FILELISTS" \
  --prefix "$PREFIX" --training-suffix "$suffix" --test "$NUM_TEST" --validation "$NUM_VALIDATION"

lists=()
for list in "train$suffix" val test; do
  if [[ -s "$FILELISTS/${PREFIX}_audio_text_$list.txt" ]]; then
    lists+=("$FILELISTS/${PREFIX}_audio_text_$list.txt")
  fi
done
exec python prepare_dataset.py --dataset-path "$DATA_DIR" --wav-text-filelists "${lists[@]}" \
  --extract-mels --extract-pitch "$@"
