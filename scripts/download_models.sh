#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Fetches published models from NVIDIA's catalogue, NGC, into pretrained_models/<name>:
#     bash scripts/download_models.sh fastpitch hifigan
# Run again, it continues a broken download and does nothing twice. MODELS_ROOT names another
# folder, NGC_URL a mirror.

set -euo pipefail
cd "$(dirname "$0")/.."

: "${MODELS_ROOT:=pretrained_models}"
: "${NGC_URL:=https://api.ngc.nvidia.com/v2/models}"

fail() {
  printf 'download_models.sh: %s\n' "$*" >&2
  exit 1
}

usage() {
  printf '%s\n' "usage: bash scripts/download_models.sh NAME..." \
    "NAME is one of: fastpitch hifigan hifigan-finetuned-fastpitch waveglow" >&2
  exit 2
}

# Sets version, a model's address in the catalogue, and file, what is wanted of its archive.
find_model() {
  case "$1" in
    fastpitch)
      version=nvidia/fastpitch_pyt_fp32_ckpt_v1_1/versions/21.05.0
      file=nvidia_fastpitch_210824.pt
      ;;
    hifigan)
      version=nvidia/dle/hifigan__pyt_ckpt_ds-ljs22khz/versions/21.08.0_amp
      file=hifigan_gen_checkpoint_6500.pt
      ;;
    hifigan-finetuned-fastpitch)
      version=nvidia/dle/hifigan__pyt_ckpt_mode-finetune_ds-ljs22khz/versions/21.08.0_amp
      file=hifigan_gen_checkpoint_10000_ft.pt
      ;;
    waveglow)
      version=nvidia/waveglow_ckpt_amp_256/versions/20.01.0
      file=nvidia_waveglow256pyt_fp16.pt
      ;;
    *)
      printf 'download_models.sh: there is no model %s\n' "$1" >&2
      usage
      ;;
  esac
}

# Continues where a broken download stopped, if the server can.
download() {
  local url="$1" part="$2" code=0
  if command -v curl >/dev/null; then
    curl --fail --location --retry 5 --continue-at - --output "$part" "$url" || code=$?
    if ((code == 33)); then # the server cannot
      curl --fail --location --retry 5 --output "$part" "$url"
    else
      return "$code"
    fi
  elif command -v wget >/dev/null; then
    wget --tries 5 --continue --output-document "$part" "$url"
  else
    fail "neither curl nor wget is here. On Debian and Ubuntu: apt-get install curl"
  fi
}

# Reads all of an archive; python -m zipfile --test would call damage a success.
is_whole() {
  [[ -f "$1" ]] && python3 -c 'import sys, zipfile
sys.exit(zipfile.ZipFile(sys.argv[1]).testzip() is not None)' "$1" 2>/dev/null
}

fetch() {
  local version file
  find_model "$1"
  local folder="$MODELS_ROOT/$1"
  local archive="$folder/$file.zip" unfinished="$folder/.$file.unpacking"
  if [[ -f "$folder/$file" ]]; then
    echo "$folder/$file is there"
    return
  fi
  mkdir -p "$folder"
  # A download that was complete when it was interrupted needs no server.
  if ! is_whole "$archive.part"; then
    download "$NGC_URL/$version/zip" "$archive.part" ||
      fail "the download of $NGC_URL/$version/zip broke off; run this again to continue it (if it" \
        "always breaks off at once, remove $archive.part first)"
    is_whole "$archive.part" ||
      fail "$archive.part is no archive, or damaged; remove it and run this again"
  fi
  python3 -m zipfile --extract "$archive.part" "$unfinished" ||
    fail "unpacking $archive.part failed; is the disk full?"
  [[ -f "$unfinished/$file" ]] || fail "$archive.part holds no $file; remove it and run this again"
  mv "$unfinished/$file" "$folder/$file"
  rm -r "$unfinished" "$archive.part"
  echo "done: $folder/$file"
}

(($#)) || usage
for name in "$@"; do
  find_model "$name"
done
command -v python3 >/dev/null ||
  fail "python3 is not here. On Debian and Ubuntu: apt-get install python3"
for name in "$@"; do
  fetch "$name"
done
