# SPDX-License-Identifier: BSD-3-Clause
"""Pitch transforms do what their names say, in the order of the public recipe."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from fastpitch.pitch_transform import amplify, compose, custom, flatten, invert, shift, transpose

PITCH = torch.tensor([[0.5, -1.0, 2.0, 0.0]])
LENS = torch.tensor([4])


def test_each_transform_does_what_its_name_says():
    assert_close(flatten(PITCH, LENS, 200.0, 50.0), torch.zeros_like(PITCH))
    assert_close(invert(PITCH, LENS, 200.0, 50.0), -PITCH)
    assert_close(amplify(2.0)(PITCH, LENS, 200.0, 50.0), 2 * PITCH)
    assert_close(shift(25.0)(PITCH, LENS, 200.0, 50.0), PITCH + 0.5)


def test_a_transposed_pitch_is_the_same_number_of_semitones_away_everywhere():
    hertz = PITCH * 50.0 + 200.0
    for semitones in (-4, 0, 7):
        transposed = transpose(semitones)(PITCH, LENS, 200.0, 50.0) * 50.0 + 200.0
        assert_close(12 * (transposed / hertz).log2(), torch.full_like(hertz, semitones))


def test_transforms_apply_one_after_the_other():
    both = compose([invert, amplify(0.5), shift(50.0)])
    assert_close(both(PITCH, LENS, 200.0, 50.0), -0.5 * PITCH + 1)
    assert_close(compose([])(PITCH, LENS, 200.0, 50.0), PITCH)


def test_the_sample_of_a_custom_transform_glides_from_half_to_one_and_a_half():
    pitch = torch.zeros(2, 5)  # the mean, 200 Hz
    glided = custom(pitch, torch.tensor([5, 3]), 200.0, 50.0) * 50.0 + 200.0
    assert_close(glided[0], torch.tensor([100.0, 150.0, 200.0, 250.0, 300.0]))
    assert_close(glided[1, :3], torch.tensor([100.0, 200.0, 300.0]))
