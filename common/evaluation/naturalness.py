# SPDX-License-Identifier: BSD-3-Clause
"""How natural listeners would find speech, as DNSMOS predicts it (Reddy 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from common.audio import read_audio
from common.evaluation.extras import import_extra
from common.evaluation.scores import Score

SAMPLING_RATE = 16000
NAMES = {
    "dnsmos": "ovrl_mos",
    "dnsmos_signal": "sig_mos",
    "dnsmos_background": "bak_mos",
    "dnsmos_p808": "p808_mos",
}


class Naturalness:
    """Predicts mean opinion scores, 1 to 5; made for noisy calls, hence mild with speech synthesis.

    Raises:
        ValueError: the package speechmos is not installed
    """

    def __init__(self) -> None:
        self._dnsmos = import_extra("speechmos.dnsmos", "speechmos", "dnsmos")

    def __call__(self, speech: Path) -> Mapping[str, Score]:
        """Scores of a clip, which is repeated up to 9 seconds if it is shorter."""
        opinion = self._dnsmos.run(read_audio(speech, SAMPLING_RATE), SAMPLING_RATE)
        return {name: Score(float(opinion[theirs])) for name, theirs in NAMES.items()}
