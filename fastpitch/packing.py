# SPDX-License-Identifier: BSD-3-Clause
"""Packs the features of a prepared dataset into a few files, see `fastpitch.packed`."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.config import AudioConfig
from common.filelists import Utterance
from common.files import atomic_path, remove_temporaries
from common.parallel import show_progress
from common.records import clip_key, mel_settings, pitch_settings
from fastpitch.clip_features import Features, load_mel, load_pitch
from fastpitch.packed import DTYPE, FOLDER, INDEX_FILE, PackedClip, PackedIndex, Sources

logger = logging.getLogger(__name__)


def pack_features(
    utterances: Sequence[Utterance], dataset_path: Path, audio: AudioConfig, f0_method: str
) -> None:
    """Packs mels, pitch and energy of utterances, whose mels and pitch are in files of their own.

    Clips that were packed before and are not among these stay, unless they have changed. Where
    nothing has changed, nothing is written. Whoever reads the files at that time has either the old
    ones or the new.

    Raises:
        OSError: they cannot be written, perhaps for want of room
        ValueError: a file of a clip does not fit the others
    """
    folder = dataset_path / FOLDER
    new = PackedIndex(
        mel=mel_settings(audio),
        pitch=pitch_settings(audio, f0_method),
        n_mel_channels=audio.n_mel_channels,
        files={},
        clips=[],
    )
    packed = _packed_before(dataset_path, new)
    clips = {utterance.audio.stem: utterance.audio for utterance in utterances}
    before = {clip.audio: clip for clip in packed}
    if all(clip_key(audio, dataset_path) in before for audio in clips.values()):
        logger.info("%s is up to date", folder)
        return
    clips = {Path(name).stem: dataset_path / name for name in before} | clips
    try:
        _write(new, [*clips.values()], dataset_path, audio)
    except OSError as error:
        raise OSError(
            f"{folder}: cannot be written ({error.strerror or error}); the features of each clip "
            "are complete: make room, or leave this out with --no-pack"
        ) from error
    logger.info("%d clips are packed in %s", len(clips), folder)


def _packed_before(dataset_path: Path, new: PackedIndex) -> list[PackedClip]:
    """Clips whose packed features are as they would be now."""
    try:
        index = PackedIndex.read(dataset_path)
    except ValueError as error:
        logger.info("%s: packed again", error)
        return []
    if index is None or (index.mel, index.pitch) != (new.mel, new.pitch):
        return []
    return [
        clip
        for clip in index.clips
        if clip.states == Sources.of(dataset_path / clip.audio, dataset_path).states()
    ]


def _write(
    index: PackedIndex, clips: Sequence[Path], dataset_path: Path, audio: AudioConfig
) -> None:
    folder = dataset_path / FOLDER
    folder.mkdir(exist_ok=True)
    remove_temporaries(folder, "*")
    build = uuid.uuid4().hex[:8]
    files = {feature: f"{feature}.{build}.f32" for feature in index.widths}
    packed = []
    with contextlib.ExitStack() as stack:
        paths = [stack.enter_context(atomic_path(folder / name)) for name in files.values()]
        outputs = [stack.enter_context(path.open("wb")) for path in paths]
        for clip in show_progress(iter(clips), len(clips), "packed"):
            sources = Sources.of(clip, dataset_path)
            states = sources.states()
            mel = load_mel(sources.mel, audio)
            features = Features.of(mel, load_pitch(sources.pitch, mel.shape[1]))
            for feature, output in zip(features, outputs, strict=True):
                np.ascontiguousarray(feature.numpy(), DTYPE).tofile(output)
            packed.append(PackedClip(clip_key(clip, dataset_path), mel.shape[1], states))
    done = PackedIndex(**vars(index) | {"files": files, "clips": packed})
    with atomic_path(folder / INDEX_FILE) as unfinished:
        unfinished.write_text(done.as_json(), encoding="utf-8")
    for old in folder.glob("*.f32"):
        if old.name not in files.values():
            old.unlink()
