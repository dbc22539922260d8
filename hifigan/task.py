# SPDX-License-Identifier: BSD-3-Clause
"""HiFi-GAN as a training task: discriminators and generator take turns in every step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from common.audio import MelSpectrogram
from common.config import AudioConfig, RunConfig
from common.distributed import Processes
from common.learner import Learner
from common.metrics import Metrics
from common.optim import UpdateRule, decay_by_epoch
from common.plots import plot_mel
from common.segments import AudioBatch
from common.task import Progress, Samples
from hifigan.arg_parser import HiFiGANOptimizerConfig
from hifigan.discriminators import Discriminators, Judgement, Judgements
from hifigan.loss_function import (
    MEL_LOSS_SCALE,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    mel_loss,
)
from hifigan.model import HiFiGAN, nested_keys

EPS = 1e-8


class HiFiGANTask:
    """Trains HiFi-GAN.

    Args:
        generator: on its device, with its first weights
        discriminators: likewise
        run: precision and averaging of weights
        optimization: update rule and schedule
        audio: settings of the mels that are turned into audio
        mel_fmax_loss: highest frequency in Hz of the mels that are compared
        setup: audio settings that travel in the checkpoint
        processes: that train together
    """

    files = ("hifigan_gen", "hifigan_discrim")  # to speak with; to continue from

    def __init__(
        self,
        generator: HiFiGAN,
        discriminators: Discriminators,
        *,
        run: RunConfig,
        optimization: HiFiGANOptimizerConfig,
        audio: AudioConfig,
        mel_fmax_loss: float,
        setup: Mapping[str, Any],
        processes: Processes,
    ) -> None:
        self.optimization = optimization
        self.audio = audio
        self.setup = dict(setup)
        self.processes = processes
        self.mel_spectrogram = MelSpectrogram(audio, "same").to(processes.device)
        loss_audio = dataclasses.replace(audio, mel_fmax=mel_fmax_loss)
        self.loss_mel_spectrogram = MelSpectrogram(loss_audio, "same").to(processes.device)
        rule = UpdateRule(
            name=optimization.optimizer,
            fused=optimization.fused_optimizer,
            learning_rate=optimization.learning_rate,
            betas=optimization.adam_betas,
            eps=EPS,
            weight_decay=optimization.weight_decay,
            max_grad_norm=optimization.grad_clip_thresh,
        )
        self.generator = Learner(generator, rule, run, processes)
        # In this order, which the optimizer states of public checkpoints have, too.
        parameters = [*discriminators.msd.parameters(), *discriminators.mpd.parameters()]
        without_ema = dataclasses.replace(run, ema_decay=0.0)
        self.discriminators = Learner(discriminators, rule, without_ema, processes, parameters)

    def train_step(self, micro_batches: Sequence[AudioBatch], progress: Progress) -> Metrics:
        """One optimizer step of the discriminators, then one of the generator.

        Segments are equally long, so means over micro-batches are those over the whole. Each of
        the two may be skipped without the other, and `bad_step` tells of both.
        """
        learning_rate = decay_by_epoch(
            progress.epoch, self.optimization.learning_rate, self.optimization.lr_decay
        )
        share = 1 / (len(micro_batches) * self.processes.world_size)
        self.generator.wrapped.train()
        # A single micro-batch keeps its graph for the generator's turn; several would fill the
        # memory that they are meant to save, and are generated again.
        with torch.set_grad_enabled(len(micro_batches) == 1):
            turns = [
                _Turn(batch, self._generate(batch), is_first=index == 0)
                for index, batch in enumerate(micro_batches)
            ]

        def discriminator_terms(turn: _Turn) -> Metrics:
            return _scaled(self._discriminator_terms(turn), share)

        def generator_terms(turn: _Turn) -> Metrics:
            return _scaled(self._generator_terms(turn), share)

        self.discriminators.model.requires_grad_(True)
        judged = self.discriminators.step(turns, discriminator_terms, learning_rate)
        self.discriminators.model.requires_grad_(False).eval()
        metrics = self.generator.step(turns, generator_terms, learning_rate)
        of_either = ("bad_step", "bad_losses")
        own_names = {"loss", "grad_norm", "scale"} & judged.keys()
        return metrics | {
            **{f"discriminator_{name}": judged[name] for name in sorted(own_names)},
            "mpd_loss": judged["mpd_loss"],
            "msd_loss": judged["msd_loss"],
            **{name: torch.maximum(metrics[name], judged[name]) for name in of_either},
        }

    @torch.no_grad()
    def eval_step(self, batch: AudioBatch) -> dict[str, tuple[Metrics, Tensor]]:
        """How far the audio of whole clips is from the recordings, of both sets of weights."""
        target = self.loss_mel_spectrogram(batch.audio)
        mel = self._input_mel(batch)
        weight = self.num_frames(batch)
        results = {}
        for scope, model in self.generator.evaluated():
            with self.generator.autocast():
                generated = model(mel)
            loss = mel_loss(self.loss_mel_spectrogram(generated.float()), target)
            results[scope] = ({"loss": MEL_LOSS_SCALE * loss, "mel_loss": loss}, weight)
        return results

    def num_frames(self, batch: AudioBatch) -> Tensor:
        """() mel frames in a batch."""
        num_frames = batch.audio.numel() // self.audio.hop_length
        return torch.full((), num_frames, device=batch.audio.device)

    @torch.no_grad()
    def samples(self, batch: AudioBatch) -> Samples:
        """The first clip of a batch: recorded and generated."""
        *_, (_, model) = self.generator.evaluated()  # the average, if there is one
        generated = model.infer(self._input_mel(batch)[:1]).float()
        return Samples(
            figures={
                "mel/recorded": plot_mel(self.mel_spectrogram(batch.audio[:1])[0].cpu()),
                "mel/generated": plot_mel(self.mel_spectrogram(generated)[0].cpu()),
            },
            audio={
                "audio/recorded": batch.audio[0].cpu(),
                "audio/generated": generated[0].cpu(),
            },
            sampling_rate=self.audio.sampling_rate,
        )

    def state_dict(self, progress: Progress) -> dict[str, dict[str, Any]]:
        """The contents of a checkpoint's two files."""
        train_state = {"epoch": progress.epoch, "iters_all": progress.step}
        generator, judges = self.generator.state_dict(), self.discriminators.state_dict()
        shipped = {
            "generator": generator["state_dict"],
            "gen_ema": generator["ema_state_dict"],
            "config": self.generator.model.config.to_checkpoint(),
            "train_setup": self.setup,
            "train_state": train_state,
        }
        kept = {
            "mpd": self.discriminators.model.mpd.state_dict(),
            "msd": self.discriminators.model.msd.state_dict(),
            "config": dataclasses.asdict(self.discriminators.model.config),
            "optim_g": generator["optimizer"],
            "optim_d": judges["optimizer"],
            "scaler_g": generator["scaler"],
            "scaler_d": judges["scaler"],
            "optimizer_name": generator["optimizer_name"],
            "train_state": train_state,
        }
        return {"hifigan_gen": shipped, "hifigan_discrim": kept}

    def load_state_dict(
        self, states: Mapping[str, Mapping[str, Any]], sources: Mapping[str, Path]
    ) -> Progress:
        """Continues from a checkpoint, with this run's own optimizer settings.

        Raises:
            ValueError: weights or optimizers are others, or the files are of different epochs
        """
        shipped, kept = states["hifigan_gen"], states["hifigan_discrim"]
        progress = shipped["train_state"]
        if kept.get("train_state", progress) != progress:
            raise ValueError(f"{' and '.join(map(str, sources.values()))}: of different epochs")
        rule = {"optimizer_name": kept["optimizer_name"]} if "optimizer_name" in kept else {}
        num_kernels = len(self.generator.model.config.resblock_kernel_sizes)
        generator = {
            "state_dict": nested_keys(shipped["generator"], num_kernels),
            "ema_state_dict": nested_keys(shipped.get("gen_ema") or {}, num_kernels),
            "optimizer": kept["optim_g"],
            "scaler": kept["scaler_g"],
        }
        judges = {
            "state_dict": discriminator_weights(kept),
            "optimizer": kept["optim_d"],
            "scaler": kept["scaler_d"],
        }
        self.generator.load_state_dict(generator | rule, sources["hifigan_gen"])
        self.discriminators.load_state_dict(judges | rule, sources["hifigan_discrim"])
        return Progress(epoch=progress["epoch"], step=progress["iters_all"])

    def _discriminator_terms(self, turn: _Turn) -> Metrics:
        # Training mode is only what makes the spectral norm estimate its singular value: once a
        # step, however many micro-batches there are.
        self.discriminators.wrapped.train(turn.is_first)
        recorded = turn.batch.audio
        with self.discriminators.autocast():
            both = torch.cat([recorded, turn.generated.detach().to(recorded.dtype)])
            real, made = _halves(self.discriminators.wrapped(both))
        terms = {
            "mpd_loss": discriminator_loss(real.mpd.logits, made.mpd.logits),
            "msd_loss": discriminator_loss(real.msd.logits, made.msd.logits),
        }
        return {"loss": terms["mpd_loss"] + terms["msd_loss"]} | terms

    def _generator_terms(self, turn: _Turn) -> Metrics:
        recorded, generated = turn.batch.audio, turn.generated
        if not generated.requires_grad:
            generated = self._generate(turn.batch)
        with self.generator.autocast():
            with torch.no_grad():
                real = self.discriminators.model(recorded)
            made = self.discriminators.model(generated)
        target = self.loss_mel_spectrogram(recorded)
        terms = {
            "mel_loss": mel_loss(self.loss_mel_spectrogram(generated.float()), target),
            "adversarial_loss": sum(adversarial_loss(kind.logits) for kind in made),
            "feature_loss": sum(
                feature_loss(ours.features, theirs.features)
                for ours, theirs in zip(real, made, strict=True)
            ),
        }
        loss = MEL_LOSS_SCALE * terms["mel_loss"] + terms["adversarial_loss"]
        return {"loss": loss + terms["feature_loss"]} | terms

    def _generate(self, batch: AudioBatch) -> Tensor:
        mel = self._input_mel(batch)  # in full precision
        with self.generator.autocast():
            return self.generator.wrapped(mel)

    def _input_mel(self, batch: AudioBatch) -> Tensor:
        return self.mel_spectrogram(batch.audio) if batch.mel is None else batch.mel


class _Turn(NamedTuple):
    """A micro-batch of a step."""

    batch: AudioBatch
    generated: Tensor  # (B, T_audio)
    is_first: bool


def discriminator_weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights in a discriminator file, as `Discriminators` names them."""
    return {
        f"{kind}.{key.removeprefix('module.')}": weight
        for kind in ("mpd", "msd")
        for key, weight in state[kind].items()
    }


def _scaled(terms: Metrics, factor: float) -> Metrics:
    return {name: factor * term for name, term in terms.items()}


def _halves(judgements: Judgements) -> tuple[Judgements, Judgements]:
    """What was thought of the first half of a batch, and of the second."""

    def half(index: int) -> Judgements:
        return Judgements(
            *(
                Judgement(
                    [logits.chunk(2)[index] for logits in kind.logits],
                    [[layer.chunk(2)[index] for layer in each] for each in kind.features],
                )
                for kind in judgements
            )
        )

    return half(0), half(1)
