# SPDX-License-Identifier: BSD-3-Clause
"""The demo's report as HTML: one file with its style, pictures and sounds inside."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from common.plots import INK

STYLE = Path(__file__).with_name("report.css")

Rows = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Sound:
    """Something to hear and to look at."""

    caption: str
    wav: bytes  # a whole WAV file
    picture: str  # SVG


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """One text: how it was read, how the model says it, and how the speaker did."""

    text: str
    reading: str
    spoken: Sound
    recorded: Sound | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that the page shows."""

    facts: Rows  # what was made, in a few lines
    timings: Sequence[tuple[str, float]]  # stage, seconds
    settings: Rows
    phrases: Sequence[Phrase]
    losses: Sequence[str]  # SVG
    losses_in_words: str
    alignment: str  # SVG
    aligned_text: str


def render(report: Report) -> str:
    """The page."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>FastPitch demo: what the model learned</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
<h1>A voice, trained on this machine</h1>
<p class="lead">FastPitch turns text into a mel spectrogram, a picture of the loudness of each pitch
range over time; a vocoder turns that into sound. This page shows what a small model learned from a
few minutes of speech: listen first, then look.</p>
<div class="pair">
<section class="card">{_table("What was made", report.facts)}</section>
<section class="card">{_timings(report.timings)}</section>
</div>
<h2>Listen</h2>
<p class="lead">Sentences marked <em>held out</em> were recorded but kept from training: compare the
model with the recording. The others nobody ever recorded. The vocoder here is Griffin-Lim, which
needs no training and sounds metallic, for the model as for anybody. In the pictures, time runs to
the right and brightness is loudness; the blue line is pitch, thin lines are the borders of the
symbols that are named below.</p>
{_join(map(_phrase, report.phrases))}
<h2>How training went</h2>
<p class="lead">{_text(report.losses_in_words)}</p>
<section class="card panels">{_join(map(_picture, report.losses))}</section>
<h2>Which sound is which letter?</h2>
<p class="lead">Nobody told the model when each symbol is spoken; it found out. Each column is a
moment of the recording &#8220;{_text(report.aligned_text)}&#8221;, bright where the model hears the
symbol on the left. A sharp, unbroken staircase means that it knows. The blue line is the path that
the durations were taken from.</p>
<section class="card">{_picture(report.alignment)}</section>
<h2>Settings</h2>
<section class="card"><details><summary>Every setting of the training run</summary>
{_table("", report.settings)}</details></section>
</main>
</body>
</html>
"""


def svg_of(figure: Figure, name: str) -> str:
    """A figure as SVG to put into a page, its ink in the colour of the text around it.

    Args:
        name: different for each figure of a page
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in used else "", svg)
    # Between three quarters and all of the natural size: legible, and seconds stay comparable.
    width = figure.get_figwidth()
    size = f"min-width:{72 * width:.0f}px;max-width:{96 * width:.0f}px"
    svg = svg.replace("<svg ", f'<svg role="img" style="{size}" ', 1)
    return svg.replace(INK, "currentColor")


def _phrase(phrase: Phrase) -> str:
    tag = "new text" if phrase.recorded is None else "held out"
    sounds = [phrase.spoken] if phrase.recorded is None else [phrase.spoken, phrase.recorded]
    return f"""<section class="card">
<h3>{_text(phrase.text)}<span class="tag">{tag}</span></h3>
<p class="reading">read as: {_text(phrase.reading)}</p>
<div class="pair">{_join(map(_sound, sounds))}</div>
</section>"""


def _sound(sound: Sound) -> str:
    caption = _text(sound.caption)
    source = f"data:audio/wav;base64,{_base64(sound.wav)}"
    return f"""<figure><figcaption>{caption}</figcaption>
<audio controls aria-label="{caption}" src="{source}"></audio>
{_picture(sound.picture)}</figure>"""


def _picture(svg: str) -> str:
    return f'<div class="picture">{svg}</div>'


def _table(caption: str, rows: Rows) -> str:
    cells = _join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in rows)
    return f"<table>{_caption(caption)}<tbody>{cells}</tbody></table>"


def _timings(timings: Sequence[tuple[str, float]]) -> str:
    total = sum(seconds for _, seconds in timings)
    cells = _join(
        f'<tr><th>{_text(stage)}</th><td class="number">{duration(seconds)}</td></tr>'
        for stage, seconds in [*timings, ("together", total)]
    )
    return f"<table>{_caption('The time it took')}<tbody>{cells}</tbody></table>"


def duration(seconds: float) -> str:
    """`75.2` -> `1 min 15 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _caption(text: str) -> str:
    return f"<caption>{_text(text)}</caption>" if text else ""


def _text(text: str) -> str:
    return html.escape(text, quote=False)


def _join(parts: Iterable[str]) -> str:
    return "\n".join(parts)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
