# SPDX-License-Identifier: BSD-3-Clause
"""Pitch by probabilistic YIN: what librosa's `pyin` finds, a hundred times faster.

YIN is de Cheveigné and Kawahara 2002, its probabilistic form Mauch and Dixon 2014. Three things
make it fast: autocorrelations come from FFTs of many frames at once; the candidates of a frame are
found and weighed in one compiled pass; the search for the best path (`common.pitch_path`) leaves
out what cannot be. A frame takes 10 kB.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
import scipy.fft
import scipy.special

from common.compiled import compile_once
from common.pitch_path import LOG_TINY, TINY, find_path

NUM_THRESHOLDS = 100
THRESHOLD_PRIOR = (2, 18)  # parameters of a beta distribution with mean 0.1
TROUGH_DECAY = 2.0  # each further trough below a threshold is e^2 times less probable
NO_TROUGH_WEIGHT = 0.01  # of the lowest trough, for the thresholds that lie below it
BINS_PER_SEMITONE = 10
OCTAVES_PER_SECOND = 35.92  # the fastest glide
FRAMES_PER_BATCH = 64  # their spectra stay in the cache of a core


@dataclass(frozen=True, kw_only=True)
class PyinSettings:
    """What to look for, and where.

    Args:
        sampling_rate: Hz
        frame_length: samples that a pitch is found in
        hop_length: samples from one frame to the next
        fmin: lowest pitch in Hz
        fmax: highest pitch in Hz
    """

    sampling_rate: int
    frame_length: int
    hop_length: int
    fmin: float
    fmax: float

    def __post_init__(self) -> None:
        if self.hop_length < 1:
            raise ValueError(f"pitch needs a hop of at least 1 sample, got {self.hop_length}")
        if not 0 < self.fmin < self.fmax <= self.sampling_rate / 2:
            raise ValueError(
                f"pitch from {self.fmin:.1f} to {self.fmax:.1f} Hz cannot be found at a sampling "
                f"rate of {self.sampling_rate} Hz: expected 0 < lowest < highest <= half the rate"
            )
        longest_period = self.sampling_rate / self.fmin
        if longest_period >= self.frame_length - 1:
            raise ValueError(
                f"a frame of {self.frame_length} samples does not hold one period of "
                f"{self.fmin:.1f} Hz at {self.sampling_rate} Hz: it needs "
                f"{math.ceil(longest_period) + 2} or more (--filter-length)"
            )

    @property
    def min_period(self) -> int:
        return math.floor(self.sampling_rate / self.fmax)

    @property
    def max_period(self) -> int:
        return min(math.ceil(self.sampling_rate / self.fmin), self.frame_length - 1)

    @property
    def num_bins(self) -> int:
        return math.floor(12 * BINS_PER_SEMITONE * math.log2(self.fmax / self.fmin)) + 1

    @property
    def reach(self) -> int:
        """Bins that a voice can move from one frame to the next."""
        per_frame = OCTAVES_PER_SECOND * 12 * self.hop_length / self.sampling_rate
        return round(per_frame) * BINS_PER_SEMITONE // 2


class ThresholdPrior(NamedTuple):
    """How probable a trough of YIN's curve is, given which thresholds it lies below.

    Args:
        thresholds: (K,) ascending
        weights: (K,) probability of each threshold
        weights_below: (K + 1,) what the lowest trough gains from the first k thresholds
        decays: (max troughs,) relative probability of a trough with k shorter ones before it
        norms: (max troughs,) factor that makes k + 1 such probabilities sum to 1
    """

    thresholds: np.ndarray
    weights: np.ndarray
    weights_below: np.ndarray
    decays: np.ndarray
    norms: np.ndarray

    @classmethod
    def build(cls, max_troughs: int) -> ThresholdPrior:
        edges = np.linspace(0, 1, NUM_THRESHOLDS + 1)
        weights = np.diff(scipy.special.betainc(*THRESHOLD_PRIOR, edges))
        below = [NO_TROUGH_WEIGHT * weights[:k].sum() for k in range(len(edges))]
        indices = np.arange(max_troughs)
        norms = (1 - np.exp(-TROUGH_DECAY)) / (1 - np.exp(-TROUGH_DECAY * (indices + 1)))
        return cls(edges[1:], weights, np.array(below), np.exp(-TROUGH_DECAY * indices), norms)


def pyin(audio: np.ndarray, settings: PyinSettings) -> np.ndarray:
    """Pitch of each frame; frame t is centred at sample t * hop_length.

    Args:
        audio: (T_audio,) float32; zeros are taken to lie before and after it

    Returns:
        (T,) float64 in Hz on a grid of tenths of a semitone, 0 where unvoiced

    Raises:
        ValueError: the audio is not mono or not finite
    """
    if audio.ndim != 1:
        raise ValueError(f"pitch needs mono audio, (samples,), got shape {audio.shape}")
    if not np.isfinite(audio).all():
        raise ValueError("pitch needs finite audio, got NaN or infinity")
    if settings.sampling_rate / settings.fmin >= settings.frame_length // 2:
        warnings.warn(
            f"a frame of {settings.frame_length} samples holds less than two periods of "
            f"{settings.fmin:.1f} Hz at {settings.sampling_rate} Hz: low pitch will be unreliable",
            stacklevel=2,
        )
    scores, log_unvoiced = _observe(audio.astype(np.float32, copy=False), settings)
    states = find_path(scores, log_unvoiced, settings.reach)
    bins = np.arange(settings.num_bins)
    pitch_hz = settings.fmin * 2 ** (bins / (12 * BINS_PER_SEMITONE))
    return np.append(pitch_hz, np.zeros(settings.num_bins))[states]


def _observe(audio: np.ndarray, settings: PyinSettings) -> tuple[np.ndarray, np.ndarray]:
    # States are the pitches, voiced, then the same again, unvoiced. The log-probability of what is
    # heard: (T, 2 * num_bins), the voiced half filled in, and (T,) that of any unvoiced state.
    length = settings.frame_length
    padded = np.pad(audio, length // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[:: settings.hop_length]
    fft_size = scipy.fft.next_fast_len(2 * length - 1, real=True)
    prior = ThresholdPrior.build(settings.max_period)
    scores = np.empty((len(frames), 2 * settings.num_bins))
    log_unvoiced = np.empty(len(frames))
    for start in range(0, len(frames), FRAMES_PER_BATCH):
        batch = slice(start, start + FRAMES_PER_BATCH)
        samples = frames[batch].copy()
        spectra = scipy.fft.rfft(samples, n=fft_size)
        power = np.square(spectra.real) + np.square(spectra.imag)
        _score_frames(
            samples,
            scipy.fft.irfft(power, n=fft_size),
            settings.min_period,
            settings.max_period,
            settings.sampling_rate / settings.fmin,
            prior,
            scores[batch],
            log_unvoiced[batch],
        )
    return scores, log_unvoiced


@compile_once
def _score_frames(
    frames, correlations, min_period, max_period, longest_period, prior, scores, log_unvoiced
):
    num_bins = scores.shape[1] // 2
    curve = np.empty(max_period - min_period + 1)
    troughs = np.empty(len(curve), np.int64)
    for frame in range(len(frames)):
        _normalise_difference(frames[frame], correlations[frame], min_period, max_period, curve)
        num_troughs = _find_troughs(curve, troughs)
        probabilities = _weigh_troughs(curve, troughs[:num_troughs], prior)
        heard = np.zeros(num_bins)
        for trough in range(num_troughs):
            period = min_period + _refine(curve, troughs[trough])
            pitch = max(0, round(12 * BINS_PER_SEMITONE * math.log2(longest_period / period)))
            if pitch < num_bins and probabilities[trough] > 0:
                heard[pitch] = probabilities[trough]
        voiced = 0.0
        for pitch in range(num_bins):
            probability = heard[pitch]
            voiced += probability
            scores[frame, pitch] = math.log(probability + TINY) if probability > 0 else LOG_TINY
        log_unvoiced[frame] = math.log((1 - min(voiced, 1.0)) / num_bins + TINY)


@numba.njit(nogil=True)
def _normalise_difference(samples, correlation, min_period, max_period, curve):
    # De Cheveigné and Kawahara, equations 7 and 8, in librosa's order and precision.
    energy = np.float32(0)
    total = np.float32(0)
    for lag in range(1, max_period + 1):
        energy += samples[lag - 1] * samples[lag - 1]
        difference = np.float32(2) * (correlation[0] - correlation[lag])
        if lag > 1:  # librosa leaves it out at lag 1, and so all cumulative means are larger
            difference -= energy
        total += difference
        if lag >= min_period:
            curve[lag - min_period] = difference / (np.float64(total) / lag + TINY)


@numba.njit(nogil=True)
def _find_troughs(curve, troughs):
    num_troughs = 0
    last = len(curve) - 1
    if curve[0] < curve[1]:
        troughs[0] = 0
        num_troughs = 1
    for i in range(1, last + 1):
        if curve[i] < curve[i - 1] and (i == last or curve[i] <= curve[i + 1]):
            troughs[num_troughs] = i
            num_troughs += 1
    return num_troughs


@numba.njit(nogil=True)
def _weigh_troughs(curve, troughs, prior):
    # Each threshold gives its weight to the troughs below it, most to that of the shortest period.
    num_thresholds = len(prior.thresholds)
    first_above = np.empty(len(troughs), np.int64)  # the lowest threshold above a trough
    num_below = np.zeros(num_thresholds, np.int64)
    lowest = 0
    for trough in range(len(troughs)):
        height = curve[troughs[trough]]
        k = num_thresholds
        while k > 0 and height < prior.thresholds[k - 1]:
            k -= 1
            num_below[k] += 1
        first_above[trough] = k
        if height < curve[troughs[lowest]]:
            lowest = trough
    probabilities = np.zeros(len(troughs))
    num_shorter = np.zeros(num_thresholds, np.int64)
    for trough in range(len(troughs)):
        probability = 0.0
        for k in range(first_above[trough], num_thresholds):
            share = prior.norms[num_below[k] - 1] * prior.decays[num_shorter[k]]
            probability += share * prior.weights[k]
            num_shorter[k] += 1
        if trough == lowest:
            probability += prior.weights_below[first_above[trough]]
        probabilities[trough] = probability
    return probabilities


@numba.njit(nogil=True)
def _refine(curve, i):
    # The lowest point of the parabola through three points, where it lies between them.
    if i == 0 or i == len(curve) - 1:
        return np.float64(i)
    bend = curve[i + 1] + curve[i - 1] - 2 * curve[i]
    slope = (curve[i + 1] - curve[i - 1]) / 2
    return i - slope / bend if abs(slope) < abs(bend) else np.float64(i)
