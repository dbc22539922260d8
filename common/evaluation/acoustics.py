# SPDX-License-Identifier: BSD-3-Clause
"""How far speech is from a recording of the same words: spectrum, pitch, voicing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import librosa
import numpy as np
import scipy.fft
import torch

from common.audio import MelSpectrogram, read_audio
from common.config import AudioConfig
from common.evaluation.scores import Score
from common.pitch import estimate_pitch

NUM_CEPSTRA = 13
SILENCE_DB = 40.0  # below the loudest part: what begins and ends a clip like this is cut off
DB_PER_NEPER = 20 / np.log(10)
SEMITONES_PER_OCTAVE = 12
FEWEST_VOICED = 3  # frames that make a correlation


@dataclass(frozen=True, kw_only=True)
class Sounds:
    """What is compared of a clip."""

    cepstra: np.ndarray  # (T_mel, NUM_CEPSTRA)
    pitch: np.ndarray  # (T_mel) Hz, 0 where unvoiced


class AcousticDistance:
    """Compares speech with recordings, frame by frame along the best alignment of the two.

    Args:
        audio: settings of mels and pitch
    """

    def __init__(self, audio: AudioConfig) -> None:
        self.audio = audio
        self.mel_spectrogram = MelSpectrogram(audio)

    def __call__(self, speech: Path, reference: Path) -> Mapping[str, Score]:
        """Scores of a sentence: `mcd`, `f0_shift`, `f0_rmse`, `f0_correlation`, `voicing_error` and
        `length`.

        `mcd`, mel-cepstral distortion (Kubichek 1993) in dB, is the root mean square difference of
        the two spectral envelopes, level apart, as cepstra 1 to 13 of the mel describe them; the
        mean over the frames of the path that makes it least (dynamic time warping). Along the same
        path, where both are voiced, in semitones: `f0_shift`, by how much the speech is higher, and
        `f0_rmse`; and the correlation of the logarithms. `voicing_error` is the share of frames in
        which one is voiced and the other is not. `length` is that of the speech next to the
        recording's, both without the silence at their ends.
        """
        spoken, recorded = self._sounds(speech), self._sounds(reference)
        path = _align(spoken.cepstra, recorded.cepstra)
        difference = spoken.cepstra[path[:, 0]] - recorded.cepstra[path[:, 1]]
        # A cosine has half the mean square of its amplitude.
        distortion = DB_PER_NEPER * np.sqrt(np.square(difference).sum(axis=1) / 2)
        pitch = np.stack([spoken.pitch[path[:, 0]], recorded.pitch[path[:, 1]]])
        num_spoken, num_recorded = len(spoken.cepstra), len(recorded.cepstra)
        return {
            "mcd": Score(float(distortion.mean())),
            **_compare_pitch(pitch),
            "length": Score(num_spoken / num_recorded, num_recorded),
        }

    def _sounds(self, path: Path) -> Sounds:
        samples = read_audio(path, self.audio.sampling_rate)
        samples, _ = librosa.effects.trim(
            samples,
            top_db=SILENCE_DB,
            frame_length=self.audio.filter_length,
            hop_length=self.audio.hop_length,
        )
        mel = self.mel_spectrogram(torch.from_numpy(samples)[None])[0].numpy()
        return Sounds(cepstra=mel_cepstra(mel), pitch=estimate_pitch(samples, self.audio))


def mel_cepstra(mel: np.ndarray) -> np.ndarray:
    """Amplitudes of the cosines that a mel's envelope consists of.

    Args:
        mel: (n_mels, T_mel) natural log of amplitude

    Returns:
        (T_mel, NUM_CEPSTRA), without the first, the level
    """
    cosines = scipy.fft.dct(mel, type=2, axis=0) / mel.shape[0]
    return cosines[1 : 1 + NUM_CEPSTRA].T


def _align(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(frames of the path, 2) indices into the two, from beginning to end"""
    _, path = librosa.sequence.dtw(first.T, second.T, metric="euclidean")
    return path[::-1]


def _compare_pitch(pitch: np.ndarray) -> dict[str, Score]:
    """Scores of (2, frames) Hz, 0 where unvoiced."""
    is_voiced = pitch > 0
    scores = {
        "voicing_error": Score(float((is_voiced[0] != is_voiced[1]).mean()), pitch.shape[1]),
        "f0_shift": Score(0.0, 0.0),
        "f0_rmse": Score(0.0, 0.0),
        "f0_correlation": Score(0.0, 0.0),
    }
    both = pitch[:, is_voiced.all(axis=0)]
    if both.shape[1] < FEWEST_VOICED:
        return scores
    semitones = SEMITONES_PER_OCTAVE * np.log2(both)
    intervals = semitones[0] - semitones[1]
    scores["f0_shift"] = Score(float(intervals.mean()))
    scores["f0_rmse"] = Score(float(np.sqrt(np.square(intervals).mean())))
    if np.ptp(semitones, axis=1).min() > 0:  # a standard deviation of equal numbers is rounded
        scores["f0_correlation"] = Score(float(np.corrcoef(semitones)[0, 1]))
    return scores
