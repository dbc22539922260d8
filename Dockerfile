# SPDX-License-Identifier: BSD-3-Clause
# NVIDIA's PyTorch image with what the recipe needs besides. Its own packages, torch and apex among
# them, stay as they are: scripts/setup.sh installs only what is missing.
ARG FROM_IMAGE_NAME=nvcr.io/nvidia/pytorch:25.09-py3
FROM ${FROM_IMAGE_NAME}

WORKDIR /workspace/fastpitch

# Before the code, so that a change of code does not install everything again.
COPY requirements.txt requirements-demo.txt requirements-dev.txt ./
COPY scripts/setup.sh scripts/requirements.py scripts/
RUN bash scripts/setup.sh requirements.txt requirements-demo.txt requirements-dev.txt

COPY . .
