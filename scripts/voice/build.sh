#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Builds a voice from a text: has the CC0 voice of the demo read it, trains FastPitch on that, then
# HiFi-GAN, fine-tunes it on FastPitch's mels, measures the result and packs it for release.
# Run again, it continues where it stopped. Settings are environment variables:
#     PRESET=small TEXTS=metadata.csv OUTPUT_DIR=output/voice bash scripts/voice/build.sh
# PRESET: tiny (tries everything, minutes on a CPU, no speech to be had), laptop (two hours on a CPU,
# without a vocoder of its own), small (made for half an hour on one H100), base (larger, for hours).
# DRY_RUN=true prints the commands and stops; SETUP=false takes python3 as it is found and installs
# nothing.

set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/training.sh

: "${PRESET:=small}"
: "${TEXTS:=data/LJSpeech-1.1/metadata.csv}" # a sentence a line, or lines of name|text
: "${OUTPUT_DIR:=output/voice-$PRESET}"
: "${RELEASE_DIR:=$OUTPUT_DIR/release}"
: "${DRY_RUN:=false}"
: "${SETUP:=true}"
check_switches DRY_RUN SETUP

fastpitch_of() { # width, filter size, layers of the encoder, of the decoder
  sizes=(--symbols-embedding-dim "$1" --in-fft-output-size "$1" --out-fft-output-size "$1"
    --in-fft-conv1d-filter-size "$2" --out-fft-conv1d-filter-size "$2"
    --in-fft-n-layers "$3" --out-fft-n-layers "$4")
}

# HOURS of speech; minutes of each training, over all runs of this script. With VOCODER_MINUTES=0
# Griffin-Lim speaks, with FINE_TUNING_MINUTES=0 the vocoder as recordings taught it.
batch_size=64 vocoder_training=() measures=(words dnsmos mcd durations)
binarization=(--kl-loss-start-epoch 10 --kl-loss-warmup-epochs 20)
case "$PRESET" in
  tiny)
    : "${HOURS:=0.06}" "${NUM_TEST:=3}" "${NUM_VALIDATION:=3}"
    : "${FASTPITCH_MINUTES:=1}" "${VOCODER_MINUTES:=1}" "${FINE_TUNING_MINUTES:=1}"
    fastpitch_of 64 128 1 1
    generator=(--variant V3 --upsample-initial-channel 32)
    batch_size=4 vocoder_training=(--discriminator-divisor 8 --segment-size 4096)
    measures=(mcd durations)
    ;;
  laptop)
    : "${HOURS:=3}" "${FASTPITCH_MINUTES:=90}" "${VOCODER_MINUTES:=0}" "${FINE_TUNING_MINUTES:=0}"
    fastpitch_of 192 768 3 4
    generator=(--variant V2)
    # Some twenty epochs: there is nothing to forget, and each must bring much.
    sizes+=(--p-in-fft-dropout 0.05 --p-out-fft-dropout 0.05)
    sizes+=(--p-in-fft-dropatt 0 --p-out-fft-dropatt 0)
    binarization=(--kl-loss-start-epoch 3 --kl-loss-warmup-epochs 4)
    batch_size=8
    ;;
  small)
    : "${HOURS:=4}"
    : "${FASTPITCH_MINUTES:=8}" "${VOCODER_MINUTES:=9}" "${FINE_TUNING_MINUTES:=3}"
    fastpitch_of 256 1024 4 6
    generator=(--variant V2)
    ;;
  base)
    : "${HOURS:=8}"
    : "${FASTPITCH_MINUTES:=60}" "${VOCODER_MINUTES:=240}" "${FINE_TUNING_MINUTES:=60}"
    fastpitch_of 192 768 3 5
    generator=(--variant V1)
    ;;
  *)
    fail "PRESET must be tiny, laptop, small or base, got $PRESET"
    ;;
esac
: "${NUM_TEST:=100}" "${NUM_VALIDATION:=50}"

check_numbers NUM_TEST NUM_VALIDATION
for number in HOURS FASTPITCH_MINUTES VOCODER_MINUTES FINE_TUNING_MINUTES; do
  [[ "${!number}" =~ ^[0-9]*\.?[0-9]+$ && ! "${!number}" =~ ^[0.]+$ ]] ||
    [[ "${!number}" == 0 && "$number" =~ ^(VOCODER|FINE_TUNING)_ ]] ||
    fail "$number must be a positive number, got '${!number}'"
done
if [[ "$DRY_RUN" != true && ! -f "$TEXTS" ]]; then
  fail "TEXTS: $TEXTS: no such file: name a file with a sentence a line, or have LJSpeech's by" \
    "scripts/download_dataset.sh"
fi

corpus="$OUTPUT_DIR/corpus" lists="$OUTPUT_DIR/filelists"
list() { echo "$lists/voice_audio_pitch_text_$1.txt"; }

# Runs a command. TERM is passed on to it, so that a training saves and nothing runs on by itself.
run() {
  local status=0
  printf '%q ' "$@"
  echo
  [[ "$DRY_RUN" != true ]] || return 0
  (
    trap - INT # a shell's background commands ignore it
    exec "$@"
  ) &
  command=$!
  trap 'wait "$command" || true; exit 130' INT # the command hears it as well
  trap 'kill -TERM "$command"; wait "$command" || true; exit 143' TERM
  wait "$command" || status=$?
  trap - INT TERM
  return "$status"
}

# No --compile: it takes minutes at each start, and nobody has measured yet what it brings.
train_for() { # minutes, name, then the command
  local minutes="$1" name="$2"
  shift 2
  run "$@" --resume --output "$OUTPUT_DIR/$name" --epochs 1000000 --max-minutes "$minutes" \
    --checkpoint-every-minutes 2 --num-workers 8 "${device[@]}"
}

newest() { # checkpoint in a folder: the first file, of the names of all its files
  local folder="$OUTPUT_DIR/$1"
  shift
  if [[ "$DRY_RUN" == true ]]; then
    echo "$folder/$1_checkpoint_N.pt"
  else
    "$python" -m scripts.newest_checkpoint --folder "$folder" --names "$@"
  fi
}

measure() { # name of the report, measures, then flags of inference.py
  local name="$1" what="$2" report="$OUTPUT_DIR/evaluation/$1/report.html"
  shift 2
  if [[ "$DRY_RUN" != true && "$report" -nt "$fastpitch" && "$report" -nt "$hifigan" ]]; then
    echo "$report: done"
    return
  fi
  read -ra what <<<"$what"
  run "$python" evaluate.py --input "$lists/voice_audio_text_test.txt" --dataset-path "$corpus" \
    --fastpitch "$RELEASE_DIR/fastpitch.pt" "${released_vocoder[@]}" \
    --output "$OUTPUT_DIR/evaluation/$name" --measures "${what[@]}" "${cuda[@]}" -- "$@"
}

python=python3
if [[ "$SETUP" == true ]]; then
  source scripts/setup.sh requirements.txt
  python=python
  extras=(requirements-demo.txt)
  [[ " ${measures[*]} " != *" words "* ]] || extras+=(requirements-evaluation.txt)
  [[ "$DRY_RUN" == true ]] || bash scripts/setup.sh "${extras[@]}"
fi
cuda=() device=() features=()
if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  cuda=(--cuda)
  device=(--cuda --amp --amp-dtype bf16 --step-logs-interval 20) # each line waits for the GPU
  features=(--preload gpu) # else a thread that makes batches slows the one that launches kernels
elif grep -qsE 'avx512_bf16|amx_bf16' /proc/cpuinfo; then
  device=(--amp --amp-dtype bf16)
fi
export OMP_WAIT_POLICY=PASSIVE # threads that wait leave the cores to those that work
[[ "$DRY_RUN" == true ]] || mkdir -p "$OUTPUT_DIR"

run "$python" -m scripts.voice.make_corpus --texts "$TEXTS" --output "$corpus" --hours "$HOURS"
run "$python" -m scripts.make_filelists --dataset-path "$corpus" --output "$lists" --prefix voice \
  --test "$NUM_TEST" --validation "$NUM_VALIDATION" --text-column 2
run "$python" prepare_dataset.py --dataset-path "$corpus" \
  --wav-text-filelists "$lists/voice_audio_text_train.txt" "$lists/voice_audio_text_val.txt" \
  --extract-mels --extract-pitch # both, so that they are packed: training reads them faster

data=(--dataset-path "$corpus" --training-files "$(list train)" --validation-files "$(list val)")
train_for "$FASTPITCH_MINUTES" fastpitch "$python" train.py "${data[@]}" --load-pitch-from-disk \
  "${features[@]}" --bucket "${sizes[@]}" --batch-size "$batch_size" "${binarization[@]}" \
  --optimizer adam --learning-rate 0.04 --warmup-steps 400 --ema-decay 0.998 --energy-conditioning \
  --p-arpabet 1.0 --several-pronunciations first --text-cleaners english_cleaners_v2 \
  --dur-predictor-loss-scale 0.1 --pitch-predictor-loss-scale 0.1 \
  --validation-freq 10 --samples-freq 50 --epochs-per-checkpoint 20
fastpitch="$(newest fastpitch FastPitch)"
hifigan="" packed_vocoder=() released_vocoder=()
if [[ "$VOCODER_MINUTES" != 0 ]]; then
  vocoder_training+=(--batch-size "$batch_size" --ema-decay 0.999
    --validation-interval 20 --samples-interval 100 --checkpoint-interval 20)
  train_for "$VOCODER_MINUTES" vocoder "$python" -m hifigan.train "${data[@]}" "${generator[@]}" \
    "${vocoder_training[@]}" --learning-rate 0.0003
  vocoder="$(newest vocoder hifigan_gen hifigan_discrim)"
  hifigan="$vocoder"
  if [[ "$FINE_TUNING_MINUTES" != 0 ]]; then
    run "$python" -m fastpitch.extract_mels --fastpitch "$fastpitch" --ema --load-pitch-from-disk \
      --dataset-path "$corpus" --input-files "$(list train)" "$(list val)" \
      --output "$OUTPUT_DIR/mels" "${cuda[@]}"
    train_for "$FINE_TUNING_MINUTES" fine_tuned "$python" -m hifigan.train "${data[@]}" \
      "${vocoder_training[@]}" --learning-rate 0.0001 \
      --fine-tuning --input-mels-dir "$OUTPUT_DIR/mels" --checkpoint-path-gen "$vocoder" \
      --checkpoint-path-discrim "${vocoder/hifigan_gen_/hifigan_discrim_}"
    hifigan="$(newest fine_tuned hifigan_gen hifigan_discrim)"
  fi
  packed_vocoder=(--hifigan "$hifigan")
  released_vocoder=(--hifigan "$RELEASE_DIR/hifigan.pt")
fi
run "$python" -m scripts.voice.pack --fastpitch "$fastpitch" "${packed_vocoder[@]}" \
  --output "$RELEASE_DIR"

measure plain "${measures[*]}"
if [[ " ${measures[*]} " == *" words "* ]]; then
  for pace in 0.7 1.5; do
    measure "pace_$pace" "words dnsmos mcd" --pace "$pace"
  done
  for semitones in -4 4; do
    measure "semitones_$semitones" "words dnsmos mcd" --pitch-transform-semitones "$semitones"
  done
fi
run "$python" -m scripts.voice.card --release "$RELEASE_DIR" --evaluations "$OUTPUT_DIR/evaluation" \
  --metadata "$corpus/metadata.csv"
