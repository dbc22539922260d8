# SPDX-License-Identifier: BSD-3-Clause
"""From text to audio, for any generator and any vocoder that can `infer`."""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from common.checkpoint import load_tensors
from common.phrases import Phrase
from common.precision import Precision
from common.sequences import pad_sequences
from common.text import TextProcessor

logger = logging.getLogger(__name__)

LONGEST_PIECE = 400  # symbols; the models are trained on texts about half as long
SENTENCE_ENDS = ".!?;:"


class Vocoder(Protocol):
    """Turns mels into audio."""

    def infer(self, mel: Tensor) -> Tensor:
        """(B, n_mels, T_mel) -> (B, T_audio) in [-1, 1]"""


@runtime_checkable
class JoiningVocoder(Vocoder, Protocol):
    """One that speaks mels of different lengths at once."""

    def infer_each(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """Of each mel (n_mels, T_mel) the audio (T_audio,), as of that mel alone"""


@dataclass(frozen=True, kw_only=True)
class Controls:
    """How to speak; fields as in the generator's `infer`."""

    pace: float = 1.0
    pitch_transform: Any = None


@dataclass(frozen=True, kw_only=True)
class SymbolSequence:
    """One text to speak, as symbols."""

    ids: list[int]
    speaker: int = 0
    pitch: Tensor | None = None  # (T_text) standardised Hz, in place of the predicted


Numbered = tuple[int, SymbolSequence]  # a piece, and of which phrase


class Synthesizer:
    """Speaks batches of texts, and of mels.

    Args:
        generator: a model whose `infer` gives a `Synthesis`; None where only mels are spoken
        vocoder: turns mels into audio
        symbols: the alphabet, for finding good places to divide long texts
        padding_idx: symbol id of padding
        precision: in which the models compute
    """

    def __init__(
        self,
        generator: Any,
        vocoder: Vocoder,
        *,
        symbols: Sequence[str],
        padding_idx: int,
        precision: Precision,
    ) -> None:
        self.generator = generator
        self.vocoder = vocoder
        self.padding_idx = padding_idx
        self.precision = precision
        self._ends = {i for i, symbol in enumerate(symbols) if symbol in SENTENCE_ENDS}
        self._spaces = {i for i, symbol in enumerate(symbols) if symbol == " "}

    @torch.inference_mode()
    def generate(
        self, phrases: Sequence[SymbolSequence | Tensor], controls: Controls
    ) -> list[Tensor]:
        """Mels of several texts, each (n_mels, T_mel). Long texts are spoken in pieces.

        Args:
            phrases: texts; a mel in the place of one, (n_mels, T_mel), is returned as it is
            controls: how to speak the texts

        Raises:
            ValueError: the model gives no numbers
        """
        mels: list[list[Tensor]] = [
            [phrase.to(self.precision.device)] if isinstance(phrase, Tensor) else []
            for phrase in phrases
        ]
        for batch in self._batches(phrases):
            spoken = self._infer([piece for _, piece in batch], controls)
            for (n, _), mel, mel_len in zip(batch, spoken.mel, _mel_lens(spoken), strict=True):
                mels[n].append(mel[:, :mel_len].float())
        return [torch.cat(parts, dim=1) for parts in mels]

    @torch.inference_mode()
    def vocode(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """Audio of several mels, each (T_audio,) as the vocoder makes it of that mel alone."""
        with self.precision.autocast():
            return [wave.float() for wave in speak_each(self.vocoder, mels)]

    def _infer(self, pieces: Sequence[SymbolSequence], controls: Controls) -> Any:
        device = self.precision.device
        text = pad_sequences([torch.tensor(piece.ids) for piece in pieces], self.padding_idx)
        pitch = None
        if pieces[0].pitch is not None:
            pitch = pad_sequences([piece.pitch for piece in pieces])
            pitch = pitch.to(device, non_blocking=True)
        with self.precision.autocast():
            return self.generator.infer(
                text.to(device, non_blocking=True),
                pace=controls.pace,
                pitch=pitch,
                pitch_transform=controls.pitch_transform,
                # On the host, where the model checks them without waiting for a GPU.
                speaker=torch.tensor([piece.speaker for piece in pieces]),
                isolate_padding=True,
            )

    def _batches(self, phrases: Sequence[SymbolSequence | Tensor]) -> Iterator[list[Numbered]]:
        """At most as many pieces at a time as there are phrases, in the order of each phrase."""
        texts = [(n, each) for n, each in enumerate(phrases) if isinstance(each, SymbolSequence)]
        pieces = [(n, piece) for n, text in texts for piece in self._pieces(text)]
        for with_pitch in (False, True):  # `infer` takes a pitch for all of a batch or for none
            alike = [(n, piece) for n, piece in pieces if (piece.pitch is not None) == with_pitch]
            for start in range(0, len(alike), max(1, len(phrases))):
                yield alike[start : start + len(phrases)]

    def _pieces(self, phrase: SymbolSequence) -> Iterator[SymbolSequence]:
        """The phrase, divided after a sentence or else a word where it is too long."""
        start, ids = 0, phrase.ids
        while start < len(ids):
            end = self._piece_end(ids, start)
            pitch = None if phrase.pitch is None else phrase.pitch[start:end]
            yield SymbolSequence(ids=ids[start:end], speaker=phrase.speaker, pitch=pitch)
            start = end

    def _piece_end(self, ids: list[int], start: int) -> int:
        limit = start + LONGEST_PIECE
        if len(ids) <= limit:
            return len(ids)
        for breaks in (self._ends, self._spaces):
            places = [i for i in range(start, limit) if ids[i] in breaks]
            if places:
                return places[-1] + 1
        return limit


def _mel_lens(spoken: Any) -> list[int]:
    """Of each mel its frames, which must be numbers. The host waits for a GPU once."""
    mel_lens, is_finite = spoken.mel_lens, spoken.mel.isfinite().all()
    *frames, finite = torch.cat([mel_lens, is_finite[None].to(mel_lens.dtype)]).tolist()
    if not finite:
        raise ValueError(
            "the model's mels hold NaN or infinite values: has its training diverged? An "
            "earlier checkpoint, no --amp, or weaker pitch transforms may help"
        )
    return frames


def speak_each(vocoder: Vocoder, mels: Sequence[Tensor]) -> list[Tensor]:
    """Audio of several mels, each (T_audio,) as the vocoder makes it of that mel alone."""
    if isinstance(vocoder, JoiningVocoder):
        return vocoder.infer_each(mels)
    waves: dict[int, Tensor] = {}
    for group in _of_same_length(mels):
        audio = vocoder.infer(torch.stack([mels[n] for n in group]))
        waves.update(zip(group, audio, strict=True))
    return [waves[n] for n in range(len(mels))]


def _of_same_length(mels: Sequence[Tensor]) -> Iterable[list[int]]:
    """Indices in groups that need no padding: a vocoder hears it a dozen frames away."""
    groups = defaultdict(list)
    for n, mel in enumerate(mels):
        groups[mel.shape[1]].append(n)
    return groups.values()


def read_texts(phrases: Sequence[Phrase], text: TextProcessor, seed: int) -> list[SymbolSequence]:
    """The symbols of each phrase; says which symbols are dropped.

    Args:
        phrases: to read
        text: how they are read
        seed: of the choice between letters and phonemes

    Raises:
        FileNotFoundError: a pitch file is missing
        ValueError: phrases with nothing to say, all of them; a pitch file that does not fit
    """
    sequences, problems = [], []
    for phrase in phrases:
        reading = text.read(phrase.text, random.Random(f"{seed} {phrase.source}"))
        if reading.dropped:
            logger.warning("%s: symbols without a sound: %s", phrase.source, reading.dropped)
        if all(text.symbols[symbol] == " " for symbol in reading.ids):
            problems.append(f"{phrase.source}: nothing to say in {phrase.text!r}")
            continue
        pitch = None if phrase.pitch is None else load_pitch(phrase, len(reading.ids))
        sequences.append(SymbolSequence(ids=reading.ids, speaker=phrase.speaker, pitch=pitch))
    if problems:
        raise ValueError("\n".join(problems))
    return sequences


def load_pitch(phrase: Phrase, num_symbols: int) -> Tensor:
    """(T_text) standardised Hz to speak a phrase with.

    Raises:
        FileNotFoundError: there is no such file
        ValueError: it does not hold a number for each symbol
    """
    if not phrase.pitch.is_file():
        raise FileNotFoundError(f"{phrase.source}: pitch {phrase.pitch}: no such file")
    where = f"{phrase.source}: pitch"
    try:
        pitch = load_tensors(phrase.pitch)
    except ValueError as error:
        raise ValueError(f"{where} {error}") from error
    if not isinstance(pitch, Tensor) or not pitch.isfinite().all():
        raise ValueError(f"{where} {phrase.pitch}: expected a tensor without NaN or infinity")
    pitch = pitch.float().reshape(-1)
    if len(pitch) != num_symbols:
        raise ValueError(
            f"{where} {phrase.pitch}: expected a value for each of the {num_symbols} symbols, "
            f"got {len(pitch)}"
        )
    return pitch
