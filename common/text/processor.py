# SPDX-License-Identifier: BSD-3-Clause
"""Reads a text: cleans it, puts phonemes in place of words, and numbers its symbols."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from common.config import TextConfig
from common.text.cleaners import cleaners
from common.text.money import expand_money
from common.text.pronunciations import Pronunciations
from common.text.symbols import PADDING, PHONEMES, symbol_set

_BRACES = re.compile(r"\{([^{}]*)\}")
_PLACEHOLDER = "\ue000"  # stands for phonemes in braces while the text around them is cleaned
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_SUBSTITUTES = {"—": "-"}  # for symbols that basic_cleaners keep and most symbol sets lack
_KNOWN_PHONEMES = frozenset(PHONEMES)
MAX_PIECES_KEPT = 100_000  # a language has fewer words that are not rare


class Reading(NamedTuple):
    """How a text will be read."""

    clean: str  # after the cleaners
    arpabet: str  # with phonemes in braces in place of words; empty if p_arpabet is 0
    ids: list[int]
    dropped: str  # symbols that the symbol set lacks, in order


class Spelling(NamedTuple):
    """A piece of a text in symbols."""

    text: str
    ids: tuple[int, ...]
    dropped: str


class Word(NamedTuple):
    """A word as it may be read."""

    letters: Spelling
    phonemes: Spelling | None  # where the dictionary is sure


class PreparedText(NamedTuple):
    """A text of which nothing is left to do but choosing, word by word, letters or phonemes."""

    clean: str
    pieces: tuple[Spelling | Word, ...]
    p_arpabet: float

    def choose(self, rng: random.Random | None = None) -> list[Spelling]:
        """The pieces of one reading; `rng` is needed if p_arpabet is between 0 and 1."""
        chosen = []
        for piece in self.pieces:
            if isinstance(piece, Word):
                is_chosen = rng is None or rng.random() < self.p_arpabet
                piece = piece.phonemes if piece.phonemes and is_chosen else piece.letters
            chosen.append(piece)
        return chosen

    def encode(self, rng: random.Random | None = None) -> list[int]:
        """The symbol ids of one reading."""
        return [symbol for piece in self.choose(rng) for symbol in piece.ids]


class TextProcessor:
    """Turns texts into symbol ids, as the settings say."""

    def __init__(self, config: TextConfig) -> None:
        """
        Raises:
            ValueError: an unknown symbol set or cleaner, or a malformed dictionary.
            FileNotFoundError: the dictionary or the list of heteronyms is missing.
        """
        self.config = config
        self.symbols = symbol_set(config.symbol_set)
        self.padding_idx = self.symbols.index(PADDING)
        self._cleaners = cleaners(config.text_cleaners)
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols) if symbol != PADDING}
        self._spelled: dict[str, Spelling | Word] = {}  # what comes again and again
        self._pronunciations = None
        if config.p_arpabet > 0:
            self._pronunciations = Pronunciations.load(
                config.cmudict_path,
                config.heteronyms_path,
                take_first=config.several_pronunciations == "first",
            )

    def read(self, text: str, rng: random.Random | None = None) -> Reading:
        """How `text` is read.

        Args:
            text: may hold phonemes, `{HH AH0 L OW1}`.
            rng: chooses the words that become phonemes; needed if p_arpabet is between 0 and 1.
        """
        if 0 < self.config.p_arpabet < 1 and rng is None:
            raise ValueError(
                f"--p-arpabet {self.config.p_arpabet:g} draws for every word: pass a random.Random"
            )
        prepared = self.prepare(text)
        chosen = prepared.choose(rng)
        return Reading(
            clean=prepared.clean,
            arpabet="" if self._pronunciations is None else "".join(each.text for each in chosen),
            ids=[symbol for each in chosen for symbol in each.ids],
            dropped="".join(each.dropped for each in chosen),
        )

    def prepare(self, text: str) -> PreparedText:
        """What is the same however often `text` is read; see `read`."""
        clean = self._clean(text)
        pieces = [self._spell(clean)]
        if self._pronunciations is not None:
            pieces = [*self._find_words(clean)]
        space = Spelling("", (self._ids[" "],), "")
        if self.config.prepend_space_to_text:
            pieces.insert(0, space)
        if self.config.append_space_to_text:
            pieces.append(space)
        return PreparedText(clean, tuple(pieces), self.config.p_arpabet)

    def encode(self, text: str, rng: random.Random | None = None) -> list[int]:
        """The symbol ids of `text`; see `read`."""
        return self.read(text, rng).ids

    def check_alphabet(self, n_symbols: int) -> None:
        """Refuses symbols that are not those of a model.

        Raises:
            ValueError: the model, named by `--fastpitch`, has another number of them
        """
        if len(self.symbols) != n_symbols:
            raise ValueError(
                f"--symbol-set {self.config.symbol_set} has {len(self.symbols)} symbols, the model "
                f"in --fastpitch {n_symbols}: name the set that it was trained with"
            )

    def _clean(self, text: str) -> str:
        phonemes: list[str] = []

        def set_aside(match: re.Match) -> str:
            if not _are_phonemes(match[1]):
                return match[0]
            phonemes.append("{" + " ".join(match[1].split()) + "}")
            return _PLACEHOLDER

        text = _BRACES.sub(set_aside, text.replace(_PLACEHOLDER, ""))
        text = expand_money(text)  # the recipe does so whatever the cleaners
        for cleaner in self._cleaners:
            text = cleaner(text)
        restored = iter(phonemes)
        return re.sub(_PLACEHOLDER, lambda _: next(restored), text)

    def _find_words(self, clean: str) -> Iterator[Spelling | Word]:
        """The text in pieces: words, and what is between them, phonemes in braces among it."""
        position = 0
        for braces in _BRACES.finditer(clean):
            if not _are_phonemes(braces[1]):
                continue
            yield from self._find_words_outside_braces(clean[position : braces.start()])
            yield self._spell(braces[0])
            position = braces.end()
        yield from self._find_words_outside_braces(clean[position:])

    def _find_words_outside_braces(self, clean: str) -> Iterator[Spelling | Word]:
        position = 0
        for match in _WORD.finditer(clean):
            if match.start() > position:
                yield self._spell_once(clean[position : match.start()], self._spell)
            yield self._spell_once(match[0], self._spell_word)
            position = match.end()
        if position < len(clean):
            yield self._spell_once(clean[position:], self._spell)

    def _spell_once(self, text: str, spell: Callable[[str], Spelling | Word]) -> Spelling | Word:
        spelled = self._spelled.get(text)
        if spelled is None:
            spelled = spell(text)
            if len(self._spelled) < MAX_PIECES_KEPT:
                self._spelled[text] = spelled
        return spelled

    def _spell_word(self, word: str) -> Word:
        phonemes = self._pronunciations.find(word)
        return Word(self._spell(word), self._spell(f"{{{phonemes}}}") if phonemes else None)

    def _spell(self, text: str) -> Spelling:
        ids: list[int] = []
        dropped: list[str] = []
        for symbol in _split_symbols(text):
            symbol_id = self._ids.get(symbol, self._ids.get(_SUBSTITUTES.get(symbol, "")))
            if symbol_id is None:
                dropped.append(symbol)
            else:
                ids.append(symbol_id)
        return Spelling(text, tuple(ids), "".join(dropped))


def _are_phonemes(inside: str) -> bool:
    return bool(inside.strip()) and _KNOWN_PHONEMES.issuperset(inside.split())


def _split_symbols(text: str) -> Iterator[str]:
    """Letters and signs one by one; `{HH AH0}` as `@HH`, `@AH0`."""
    position = 0
    for braces in _BRACES.finditer(text):
        if not _are_phonemes(braces[1]):
            continue
        yield from text[position : braces.start()]
        yield from (f"@{phoneme}" for phoneme in braces[1].split())
        position = braces.end()
    yield from text[position:]
