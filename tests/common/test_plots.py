# SPDX-License-Identifier: BSD-3-Clause
"""Tests of the pictures: what is drawn is where the numbers say."""

import io

import numpy as np
import pytest
import torch

from common.plots import plot_alignment, plot_curves, plot_histogram, plot_mel, plot_prosody


@pytest.fixture
def mel() -> torch.Tensor:
    return torch.randn(80, 120, generator=torch.Generator().manual_seed(0))


def png_of(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def test_mel_fills_the_picture_frame_by_frame(mel):
    axes = plot_mel(mel).axes[0]
    image = axes.images[0]
    assert np.allclose(image.get_array(), mel.numpy())
    assert tuple(image.get_extent()) == (0, 120, 0, 80)
    assert axes.get_xlim() == (0, 120)


def test_symbols_are_named_at_the_middle_of_their_frames(mel):
    durations = torch.tensor([10, 0, 30, 80])
    axes = plot_mel(mel, durations=durations, labels=["a", "b", "c", "d"]).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "c", "d"]
    assert axes.get_xticks().tolist() == [5, 25, 80]
    boundaries = [float(segment[0, 0]) for segment in axes.collections[0].get_segments()]
    assert boundaries == [10, 10, 40]


def test_names_of_short_symbols_are_stacked_not_overprinted(mel):
    durations = torch.tensor([40, 1, 1, 78])
    axes = plot_mel(mel, durations=durations, labels=["AH0", "EY1", "NG", "S"]).axes[0]
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert shown == ["AH0", "EY1", "\nNG", "S"]


def test_pitch_has_gaps_where_unvoiced(mel):
    pitch = torch.full((120,), 150.0)
    pitch[50:60] = 0
    figure = plot_mel(mel, pitch=pitch, frames_per_second=86.1)
    (line,) = figure.axes[-1].lines
    assert np.array_equal(np.isnan(line.get_ydata()), pitch.numpy() == 0)
    assert figure.axes[-1].get_xlim() == (0, 120)


def test_pitch_axis_can_be_fixed(mel):
    figure = plot_mel(mel, pitch=torch.full((120,), 150.0), pitch_range=(50, 300))
    assert figure.axes[-1].get_ylim() == (50, 300)


def test_hard_path_runs_through_the_chosen_symbols():
    chosen = torch.tensor([0, 0, 1, 2, 2])
    hard = torch.nn.functional.one_hot(chosen, 3).float()
    axes = plot_alignment(hard * 0.8, hard, labels=["a", "b", "c"]).axes[0]
    assert axes.lines[0].get_ydata().tolist() == [0.5, 0.5, 1.5, 2.5, 2.5]
    assert np.allclose(axes.images[0].get_array(), (hard * 0.8).numpy().T)


def test_each_panel_shows_the_values_of_symbols_as_steps():
    values = {"recorded": torch.tensor([3.0, torch.nan, 1.0]), "predicted": torch.ones(3)}
    figure = plot_prosody({"frames": values, "pitch, Hz": values})
    assert [axes.get_title() for axes in figure.axes] == ["frames", "pitch, Hz"]
    for axes in figure.axes:
        assert [text.get_text() for text in axes.get_legend().get_texts()] == list(values)
        drawn = axes.patches[0].get_data()
        assert np.array_equal(drawn.values, values["recorded"].numpy(), equal_nan=True)
        assert drawn.edges.tolist() == [0, 1, 2, 3]
    assert png_of(figure)


def test_each_panel_shows_its_curves():
    curves = {"training": ([1, 2, 3], [9.0, 3.0, 1.0]), "validation": ([2], [4.0])}
    figure = plot_curves({"mel": curves, "all": curves})
    assert [axes.get_title() for axes in figure.axes] == ["mel", "all"]
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == ["training", "validation"]
    assert lines[0].get_ydata().tolist() == [9.0, 3.0, 1.0]


def test_pictures_can_be_saved_without_a_screen(mel):
    figures = [
        plot_mel(mel, torch.full((120,), 99.0), torch.tensor([60, 60]), ["x", "y"], 86.1),
        plot_alignment(torch.rand(20, 5)),
        plot_curves({"loss": {"training": ([1], [1.0])}}),
    ]
    assert all(png_of(figure).startswith(b"\x89PNG") for figure in figures)


def test_a_histogram_counts_every_value_of_every_group():
    (axes,) = plot_histogram({"speech": [1.0, 1.0, 3.0], "recordings": [2.0]}, "error, %").axes
    counts = [patch.get_data().values.sum() for patch in axes.patches]
    assert counts == [3, 1]
    assert axes.get_xlabel() == "error, %"
    assert png_of(axes.figure)
