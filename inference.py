# SPDX-License-Identifier: BSD-3-Clause
"""Speaks: flags -> Synthesizer -> WAV files, mels, and a report of latencies."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from common.audio import write_wav
from common.cli import FlagParser, flag, flag_name
from common.config import ONLY_COMPATIBLE, AudioConfig, TextConfig
from common.distributed import Processes
from common.files import check_file, check_folder
from common.griffin_lim import GriffinLim
from common.metrics import SpeechTimes, Stopwatch
from common.phrases import Phrase, one_phrase, read_phrases
from common.precision import Precision
from common.synthesizer import Controls, SymbolSequence, Synthesizer, read_texts
from common.tb_dllogger import configure_console, open_json_log
from common.text import TextProcessor
from fastpitch.model import FastPitch
from fastpitch.pitch_transform import (
    PitchTransform,
    amplify,
    compose,
    custom,
    flatten,
    invert,
    shift,
)
from models import load_generator

logger = logging.getLogger("inference")

IGNORED = ("l2_promote", "torchscript", "torch_tensorrt", "affinity")
UNAVAILABLE = {
    "hifigan": "there is no neural vocoder yet: leave it out to hear Griffin-Lim",
    "waveglow": "there is no neural vocoder yet: leave it out to hear Griffin-Lim",
    "report_mel_loss": "predicted and recorded mels differ in length and do not compare",
}


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """Inference: what to speak, and how."""

    input: str | None = flag(
        None, short="-i", help="text file, a phrase a line; .tsv with a header; - is standard input"
    )
    text: str | None = flag(None, help="one phrase to speak, instead of --input")
    output: Path = flag(
        Path("output/inference"),
        short="-o",
        help="folder of the WAV files; or a .wav file, for one phrase",
    )
    fastpitch: Path | None = flag(None, help="FastPitch checkpoint")
    dataset_path: Path = flag(Path(), help="folder that pitch columns are relative to")
    speaker: int = flag(0, help="speaker of phrases that name none")
    save_mels: bool = flag(False, help="write each mel too, as .npy of shape (frames, bands)")
    ema: bool = flag(False, help="use the averaged weights")

    pace: float = flag(1.0, help="speed; 2 is twice as fast")
    pitch_transform_flatten: bool = flag(False, help="speak at one pitch")
    pitch_transform_invert: bool = flag(False, help="turn rises into falls")
    pitch_transform_amplify: float = flag(1.0, help="widen (above 1) or narrow the pitch range")
    pitch_transform_shift: float = flag(0.0, help="raise or lower pitch by so many Hz")
    pitch_transform_custom: bool = flag(
        False, help="apply `custom` in fastpitch/pitch_transform.py"
    )
    fade_out: int = flag(10, help="frames over which the end of each phrase fades")

    cuda: bool = flag(False, help="run on a GPU")
    amp: bool = flag(False, help="mixed precision")
    batch_size: int = flag(64, short="-bs", help="phrases at a time")
    warmup_steps: int = flag(0, help="passes over the first batch that are not measured")
    repeats: int = flag(1, help="passes over all phrases, for measuring")
    seed: int = flag(1234, help="seed of the choice between letters and phonemes")
    log_file: Path | None = flag(None, help="DLLogger file (default: nvlog_infer.json in --output)")
    cudnn_benchmark: bool = flag(False, help="let cuDNN search for the fastest algorithms")

    hifigan: Path | None = flag(None, help="HiFi-GAN checkpoint; cannot be used yet")
    waveglow: Path | None = flag(None, help="WaveGlow checkpoint; cannot be used yet")
    waveglow_sigma_infer: float = flag(0.9, short="-s", help=ONLY_COMPATIBLE)
    denoising_strength: float = flag(0.0, short="-d", help=ONLY_COMPATIBLE)
    sampling_rate: int | None = flag(
        None, short="-sr", help="must be the checkpoint's, which is the default"
    )
    hop_length: int | None = flag(None, help="must be the checkpoint's, which is the default")
    win_length: int | None = flag(None, help="must be the checkpoint's, which is the default")
    max_wav_value: float = flag(32768.0, help=ONLY_COMPATIBLE)
    l2_promote: bool = flag(False, help=ONLY_COMPATIBLE)
    torchscript: bool = flag(False, help=ONLY_COMPATIBLE)
    torch_tensorrt: bool = flag(False, help=ONLY_COMPATIBLE)
    checkpoint_format: str = flag("pyt", choices=("pyt", "ts"), help="ts cannot be read")
    report_mel_loss: bool = flag(False, help="cannot be used")
    affinity: str | None = flag(None, help=ONLY_COMPATIBLE)

    def __post_init__(self) -> None:
        if (self.input is None) == (self.text is None):
            raise ValueError("give --input FILE, or --text 'one phrase', not both")
        if not 0 < self.pace < math.inf:
            raise ValueError(f"--pace must be positive, got {self.pace}")
        for name in ("pitch_transform_amplify", "pitch_transform_shift"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{flag_name(name)} must be finite, got {getattr(self, name)}")
        for name in ("batch_size", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{flag_name(name)} must be positive, got {getattr(self, name)}")
        for name in ("warmup_steps", "fade_out", "speaker"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"{flag_name(name)} must not be negative, got {getattr(self, name)}"
                )
        if self.checkpoint_format == "ts":
            raise ValueError("--checkpoint-format ts: TorchScript files cannot be read, use pyt")
        for name, reason in UNAVAILABLE.items():
            if getattr(self, name):
                raise ValueError(f"{flag_name(name)} cannot be used: {reason}")
        if self.names_file and self.text is None:
            raise ValueError(f"--output {self.output}: must be a folder for the phrases of --input")

    @property
    def names_file(self) -> bool:
        """Whether `output` is one WAV file, not a folder."""
        return self.output.suffix == ".wav"

    @property
    def folder(self) -> Path:
        """Where all files go."""
        return self.output.parent if self.names_file else self.output


def main(argv: Sequence[str] | None = None) -> None:
    """Speaks what the flags ask for."""
    configure_console()
    parser = FlagParser(
        "Speaks texts with a trained FastPitch, and says how long it took.",
        InferenceConfig,
        TextConfig,
        from_checkpoint=(TextConfig,),
    )
    given = parser.parse(argv)
    config = parser.build(InferenceConfig, given)
    try:
        check_output(config)
        device = Processes(config.cuda).device
        torch.backends.cudnn.benchmark = config.cudnn_benchmark
        generator = make_generator(config, device)
        text_config = parser.build(TextConfig, vars(generator.text), given)
        text = TextProcessor(text_config)
        check_alphabet(text, generator.config.n_symbols)
        phrases = find_phrases(config)
        for phrase in phrases:
            check_file(output_path(phrase, config), f"{phrase.source}: output")
        sequences = read_texts(phrases, text, config.seed)
        check_speakers(phrases, generator.config.n_speakers)
        synthesizer = make_synthesizer(generator, text, Precision(config.amp, device))
        warn_of_ignored(config)
        measured = speak_all(synthesizer, phrases, sequences, config, generator.audio)
        report(measured, config, generator.audio)
    except KeyboardInterrupt:
        logger.warning("Interrupted: the files written so far are in %s", config.folder)
        sys.exit(130)
    except (ValueError, OSError) as error:
        parser.error(str(error))


def make_generator(config: InferenceConfig, device: torch.device) -> FastPitch:
    """The acoustic model, with audio settings as the user believes them to be."""
    if config.fastpitch is None:
        raise ValueError("--fastpitch is missing: name a checkpoint, FastPitch_checkpoint_N.pt")
    generator = load_generator(config.fastpitch, device, config.ema)
    for name in ("sampling_rate", "hop_length", "win_length"):
        wanted, trained = getattr(config, name), getattr(generator.audio, name)
        if wanted not in (None, trained):
            raise ValueError(
                f"{flag_name(name)} {wanted} differs from the {trained} of {config.fastpitch}"
            )
    return generator


def check_output(config: InferenceConfig) -> None:
    """Refuses paths that cannot be written."""
    if config.names_file:
        check_file(config.output, "--output")
    check_folder(config.folder, "--output")
    check_file(log_path(config), "--log-file")


def check_alphabet(text: TextProcessor, n_symbols: int) -> None:
    """Refuses symbols that are not those of the model."""
    if len(text.symbols) != n_symbols:
        raise ValueError(
            f"--symbol-set {text.config.symbol_set} has {len(text.symbols)} symbols, the model in "
            f"--fastpitch {n_symbols}: name the set that it was trained with"
        )


def find_phrases(config: InferenceConfig) -> list[Phrase]:
    """What to speak, from `--text` or `--input`."""
    if config.text is not None:
        return [one_phrase(config.text, config.speaker)]
    return read_phrases(config.input, config.dataset_path, config.speaker)


def check_speakers(phrases: Sequence[Phrase], n_speakers: int) -> None:
    """Refuses speakers that the model has not."""
    problems = [
        f"{phrase.source}: speaker must lie in 0 to {n_speakers - 1}, got {phrase.speaker}"
        for phrase in phrases
        if phrase.speaker >= n_speakers
    ]
    if problems:
        raise ValueError("\n".join(problems))


def make_synthesizer(
    generator: FastPitch, text: TextProcessor, precision: Precision
) -> Synthesizer:
    """The models together."""
    logger.info("No vocoder given: Griffin-Lim makes audible, but metallic speech")
    return Synthesizer(
        generator,
        GriffinLim(generator.audio),
        symbols=text.symbols,
        padding_idx=generator.config.padding_idx,
        hop_length=generator.audio.hop_length,
        precision=precision,
    )


def warn_of_ignored(config: InferenceConfig) -> None:
    """Names the flags that were given for nothing."""
    for name in IGNORED:
        if getattr(config, name):
            logger.warning("%s has no effect", flag_name(name))


def speak_all(
    synthesizer: Synthesizer,
    phrases: Sequence[Phrase],
    sequences: Sequence[SymbolSequence],
    config: InferenceConfig,
    audio: AudioConfig,
) -> SpeechTimes:
    """Speaks every phrase, batches of similar length at a time, and writes the files."""
    controls = Controls(pace=config.pace, pitch_transform=pitch_transform(config))
    by_length = sorted(range(len(phrases)), key=lambda index: -len(sequences[index].ids))
    batches = [
        by_length[start : start + config.batch_size]
        for start in range(0, len(phrases), config.batch_size)
    ]
    for _ in range(config.warmup_steps):
        first = [sequences[index] for index in batches[0]]
        synthesizer.vocode(synthesizer.generate(first, controls))
    measured = SpeechTimes()
    passes = [(n, batch) for n in range(config.repeats) for batch in batches]
    for pass_number, batch in tqdm(passes, "speaking", unit="batch", disable=None):
        inputs = [sequences[index] for index in batch]
        mels, waves = speak_batch(synthesizer, inputs, controls, measured)
        if pass_number == 0:
            for index, mel, wave in zip(batch, mels, waves, strict=True):
                write_phrase(output_path(phrases[index], config), mel, wave, config, audio)
    return measured


def speak_batch(
    synthesizer: Synthesizer,
    inputs: Sequence[SymbolSequence],
    controls: Controls,
    measured: SpeechTimes,
) -> tuple[list[Tensor], list[Tensor]]:
    """Mels and audio of a batch, with the time they took."""
    device = synthesizer.precision.device
    watch = Stopwatch(device)
    mels = synthesizer.generate(inputs, controls)
    generator_seconds = watch.seconds
    watch = Stopwatch(device)
    waves = synthesizer.vocode(mels)
    measured.add(
        generator_seconds,
        watch.seconds,
        num_symbols=sum(len(sequence.ids) for sequence in inputs),
        num_frames=sum(mel.shape[1] for mel in mels),
        num_samples=sum(len(wave) for wave in waves),
    )
    return mels, waves


def pitch_transform(config: InferenceConfig) -> PitchTransform:
    """The transforms that the flags ask for, in the recipe's order."""
    steps = [flatten] if config.pitch_transform_flatten else []
    steps += [invert] if config.pitch_transform_invert else []
    steps += [amplify(config.pitch_transform_amplify), shift(config.pitch_transform_shift)]
    steps += [custom] if config.pitch_transform_custom else []
    return compose(steps)


def output_path(phrase: Phrase, config: InferenceConfig) -> Path:
    """Where the audio of a phrase goes."""
    return config.output if config.names_file else config.output / phrase.output


def log_path(config: InferenceConfig) -> Path:
    """Where the DLLogger lines go."""
    return config.log_file or config.folder / "nvlog_infer.json"


def write_phrase(
    path: Path, mel: Tensor, wave: Tensor, config: InferenceConfig, audio: AudioConfig
) -> None:
    """Writes the audio, its end faded, and the mel if it is wanted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_wav(path, fade_end(wave.cpu(), config.fade_out * audio.hop_length), audio.sampling_rate)
    if config.save_mels:
        # (frames, bands), as the public recipe writes it
        np.save(path.with_suffix(".npy"), mel.T.cpu().numpy())


def fade_end(wave: Tensor, num_samples: int) -> Tensor:
    """(T_audio,) audio whose last samples fall to 0."""
    num_samples = min(num_samples, len(wave))
    gain = torch.ones_like(wave)
    gain[len(wave) - num_samples :] = torch.linspace(1, 0, num_samples)
    return wave * gain


def report(measured: SpeechTimes, config: InferenceConfig, audio: AudioConfig) -> None:
    """Says where the audio is and how fast it came, and logs it."""
    metrics = measured.summary("fastpitch", "griffin_lim", audio.sampling_rate)
    log = open_json_log(log_path(config))
    log.log((), metrics)
    log.flush()
    for name, value in metrics.items():
        logger.info("%-26s %.4g", name, value)
    logger.info("Wrote %s", config.output)


if __name__ == "__main__":
    main()
