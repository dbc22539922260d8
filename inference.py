# SPDX-License-Identifier: BSD-3-Clause
"""Speaks: flags -> models -> Synthesizer -> WAV files, mels, and a report of latencies."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from common.audio import write_wav
from common.cli import FlagParser, flag, flag_name
from common.config import AMP_DTYPES, ONLY_COMPATIBLE, AudioConfig, TextConfig
from common.distributed import Processes
from common.files import check_file, check_folder
from common.griffin_lim import GriffinLim
from common.mels import read_mels, save_mel
from common.metrics import SpeechTimes
from common.phrases import Phrase, check_speakers, one_phrase, read_phrases
from common.precision import Precision
from common.speaking import Passes, fade_end, speak_all
from common.synthesizer import Controls, SymbolSequence, Synthesizer, Vocoder, read_texts
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
from models import (
    FOREIGN,
    NeuralVocoder,
    check_same_mels,
    denoised,
    load_generator,
    load_vocoder,
    vocoder_name,
)

logger = logging.getLogger("inference")

IGNORED = ("l2_promote", "torchscript", "torch_tensorrt", "affinity")
CONTROLS = (  # of FastPitch
    "pace",
    "pitch_transform_flatten",
    "pitch_transform_invert",
    "pitch_transform_amplify",
    "pitch_transform_shift",
    "pitch_transform_custom",
    "speaker",
)
UNAVAILABLE = {
    "report_mel_loss": "predicted and recorded mels differ in length and do not compare",
}


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """Inference: what to speak, and how."""

    input: str | None = flag(
        None,
        short="-i",
        help="text file, a phrase a line; .tsv with a header, whose column mel names mels to speak "
        "in place of texts; - is standard input",
    )
    text: str | None = flag(None, help="one phrase to speak, instead of --input")
    output: Path = flag(
        Path("output/inference"),
        short="-o",
        help="folder of the WAV files; or a .wav file, for one phrase",
    )
    fastpitch: Path | None = flag(None, help="FastPitch checkpoint; only texts need it")
    hifigan: Path | None = flag(
        None, help="HiFi-GAN checkpoint (default: Griffin-Lim, metallic, but always there)"
    )
    hifigan_config: Path | None = flag(
        None,
        help="settings of a HiFi-GAN of the original repository (default: config.json beside it)",
    )
    waveglow: Path | None = flag(None, help="WaveGlow checkpoint, in place of --hifigan")
    waveglow_sigma_infer: float = flag(
        0.9, short="-s", help="standard deviation of the noise that WaveGlow turns into audio"
    )
    denoising_strength: float = flag(
        0.0, short="-d", help="how much of the vocoder's own hum is taken from its audio"
    )
    dataset_path: Path = flag(Path(), help="folder that mel and pitch columns are relative to")
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
    amp_dtype: str = flag(
        "fp16",
        choices=AMP_DTYPES,
        help="half precision of --amp: fp16 on any GPU, bf16 from Ampere on and on CPUs",
    )
    batch_size: int = flag(64, short="-bs", help="phrases at a time")
    warmup_steps: int = flag(0, help="passes over the first batch that are not measured")
    repeats: int = flag(1, help="passes over all phrases, for measuring")
    seed: int = flag(
        1234, help="seed of the choice between letters and phonemes, and of WaveGlow's noise"
    )
    log_file: Path | None = flag(None, help="DLLogger file (default: nvlog_infer.json in --output)")
    cudnn_benchmark: bool = flag(False, help="let cuDNN search for the fastest algorithms")

    sampling_rate: int | None = flag(
        None, short="-sr", help="of the mels; must be that of the checkpoints, which is the default"
    )
    hop_length: int | None = flag(None, help="of the mels; as --sampling-rate")
    win_length: int | None = flag(None, help="of the mels; as --sampling-rate")
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
        for name in (
            "warmup_steps",
            "fade_out",
            "speaker",
            "waveglow_sigma_infer",
            "denoising_strength",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"{flag_name(name)} must not be negative, got {getattr(self, name)}"
                )
        if self.checkpoint_format == "ts":
            raise ValueError("--checkpoint-format ts: TorchScript files cannot be read, use pyt")
        if self.hifigan is not None and self.waveglow is not None:
            raise ValueError("--hifigan and --waveglow exclude each other: one vocoder is enough")
        if self.hifigan_config is not None and self.hifigan is None:
            raise ValueError("--hifigan-config has no use without --hifigan")
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
    def vocoder(self) -> Path | None:
        """Checkpoint of the vocoder, whichever it is."""
        return self.hifigan or self.waveglow

    @property
    def folder(self) -> Path:
        """Where all files go."""
        return self.output.parent if self.names_file else self.output


@dataclass(frozen=True, kw_only=True)
class Models:
    """What makes mels, and what makes audio of them."""

    generator: FastPitch | None
    vocoder: Vocoder
    vocoder_name: str  # in metrics
    audio: AudioConfig  # settings of the mels


def main(argv: Sequence[str] | None = None) -> None:
    """Speaks what the flags ask for."""
    configure_console()
    parser = FlagParser(
        "Speaks texts with a trained FastPitch, or mels, and says how long it took.",
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
        phrases = find_phrases(config)
        models = load_models(config, device)
        text = None
        if any(phrase.mel is None for phrase in phrases):
            check_speakers(phrases, models.generator.config.n_speakers)
            text = TextProcessor(parser.build(TextConfig, vars(models.generator.text), given))
            text.check_alphabet(models.generator.config.n_symbols)
        inputs = read_inputs(phrases, text, models.audio.n_mel_channels, config.seed)
        precision = Precision(config.amp, device, config.amp_dtype)
        synthesizer = make_synthesizer(models, text, precision)
        warn_of_ignored(config, speaks_texts=text is not None)
        measured = speak(models, synthesizer, phrases, inputs, config)
        report(measured, config, models)
    except KeyboardInterrupt:
        logger.warning("Interrupted: the files written so far are in %s", config.folder)
        sys.exit(130)
    except (ValueError, OSError) as error:
        parser.error(str(error))


def load_models(config: InferenceConfig, device: torch.device) -> Models:
    """The models that the flags name, of the same mels, as the user believes them to be."""
    generator = vocoder = None
    if config.fastpitch is not None:
        generator = load_generator(config.fastpitch, device, config.ema)
    if config.vocoder is not None:
        vocoder = load_named_vocoder(config, device)
    if generator and vocoder:
        check_same_mels(vocoder.audio, config.vocoder, generator.audio, config.fastpitch)
    trained = generator or vocoder
    audio = audio_of_flags(config) if trained is None else trained.audio
    for name in ("sampling_rate", "hop_length", "win_length"):
        wanted = getattr(config, name)
        if wanted not in (None, getattr(audio, name)):
            raise ValueError(
                f"{flag_name(name)} {wanted} differs from the {getattr(audio, name)} of "
                f"{config.fastpitch or config.vocoder}"
            )
    if vocoder is None:
        logger.info("No vocoder given: Griffin-Lim makes audible, but metallic speech")
        return Models(
            generator=generator,
            vocoder=GriffinLim(audio),
            vocoder_name="griffin_lim",
            audio=audio,
        )
    return Models(
        generator=generator,
        vocoder=denoised(vocoder, config.denoising_strength),
        vocoder_name=vocoder_name(vocoder),
        audio=audio,
    )


def load_named_vocoder(config: InferenceConfig, device: torch.device) -> NeuralVocoder:
    """The vocoder of `--hifigan` or `--waveglow`, which it must be."""
    vocoder = load_vocoder(config.vocoder, device, config.hifigan_config, config.ema)
    name = vocoder_name(vocoder)
    if getattr(config, name) is None:
        raise ValueError(f"{config.vocoder}: is {FOREIGN[name]}")
    if name == "waveglow":
        vocoder.sigma = config.waveglow_sigma_infer
    return vocoder


def audio_of_flags(config: InferenceConfig) -> AudioConfig:
    """Settings of mels that no checkpoint describes: the defaults, as far as flags allow them."""
    names = ("sampling_rate", "hop_length", "win_length")
    given = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    rate, window = given.get("sampling_rate", math.inf), given.get("win_length", 0)
    return AudioConfig(
        filter_length=max(AudioConfig.filter_length, window),
        mel_fmax=min(AudioConfig.mel_fmax, rate / 2),
        **given,
    )


def check_output(config: InferenceConfig) -> None:
    """Refuses paths that cannot be written."""
    if config.names_file:
        check_file(config.output, "--output")
    check_folder(config.folder, "--output")
    check_file(log_path(config), "--log-file")


def find_phrases(config: InferenceConfig) -> list[Phrase]:
    """What to speak, from `--text` or `--input`, to files that can be written."""
    if config.text is not None:
        phrases = [one_phrase(config.text, config.speaker)]
    else:
        phrases = read_phrases(config.input, config.dataset_path, config.speaker)
    for phrase in phrases:
        check_file(output_path(phrase, config), f"{phrase.source}: output")
        if phrase.mel is None and config.fastpitch is None:
            raise ValueError(
                "--fastpitch is missing: name a checkpoint, FastPitch_checkpoint_N.pt; only rows "
                f"with a mel do without, and {phrase.source} has none"
            )
    return phrases


def read_inputs(
    phrases: Sequence[Phrase], text: TextProcessor | None, n_mels: int, seed: int
) -> list[SymbolSequence | Tensor]:
    """Of each phrase its mel, (n_mels, T_mel), if it names one, else its symbols."""
    mels = iter(read_mels([phrase for phrase in phrases if phrase.mel], n_mels))
    texts = iter(read_texts([phrase for phrase in phrases if not phrase.mel], text, seed))
    return [next(mels if phrase.mel else texts) for phrase in phrases]


def make_synthesizer(
    models: Models, text: TextProcessor | None, precision: Precision
) -> Synthesizer:
    """The models together."""
    return Synthesizer(
        models.generator,
        models.vocoder,
        symbols=text.symbols if text else (),
        padding_idx=models.generator.config.padding_idx if models.generator else 0,
        precision=precision,
    )


def warn_of_ignored(config: InferenceConfig, speaks_texts: bool) -> None:
    """Names the flags that were given for nothing."""
    for names, is_idle, why in (
        (IGNORED, True, ""),
        (("denoising_strength",), config.vocoder is None, " without --hifigan or --waveglow"),
        (("waveglow_sigma_infer",), config.waveglow is None, " without --waveglow"),
        (CONTROLS, not speaks_texts, " on mels"),
    ):
        for name in names:
            if is_idle and getattr(config, name) != getattr(InferenceConfig, name):
                logger.warning("%s has no effect%s", flag_name(name), why)


def speak(
    models: Models,
    synthesizer: Synthesizer,
    phrases: Sequence[Phrase],
    inputs: Sequence[SymbolSequence | Tensor],
    config: InferenceConfig,
) -> SpeechTimes:
    """Speaks every phrase and writes its files."""

    def write(index: int, mel: Tensor, wave: Tensor) -> None:
        write_phrase(output_path(phrases[index], config), mel, wave, config, models.audio)

    controls = Controls(pace=config.pace, pitch_transform=pitch_transform(config))
    passes = Passes(
        batch_size=config.batch_size,
        warmup_steps=config.warmup_steps,
        repeats=config.repeats,
        seed=config.seed,
    )
    return speak_all(synthesizer, inputs, controls, passes, write)


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
        save_mel(path.with_suffix(".npy"), mel)


def report(measured: SpeechTimes, config: InferenceConfig, models: Models) -> None:
    """Says where the audio is and how fast it came, and logs it."""
    metrics = measured.summary("fastpitch", models.vocoder_name, models.audio.sampling_rate)
    if measured.num_symbols == 0:  # mels, for which nobody read
        metrics = {k: v for k, v in metrics.items() if "fastpitch" not in k and "letters" not in k}
    log = open_json_log(log_path(config))
    log.log((), metrics)
    log.flush()
    for name, value in metrics.items():
        logger.info("%-26s %.4g", name, value)
    logger.info("Wrote %s", config.output)


if __name__ == "__main__":
    main()
