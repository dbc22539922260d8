#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Builds the Docker image; arguments go to docker build. Another base:
#     bash scripts/docker/build.sh --build-arg FROM_IMAGE_NAME=...

set -euo pipefail
cd "$(dirname "$0")/../.."

exec docker build --tag "${IMAGE:-fastpitch}" "$@" .
