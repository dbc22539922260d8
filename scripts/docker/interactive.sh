#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Opens a shell in the Docker image, or runs the command given, on the files of this folder.

set -euo pipefail
cd "$(dirname "$0")/../.."

gpus=(--gpus all)
if ! command -v nvidia-smi >/dev/null; then
  echo "interactive.sh: nvidia-smi not found, so the container gets no GPU" >&2
  gpus=()
fi

# Data loading processes share memory beyond Docker's default of 64 MB.
exec docker run "${gpus[@]}" --rm --interactive --tty \
  --shm-size "${SHM_SIZE:-8g}" --ulimit memlock=-1 --ulimit stack=67108864 \
  --volume "$PWD:/workspace/fastpitch" --workdir /workspace/fastpitch \
  "${IMAGE:-fastpitch}" "${@:-bash}"
