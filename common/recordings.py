# SPDX-License-Identifier: BSD-3-Clause
"""What vocoders train on: recordings, and mels to turn into them; checked before work starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.checks import leave_out_bad
from common.clips import ClipFacts, examine_clips
from common.config import AudioConfig
from common.filelists import Problem, Utterance, clip_identity, parse_filelists


@dataclass(frozen=True, kw_only=True)
class RecordingCheck:
    """Reads file lists for a vocoder and leaves no problem for later.

    Only the first column counts, so that every file list of the recipe will do.

    Args:
        audio: settings of the vocoder
        bad_list: where the clips that `skip_bad` leaves out are listed
        mels_dir: of mels, `<name>.npy`, that every clip needs; None where it needs none
    """

    dataset_path: Path
    audio: AudioConfig
    bad_list: Path
    mels_dir: Path | None = None
    skip_bad: bool = False
    num_workers: int = 1

    def read(
        self, training_files: Iterable[Path], validation_files: Iterable[Path]
    ) -> tuple[list[Utterance], list[Utterance]]:
        """The clips to train on and those to validate on; their texts are empty.

        Raises:
            FileNotFoundError: a file list is missing
            BadDataset: there are problems and `skip_bad` is off, or no clip is left
        """
        training, malformed = self._parse(training_files)
        validation, more = self._parse(validation_files)
        clips = [*training, *validation]
        facts = examine_clips(clips, self.audio, num_workers=self.num_workers)
        problems = [*malformed, *more, *_find_overlap(training, validation)]
        for clip, fact in zip(clips, facts, strict=True):
            messages = [*fact.faults, *self._find_faults(clip, fact)]
            problems += [Problem(clip.source, clip.audio, message) for message in messages]
        return leave_out_bad(
            problems,
            training,
            validation,
            need_validation=True,
            skip_bad=self.skip_bad,
            bad_list=self.bad_list,
        )

    def _parse(self, files: Iterable[Path]) -> tuple[list[Utterance], list[Problem]]:
        return parse_filelists(files, self.dataset_path, n_speakers=1, audio_only=True)

    def _find_faults(self, clip: Utterance, facts: ClipFacts) -> list[str]:
        if facts.faults:
            return []
        rate = self.audio.sampling_rate
        if facts.sampling_rate != rate:
            return [
                f"recorded at {facts.sampling_rate} Hz, --sampling-rate is {rate}: store it at "
                f"{rate} Hz, or train at its own rate"
            ]
        if self.mels_dir is None:
            return []
        fault = _find_mel_fault(mel_path(self.mels_dir, clip), facts, self.audio)
        return [] if fault is None else [fault]


def mel_path(mels_dir: Path, clip: Utterance) -> Path:
    """Where the mel is that a clip is made from in fine-tuning."""
    return mels_dir / f"{clip.name}.npy"


def _find_overlap(training: Sequence[Utterance], validation: Sequence[Utterance]) -> list[Problem]:
    trained_on = {clip_identity(clip): clip for clip in training}
    return [
        Problem(
            clip.source,
            clip.audio,
            f"also in training, at {trained_on[clip_identity(clip)].source}: remove it from one of "
            "the lists",
        )
        for clip in validation
        if clip_identity(clip) in trained_on
    ]


def _find_mel_fault(path: Path, facts: ClipFacts, audio: AudioConfig) -> str | None:
    advice = "make it with python -m fastpitch.extract_mels, see --input-mels-dir"
    if not path.is_file():
        return f"its mel {path} is missing: {advice}"
    try:
        shape = np.load(path, mmap_mode="r").shape
    except (ValueError, EOFError, OSError) as error:
        return f"its mel {path} cannot be read ({error}): {advice}"
    num_bands = audio.n_mel_channels
    if len(shape) != 2 or num_bands not in shape:
        return (
            f"its mel {path} has shape {shape}, expected ({num_bands}, frames) as "
            f"--n-mel-channels says: {advice}"
        )
    num_frames = shape[1] if shape[0] == num_bands else shape[0]
    # FastPitch's frames are centred: there is one more than whole hops.
    if not 0 <= facts.num_frames - num_frames <= 1:
        return (
            f"its mel {path} has {num_frames} frames, the recording {facts.num_frames}: both must "
            f"be of the same clip and hop: {advice}"
        )
    return None
