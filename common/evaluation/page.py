# SPDX-License-Identifier: BSD-3-Clause
"""The report of an evaluation as a page: numbers, then the worst sentences to listen to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from common.audio import MelSpectrogram, read_audio
from common.config import AudioConfig
from common.evaluation.report import SUMMARY_HEADER, Evaluation, Sentence, summary_rows
from common.evaluation.scores import METRICS
from common.files import atomic_path
from common.html import Sound, join, page, picture, player, svg_of, table, text, wav_bytes
from common.pitch import estimate_pitch
from common.plots import plot_histogram, plot_mel

DRAWN = ("wer", "dnsmos", "mcd", "f0_rmse", "duration_error")  # of the metrics


def write_page(evaluation: Evaluation, path: Path, audio: AudioConfig, num_played: int) -> None:
    """Writes the page.

    Args:
        audio: settings of the pictures
        num_played: sentences that can be heard, the worst first; the page grows by about a
            megabyte with each
    """
    worst = evaluation.worst_first()
    drawing = _Drawing(audio)
    body = f"""<h1>How good is this speech?</h1>
<p class="lead">{len(worst)} sentences. Behind each number, between which bounds it lies with a
confidence of 95 %, by resampling the sentences.</p>
<section class="card">{_grid(SUMMARY_HEADER, summary_rows(evaluation.summaries))}
{_speed(evaluation)}</section>
<section class="card panels">{join(map(picture, _histograms(evaluation)))}</section>
<h2>Listen</h2>
<p class="lead">The worst {min(num_played, len(worst))} first. Time runs to the right, brightness is
loudness, the blue line is pitch.</p>
{join(_card(sentence, drawing) for sentence in worst[:num_played])}
<h2>All sentences</h2>
<section class="card"><details><summary>Every sentence with its scores</summary>
{_all_sentences(worst)}</details></section>
<h2>Settings</h2>
<section class="card">{table("", [*evaluation.settings.items()])}</section>"""
    with atomic_path(path) as unfinished:
        unfinished.write_text(page("Evaluation of speech", body), encoding="utf-8")


class _Drawing:
    """Draws clips, as mels with their pitch."""

    def __init__(self, audio: AudioConfig) -> None:
        self.audio = audio
        self.mel_spectrogram = MelSpectrogram(audio)

    def sounds(self, clips: Mapping[str, Path]) -> list[Sound]:
        """Clips by their captions, their pitch on one scale."""
        samples = [read_audio(path, self.audio.sampling_rate) for path in clips.values()]
        pitches = [torch.from_numpy(estimate_pitch(each, self.audio)) for each in samples]
        voiced = torch.cat([pitch[pitch > 0] for pitch in pitches])
        pitch_range = (
            (0.8 * float(voiced.min()), 1.2 * float(voiced.max())) if len(voiced) else None
        )
        sounds = []
        for (caption, path), clip, pitch in zip(clips.items(), samples, pitches, strict=True):
            figure = plot_mel(
                self.mel_spectrogram(torch.from_numpy(clip)[None])[0],
                pitch,
                frames_per_second=self.audio.sampling_rate / self.audio.hop_length,
                pitch_range=pitch_range,
            )
            wav = wav_bytes(path, self.audio.sampling_rate)
            sounds.append(Sound(caption=caption, wav=wav, picture=svg_of(figure, str(path))))
        return sounds


def _histograms(evaluation: Evaluation) -> Iterator[str]:
    """Of some metrics, how many sentences score what, as SVG."""
    for name in DRAWN:
        metric = METRICS[name]
        groups = zip(("speech", "recordings"), evaluation.scores_of(name), strict=True)
        values = {
            group: [metric.scale * score.value for score in scores]
            for group, scores in groups
            if scores
        }
        if values:
            yield svg_of(plot_histogram(values, metric.label), name)


def _card(sentence: Sentence, drawing: _Drawing) -> str:
    pair = sentence.pair
    recorded = {} if pair.reference is None else {"The recording": pair.reference}
    sounds = drawing.sounds({"The speech": pair.speech} | recorded)
    heard = "" if sentence.heard is None else f"heard: {sentence.heard or 'nothing'}"
    return f"""<section class="card">
<h3>{text(pair.text)}<span class="tag">{text(pair.name)}</span></h3>
<p class="reading">{text(heard)}</p>
<p class="reading">{text(_scores_in_words(sentence))}</p>
<div class="pair">{join(map(player, sounds))}</div>
</section>"""


def _scores_in_words(sentence: Sentence) -> str:
    counted = [
        (METRICS[name], score) for name, score in sentence.scores.items() if score.weight > 0
    ]
    return "; ".join(
        f"{metric.title} {metric.text(score.value)} {metric.unit}".rstrip()
        for metric, score in counted
    )


def _all_sentences(sentences: Sequence[Sentence]) -> str:
    names = [name for name in METRICS if any(name in each.scores for each in sentences)]
    rows = [
        (
            f"{each.pair.name}: {each.pair.text}",
            *(_cell(each, name) for name in names),
        )
        for each in sentences
    ]
    return _grid(("", *(METRICS[name].title for name in names)), rows)


def _cell(sentence: Sentence, name: str) -> str:
    score = sentence.scores.get(name)
    return METRICS[name].text(score.value) if score is not None and score.weight > 0 else ""


def _speed(evaluation: Evaluation) -> str:
    if evaluation.times_real_time is None:
        return ""
    return f"<p>Spoken {evaluation.times_real_time:.1f} times as fast as it sounds.</p>"


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first are numbers."""
    head = "".join(f"<th>{text(cell)}</th>" for cell in header)
    lines = [f"<tr>{head}</tr>"]
    for name, *cells in rows:
        numbers = "".join(f"<td>{text(cell)}</td>" for cell in cells)
        lines.append(f"<tr><th>{text(name)}</th>{numbers}</tr>")
    return f'<div class="grid"><table>{join(lines)}</table></div>'
