# SPDX-License-Identifier: BSD-3-Clause
"""Finds everything that is wrong with a dataset in one pass, before work starts."""

from __future__ import annotations

import dataclasses
import logging
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.clips import ClipFacts, examine_clips
from common.config import AudioConfig
from common.filelists import Problem, Utterance, clip_identity, parse_filelists
from common.files import atomic_path
from common.records import PreparationRecord
from common.text import Reading, TextProcessor

logger = logging.getLogger(__name__)

SILENT_PEAK = 1e-3  # -60 dB of full scale
PLACES_SHOWN = 20  # of a warning that concerns many lines


class BadDataset(ValueError):  # noqa: N818
    """The data has problems; the text lists them all.

    Args:
        problems: in the order to list them
        left_without: the lists of which nothing would be left but for these clips
        written: what is on disk by now
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        left_without: str | None = None,
        written: str = "nothing",
    ) -> None:
        self.problems = list(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        advice = "Mend the files or the lists, or leave these clips out with --skip-bad."
        if left_without is not None:
            advice = f"Mend them: --skip-bad would leave no clip of the {left_without} lists."
        super().__init__(f"{count} in the data, {written} was written:\n{lines}\n{advice}")


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """Reads file lists and leaves no problem for later.

    Args:
        are_mels: the lists name mels, not audio.
        need_pitch: pitch files must be there and fit their clips.
        bad_list: where the clips that `skip_bad` leaves out are listed.
    """

    dataset_path: Path
    audio: AudioConfig
    text: TextProcessor
    bad_list: Path
    n_speakers: int = 1
    max_clip_seconds: float = 30.0
    are_mels: bool = False
    need_pitch: bool = False
    skip_bad: bool = False
    num_workers: int = 1

    def read(
        self, training_files: Iterable[Path], validation_files: Iterable[Path] = ()
    ) -> tuple[list[Utterance], list[Utterance]]:
        """The utterances to train on and those to validate on, with their lengths.

        Raises:
            FileNotFoundError: a file list is missing.
            BadDataset: there are problems and `skip_bad` is off, or no clip is left.
        """
        training_files, validation_files = list(training_files), list(validation_files)
        problems, training, validation = self._find(training_files, validation_files)
        return leave_out_bad(
            problems,
            training,
            validation,
            need_validation=bool(validation_files),
            skip_bad=self.skip_bad,
            bad_list=self.bad_list,
        )

    def read_headers(self, files: Sequence[Path]) -> tuple[list[Utterance], list[Problem]]:
        """The utterances that can be used by what lists and headers say; the errors of the others.

        Whoever reads the samples sees what is wrong with them (`find_faults`) and ends with
        `leave_out`. Where there are errors to raise, they are read here: the list is complete.

        Raises:
            FileNotFoundError, BadDataset: as `read`
        """
        problems, utterances, _ = self._find(files, (), headers_only=True)
        errors = [problem for problem in problems if problem.severity == "error"]
        if errors and not self.skip_bad:
            problems, utterances, _ = self._find(files, ())
        return self.leave_out(problems, utterances), errors

    def leave_out(
        self, problems: Sequence[Problem], utterances: Sequence[Utterance], written: str = "nothing"
    ) -> list[Utterance]:
        """The utterances without errors, where clips serve one purpose.

        Args:
            written: what is on disk by now

        Raises:
            BadDataset: as `read`
        """
        good, _ = leave_out_bad(
            problems,
            utterances,
            (),
            need_validation=False,
            skip_bad=self.skip_bad,
            bad_list=self.bad_list,
            written=written,
        )
        return good

    def _find(
        self,
        training_files: Sequence[Path],
        validation_files: Sequence[Path],
        headers_only: bool = False,
    ) -> tuple[list[Problem], list[Utterance], list[Utterance]]:
        training, malformed = parse_filelists(training_files, self.dataset_path, self.n_speakers)
        validation, more = parse_filelists(validation_files, self.dataset_path, self.n_speakers)
        if self.need_pitch:
            training = [utterance.with_pitch(self.dataset_path) for utterance in training]
            validation = [utterance.with_pitch(self.dataset_path) for utterance in validation]
        found, measured = check_utterances(
            training,
            self.audio,
            self.text,
            validation=validation,
            max_clip_seconds=self.max_clip_seconds,
            are_mels=self.are_mels,
            need_pitch=self.need_pitch,
            headers_only=headers_only,
            record=PreparationRecord(self.dataset_path),
            num_workers=self.num_workers,
        )
        problems = [*malformed, *more, *found]
        return problems, measured[: len(training)], measured[len(training) :]


def leave_out_bad(
    problems: Sequence[Problem],
    training: Sequence[Utterance],
    validation: Sequence[Utterance],
    *,
    need_validation: bool,
    skip_bad: bool,
    bad_list: Path,
    written: str = "nothing",
) -> tuple[list[Utterance], list[Utterance]]:
    """The utterances without errors; warnings are logged.

    Args:
        need_validation: something must be left to validate on
        skip_bad: leave the others out, instead of raising
        bad_list: file that says which are left out
        written: what is on disk by now

    Raises:
        BadDataset: there are errors and `skip_bad` is off, or no clip is left
    """
    for problem in problems:
        if problem.severity == "warning":
            logger.warning("%s", problem)
    errors = [problem for problem in problems if problem.severity == "error"]
    if not errors:
        return list(training), list(validation)
    if not skip_bad:
        raise BadDataset(errors, written=written)
    bad = {error.source for error in errors}
    good_training = [utterance for utterance in training if utterance.source not in bad]
    good_validation = [utterance for utterance in validation if utterance.source not in bad]
    if not good_training or (need_validation and not good_validation):
        without = "validation" if good_training else "training"
        raise BadDataset(errors, left_without=without, written=written)
    with atomic_path(bad_list) as unfinished:
        unfinished.write_text("".join(f"{error}\n" for error in errors), encoding="utf-8")
    logger.warning("--skip-bad: %d lines are left out, listed in %s", len(bad), bad_list)
    return good_training, good_validation


def check_utterances(
    utterances: Sequence[Utterance],
    audio: AudioConfig,
    text: TextProcessor,
    *,
    validation: Sequence[Utterance] = (),
    max_clip_seconds: float = 30.0,
    are_mels: bool = False,
    need_pitch: bool = False,
    headers_only: bool = False,
    record: PreparationRecord | None = None,
    num_workers: int = 1,
) -> tuple[list[Problem], list[Utterance]]:
    """Finds every problem of the utterances, and how long they are.

    Args:
        validation: checked as well; none of its clips may be among `utterances`.
        are_mels: what the utterances call audio are mels.
        need_pitch: pitch files must be named, be there and fit their clips.
        headers_only: whoever reads the samples later asks `find_faults` about them.
        record: clips that it knows, unchanged, are not read again.

    Returns:
        The problems, in the order of the utterances; and these with their lengths
    """
    everything = [*utterances, *validation]
    facts = examine_clips(
        everything,
        audio,
        are_mels=are_mels,
        need_pitch=need_pitch,
        headers_only=headers_only,
        record=record,
        num_workers=num_workers,
    )
    repeated = _find_repetitions(utterances, validation)
    dropped: dict[str, list[Utterance]] = {}
    problems, measured = [], []
    for utterance, clip in zip(everything, facts, strict=True):
        messages = [*find_faults(clip), *repeated.get(utterance.source, ())]
        if need_pitch and utterance.pitch is None:
            messages.append("no pitch column: name pitch/x.pt after the audio")
        if clip.seconds > max_clip_seconds:
            messages.append(
                f"{clip.seconds:.1f} s long, the limit is {max_clip_seconds:g} s: cut it, or raise "
                "--max-clip-seconds"
            )
        problems += [Problem(utterance.source, utterance.audio, each) for each in messages]
        reading = text.read(utterance.text, random.Random(utterance.source))
        message = _find_text_fault(reading, clip)
        if message is not None:
            problems.append(Problem(utterance.source, utterance.audio, message))
        for symbol in dict.fromkeys(reading.dropped):
            dropped.setdefault(symbol, []).append(utterance)
        lengths = {"num_frames": clip.num_frames, "num_symbols": len(reading.ids)}
        measured.append(dataclasses.replace(utterance, **lengths))
    problems += _tell_dropped(dropped)
    return problems + _find_other_rates(everything, facts, audio.sampling_rate), measured


def find_faults(facts: ClipFacts) -> list[str]:
    """What is wrong with a clip, as far as it was read, whatever it is to be used for."""
    messages = list(facts.faults)
    if facts.peak is not None and facts.peak < SILENT_PEAK:
        messages.append(
            f"silent, its peak is {facts.peak:.5f} of full scale: record it again or remove it"
        )
    return messages


def _find_text_fault(reading: Reading, clip: ClipFacts) -> str | None:
    said = [character for character in reading.clean if character.isalnum()]
    if not reading.ids or all(character in reading.dropped for character in said):
        return f"nothing to say in the text {reading.clean!r}: write what is heard"
    if clip.faults or clip.num_frames >= len(reading.ids):
        return None
    return (
        f"{clip.num_frames} frames for {len(reading.ids)} symbols, at least one each is needed: "
        "see whether audio and text belong together"
    )


def _tell_dropped(dropped: Mapping[str, Sequence[Utterance]]) -> list[Problem]:
    """One warning for each symbol, so that quotation marks do not hide the rest."""
    problems = []
    for symbol, (first, *others) in dropped.items():
        places = "".join(f", {utterance.source}" for utterance in others[:PLACES_SHOWN])
        if len(others) > PLACES_SHOWN:
            places += f" and {len(others) - PLACES_SHOWN} more lines"
        message = f"{symbol} is not in the symbol set, will be dropped here"
        message += f" and at{places[1:]}" if others else ""
        message += ": spell it out where it is heard"
        problems.append(Problem(first.source, first.audio, message, "warning"))
    return problems


def _find_repetitions(
    training: Sequence[Utterance], validation: Sequence[Utterance]
) -> Mapping[str, list[str]]:
    """Messages by source: clips that come twice, and clips whose files would overwrite others."""
    messages: dict[str, list[str]] = {}
    first_by_name: dict[str, Utterance] = {}
    first_by_clip: dict[Path, tuple[Utterance, str]] = {}
    for kind, utterances in (("training", training), ("validation", validation)):
        for utterance in utterances:
            clip = clip_identity(utterance)
            first, first_kind = first_by_clip.setdefault(clip, (utterance, kind))
            namesake = first_by_name.setdefault(utterance.name, utterance)
            message = None
            if first_kind != kind:
                message = f"also in training, at {first.source}: remove it from one of the lists"
            elif first is not utterance:
                message = f"repeats the clip of {first.source}: remove one of the lines"
            elif namesake is not utterance:
                message = (
                    f"its features would overwrite those of {namesake.audio}, at "
                    f"{namesake.source}, both are called {utterance.name}: rename one"
                )
            if message is not None:
                messages.setdefault(utterance.source, []).append(message)
    return messages


def _find_other_rates(
    utterances: Sequence[Utterance], facts: Sequence[ClipFacts], sampling_rate: int
) -> list[Problem]:
    """One warning for all clips at each other rate."""
    counts = Counter(clip.sampling_rate for clip in facts)
    problems = []
    for rate in sorted(rate for rate in counts if rate not in (None, sampling_rate)):
        first = next(
            u for u, clip in zip(utterances, facts, strict=True) if clip.sampling_rate == rate
        )
        others = f" (and {counts[rate] - 1} more)" if counts[rate] > 1 else ""
        message = (
            f"recorded at {rate} Hz{others}, resampled to {sampling_rate} Hz whenever it is read: "
            "store it at that rate, or set --sampling-rate"
        )
        problems.append(Problem(first.source, first.audio, message, "warning"))
    return problems
