# SPDX-License-Identifier: BSD-3-Clause
"""What FastPitch makes of a few clips while it trains, to look at and listen to."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from common.plots import plot_alignment, plot_mel, plot_prosody
from common.synthesizer import Vocoder
from common.task import Samples
from fastpitch.data_function import Batch
from fastpitch.model import FastPitch, FastPitchOutput

NUM_CLIPS = 3


@torch.no_grad()
def make_samples(model: FastPitch, batch: Batch, vocoder: Vocoder, sampling_rate: int) -> Samples:
    """The first clips of a batch: mels, alignment and prosody, recorded and predicted, and audio.

    Args:
        model: on the device of the batch
        batch: of validation
        vocoder: turns both mels into audio, on the same device
        sampling_rate: Hz, of the audio
    """
    model.eval()
    output = model(batch)
    figures, audio = {}, {}
    for index in range(min(NUM_CLIPS, len(batch.text_lens))):
        name = f"clip{index + 1}"
        figures |= {f"{name}/{kind}": each for kind, each in _draw(model, batch, output, index)}
        recorded = batch.mel[index : index + 1, :, : int(batch.mel_lens[index])]
        text = batch.text[index : index + 1, : int(batch.text_lens[index])]
        speaker = 0 if batch.speaker is None else batch.speaker[index : index + 1]
        predicted = model.infer(text, speaker=speaker).mel.float()
        audio[f"{name}/recorded"] = vocoder.infer(recorded)[0].float().cpu()
        audio[f"{name}/predicted"] = vocoder.infer(predicted)[0].float().cpu()
    return Samples(figures=figures, audio=audio, sampling_rate=sampling_rate)


def _draw(
    model: FastPitch, batch: Batch, output: FastPitchOutput, index: int
) -> list[tuple[str, Figure]]:
    num_frames, num_symbols = int(batch.mel_lens[index]), int(batch.text_lens[index])

    def to_hertz(pitch: Tensor) -> Tensor:
        hertz = pitch[index, :num_symbols] * model.pitch_std + model.pitch_mean
        return hertz.cpu().where(pitch[index, :num_symbols].cpu() != 0, torch.nan)

    prosodies = {"recorded": output.target, "predicted": output.predicted}
    prosody = {
        "frames": {
            name: each.log_durations[index, :num_symbols].float().exp().sub(1).cpu()
            for name, each in prosodies.items()
        },
        "pitch, Hz": {name: to_hertz(each.pitch.float()) for name, each in prosodies.items()},
    }
    if output.target.energy is not None:
        prosody["energy"] = {
            name: each.energy[index, :num_symbols].float().cpu() for name, each in prosodies.items()
        }
    return [
        ("mel_recorded", plot_mel(batch.mel[index, :, :num_frames].cpu())),
        ("mel_predicted", plot_mel(output.mel[index, :, :num_frames].float().cpu())),
        (
            "alignment",
            plot_alignment(
                output.alignment.soft[index, :num_frames, :num_symbols].float().cpu(),
                output.alignment.hard[index, :num_frames, :num_symbols].float().cpu(),
            ),
        ),
        ("prosody", plot_prosody(prosody)),
    ]
