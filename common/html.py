# SPDX-License-Identifier: BSD-3-Clause
"""Pages that need no other file: style, pictures and sounds are inside."""

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

from common.audio import read_audio, write_wav
from common.plots import INK

STYLE = Path(__file__).with_name("page.css")

Rows = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Sound:
    """Something to hear and to look at."""

    caption: str
    wav: bytes  # a whole WAV file
    picture: str  # SVG


def page(title: str, body: str) -> str:
    """A whole page.

    Args:
        title: plain text
        body: HTML
    """
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
{body}
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


def player(sound: Sound) -> str:
    """Plays a sound above its picture."""
    caption = text(sound.caption)
    source = f"data:audio/wav;base64,{base64.b64encode(sound.wav).decode('ascii')}"
    return f"""<figure><figcaption>{caption}</figcaption>
<audio controls aria-label="{caption}" src="{source}"></audio>
{picture(sound.picture)}</figure>"""


def wav_bytes(path: Path, sampling_rate: int) -> bytes:
    """A recording as a WAV file that every browser plays, whatever its format on disk."""
    buffer = io.BytesIO()
    write_wav(buffer, read_audio(path, sampling_rate), sampling_rate)
    return buffer.getvalue()


def picture(svg: str) -> str:
    """A picture that scrolls where the page is narrow."""
    return f'<div class="picture">{svg}</div>'


def table(caption: str, rows: Rows) -> str:
    """Rows of a name and a value, plain text."""
    cells = join(f"<tr><th>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in rows)
    return f"<table>{caption_of(caption)}<tbody>{cells}</tbody></table>"


def caption_of(caption: str) -> str:
    """The caption of a table; nothing where it is empty."""
    return f"<caption>{text(caption)}</caption>" if caption else ""


def text(plain: str) -> str:
    """Plain text as HTML."""
    return html.escape(plain, quote=False)


def join(parts: Iterable[str]) -> str:
    """Parts of a page, one after the other."""
    return "\n".join(parts)
