# SPDX-License-Identifier: BSD-3-Clause
"""Runs inference.py with a FastPitch whose symbols all last equally long, as a trained one's do.

After one epoch FastPitch does not know yet how long symbols last; its speech would be far shorter
or longer than people's, and times of it would say nothing.
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path

import torch

import inference
from common.checkpoint import load_checkpoint, save_checkpoint

FRAMES_PER_SYMBOL = 6  # LJSpeech's 86 frames a second, 14 symbols


def main(fastpitch: str, *arguments: str) -> None:
    """Speaks; takes a checkpoint, then inference.py's flags."""
    checkpoint = load_checkpoint(Path(fastpitch))
    predictor = checkpoint["state_dict"]
    predictor["duration_predictor.fc.weight"].zero_()
    predictor["duration_predictor.fc.bias"].fill_(math.log1p(FRAMES_PER_SYMBOL))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "steady.pt"
        save_checkpoint(checkpoint, path)
        torch.manual_seed(0)
        inference.main(["--fastpitch", str(path), *arguments])


if __name__ == "__main__":
    main(*sys.argv[1:])
