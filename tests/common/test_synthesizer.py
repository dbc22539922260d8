# SPDX-License-Identifier: BSD-3-Clause
"""Long texts are divided at good places and come back whole, in order, and in time."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from common.precision import Precision
from common.synthesizer import (
    LONGEST_PIECE,
    Controls,
    SymbolSequence,
    Synthesizer,
)
from fastpitch.model import Prosody, Synthesis

SYMBOLS = ["_", " ", ".", "?", ",", *"abcdefghijklmnopqrstuvwxyz"]
HOP = 4


class Echo:
    """A generator whose mel spells its input: two frames a symbol; bands: id, pitch, speaker."""

    def __init__(self) -> None:
        self.texts: list[Tensor] = []
        self.paces: list[float] = []

    def infer(self, text, *, pace, pitch, pitch_transform, speaker, isolate_padding) -> Synthesis:
        assert isolate_padding
        self.texts.append(text)
        self.paces.append(pace)
        pitch = torch.full(text.shape, -1.0) if pitch is None else pitch
        mel = torch.stack([text.float(), pitch, speaker[:, None].expand_as(text).float()], dim=1)
        nothing = torch.zeros(text.shape)
        return Synthesis(
            mel=mel.repeat_interleave(2, dim=2),
            mel_lens=2 * (text != 0).sum(dim=1),
            prosody=Prosody(nothing, pitch, None),
            durations=2 * torch.ones_like(text),
        )


class Hold:
    """A vocoder that holds the first band for a hop."""

    def __init__(self) -> None:
        self.mels: list[Tensor] = []

    def infer(self, mel: Tensor) -> Tensor:
        self.mels.append(mel)
        return mel[:, 0].repeat_interleave(HOP, dim=1)


class HoldEach(Hold):
    """One that takes mels of any lengths at once."""

    def infer_each(self, mels: Sequence[Tensor]) -> list[Tensor]:
        return [self.infer(mel[None])[0] for mel in mels]


@pytest.fixture
def synthesizer() -> Synthesizer:
    return Synthesizer(
        Echo(),
        Hold(),
        symbols=SYMBOLS,
        padding_idx=0,
        precision=Precision(amp=False, device=torch.device("cpu")),
    )


def sequence(text: str, **settings) -> SymbolSequence:
    return SymbolSequence(ids=[SYMBOLS.index(symbol) for symbol in text], **settings)


def spelled(mel: Tensor) -> str:
    return "".join(SYMBOLS[int(value)] for value in mel[0, ::2])


def pieces_of(synthesizer: Synthesizer) -> list[str]:
    return [
        "".join(SYMBOLS[i] for i in row if i != 0)
        for text in synthesizer.generator.texts
        for row in text
    ]


def a_text(rng: random.Random, num_symbols: int, alphabet: str = "abc  ,.?") -> str:
    return "".join(rng.choice(alphabet) for _ in range(num_symbols))


def test_texts_come_back_whole_and_in_order(synthesizer):
    rng = random.Random(3)
    texts = [a_text(rng, n) for n in (5, 3000, 1, LONGEST_PIECE, LONGEST_PIECE + 1, 40)]
    texts.append("a" * 2 * LONGEST_PIECE)
    mels = synthesizer.generate([sequence(text) for text in texts], Controls())
    assert [spelled(mel) for mel in mels] == texts
    assert all(0 < len(piece) <= LONGEST_PIECE for piece in pieces_of(synthesizer))
    assert all(len(text) <= len(texts) for text in synthesizer.generator.texts), (
        "batches stay small"
    )


def test_a_short_text_is_not_divided(synthesizer):
    text = "one. two. " * (LONGEST_PIECE // 10)
    synthesizer.generate([sequence(text)], Controls())
    assert pieces_of(synthesizer) == [text]


def test_a_long_text_is_divided_after_the_last_sentence_that_fits(synthesizer):
    sentences = ["a" * 150 + "?", " b" * 100 + ".", " c" * 150 + ".", "d" * 20]
    synthesizer.generate([sequence("".join(sentences))], Controls())
    assert pieces_of(synthesizer) == ["".join(sentences[:2]), "".join(sentences[2:])]


def test_a_long_sentence_is_divided_after_a_word(synthesizer):
    synthesizer.generate([sequence("abcdefg " * 100)], Controls())
    pieces = pieces_of(synthesizer)
    assert len(pieces) == 2
    assert all(piece.endswith("abcdefg ") for piece in pieces)


def test_a_word_without_end_is_divided_anywhere(synthesizer):
    synthesizer.generate([sequence("a" * (2 * LONGEST_PIECE + 7))], Controls())
    assert [len(piece) for piece in pieces_of(synthesizer)] == [LONGEST_PIECE, LONGEST_PIECE, 7]


def test_speaker_pace_and_pitch_follow_each_piece(synthesizer):
    text = a_text(random.Random(4), 1000)
    pitch = torch.arange(1000.0)
    phrases = [
        sequence(text, speaker=3, pitch=pitch),
        sequence("ab", speaker=1, pitch=torch.tensor([7.0, 8.0])),
    ]
    long, short = synthesizer.generate(phrases, Controls(pace=1.5))
    assert torch.equal(long[1, ::2], pitch)
    assert short[1].tolist() == [7, 7, 8, 8]
    assert set(long[2].tolist()) == {3}
    assert set(short[2].tolist()) == {1}
    assert set(synthesizer.generator.paces) == {1.5}


@pytest.mark.parametrize("first_with_pitch", [True, False])
def test_phrases_with_and_without_a_given_pitch_can_be_mixed(synthesizer, first_with_pitch):
    given = sequence("ab", pitch=torch.tensor([7.0, 8.0]))
    free = sequence("abc")
    phrases = [given, free] if first_with_pitch else [free, given]
    mels = synthesizer.generate(phrases, Controls())
    with_pitch, without = mels if first_with_pitch else reversed(mels)
    assert with_pitch[1].tolist() == [7, 7, 8, 8]
    assert set(without[1].tolist()) == {-1}
    assert (spelled(with_pitch), spelled(without)) == ("ab", "abc")


def test_no_phrases_make_no_mels(synthesizer):
    assert synthesizer.generate([], Controls()) == []


def test_mels_are_returned_among_the_texts(synthesizer):
    mel = torch.randn(3, 5)
    first, second, third = synthesizer.generate([sequence("ab"), mel, sequence("c")], Controls())
    assert torch.equal(second, mel)
    assert (spelled(first), spelled(third)) == ("ab", "c")
    assert pieces_of(synthesizer) == ["ab", "c"]


def test_mels_alone_need_no_generator(synthesizer):
    synthesizer.generator = None
    mels = [torch.randn(3, 5), torch.randn(3, 2)]
    assert all(map(torch.equal, synthesizer.generate(mels, Controls()), mels))


def test_audio_of_a_mel_is_what_the_vocoder_makes_of_it_alone(synthesizer):
    mels = [torch.randn(3, n) for n in (5, 3, 5, 1)]
    waves = synthesizer.vocode(mels)
    for mel, wave in zip(mels, waves, strict=True):
        assert torch.equal(wave, Hold().infer(mel[None])[0])


def test_mels_of_the_same_length_are_spoken_together(synthesizer):
    synthesizer.vocode([torch.ones(3, 5), torch.ones(3, 3), torch.ones(3, 5)])
    assert sorted(mel.shape for mel in synthesizer.vocoder.mels) == [(1, 3, 3), (2, 3, 5)]


def test_a_vocoder_that_takes_any_lengths_is_given_all_at_once(synthesizer):
    mels = [torch.randn(3, n) for n in (5, 3, 5, 1)]
    expected = synthesizer.vocode(mels)
    synthesizer.vocoder = HoldEach()
    assert all(map(torch.equal, synthesizer.vocode(mels), expected))
    assert [mel.shape[2] for mel in synthesizer.vocoder.mels] == [5, 3, 5, 1]


def test_no_short_mel_waits_for_a_long_one(synthesizer):
    lens = [3, 100, 1, 60, 4, 100, 2]
    waves = synthesizer.vocode([torch.full((3, n), float(n)) for n in lens])
    assert [wave.tolist() for wave in waves] == [[float(n)] * n * HOP for n in lens]
    work = sum(mel.shape[0] * mel.shape[2] for mel in synthesizer.vocoder.mels)
    assert work <= 2 * sum(lens)


def test_no_mels_make_no_audio(synthesizer):
    assert synthesizer.vocode([]) == []
