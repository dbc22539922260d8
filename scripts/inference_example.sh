#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Speaks the phrases of a file. Every setting is an environment variable; further arguments go to
# inference.py as they are:
#     FASTPITCH=output/FastPitch_checkpoint_1000.pt HIFIGAN=g.pt bash scripts/inference_example.sh
# DRY_RUN=true prints the command and stops.

set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh requirements.txt

newest="$(find output -maxdepth 1 -name 'FastPitch_checkpoint_*.pt' 2>/dev/null | sort -V | tail -n 1)" || true
: "${FASTPITCH:=$newest}" # the newest checkpoint in output/ unless given, else the shipped voice;
#                           none: speak mels alone
: "${HIFIGAN:=}"          # a vocoder; without one Griffin-Lim speaks
: "${HIFIGAN_CONFIG:=}"   # settings of an original HiFi-GAN, unless its config.json is beside it
: "${WAVEGLOW:=}"         # another vocoder
: "${SIGMA:=0.9}"         # of WaveGlow's noise
: "${PHRASES:=phrases/devset10.tsv}"
: "${OUTPUT_DIR:=output/audio_$(basename "${PHRASES%.*}")}"
: "${LOG_FILE:=$OUTPUT_DIR/nvlog_infer.json}"
: "${BATCH_SIZE:=32}"
: "${AMP:=false}"
: "${SPEAKER:=0}"
: "${DENOISING:=0.01}" # how much of the vocoder's own hum is taken from its audio
: "${WARMUP:=0}"       # passes before the measured ones
: "${REPEATS:=1}"      # measured passes

fail() {
  echo "inference_example.sh: $*" >&2
  exit 2
}

[[ -n "$FASTPITCH" || -f pretrained_models/voice/fastpitch.pt ]] ||
  fail "output/ holds no FastPitch_checkpoint_*.pt; train one, or set FASTPITCH to a checkpoint"
[[ -z "$HIFIGAN" || -z "$WAVEGLOW" ]] || fail "set HIFIGAN or WAVEGLOW, not both"
[[ -f "$PHRASES" ]] || fail "PHRASES: no such file: $PHRASES"
[[ "$AMP" == true || "$AMP" == false ]] || fail "AMP must be true or false, got '$AMP'"

arguments=(
  --input "$PHRASES"
  --output "$OUTPUT_DIR"
  --log-file "$LOG_FILE"
  --batch-size "$BATCH_SIZE"
  --speaker "$SPEAKER"
  --warmup-steps "$WARMUP"
  --repeats "$REPEATS"
)
[[ -z "$FASTPITCH" || "$FASTPITCH" == none ]] || arguments+=(--fastpitch "$FASTPITCH")
[[ -z "$HIFIGAN" ]] || arguments+=(--hifigan "$HIFIGAN" --denoising-strength "$DENOISING")
[[ -z "$HIFIGAN_CONFIG" ]] || arguments+=(--hifigan-config "$HIFIGAN_CONFIG")
[[ -z "$WAVEGLOW" ]] ||
  arguments+=(--waveglow "$WAVEGLOW" --denoising-strength "$DENOISING"
    --waveglow-sigma-infer "$SIGMA")
[[ "$AMP" == false ]] || arguments+=(--amp)
if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  arguments+=(--cuda)
fi

command=(python inference.py "${arguments[@]}" "$@")
printf '%q ' "${command[@]}"
echo
if [[ "${DRY_RUN:-false}" == true ]]; then
  exit
fi
mkdir -p "$OUTPUT_DIR"
exec "${command[@]}"
