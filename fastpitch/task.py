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
from common.learner import Learner
from common.metrics import Metrics
from common.optim import UpdateRule, warmup_then_inverse_root
from common.synthesizer import Vocoder
from common.task import Progress, Samples
from fastpitch.arg_parser import FastPitchLossConfig
from fastpitch.data_function import Batch
from fastpitch.loss_function import BatchCounts, FastPitchLoss
from fastpitch.model import FastPitch
from fastpitch.samples import make_samples

BETAS = (0.9, 0.98)
EPS = 1e-9


class FastPitchTask:
    """Trains FastPitch.

    Args:
        model: on its device, with its first weights
        run: precision and averaging of weights
        optimization: update rule and schedule
        loss: weights of its terms
        audio: settings of its mels
        vocoder: for what can be heard in TensorBoard
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
        vocoder: Vocoder,
        setup: Mapping[str, Any],
        processes: Processes,
    ) -> None:
        self.optimization = optimization
        self.loss = FastPitchLoss(loss)
        self.audio = audio
        self.vocoder = vocoder
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
        weight = torch.full((), len(batch.text_lens), device=batch.text_lens.device)
        results = {}
        for scope, model in self.learner.evaluated():
            with self.learner.autocast():
                output = model(batch)
            results[scope] = (self.loss(output, batch), weight)
        return results

    def num_frames(self, batch: Batch) -> Tensor:
        """() mel frames in a batch."""
        return batch.mel_lens.sum()

    def samples(self, batch: Batch) -> Samples:
        """The first clips of a batch, as the model makes them, or its average if there is one."""
        *_, (_, model) = self.learner.evaluated()
        return make_samples(model, batch, self.vocoder, self.audio.sampling_rate)

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
