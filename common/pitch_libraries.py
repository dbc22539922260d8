# SPDX-License-Identifier: BSD-3-Clause
"""Pitch as other people's libraries find it; they are imported only where they are asked for.

parselmouth, Praat for Python, is under the GNU General Public License, version 3 or later; pyworld
is under the MIT licence. Neither is needed for anything else.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np

# f0 method -> (module, what to install)
LIBRARIES = {
    "praat": ("parselmouth", "praat-parselmouth"),
    "world": ("pyworld", "pyworld-prebuilt"),
}
PERIODS_PER_WINDOW = 3  # of the lowest pitch, in Praat


def import_library(method: str) -> ModuleType:
    """The library that finds pitch by this method.

    Raises:
        ValueError: it is not installed
    """
    module, package = LIBRARIES[method]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"pitch by {method} needs a package that is missing here ({error}): pip install "
            f"{package}"
        ) from error


def find_with_praat(
    audio: np.ndarray, sampling_rate: int, hop_length: int, fmin: float, fmax: float
) -> np.ndarray:
    """Pitch by Praat's autocorrelation method (Boersma 1993); frame t is centred at t * hop.

    Args:
        audio: (T_audio,) float32; zeros are taken to lie before and after it

    Returns:
        (T_mel,) float64 in Hz, 0 where unvoiced, with T_mel = T_audio // hop + 1
    """
    parselmouth = import_library("praat")
    num_frames = len(audio) // hop_length + 1
    # Praat puts as many frames as there is room for into the middle: half a hop more than they need
    # leaves no room for another.
    window = PERIODS_PER_WINDOW * sampling_rate / fmin
    num_samples = round(window + (num_frames - 0.5) * hop_length)
    before = (num_samples - (num_frames - 1) * hop_length) // 2
    after = max(0, num_samples - before - len(audio))
    padded = np.pad(audio.astype(np.float64), (before, after))[:num_samples]
    pitch = parselmouth.Sound(padded, sampling_rate).to_pitch_ac(
        time_step=hop_length / sampling_rate, pitch_floor=fmin, pitch_ceiling=fmax
    )
    return _without_outliers(pitch.selected_array["frequency"], fmin, fmax)


def find_with_world(
    audio: np.ndarray, sampling_rate: int, hop_length: int, fmin: float, fmax: float
) -> np.ndarray:
    """Pitch by WORLD's DIO, refined by StoneMask (Morise 2009); arguments as `find_with_praat`.

    Harvest, WORLD's other method, calls most breaths and pauses voiced, and takes eight times as
    long.
    """
    pyworld = import_library("world")
    num_frames = len(audio) // hop_length + 1
    padded = np.pad(audio.astype(np.float64), (0, hop_length))  # one frame too many: none too few
    coarse, seconds = pyworld.dio(
        padded,
        sampling_rate,
        f0_floor=fmin,
        f0_ceil=fmax,
        frame_period=1000 * hop_length / sampling_rate,
    )
    pitch = pyworld.stonemask(padded, coarse, seconds, sampling_rate)
    return _without_outliers(pitch[:num_frames], fmin, fmax)


def _without_outliers(pitch: np.ndarray, fmin: float, fmax: float) -> np.ndarray:
    # Both interpolate, and may step over the limits.
    return np.where((pitch >= fmin) & (pitch <= fmax), pitch, 0.0)
