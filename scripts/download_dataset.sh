#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Fetches LJSpeech-1.1 (2.6 GB; 24 hours of one voice, public domain) into data/LJSpeech-1.1.
# Run again, it continues a broken download and does nothing twice. Another folder:
#     DATA_ROOT=/disk/data bash scripts/download_dataset.sh

set -euo pipefail
cd "$(dirname "$0")/.."

: "${DATA_ROOT:=data}"
: "${LJSPEECH_URL:=https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2}"
: "${LJSPEECH_SHA256:=be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5}"

corpus="$DATA_ROOT/LJSpeech-1.1"
archive="$DATA_ROOT/LJSpeech-1.1.tar.bz2"
unfinished="$DATA_ROOT/.LJSpeech-1.1.unpacking"

fail() {
  printf 'download_dataset.sh: %s\n' "$*" >&2
  exit 1
}

broke_off() {
  fail "the download broke off; run this again to continue it (if it always breaks off at once," \
    "remove $archive.part first)"
}

download() {
  # Both continue where a broken download stopped.
  if command -v curl >/dev/null; then
    curl --fail --location --retry 5 --continue-at - --output "$archive.part" "$LJSPEECH_URL" || broke_off
  elif command -v wget >/dev/null; then
    wget --tries 5 --continue --output-document "$archive.part" "$LJSPEECH_URL" || broke_off
  else
    fail "neither curl nor wget is here. On Debian and Ubuntu: apt-get install curl"
  fi
}

has_right_sum() {
  local sum
  if command -v sha256sum >/dev/null; then
    sum="$(sha256sum "$1")"
  else
    sum="$(shasum -a 256 "$1")"
  fi
  [[ "${sum%% *}" == "$LJSPEECH_SHA256" ]]
}

if [[ -f "$corpus/metadata.csv" ]]; then
  echo "$corpus is there"
  exit
fi
mkdir -p "$DATA_ROOT"

if [[ ! -f "$archive" ]]; then
  # A download that was complete when it was interrupted needs no server.
  if [[ ! -f "$archive.part" ]] || ! has_right_sum "$archive.part"; then
    download
  fi
  echo "checking $archive.part"
  has_right_sum "$archive.part" || fail "$archive.part is not the LJSpeech-1.1 expected (SHA-256" \
    "$LJSPEECH_SHA256); remove it and run this again"
  mv "$archive.part" "$archive"
else
  echo "checking $archive"
  has_right_sum "$archive" || fail "$archive is not the LJSpeech-1.1 expected (SHA-256" \
    "$LJSPEECH_SHA256); move it away and run this again"
fi

echo "unpacking to $corpus"
[[ ! -e "$corpus" ]] || fail "$corpus is there without its metadata.csv; move it away"
mkdir -p "$unfinished"
tar -xjf "$archive" -C "$unfinished" ||
  fail "unpacking failed; is bzip2 installed (apt-get install bzip2), and is the disk full?"
mv "$unfinished/LJSpeech-1.1" "$corpus"
rmdir "$unfinished"
echo "done: $corpus; $archive is needed no more"
