# SPDX-License-Identifier: BSD-3-Clause
"""What TensorBoard is given of a training: the clips, the pictures, the sound."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from fastpitch.samples import NUM_CLIPS, make_samples
from tests.conftest import golden, golden_batch
from tests.fastpitch.test_model import FIXTURES, load

HOP = 4


class EchoVocoder:
    """Makes each frame sound as loud as its first band, so that audio tells of its mel."""

    def infer(self, mel: Tensor) -> Tensor:
        return mel[:, 0].repeat_interleave(HOP, dim=1)


@pytest.fixture(params=FIXTURES)
def fixture(request):
    return golden(request.param)


def test_the_first_clips_are_drawn_and_played_without_padding(fixture):
    batch = golden_batch(fixture)
    samples = make_samples(load(fixture), batch, EchoVocoder(), 22050)
    clips = [f"clip{n + 1}" for n in range(min(NUM_CLIPS, len(batch.mel)))]
    kinds = ("mel_recorded", "mel_predicted", "alignment", "prosody")
    assert [*samples.figures] == [f"{clip}/{kind}" for clip in clips for kind in kinds]
    assert [*samples.audio] == [f"{clip}/{k}" for clip in clips for k in ("recorded", "predicted")]
    for index, clip in enumerate(clips):
        mel = batch.mel[index, :, : batch.mel_lens[index]]
        assert torch.equal(samples.audio[f"{clip}/recorded"], mel[0].repeat_interleave(HOP))
        image = samples.figures[f"{clip}/mel_recorded"].axes[0].images[0]
        assert np.array_equal(image.get_array(), mel.numpy())
    assert samples.sampling_rate == 22050


def test_the_recorded_prosody_has_the_frames_of_the_clip_and_pitch_in_hertz(fixture):
    model, batch = load(fixture), golden_batch(fixture)
    model.set_pitch_statistics(200.0, 50.0)
    figure = make_samples(model, batch, EchoVocoder(), 22050).figures["clip1/prosody"]
    titles = ["frames", "pitch, Hz"] + ["energy"] * model.config.energy_conditioning
    assert [axes.get_title() for axes in figure.axes] == titles
    recorded = {axes.get_title(): axes.patches[0].get_data().values for axes in figure.axes}
    assert recorded["frames"].sum() == pytest.approx(int(batch.mel_lens[0]), abs=1e-3)
    expected = fixture["forward"]["pitch_tgt"][0, 0, : int(batch.text_lens[0])]
    hertz = torch.where(expected == 0, torch.nan, expected * 50 + 200)
    assert np.allclose(recorded["pitch, Hz"], hertz.numpy(), atol=1e-2, equal_nan=True)


def test_few_clips_are_all_shown(fixture):
    batch = golden_batch(fixture)
    tensors = {k: v[:1] for k, v in vars(batch).items() if isinstance(v, Tensor)}
    samples = make_samples(
        load(fixture), dataclasses.replace(batch, **tensors), EchoVocoder(), 22050
    )
    assert {name.partition("/")[0] for name in samples.figures} == {"clip1"}
