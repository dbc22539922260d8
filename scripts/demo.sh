#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# From nothing to a voice: lets you hear the voice that comes with the recipe, where there is one,
# makes a small corpus, prepares it, trains FastPitch on it, speaks phrases/devset10.tsv and writes
# output/demo/report.html. Run again, it continues where it stopped.
# With recordings of your own (wavs/NAME.wav and metadata.csv with lines NAME|text|text):
#     DEMO_CORPUS=/path/to/corpus bash scripts/demo.sh

set -euo pipefail
cd "$(dirname "$0")/.."

if [[ -n "${DEMO_CORPUS:-}" ]]; then
  corpus="${DEMO_CORPUS%/}"
  output="output/demo-$(basename "$corpus")"
  if [[ ! -f "$corpus/metadata.csv" || ! -d "$corpus/wavs" ]]; then
    echo "demo.sh: DEMO_CORPUS: expected $corpus/metadata.csv and $corpus/wavs/" >&2
    exit 2
  fi
  if (($(wc -l <"$corpus/metadata.csv") < 50)); then
    echo "demo.sh: DEMO_CORPUS: expected 50 clips or more in $corpus/metadata.csv" >&2
    exit 2
  fi
else
  corpus=output/demo/corpus
  output=output/demo
fi

# A small model that learns to speak in minutes on two cores. The rate rises over the warm-up to
# learning-rate / sqrt(warmup-steps), then falls as 1 / sqrt(step).
model_and_training=(
  --epochs "${DEMO_EPOCHS:-52}"
  --batch-size 8
  --optimizer adam --learning-rate 0.0424 --warmup-steps 200
  --ema-decay 0.995 # the averaged weights speak better than the last ones
  --symbols-embedding-dim 192
  --in-fft-n-layers 3 --in-fft-output-size 192 --in-fft-conv1d-filter-size 512
  --out-fft-n-layers 3 --out-fft-output-size 192 --out-fft-conv1d-filter-size 512
  --energy-conditioning
  --dur-predictor-loss-scale 0.1 --pitch-predictor-loss-scale 0.1
  --kl-loss-start-epoch 10 --kl-loss-warmup-epochs 10
  --text-cleaners english_cleaners_v2
  --p-arpabet 1.0 --several-pronunciations first # hardly a word in letters
  --num-workers 0
  --validation-freq 4 --samples-freq 26 --epochs-per-checkpoint 13
)

# A small HiFi-GAN (V2), on a GPU only.
vocoder_training=(
  --variant V2
  --batch-size 16 --learning-rate 0.0005 --lr-decay 0.995
  --ema-decay 0.99
  --num-workers 4
  --validation-interval 50 --samples-interval 100 --checkpoint-interval 50
)

most_clips=240 # to train on; more would take longer than a demo may
voice=pretrained_models/voice # the one that inference.py takes by itself
shipped_speech="$output/shipped_voice"
num_stages=7
if [[ -f "$voice/fastpitch.pt" ]]; then
  num_stages=8
fi
stage_number=0
stage_name=""

# Names a stage that begins, and notes how long the one before it took.
stage() {
  end_stage
  stage_name="$1" stage_number=$((stage_number + 1)) stage_begun=$SECONDS
  printf '\n[%d/%d] %s\n' "$stage_number" "$num_stages" "$stage_name"
}

end_stage() {
  if [[ -n "$stage_name" ]]; then
    printf '%s\t%d\n' "$stage_name" $((SECONDS - stage_begun)) >>"$output/timings.tsv"
    printf '      %s took %d s\n' "$stage_name" $((SECONDS - stage_begun))
  fi
  stage_name=""
}

newest_checkpoint() { # in a folder, of a name
  find "$1" -name "$2_checkpoint_*.pt" | sort -V | tail -n 1
}

# Has the shipped voice speak the phrases of a file, unless it has since they and it are there.
speak_shipped() {
  local file log_file="$shipped_speech/nvlog_infer.json" # is written when all is spoken
  for file in "$1" "$voice"/*.pt; do
    if [[ ! "$log_file" -nt "$file" ]]; then
      python inference.py --input "$1" --output "$shipped_speech" "${cuda[@]}"
      return
    fi
  done
}

# Threads that wait must not take the cores from those that work: on two cores that are not all
# ours, or load data besides, training is up to four times faster so.
export OMP_WAIT_POLICY=PASSIVE

mkdir -p "$output"
trap end_stage EXIT # an interrupted stage counts, too

stage "setting up"
source scripts/setup.sh requirements.txt # gives python
if [[ -z "${DEMO_CORPUS:-}" ]]; then
  # Where this fails, the next stage says how to do without.
  bash scripts/setup.sh requirements-demo.txt || true
fi
cuda=()
vocoder_epochs=0
if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  cuda=(--cuda)
  vocoder_epochs=200
fi
vocoder_epochs="${DEMO_VOCODER_EPOCHS:-$vocoder_epochs}"

phrases=phrases/devset10.tsv
shipped_voice=()
if [[ -f "$voice/fastpitch.pt" ]]; then
  stage "hearing the shipped voice"
  speak_shipped "$phrases"
  shipped_voice=(--shipped-voice "$voice/fastpitch.pt" "$shipped_speech")
  echo "What this recipe makes of more speech and time than the demo has; play while yours trains:"
  awk -F '\t' -v folder="$shipped_speech" 'NR > 1 { print "  " folder "/" $1 "  " $2 }' "$phrases"
fi

stage "making the corpus"
if [[ -z "${DEMO_CORPUS:-}" ]]; then
  python -m scripts.demo.make_corpus --output "$corpus"
fi
# Six of the clips held out are the recorded phrases of phrases/devset10.tsv.
python -m scripts.make_filelists --dataset-path "$corpus" --output "$output/filelists" \
  --prefix demo --test 0 --validation 10 --text-column 2
training_files="$output/train.txt"
validation_files="$output/filelists/demo_audio_pitch_text_val.txt"
head -n "$most_clips" "$output/filelists/demo_audio_pitch_text_train.txt" >"$training_files"
if [[ -n "${DEMO_CORPUS:-}" ]]; then
  phrases="$output/phrases.tsv"
  {
    printf 'output\ttext\n'
    head -n 6 "$validation_files" | sed -E 's#^wavs/([^|]*)\.[^|.]*\|[^|]*\|#\1.wav\t#'
    grep '^unseen' phrases/devset10.tsv
  } >"$phrases"
  if ((${#shipped_voice[@]})); then
    speak_shipped "$phrases" # so that the report can play both
  fi
fi

stage "preparing features"
python prepare_dataset.py --dataset-path "$corpus" \
  --wav-text-filelists "$training_files" "$validation_files" --extract-pitch

stage "training"
python train.py --output "$output/training" --resume "${cuda[@]}" \
  --dataset-path "$corpus" --training-files "$training_files" \
  --validation-files "$validation_files" --load-pitch-from-disk "${model_and_training[@]}"

stage "training the vocoder"
vocoder=()
if ((vocoder_epochs > 0)); then
  python -m hifigan.train --output "$output/vocoder" --resume --epochs "$vocoder_epochs" \
    "${cuda[@]}" --dataset-path "$corpus" --training-files "$training_files" \
    --validation-files "$validation_files" "${vocoder_training[@]}"
  vocoder=(--hifigan "$(newest_checkpoint "$output/vocoder" hifigan_gen)" --denoising-strength 0.005)
else
  echo "No GPU here: the phrases are spoken by Griffin-Lim, since a HiFi-GAN would have to train" \
    "for an hour or more on a CPU (DEMO_VOCODER_EPOCHS=200 does it all the same)"
fi

stage "speaking"
python inference.py --input "$phrases" --output "$output/speech" --save-mels "${cuda[@]}" \
  --fastpitch "$(newest_checkpoint "$output/training" FastPitch)" --ema "${vocoder[@]}"

stage "writing the report"
python -m scripts.demo.report --output "$output/report.html" --phrases "$phrases" \
  --speech "$output/speech" --fastpitch "$(newest_checkpoint "$output/training" FastPitch)" \
  --log-file "$output/training/nvlog.json" --dataset-path "$corpus" \
  --training-files "$training_files" --validation-files "$validation_files" \
  --timings "$output/timings.tsv" --load-pitch-from-disk --ema "${shipped_voice[@]}"
end_stage

printf '\nDone in %d min %02d s. Open %s in a browser.\n' $((SECONDS / 60)) $((SECONDS % 60)) \
  "$output/report.html"
echo "All numbers and more pictures: tensorboard --logdir $output/training"
