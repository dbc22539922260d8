# SPDX-License-Identifier: BSD-3-Clause
"""The demo's report as HTML: one file with its style, pictures and sounds inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.html import Rows, Sound, caption_of, join, page, picture, player, table, text

VOCODERS = {
    "griffin_lim": "Griffin-Lim, which needs no training and sounds metallic, for the model as for "
    "anybody",
    "hifigan": "a small HiFi-GAN, which learned from the same clips",
}
SHIPPED = {"griffin_lim": "Griffin-Lim", "hifigan": "a HiFi-GAN of its own"}


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """One text: how it was read, how the model says it, and how others did."""

    text: str
    reading: str
    spoken: Sound
    recorded: Sound | None  # by the speaker
    shipped: Sound | None = None  # by the voice that comes with the recipe


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that the page shows."""

    facts: Rows  # what was made, in a few lines
    timings: Sequence[tuple[str, float]]  # stage, seconds
    settings: Rows
    phrases: Sequence[Phrase]
    vocoder: str  # of `VOCODERS`, which the model speaks through
    shipped_vocoder: str | None  # of `SHIPPED`; None where no other voice is heard
    losses: Sequence[str]  # SVG
    losses_in_words: str
    alignment: str  # SVG
    aligned_text: str


def render(report: Report) -> str:
    """The page."""
    body = f"""<h1>A voice, trained on this machine</h1>
<p class="lead">FastPitch turns text into a mel spectrogram, a picture of the loudness of each pitch
range over time; a vocoder turns that into sound. This page shows what a small model learned from a
few minutes of speech: listen first, then look.</p>
<div class="pair">
<section class="card">{table("What was made", report.facts)}</section>
<section class="card">{_timings(report.timings)}</section>
</div>
<h2>Listen</h2>
<p class="lead">Sentences marked <em>held out</em> were recorded but kept from training: compare the
model with the recording. The others nobody ever recorded. The vocoder here is
{VOCODERS[report.vocoder]}. {_shipped(report)}In the pictures, time runs to the right and brightness
is loudness; the blue line is pitch, thin lines are the borders of the symbols that are named
below.</p>
{join(map(_phrase, report.phrases))}
<h2>How training went</h2>
<p class="lead">{text(report.losses_in_words)}</p>
<section class="card panels">{join(map(picture, report.losses))}</section>
<h2>Which sound is which letter?</h2>
<p class="lead">Nobody told the model when each symbol is spoken; it found out. Each column is a
moment of the recording &#8220;{text(report.aligned_text)}&#8221;, bright where the model hears the
symbol on the left. A sharp, unbroken staircase means that it knows. The blue line is the path that
the durations were taken from.</p>
<section class="card">{picture(report.alignment)}</section>
<h2>Settings</h2>
<section class="card"><details><summary>Every setting of the training run</summary>
{table("", report.settings)}</details></section>"""
    return page("FastPitch demo: what the model learned", body)


def _shipped(report: Report) -> str:
    if report.shipped_vocoder is None:
        return ""
    return (
        "The voice of the recipe, in pretrained_models/voice, learned in the same way, but from "
        f"more speech and for longer, and speaks through {SHIPPED[report.shipped_vocoder]}: hear "
        "what that brings. "
    )


def _phrase(phrase: Phrase) -> str:
    tag = "new text" if phrase.recorded is None else "held out"
    sounds = [each for each in (phrase.spoken, phrase.shipped, phrase.recorded) if each is not None]
    return f"""<section class="card">
<h3>{text(phrase.text)}<span class="tag">{tag}</span></h3>
<p class="reading">read as: {text(phrase.reading)}</p>
<div class="pair">{join(map(player, sounds))}</div>
</section>"""


def _timings(timings: Sequence[tuple[str, float]]) -> str:
    total = sum(seconds for _, seconds in timings)
    cells = join(
        f'<tr><th>{text(stage)}</th><td class="number">{duration(seconds)}</td></tr>'
        for stage, seconds in [*timings, ("together", total)]
    )
    return f"<table>{caption_of('The time it took')}<tbody>{cells}</tbody></table>"


def duration(seconds: float) -> str:
    """`75.2` -> `1 min 15 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
