# SPDX-License-Identifier: BSD-3-Clause
"""Pictures of mels, alignments and losses, for TensorBoard and for reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from torch import Tensor

# Legible on white and on black: pictures have no background of their own.
INK = "#868d96"
PITCH_COLOR = "#5cd6ff"
PATH_COLOR = "#5cd6ff"
BOUNDARY_COLOR = "#ffffff"
COLOR_MAP = "magma"
CURVE_COLORS = ("#2f81f7", "#f0883e", "#2da44e", "#bf6bd6")

FONT_SIZE = 9
LABEL_FONT_SIZE = 9
INCHES_PER_LABEL = 0.17
INCHES_PER_LETTER = 0.085
MARGINS_INCHES = 1.1
INCHES_PER_100_FRAMES = 3.2
SMALLEST_WIDTH_INCHES = 4.8
MEL_HEIGHT_INCHES = 2.6


def plot_mel(
    mel: Tensor,
    pitch: Tensor | None = None,
    durations: Tensor | None = None,
    labels: Sequence[str] | None = None,
    frames_per_second: float | None = None,
    pitch_range: tuple[float, float] | None = None,
) -> Figure:
    """A mel spectrogram, if wanted with its pitch and the borders and names of its symbols.

    Args:
        mel: (n_mels, T_mel)
        pitch: (T_mel) Hz, 0 where unvoiced
        durations: (T_text) frames of each symbol
        labels: T_text names of the symbols
        frames_per_second: makes the time axis seconds instead of frames
        pitch_range: lowest and highest Hz shown, for pictures that are compared
    """
    num_frames = mel.shape[1]
    figure = _figure(_mel_width(num_frames, labels), MEL_HEIGHT_INCHES)
    axes = _axes(figure)
    axes.imshow(
        mel.numpy(),
        origin="lower",
        aspect="auto",
        interpolation="none",
        cmap=COLOR_MAP,
        extent=(0, num_frames, 0, mel.shape[0]),
    )
    axes.set_ylabel("mel band")
    time_axes = axes
    if durations is not None:
        _draw_symbols(axes, durations, labels)
        time_axes = _style(axes.twiny()) if labels is not None else axes
    _label_time(time_axes, num_frames, frames_per_second)
    if pitch is not None:
        _draw_pitch(axes, pitch, pitch_range)
    return figure


def plot_alignment(
    soft: Tensor, hard: Tensor | None = None, labels: Sequence[str] | None = None
) -> Figure:
    """A soft alignment, if wanted with the hard path through it.

    Args:
        soft: (T_mel, T_text)
        hard: (T_mel, T_text) one-hot over T_text
        labels: T_text names of the symbols
    """
    num_frames, num_symbols = soft.shape
    height = max(3.2, (0.13 if labels is not None else 0.05) * num_symbols)
    figure = _figure(_mel_width(num_frames, None), height)
    axes = _axes(figure)
    axes.imshow(
        soft.numpy().T,
        origin="lower",
        aspect="auto",
        interpolation="none",
        cmap=COLOR_MAP,
        extent=(0, num_frames, 0, num_symbols),
    )
    if hard is not None:
        path = hard.numpy().argmax(axis=1) + 0.5
        axes.plot(np.arange(num_frames) + 0.5, path, color=PATH_COLOR, linewidth=1.0)
        axes.set_xlim(0, num_frames)
        axes.set_ylim(0, num_symbols)
    axes.set_xlabel("frame")
    axes.set_ylabel("symbol")
    if labels is not None:
        axes.set_yticks(np.arange(num_symbols) + 0.5, labels, fontsize=LABEL_FONT_SIZE - 1)
        axes.tick_params(axis="y", length=0)
    return figure


def plot_prosody(panels: Mapping[str, Mapping[str, Tensor]]) -> Figure:
    """Values of the symbols of a text as steps, a panel below another.

    Args:
        panels: title -> name of a line -> (T_text) values; NaN where there is none
    """
    num_symbols = max(len(values) for lines in panels.values() for values in lines.values())
    width = max(SMALLEST_WIDTH_INCHES, INCHES_PER_LABEL * num_symbols)
    figure = _figure(width, 1.9 * len(panels))
    for index, (title, lines) in enumerate(panels.items(), start=1):
        axes = _style(figure.add_subplot(len(panels), 1, index))
        for color, (name, values) in zip(CURVE_COLORS, lines.items(), strict=False):
            edges = np.arange(len(values) + 1)
            axes.stairs(
                values.numpy(), edges, baseline=None, color=color, label=name, linewidth=1.6
            )
        axes.set_title(title, fontsize=FONT_SIZE + 1, color=INK)
        axes.set_xlim(0, num_symbols)
        axes.grid(True, color=INK, alpha=0.25, linewidth=0.6)
        axes.legend(frameon=False, fontsize=FONT_SIZE, labelcolor=INK, ncols=len(lines))
    axes.set_xlabel("symbol")
    return figure


def plot_curves(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
) -> Figure:
    """Curves over epochs on a logarithmic scale, a panel beside another.

    Args:
        panels: title -> name of a curve -> (epochs, values)
    """
    figure = _figure(4.2 * len(panels), 2.9)
    for index, (title, curves) in enumerate(panels.items(), start=1):
        axes = _style(figure.add_subplot(1, len(panels), index))
        for color, (name, (epochs, values)) in zip(CURVE_COLORS, curves.items(), strict=False):
            axes.plot(epochs, values, color=color, label=name, linewidth=1.6)
        axes.set_title(title, fontsize=FONT_SIZE + 1, color=INK)
        axes.set_xlabel("epoch")
        axes.set_yscale("log", subs=())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(True, color=INK, alpha=0.25, linewidth=0.6)
        axes.legend(frameon=False, fontsize=FONT_SIZE, labelcolor=INK)
    return figure


def plot_histogram(values: Mapping[str, Sequence[float]], label: str) -> Figure:
    """How often values occur.

    Args:
        values: name of a group -> its values; groups are drawn over each other
        label: what the values are, with their unit
    """
    figure = _figure(4.2, 2.4)
    axes = _axes(figure)
    edges = np.histogram_bin_edges(np.concatenate([np.asarray(v) for v in values.values()]), 20)
    for color, (name, group) in zip(CURVE_COLORS, values.items(), strict=False):
        axes.stairs(np.histogram(group, edges)[0], edges, color=color, label=name, linewidth=1.6)
    axes.set_xlabel(label)
    axes.set_ylabel("sentences")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(True, color=INK, alpha=0.25, linewidth=0.6)
    if len(values) > 1:
        axes.legend(frameon=False, fontsize=FONT_SIZE, labelcolor=INK)
    return figure


def _mel_width(num_frames: int, labels: Sequence[str] | None) -> float:
    wanted = [SMALLEST_WIDTH_INCHES, INCHES_PER_100_FRAMES * num_frames / 100]
    if labels is not None:
        wanted.append(INCHES_PER_LABEL * len(labels))
    return max(wanted)


def _draw_symbols(axes: Axes, durations: Tensor, labels: Sequence[str] | None) -> None:
    ends = durations.cumsum(0).numpy()
    starts = ends - durations.numpy()
    axes.vlines(ends[:-1], *axes.get_ylim(), color=BOUNDARY_COLOR, alpha=0.3, linewidth=0.6)
    axes.set_xlim(0, float(ends[-1]))
    if labels is None:
        return
    heard = np.flatnonzero(ends > starts)
    middles = ((starts + ends) / 2)[heard]
    inches_per_frame = (axes.figure.get_figwidth() - MARGINS_INCHES) / ends[-1]
    stacked = _stack_labels(middles * inches_per_frame, [labels[i] for i in heard])
    axes.set_xticks(middles, stacked, fontsize=LABEL_FONT_SIZE, linespacing=1.0)
    axes.tick_params(axis="x", length=0)


def _stack_labels(middles_inches: np.ndarray, labels: Sequence[str]) -> list[str]:
    """Moves labels down a line, or several, where they would touch their neighbours."""
    ends_of_lines: list[float] = []
    stacked = []
    for middle, label in zip(middles_inches, labels, strict=True):
        half = INCHES_PER_LETTER * (len(label) + 0.5) / 2
        free = (i for i, end in enumerate(ends_of_lines) if end <= middle - half)
        line = next(free, len(ends_of_lines))
        ends_of_lines[line : line + 1] = [middle + half]
        stacked.append("\n" * line + label)
    return stacked


def _draw_pitch(axes: Axes, pitch: Tensor, pitch_range: tuple[float, float] | None) -> None:
    pitch_axes = _style(axes.twinx())
    hertz = np.where(pitch.numpy() > 0, pitch.numpy(), np.nan)
    pitch_axes.plot(np.arange(len(hertz)) + 0.5, hertz, color=PITCH_COLOR, linewidth=1.8)
    pitch_axes.set_xlim(axes.get_xlim())
    pitch_axes.set_ylim(pitch_range)
    pitch_axes.set_ylabel("pitch, Hz")


def _label_time(axes: Axes, num_frames: int, frames_per_second: float | None) -> None:
    axes.set_xlim(0, num_frames)
    if frames_per_second is None:
        axes.set_xlabel("frame")
        return
    seconds = np.arange(0, num_frames / frames_per_second, 0.5)
    axes.set_xticks(seconds * frames_per_second, [f"{second:g} s" for second in seconds])


def _figure(width_inches: float, height_inches: float) -> Figure:
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    figure.patch.set_alpha(0)
    return figure


def _axes(figure: Figure) -> Axes:
    return _style(figure.add_subplot())


def _style(axes: Axes) -> Axes:
    axes.patch.set_alpha(0)
    axes.tick_params(colors=INK, labelsize=FONT_SIZE)
    for side in ("left", "right", "top", "bottom"):
        axes.spines[side].set_visible(False)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
        label.set_fontsize(FONT_SIZE)
    return axes
