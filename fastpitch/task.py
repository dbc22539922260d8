# SPDX-License-Identifier: BSD-3-Clause
"""FastPitch as a training task: one optimizer step, one evaluation step, its state."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.checkpoint import load_weights
from common.config import AudioConfig, OptimizerConfig, RunConfig
from common.distributed import Processes
from common.ema import ExponentialMovingAverage
from common.griffin_lim import GriffinLim
from common.metrics import Metrics
from common.optim import (
    check_rule,
    load_optimizer,
    make_optimizer,
    set_learning_rate,
    warmup_then_inverse_root,
)
from common.plots import plot_alignment, plot_mel
from common.precision import Precision
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
        self.model = model
        self.optimization = optimization
        self.loss = FastPitchLoss(loss)
        self.audio = audio
        self.setup = dict(setup)
        self.processes = processes
        self.precision = Precision(run.amp, processes.device)
        self.optimizer = make_optimizer(
            optimization.optimizer,
            model.parameters(),
            lr=optimization.learning_rate,
            betas=BETAS,
            eps=EPS,
            weight_decay=optimization.weight_decay,
        )
        self.ema = ExponentialMovingAverage(model, run.ema_decay)
        self.trained = processes.wrap(model)

    def train_step(self, micro_batches: Sequence[Batch], progress: Progress) -> Metrics:
        """One optimizer step over micro-batches whose losses add up to that of the whole."""
        learning_rate = warmup_then_inverse_root(
            progress.step, self.optimization.learning_rate, self.optimization.warmup_steps
        )
        set_learning_rate(self.optimizer, learning_rate)
        self.optimizer.zero_grad(set_to_none=True)
        self.trained.train()
        counts = self._global_counts(micro_batches)
        kl_weight = self.loss.config.kl_weight(progress.epoch)
        totals: Metrics = {}
        for index, batch in enumerate(micro_batches):
            if index + 1 < len(micro_batches):
                with self.processes.without_sync(self.trained):
                    terms = self._backward(batch, counts, kl_weight)
            else:
                terms = self._backward(batch, counts, kl_weight)
            totals = {name: term.detach() + totals.get(name, 0) for name, term in terms.items()}
        grad_norm = self.precision.step(
            self.optimizer, self.model.parameters(), self.optimization.grad_clip_thresh
        )
        self.ema.update(self.model)
        shared = {"kl_weight": kl_weight, "lrate": learning_rate, "grad_norm": grad_norm}
        return totals | {
            name: torch.as_tensor(value, device=self.processes.device) / self.processes.world_size
            for name, value in shared.items()
        }

    @torch.no_grad()
    def eval_step(self, batch: Batch) -> dict[str, tuple[Metrics, Tensor]]:
        """The loss terms of a batch, of the model and of its average."""
        models = {"val": self.model, "val_ema": self.ema.model}
        weight = batch.text_lens.new_tensor(len(batch.text_lens))
        results = {}
        for scope, model in models.items():
            if model is None:
                continue
            model.eval()
            with self.precision.autocast():
                output = model(batch)
            results[scope] = (self.loss(output, batch), weight)
        return results

    def num_frames(self, batch: Batch) -> Tensor:
        """() mel frames in a batch."""
        return batch.mel_lens.sum()

    @torch.no_grad()
    def samples(self, batch: Batch) -> Samples:
        """The first clip of a batch: mels, alignment, and how the predicted mel sounds."""
        self.model.eval()
        output = self.model(batch)
        num_frames, num_symbols = int(batch.mel_lens[0]), int(batch.text_lens[0])
        target = batch.mel[0, :, :num_frames].cpu()
        predicted = output.mel[0, :, :num_frames].float().cpu()
        spoken = self.model.infer(batch.text[:1, :num_symbols], speaker=batch.speaker[:1])
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
            "config": dataclasses.asdict(self.model.config),
            "train_setup": self.setup,
            "state_dict": self.model.state_dict(),
            "ema_state_dict": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "optimizer_name": self.optimization.optimizer,
            "scaler": self.precision.state_dict(),
        }
        return {"FastPitch": checkpoint}

    def load_state_dict(
        self, states: Mapping[str, Mapping[str, Any]], sources: Mapping[str, Path]
    ) -> Progress:
        """Continues from a checkpoint, with this run's own optimizer settings.

        Raises:
            ValueError: the weights or the optimizer are others
        """
        state, source = states["FastPitch"], sources["FastPitch"]
        check_rule(self.optimization.optimizer, state, source)
        load_weights(self.model, state["state_dict"], source)
        load_optimizer(self.optimizer, state["optimizer"], source)
        self.precision.load_state_dict(state["scaler"])
        self.ema.load(state.get("ema_state_dict"), state["state_dict"], source)
        return Progress(epoch=state["epoch"], step=state["iteration"])

    def _backward(self, batch: Batch, counts: BatchCounts, kl_weight: float) -> Metrics:
        with self.precision.autocast():
            output = self.trained(batch)
        terms = self.loss(output, batch, counts, kl_weight)
        # Gradients are averaged over the processes, losses add up over them.
        self.precision.backward(terms["loss"] * self.processes.world_size)
        return terms

    def _global_counts(self, micro_batches: Sequence[Batch]) -> BatchCounts:
        own = BatchCounts.of(micro_batches)
        totals = torch.stack([own.utterances, own.symbols, own.frames])
        return BatchCounts(*self.processes.sum(totals))
