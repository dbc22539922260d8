# SPDX-License-Identifier: BSD-3-Clause
"""Speaks: flags -> models -> Synthesizer -> WAV files, mels, and a report of latencies."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.cli import FlagParser, flag_name
from common.compiling import compiler_for
from common.config import AudioConfig, TextConfig
from common.distributed import Processes
from common.files import check_file
from common.griffin_lim import GriffinLim
from common.heap import keep_freed_memory
from common.inference_config import InferenceConfig, warn_of_ignored
from common.mels import read_mels
from common.metrics import SpeechTimes
from common.phrases import Phrase, check_speakers, one_phrase, read_phrases
from common.precision import Precision
from common.speaking import Passes, speak_all
from common.speech_files import check_output, output_path, report, write_phrase
from common.synthesizer import Controls, SymbolSequence, Synthesizer, Vocoder, read_texts
from common.tb_dllogger import configure_console
from common.text import TextProcessor
from common.weights import prepare_weights
from fastpitch.model import FastPitch
from fastpitch.pitch_transform import (
    PitchTransform,
    amplify,
    compose,
    custom,
    flatten,
    invert,
    shift,
    transpose,
)
from models import (
    FOREIGN,
    NeuralVocoder,
    check_same_mels,
    compile_models,
    denoised,
    laid_out,
    load_generator,
    load_vocoder,
    vocoder_name,
    with_shipped_voice,
)

logger = logging.getLogger("inference")


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
        keep_freed_memory()
        phrases = find_phrases(config)
        config = with_voice(config, phrases)
        precision = Precision(config.amp, device, config.amp_dtype)
        models = load_models(config, precision)
        text = None
        if any(phrase.mel is None for phrase in phrases):
            check_speakers(phrases, models.generator.config.n_speakers)
            text = TextProcessor(parser.build(TextConfig, vars(models.generator.text), given))
            text.check_alphabet(models.generator.config.n_symbols)
        inputs = read_inputs(phrases, text, models.audio.n_mel_channels, config.seed)
        synthesizer = make_synthesizer(models, text, precision)
        warn_of_ignored(config, speaks_texts=text is not None)
        measured = speak(models, synthesizer, phrases, inputs, config)
        report(measured, phrases, config, models.vocoder_name, models.audio.sampling_rate)
    except KeyboardInterrupt:
        logger.warning("Interrupted: the files written so far are in %s", config.folder)
        sys.exit(130)
    except (ValueError, OSError) as error:
        parser.error(str(error))


def load_models(config: InferenceConfig, precision: Precision) -> Models:
    """The models that the flags name, of the same mels, as the user believes them to be."""
    device = precision.device
    generator = vocoder = None
    if config.fastpitch is not None:
        generator = load_generator(config.fastpitch, device, config.ema)
        prepare_weights(generator, precision)
    if config.vocoder is not None:
        vocoder = laid_out(load_named_vocoder(config, device), precision)
    if config.compile:
        compile_models(generator, vocoder, compiler_for(device))
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
        logger.info(
            "No vocoder given: Griffin-Lim makes audible, but metallic speech; --hifigan names a "
            "better one"
        )
        griffin_lim = GriffinLim(audio)
        # At its first use the library compiles, half a minute on a new machine: no time of speech.
        griffin_lim.infer(torch.zeros(1, audio.n_mel_channels, 1))
        return Models(
            generator=generator,
            vocoder=griffin_lim,
            vocoder_name="griffin_lim",
            audio=audio,
        )
    with precision.autocast():  # the hum of the vocoder as it will speak
        quiet_vocoder = denoised(vocoder, config.denoising_strength)
    return Models(
        generator=generator,
        vocoder=quiet_vocoder,
        vocoder_name="waveglow" if config.hifigan is None else "hifigan",
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


def find_phrases(config: InferenceConfig) -> list[Phrase]:
    """What to speak, from `--text` or `--input`, to files that can be written."""
    if config.text is not None:
        phrases = [one_phrase(config.text, config.speaker)]
    else:
        phrases = read_phrases(config.input, config.dataset_path, config.speaker)
    for phrase in phrases:
        check_file(output_path(phrase, config), f"{phrase.source}: output")
    return phrases


def with_voice(config: InferenceConfig, phrases: Sequence[Phrase]) -> InferenceConfig:
    """The same; where there are texts, but no checkpoint is named, with the recipe's own voice."""
    texts = [phrase for phrase in phrases if phrase.mel is None]
    if not texts:
        return config
    return with_shipped_voice(
        config, f"mels, in a column of --input, do without, but {texts[0].source} is a text"
    )


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
    steps += [transpose(config.pitch_transform_semitones)]
    steps += [custom] if config.pitch_transform_custom else []
    return compose(steps)


if __name__ == "__main__":
    main()
