# SPDX-License-Identifier: BSD-3-Clause
"""FastPitch as a training task: one optimizer step, one evaluation step, its state."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.config import AudioConfig, OptimizerConfig, RunConfig
from common.distributed import Processes
from common.griffin_lim import GriffinLim
from common.learner import Learner
from common.metrics import Metrics
from common.optim import UpdateRule, warmup_then_inverse_root
from common.plots import plot_alignment, plot_mel
from common.trainer import Progress, Samples
from fastpitch.arg_parser import FastPitchLossConfig
from fastpitch.data_function import Batch
from fastpitch.loss_function import BatchCounts, FastPitchLoss
from fastpitch.model import FastPitch

BETAS = (0.9, 0.98)
EPS = 1e-9


class FastPitchTask:
    """Trains FastPitch.

    Args:
        model: on its device, with its first weights
        run: precision and averaging of weights
        optimization: update rule and schedule
        loss: weights of its terms
        audio: for what can be heard in TensorBoard
        setup: audio and text settings that travel in the checkpoint
        processes: that train together
    """

    files = ("FastPitch",)

    def __init__(
        self,
        model: FastPitch,
        *,
        run: RunConfig,
        optimization: OptimizerConfig,
        loss: FastPitchLossConfig,
        audio: AudioConfig,
        setup: Mapping[str, Any],
        processes: Processes,
    ) -> None:
        self.optimization = optimization
        self.loss = FastPitchLoss(loss)
        self.audio = audio
        self.setup = dict(setup)
        self.processes = processes
        rule = UpdateRule.of(optimization, BETAS, EPS)
        self.learner = Learner(model, rule, run, processes)

    def train_step(self, micro_batches: Sequence[Batch], progress: Progress) -> Metrics:
        """One optimizer step over micro-batches whose losses add up to that of the whole."""
        learning_rate = warmup_then_inverse_root(
            progress.step, self.optimization.learning_rate, self.optimization.warmup_steps
        )
        counts = self._global_counts(micro_batches)
        kl_weight = self.loss.config.kl_weight(progress.epoch)

        def terms_of(batch: Batch) -> Metrics:
            with self.learner.autocast():
                output = self.learner.wrapped(batch)
            return self.loss(output, batch, counts, kl_weight)

        self.learner.wrapped.train()
        metrics = self.learner.step(micro_batches, terms_of, learning_rate)
        return metrics | self.learner.share({"kl_weight": kl_weight})

    @torch.no_grad()
    def eval_step(self, batch: Batch) -> dict[str, tuple[Metrics, Tensor]]:
        """The loss terms of a batch, of the model and of its average."""
        weight = batch.text_lens.new_tensor(len(batch.text_lens))
        results = {}
        for scope, model in self.learner.evaluated():
            with self.learner.autocast():
                output = model(batch)
            results[scope] = (self.loss(output, batch), weight)
        return results

    def num_frames(self, batch: Batch) -> Tensor:
        """() mel frames in a batch."""
        return batch.mel_lens.sum()

    @torch.no_grad()
    def samples(self, batch: Batch) -> Samples:
        """The first clip of a batch: mels, alignment, and how the predicted mel sounds."""
        model = self.learner.model.eval()
        output = model(batch)
        num_frames, num_symbols = int(batch.mel_lens[0]), int(batch.text_lens[0])
        target = batch.mel[0, :, :num_frames].cpu()
        predicted = output.mel[0, :, :num_frames].float().cpu()
        spoken = model.infer(batch.text[:1, :num_symbols], speaker=batch.speaker[:1])
        vocoder = GriffinLim(self.audio)
        return Samples(
            figures={
                "mel/recorded": plot_mel(target),
                "mel/predicted": plot_mel(predicted),
                "alignment": plot_alignment(
                    output.alignment.soft[0, :num_frames, :num_symbols].cpu(),
                    output.alignment.hard[0, :num_frames, :num_symbols].cpu(),
                ),
            },
            audio={
                "audio/recorded_mel": vocoder.infer(target[None])[0],
                "audio/predicted": vocoder.infer(spoken.mel.float().cpu())[0],
            },
            sampling_rate=self.audio.sampling_rate,
        )

    def state_dict(self, progress: Progress) -> dict[str, dict[str, Any]]:
        """The contents of a checkpoint."""
        checkpoint = {
            "epoch": progress.epoch,
            "iteration": progress.step,
            "config": dataclasses.asdict(self.learner.model.config),
            "train_setup": self.setup,
            **self.learner.state_dict(),
        }
        return {"FastPitch": checkpoint}

    def load_state_dict(
        self, states: Mapping[str, Mapping[str, Any]], sources: Mapping[str, Path]
    ) -> Progress:
        """Continues from a checkpoint; errors as those of `Learner.load_state_dict`."""
        state = states["FastPitch"]
        self.learner.load_state_dict(state, sources["FastPitch"])
        return Progress(epoch=state["epoch"], step=state["iteration"])

    def _global_counts(self, micro_batches: Sequence[Batch]) -> BatchCounts:
        own = BatchCounts.of(micro_batches)
        totals = torch.stack([own.utterances, own.symbols, own.frames])
        return BatchCounts(*self.processes.sum(totals))
