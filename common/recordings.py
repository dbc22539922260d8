# SPDX-License-Identifier: BSD-3-Clause
"""What vocoders train on: recordings, and mels to turn into them; checked before work starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from common.checks import leave_out_bad
from common.clips import ClipFacts, examine_clips
from common.config import AudioConfig, ClipsConfig, RunConfig
from common.filelists import Problem, Utterance, clip_identity, parse_filelists


def read_recordings(
    clips: ClipsConfig, audio: AudioConfig, run: RunConfig, mels_dir: Path | None = None
) -> tuple[list[Utterance], list[Utterance]]:
    """The clips to train on and those to validate on, without problems; their texts are empty.

    Only the first column of a file list counts, so that every list of the recipe will do.

    Args:
        clips: where they are
        audio: settings of the vocoder
        run: its output is where the clips that `--skip-bad` leaves out are listed
        mels_dir: of mels, `<name>.npy`, that every clip needs; None where it needs none

    Raises:
        FileNotFoundError: a file list is missing
        BadDataset: there are problems and they may not be left out, or no clip is left
    """
    training, malformed = _parse(clips.training_files, clips.dataset_path)
    validation, more = _parse(clips.validation_files, clips.dataset_path)
    everything = [*training, *validation]
    facts = examine_clips(everything, audio, num_workers=run.num_workers)
    problems = [*malformed, *more, *_find_overlap(training, validation)]
    for clip, fact in zip(everything, facts, strict=True):
        messages = fact.faults or _find_faults(clip, fact, audio, mels_dir)
        problems += [Problem(clip.source, clip.audio, message) for message in messages]
    return leave_out_bad(
        problems,
        training,
        validation,
        need_validation=True,
        skip_bad=clips.skip_bad,
        bad_list=run.output / "skipped_clips.txt",
    )


def mel_path(mels_dir: Path, clip: Utterance) -> Path:
    """Where the mel is that a clip is made from in fine-tuning."""
    return mels_dir / f"{clip.name}.npy"


def _parse(files: Iterable[Path], dataset_path: Path) -> tuple[list[Utterance], list[Problem]]:
    return parse_filelists(files, dataset_path, n_speakers=1, audio_only=True)


def _find_faults(
    clip: Utterance, facts: ClipFacts, audio: AudioConfig, mels_dir: Path | None
) -> list[str]:
    rate = audio.sampling_rate
    if facts.sampling_rate != rate:
        return [
            f"recorded at {facts.sampling_rate} Hz, --sampling-rate is {rate}: store it at "
            f"{rate} Hz, or train at its own rate"
        ]
    if mels_dir is None:
        return []
    fault = _find_mel_fault(mel_path(mels_dir, clip), facts, audio)
    return [] if fault is None else [fault]


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
