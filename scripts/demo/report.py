# SPDX-License-Identifier: BSD-3-Clause
"""Writes the demo's report: what the model says, how it looks, how training went.

Run from the repository's root: python -m scripts.demo.report --output report.html ...
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import logging
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from common.audio import read_audio
from common.config import DataConfig
from common.filelists import Utterance, read_filelist
from common.files import atomic_path
from common.html import Sound, svg_of, wav_bytes
from common.plots import plot_alignment, plot_curves, plot_mel
from common.speech_files import read_newest_report
from common.text import TextProcessor
from fastpitch.data_function import FastPitchDataset
from fastpitch.model import FastPitch
from models import load_generator
from scripts.demo.page import VOCODERS, Phrase, Report, render
from scripts.demo.training_log import TrainingLog, read_training_log

logger = logging.getLogger(__name__)

SPACE_LABEL = "\u2423"
SILENT_SYMBOLS = frozenset("_-!'\"(),.:;? ")
CURVES = {
    "mel loss": "mel_loss",
    "alignment loss": "attn_loss",
    "duration loss": "duration_predictor_loss",
    "pitch loss": "pitch_loss",
}


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recorded clip as the model aligns it."""

    utterance: Utterance
    mel: Tensor  # (n_mels, T_mel)
    pitch_hz: Tensor  # (T_mel) 0 where unvoiced
    soft: Tensor  # (T_mel, T_text)
    hard: Tensor  # (T_mel, T_text)
    labels: list[str]  # T_text

    @property
    def durations(self) -> Tensor:
        """(T_text) frames"""
        return self.hard.sum(dim=0).long()


class Model:
    """A trained FastPitch with its own reading of texts and audio."""

    def __init__(self, checkpoint: Path, ema: bool = False) -> None:
        self.generator: FastPitch = load_generator(checkpoint, ema=ema)
        self.audio = self.generator.audio
        self.text = TextProcessor(self.generator.text)

    @property
    def frames_per_second(self) -> float:
        return self.audio.sampling_rate / self.audio.hop_length

    @property
    def pitch_range(self) -> tuple[float, float]:
        """Hz that nearly all speech of this voice lies within."""
        mean, std = float(self.generator.pitch_mean), float(self.generator.pitch_std)
        return max(0.0, mean - 3 * std), mean + 4 * std

    def labels(self, ids: Sequence[int]) -> list[str]:
        """Names of symbols as a person would write them."""
        symbols = (self.text.symbols[i] for i in ids)
        return [SPACE_LABEL if symbol == " " else symbol.removeprefix("@") for symbol in symbols]

    def picture_of_speech(self, text: str, speaker: int, name: str) -> str:
        """How the model says a text, as SVG."""
        ids = self.text.encode(text)
        spoken = self.generator.infer(torch.tensor([ids]), speaker=speaker)
        durations = spoken.durations[0]
        pitch_hz = self._to_hertz(spoken.prosody.pitch[0])
        pitch_hz[[self.text.symbols[i] in SILENT_SYMBOLS for i in ids]] = 0
        figure = plot_mel(
            spoken.mel[0, :, : spoken.mel_lens[0]],
            pitch_hz.repeat_interleave(durations),
            durations,
            self.labels(ids),
            self.frames_per_second,
            self.pitch_range,
        )
        return svg_of(figure, name)

    @torch.no_grad()
    def recording(self, utterance: Utterance, data: DataConfig) -> Recording:
        """Aligns a clip with its text."""
        mean, std = float(self.generator.pitch_mean), float(self.generator.pitch_std)
        dataset = FastPitchDataset(
            [utterance], data, self.audio, self.text, pitch_mean=mean, pitch_std=std, seed=0
        )
        batch = dataset.collate([dataset[0, 0]])
        alignment = self.generator(batch).alignment
        pitch = batch.pitch[0]
        return Recording(
            utterance=utterance,
            mel=batch.mel[0],
            pitch_hz=torch.where(pitch != 0, self._to_hertz(pitch), 0),
            soft=alignment.soft[0],
            hard=alignment.hard[0],
            labels=self.labels(batch.text[0].tolist()),
        )

    def _to_hertz(self, pitch: Tensor) -> Tensor:
        return pitch * self.generator.pitch_std + self.generator.pitch_mean


def make_report(args: argparse.Namespace) -> Report:
    """Gathers everything that the page shows.

    Raises:
        FileNotFoundError, ValueError: something that an earlier stage makes is missing or broken.
    """
    model = Model(args.fastpitch, args.ema)
    log = read_training_log(args.log_file)
    data = DataConfig(
        dataset_path=args.dataset_path,
        training_files=(args.training_files,),
        validation_files=(args.validation_files,),
        load_pitch_from_disk=args.load_pitch_from_disk,
    )
    n_speakers = model.generator.config.n_speakers
    training = read_filelist(args.training_files, args.dataset_path, n_speakers)
    held_out = read_filelist(args.validation_files, args.dataset_path, n_speakers)
    by_name = {utterance.name: utterance for utterance in held_out}
    shipped = shipped_vocoder = None
    if args.shipped_voice is not None:
        checkpoint, shipped_speech = args.shipped_voice
        shipped, shipped_vocoder = Model(checkpoint), vocoder_of(shipped_speech)
    recordings = {}
    phrases = []
    for row in tqdm(list(read_phrases(args.phrases)), desc="drawing", unit="phrase", disable=None):
        name = Path(row["output"]).stem
        if name in by_name:
            recordings[name] = model.recording(by_name[name], data)
        phrase = make_phrase(model, row, args.speech, recordings.get(name))
        if shipped is not None:
            sound = make_sound(shipped, row, shipped_speech, "The voice of the recipe")
            phrase = dataclasses.replace(phrase, shipped=sound)
        phrases.append(phrase)
    shown = recordings.values() or [model.recording(held_out[0], data)]
    aligned = max(shown, key=lambda recording: recording.mel.shape[1])
    return Report(
        facts=[*corpus_facts(model, training, held_out), *model_facts(model, log)],
        timings=read_timings(args.timings),
        settings=[(name, str(value)) for name, value in sorted(log.settings.items())],
        phrases=phrases,
        vocoder=vocoder_of(args.speech),
        shipped_vocoder=shipped_vocoder,
        losses=[svg_of(plot_curves({t: c}), t) for t, c in loss_panels(log).items()],
        losses_in_words=losses_in_words(log),
        alignment=svg_of(plot_alignment(aligned.soft, aligned.hard, aligned.labels), "alignment"),
        aligned_text=aligned.utterance.text,
    )


def make_phrase(
    model: Model, row: dict[str, str], speech: Path, recording: Recording | None
) -> Phrase:
    """One phrase of the page; its audio is what inference.py wrote."""
    reading = model.text.read(row["text"])
    recorded = None
    if recording is not None:
        figure = plot_mel(
            recording.mel,
            recording.pitch_hz,
            recording.durations,
            recording.labels,
            model.frames_per_second,
            model.pitch_range,
        )
        recorded = Sound(
            caption="The recording",
            wav=wav_bytes(recording.utterance.audio, model.audio.sampling_rate),
            picture=svg_of(figure, f"recording-{recording.utterance.name}"),
        )
    return Phrase(
        text=row["text"],
        reading=reading.arpabet or reading.clean,
        spoken=make_sound(model, row, speech, "The model"),
        recorded=recorded,
    )


def make_sound(model: Model, row: dict[str, str], speech: Path, caption: str) -> Sound:
    """A phrase as inference.py spoke it, and how the model says it."""
    wav = speech / row["output"]
    if not wav.is_file():
        raise FileNotFoundError(f"{wav}: no such file; inference.py makes it from --phrases")
    name = f"{caption}-{wav.stem}"
    picture = model.picture_of_speech(row["text"], int(row.get("speaker") or 0), name)
    return Sound(caption=caption, wav=wav.read_bytes(), picture=picture)


def vocoder_of(speech: Path) -> str:
    """Which of `VOCODERS` inference.py spoke with, as it logged."""
    metrics = read_newest_report(speech)
    found = [name for name in VOCODERS if f"avg_{name}_RTF" in metrics]
    if not found:
        raise ValueError(f"{speech}: expected speech by {' or '.join(VOCODERS)}, got others'")
    return found[0]


def read_phrases(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a .tsv with columns `output` and `text`."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        missing = {"output", "text"} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{path}: its header lacks the column {' and '.join(sorted(missing))}")
        yield from reader


def read_timings(path: Path) -> list[tuple[str, float]]:
    """Stages with their seconds from lines `stage<TAB>seconds`; repeated stages are added up."""
    seconds: dict[str, float] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        stage, _, took = line.partition("\t")
        seconds[stage] = seconds.get(stage, 0.0) + float(took)
    return list(seconds.items())


def corpus_facts(
    model: Model, training: Sequence[Utterance], held_out: Sequence[Utterance]
) -> list[tuple[str, str]]:
    """Rows on the data."""
    rate = model.audio.sampling_rate
    seconds = sum(len(read_audio(clip.audio, rate)) for clip in training) / rate
    return [
        ("Learned from", f"{len(training)} clips, {seconds / 60:.1f} minutes of speech"),
        ("Held out", f"{len(held_out)} clips"),
        (
            "Voice",
            f"{float(model.generator.pitch_mean):.0f} Hz on average, give or take "
            f"{float(model.generator.pitch_std):.0f} Hz",
        ),
    ]


def model_facts(model: Model, log: TrainingLog) -> list[tuple[str, str]]:
    """Rows on the model and its training."""
    num_parameters = sum(p.numel() for p in model.generator.parameters() if p.requires_grad)
    epochs, _ = log.curve("train_mel_loss")
    num_steps = len(log.metrics["train_mel_loss"])
    config = model.generator.config
    layers = f"{config.in_fft_n_layers} + {config.out_fft_n_layers} transformer layers"
    device = "a GPU" if log.settings.get("cuda") else "the CPU"
    return [
        ("Model", f"FastPitch, {num_parameters / 1e6:.1f} million parameters, {layers}"),
        ("Trained for", f"{epochs[-1] if epochs else 0} epochs, {num_steps} steps, on {device}"),
        ("Software", f"PyTorch {torch.__version__}, Python {platform.python_version()}"),
    ]


def loss_panels(log: TrainingLog) -> dict[str, dict[str, tuple[list[int], list[float]]]]:
    """Curves of the terms of the loss that were logged."""
    panels = {}
    for title, name in CURVES.items():
        curves = {
            "training": log.curve(f"train_{name}"),
            "validation": log.curve(f"val_{name}"),
        }
        panels[title] = {label: curve for label, curve in curves.items() if curve[0]}
    return {title: curves for title, curves in panels.items() if curves}


def losses_in_words(log: TrainingLog) -> str:
    """What became of the mel loss."""
    epochs, losses = log.curve("train_mel_loss")
    if not losses:
        return "The log holds no training steps."
    _, held_out = log.curve("val_mel_loss")
    fall = 1 - losses[-1] / losses[0]
    words = (
        f"The mel loss, the error of the predicted spectrograms, fell by {fall:.0%} on what the "
        f"model trained on: from {losses[0]:.2f} in the first epoch to {losses[-1]:.3f} in epoch "
        f"{epochs[-1]}."
    )
    if held_out:
        words += f" On clips that it never saw it ended at {held_out[-1]:.3f}."
    return words


def main(argv: Sequence[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = argparse.ArgumentParser(description=__doc__)
    for flag, meaning in {
        "--output": "HTML file to write",
        "--phrases": ".tsv that was synthesised",
        "--speech": "folder with the synthesised WAV files",
        "--fastpitch": "checkpoint",
        "--log-file": "nvlog.json of the training",
        "--dataset-path": "folder that the file lists are relative to",
        "--training-files": "file list of the training",
        "--validation-files": "file list of the validation",
        "--timings": "file with lines stage<TAB>seconds",
    }.items():
        parser.add_argument(flag, type=Path, required=True, help=meaning)
    parser.add_argument(
        "--shipped-voice",
        type=Path,
        nargs=2,
        metavar=("FASTPITCH", "FOLDER"),
        help="voice to be heard beside this one: its checkpoint, and its synthesised WAV files",
    )
    parser.add_argument(
        "--load-pitch-from-disk", action="store_true", help="read pitch, do not estimate it"
    )
    parser.add_argument("--ema", action="store_true", help="show the averaged weights")
    args = parser.parse_args(argv)
    try:
        page = render(make_report(args))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    with atomic_path(args.output) as path:
        path.write_text(page, encoding="utf-8")
    logger.info("%s: %.1f MB", args.output, len(page) / 1e6)


if __name__ == "__main__":
    main()
