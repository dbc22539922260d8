# SPDX-License-Identifier: BSD-3-Clause
"""The most probable path of a pitch through the frames of a recording: pYIN's Viterbi search.

It looks only at transitions that a voice can make, and asks where a state came from only for states
on the path.
"""

from __future__ import annotations

import functools
import math

import numba
import numpy as np

from common.compiled import compile_once

SWITCH_PROBABILITY = 0.01  # between voiced and unvoiced, from one frame to the next
# The impossible has this probability, so that a path always exists.
TINY = float(np.finfo(np.float64).tiny)
LOG_TINY = math.log(TINY)
WITHOUT_NAN = ("nnan", "nsz")  # maxima are vectorised; sums stay exact


def find_path(scores: np.ndarray, log_unvoiced: np.ndarray, reach: int) -> np.ndarray:
    """The most probable states; they are the pitches, voiced, then the same again, unvoiced.

    Args:
        scores: (T, 2 * num_bins) float64, log-probabilities of what is heard; only the voiced half
            is read, and all of it is overwritten
        log_unvoiced: (T,) that of any unvoiced state
        reach: bins that a voice can move from one frame to the next

    Returns:
        (T,) int64
    """
    return _decode(scores, log_unvoiced, *_log_transitions(scores.shape[1] // 2, reach))


def _log_transitions(num_bins: int, reach: int) -> tuple[np.ndarray, np.ndarray]:
    # A triangle around each pitch, cut off at the lowest and the highest: its logarithms, and those
    # of its sum for each pitch.
    window = 1 - np.arange(reach + 1) / (reach + 1)
    mirrored = np.concatenate([window[:0:-1], window])
    sums = np.convolve(np.ones(num_bins), mirrored)[reach : reach + num_bins]
    return np.log(window), np.log(sums)


@functools.partial(compile_once, fastmath=WITHOUT_NAN)
def _decode(scores, log_unvoiced, log_window, log_sums):
    # Viterbi; `scores` becomes that of the best path to each state. A transition out of reach is
    # not forbidden but TINY, as is a pitch that was not heard.
    num_frames, num_states = scores.shape
    num_bins = num_states // 2
    reach = len(log_window) - 1
    stay, switch = math.log(1 - SWITCH_PROBABILITY), math.log(SWITCH_PROBABILITY)
    sources = np.full((2, num_bins + 2 * reach), -np.inf)
    arrived = np.empty(num_bins)
    best = np.empty(num_frames)
    for frame in range(num_frames):
        now = scores[frame]
        now[num_bins:] = log_unvoiced[frame]
        if frame > 0:
            before = scores[frame - 1]
            for i in range(num_bins):
                voiced, unvoiced = before[i] - log_sums[i], before[num_bins + i] - log_sums[i]
                sources[0, reach + i] = max(voiced + stay, unvoiced + switch)
                sources[1, reach + i] = max(unvoiced + stay, voiced + switch)
            for half in range(2):
                arrived[:] = best[frame - 1] + LOG_TINY
                _spread(sources[half], log_window, arrived)
                half_now = now[half * num_bins :]
                for i in range(num_bins):
                    half_now[i] += arrived[i]
        highest = -np.inf
        for i in range(num_states):
            highest = max(highest, now[i])
        best[frame] = highest
    return _trace_back(scores, best, log_window, log_sums, stay, switch)


@numba.njit(nogil=True, fastmath=set(WITHOUT_NAN))
def _spread(source, log_window, arrived):
    # To each pitch the best of those in reach. Five distances in one go spare most of the memory
    # traffic; the reach is half of a number of semitones, of ten bins each, hence full fives.
    reach = len(log_window) - 1
    middle = source[reach:]
    for i in range(len(arrived)):
        arrived[i] = max(arrived[i], middle[i] + log_window[0])
    for distance in range(1, reach + 1, 5):
        lower, upper = source[reach - distance - 4 :], source[reach + distance :]
        a, b, c, d, e = log_window[distance : distance + 5]
        for i in range(len(arrived)):
            first = max(max(lower[i + 4], upper[i]) + a, max(lower[i + 3], upper[i + 1]) + b)
            then = max(max(lower[i + 2], upper[i + 2]) + c, max(lower[i + 1], upper[i + 3]) + d)
            last = max(max(lower[i], upper[i + 4]) + e, arrived[i])
            arrived[i] = max(max(first, then), last)


@numba.njit(nogil=True)
def _trace_back(scores, best, log_window, log_sums, stay, switch):
    num_frames, num_states = scores.shape
    num_bins = num_states // 2
    reach = len(log_window) - 1
    states = np.empty(num_frames, np.int64)
    states[-1] = np.argmax(scores[-1])
    for frame in range(num_frames - 2, -1, -1):
        half, pitch = states[frame + 1] // num_bins, states[frame + 1] % num_bins
        highest = best[frame] + LOG_TINY
        state = -1
        for origin in range(2):
            change = stay if origin == half else switch
            for i in range(max(0, pitch - reach), min(num_bins, pitch + reach + 1)):
                score = scores[frame, origin * num_bins + i] - log_sums[i]
                score += change + log_window[abs(pitch - i)]
                if score > highest:
                    highest = score
                    state = origin * num_bins + i
        states[frame] = np.argmax(scores[frame]) if state < 0 else state
    return states
