# SPDX-License-Identifier: BSD-3-Clause
"""Audio that is like speech in what matters to measurements: pitch, breath, pauses, syllables."""

from __future__ import annotations

import numpy as np


def generate_speech(seconds: float, sampling_rate: int, seed: int) -> np.ndarray:
    """Syllables of a moving pitch, breath noise and pauses, about four a second.

    Returns:
        (T_audio,) float32 in [-1, 1]
    """
    random = np.random.default_rng(seed)
    num_samples = round(seconds * sampling_rate)
    num_syllables = max(2, round(4 * seconds))
    position = np.linspace(0, num_syllables, num_samples, endpoint=False)
    knots = np.arange(num_syllables + 1)
    pitch_hz = np.interp(position, knots, random.uniform(120, 300, len(knots)))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / sampling_rate
    voice = sum(np.sin(n * phase + n) / n for n in range(1, 16))
    syllable = position.astype(int)
    voiced = random.choice([0, 0.3, 1, 1], num_syllables)[syllable] * np.sin(np.pi * position) ** 2
    breath = random.choice([0.001, 0.01, 0.3], num_syllables)[syllable]
    noise = random.normal(0, 1, num_samples)
    return (0.1 * (voice * voiced + noise * breath)).astype(np.float32)
