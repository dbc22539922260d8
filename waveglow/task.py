# SPDX-License-Identifier: BSD-3-Clause
"""WaveGlow as a training task: one optimizer step, one evaluation step, its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.audio import MelSpectrogram
from common.config import AudioConfig, OptimizerConfig, RunConfig
from common.distributed import Processes
from common.learner import Learner
from common.metrics import Metrics
from common.optim import UpdateRule, warmup_then_inverse_root
from common.plots import plot_mel
from common.segments import AudioBatch
from common.task import Progress, Samples
from waveglow.arg_parser import WaveGlowLossConfig
from waveglow.loss_function import waveglow_loss
from waveglow.model import WaveGlow

BETAS = (0.9, 0.999)
EPS = 1e-8
SAMPLES_SEED = 0  # samples of all epochs are made from the same noise, so that they compare


class WaveGlowTask:
    """Trains WaveGlow.

    Args:
        model: on its device, with its first weights
        run: precision and averaging of weights
        optimization: update rule and schedule
        loss: what the latent is held to
        audio: settings of the mels
        setup: audio settings that travel in the checkpoint
        processes: that train together
    """

    files = ("WaveGlow",)

    def __init__(
        self,
        model: WaveGlow,
        *,
        run: RunConfig,
        optimization: OptimizerConfig,
        loss: WaveGlowLossConfig,
        audio: AudioConfig,
        setup: Mapping[str, Any],
        processes: Processes,
    ) -> None:
        self.optimization = optimization
        self.sigma = loss.sigma
        self.audio = audio
        self.setup = dict(setup)
        self.processes = processes
        self.mel_spectrogram = MelSpectrogram(audio, "center").to(processes.device)
        rule = UpdateRule.of(optimization, BETAS, EPS)
        self.learner = Learner(model, rule, run, processes)

    def train_step(self, micro_batches: Sequence[AudioBatch], progress: Progress) -> Metrics:
        """One optimizer step.

        Segments are equally long, so means over micro-batches are those over the whole.
        """
        learning_rate = warmup_then_inverse_root(
            progress.step, self.optimization.learning_rate, self.optimization.warmup_steps
        )
        share = 1 / (len(micro_batches) * self.processes.world_size)

        def terms_of(batch: AudioBatch) -> Metrics:
            terms = self._terms(self.learner.wrapped, batch)
            return {name: share * term for name, term in terms.items()}

        self.learner.wrapped.train()
        return self.learner.step(micro_batches, terms_of, learning_rate)

    @torch.no_grad()
    def eval_step(self, batch: AudioBatch) -> dict[str, tuple[Metrics, Tensor]]:
        """The loss terms of whole clips, of the model and of its average."""
        weight = self.num_frames(batch)
        return {
            scope: (self._terms(model, batch), weight) for scope, model in self.learner.evaluated()
        }

    def num_frames(self, batch: AudioBatch) -> Tensor:
        """() mel frames in a batch."""
        num_frames = batch.audio.numel() // self.audio.hop_length
        return torch.full((), num_frames, device=batch.audio.device)

    @torch.no_grad()
    def samples(self, batch: AudioBatch) -> Samples:
        """The first clip of a batch: recorded and generated."""
        *_, (_, model) = self.learner.evaluated()  # the average, if there is one
        recorded = batch.audio[:1]
        mel = self.mel_spectrogram(recorded)
        # As long as the recording; a generator of its own, so that training goes on the same.
        num_groups = recorded.shape[1] // model.config.groups
        generator = torch.Generator().manual_seed(SAMPLES_SEED)
        noise = torch.randn(1, model.config.groups, num_groups, generator=generator)
        generated = model.infer(mel, latent=model.sigma * noise.to(mel.device))
        return Samples(
            figures={
                "mel/recorded": plot_mel(mel[0].cpu()),
                "mel/generated": plot_mel(self.mel_spectrogram(generated)[0].cpu()),
            },
            audio={
                "audio/recorded": recorded[0].cpu(),
                "audio/generated": generated[0].cpu(),
            },
            sampling_rate=self.audio.sampling_rate,
        )

    def state_dict(self, progress: Progress) -> dict[str, dict[str, Any]]:
        """The contents of a checkpoint."""
        checkpoint = {
            "epoch": progress.epoch,
            "iteration": progress.step,
            "config": self.learner.model.config.to_checkpoint(),
            "train_setup": self.setup,
            **self.learner.state_dict(),
        }
        return {"WaveGlow": checkpoint}

    def load_state_dict(
        self, states: Mapping[str, Mapping[str, Any]], sources: Mapping[str, Path]
    ) -> Progress:
        """Continues from a checkpoint; errors as those of `Learner.load_state_dict`."""
        state = states["WaveGlow"]
        self.learner.load_state_dict(state, sources["WaveGlow"])
        return Progress(epoch=state["epoch"], step=state["iteration"])

    def _terms(self, model: nn.Module, batch: AudioBatch) -> Metrics:
        mel = self.mel_spectrogram(batch.audio)  # in full precision
        with self.learner.autocast():
            output = model(mel, batch.audio)
        return waveglow_loss(output, self.sigma)
