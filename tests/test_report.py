# SPDX-License-Identifier: BSD-3-Clause
"""Tests of the demo's report: complete, self-contained, and safe whatever the texts hold."""

import base64
import dataclasses
import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from common.audio import write_wav
from common.config import AudioConfig, TextConfig, setup_of
from common.html import Sound, svg_of
from common.plots import INK, plot_curves
from fastpitch.arg_parser import FastPitchConfig
from fastpitch.model import FastPitch
from scripts.demo import report as demo_report
from scripts.demo.page import Phrase, Report, duration, render
from scripts.demo.training_log import read_training_log

PHRASES = "output\ttext\nb.wav\tFish & <chips>, please.\nnew.wav\tHello there!\n"
VOID_TAGS = {"meta", "br", "link", "img"}


class Page(html.parser.HTMLParser):
    """Collects what a page loads, and checks that its tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID_TAGS:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def write_log(path: Path) -> None:
    events = [{"type": "LOG", "step": "PARAMETER", "data": {"epochs": 2, "note": "<b>&"}}]
    for epoch, loss in ((1, 8.0), (2, 1.0)):
        for iteration in (1, 2):
            data = {"train_mel_loss": loss + iteration, "train_attn_loss": 3.0}
            events.append({"type": "LOG", "step": [epoch, iteration, 2], "data": data})
        events.append({"type": "LOG", "step": [epoch], "data": {"val_mel_loss": loss + 2}})
    events.append({"type": "METADATA", "step": [], "data": {"train_mel_loss": {"unit": None}}})
    path.write_text("".join(f"DLLL {json.dumps(event)}\n" for event in events))


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> dict[str, Path]:
    """What the stages before the report leave behind, by a model that knows nothing."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("demo")
    (folder / "wavs").mkdir()
    for name, hertz in (("a", 110), ("b", 150), ("new", 190)):
        audio = 0.3 * np.sign(np.sin(np.arange(22050) * 2 * np.pi * hertz / 22050))
        write_wav(folder / "wavs" / f"{name}.wav", audio, 22050)
    (folder / "shipped").mkdir()
    for name in ("b", "new"):
        write_wav(folder / "shipped" / f"{name}.wav", np.zeros(500 + len(name)), 22050)
    (folder / "train.txt").write_text("wavs/a.wav|A cat.\n")
    (folder / "val.txt").write_text("wavs/b.wav|Fish & <chips>, please.\n")
    (folder / "phrases.tsv").write_text(PHRASES)
    (folder / "timings.tsv").write_text("corpus\t20\ntraining\t60\ntraining\t15.4\n")
    write_log(folder / "nvlog.json")
    spoken = [{"step": [], "data": {f"avg_{name}_RTF": 1.0}} for name in ("griffin_lim", "hifigan")]
    lines = [f"DLLL {json.dumps(event)}\n" for event in spoken]
    (folder / "wavs/nvlog_infer.json").write_text("".join(lines))  # HiFi-GAN spoke last
    (folder / "shipped/nvlog_infer.json").write_text(lines[0])
    sizes = {
        f"{side}_fft_{name}": value
        for side in ("in", "out")
        for name, value in (("output_size", 16), ("conv1d_filter_size", 32), ("n_layers", 1))
    }
    model = FastPitch(FastPitchConfig(symbols_embedding_dim=16, **sizes), 120.0, 20.0)
    checkpoint = {
        "config": dataclasses.asdict(model.config),
        "train_setup": setup_of(AudioConfig(), TextConfig(p_arpabet=1.0)),
        "state_dict": model.state_dict(),
    }
    torch.save(checkpoint, folder / "model.pt")
    return {
        "--output": folder / "report.html",
        "--phrases": folder / "phrases.tsv",
        "--speech": folder / "wavs",
        "--fastpitch": folder / "model.pt",
        "--log-file": folder / "nvlog.json",
        "--dataset-path": folder,
        "--training-files": folder / "train.txt",
        "--validation-files": folder / "val.txt",
        "--timings": folder / "timings.tsv",
    }


@pytest.fixture(scope="module")
def page(demo) -> str:
    flags = [str(part) for pair in demo.items() for part in pair]
    shipped = demo["--speech"].parent / "shipped"
    demo_report.main([*flags, "--shipped-voice", str(demo["--fastpitch"]), str(shipped)])
    return demo["--output"].read_text(encoding="utf-8")


def test_page_loads_nothing_from_elsewhere(page):
    sources = Page(page).sources
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert not re.search(r"@import|url\((?!#)", page)


def test_tags_are_closed_and_texts_escaped(page):
    parsed = Page(page)
    assert parsed.open == []
    assert "<chips>" not in page
    assert "Fish & <chips>, please." in parsed.words
    assert "<b>&" in parsed.words


def test_each_phrase_is_heard_by_both_voices_and_the_recorded_one_as_recorded(page, demo):
    sounds = [
        base64.b64decode(source.partition(",")[2])
        for source in Page(page).sources
        if source.startswith("data:audio/wav;base64,")
    ]
    order = ("wavs/b", "shipped/b", "wavs/b", "wavs/new", "shipped/new")
    folder = demo["--speech"].parent
    assert sounds == [(folder / f"{name}.wav").read_bytes() for name in order]
    captions = re.findall("<figcaption>([^<]*)", page)
    assert captions[:3] == ["The model", "The voice of the recipe", "The recording"]


def test_page_names_the_vocoder_of_each_voice_that_spoke_last(page):
    words = " ".join("".join(Page(page).words).split())
    assert (
        "The vocoder here is a small HiFi-GAN, which learned from the same clips. The voice of"
        in words
    )
    assert "for longer, and speaks through Griffin-Lim: hear what that brings. In the" in words
    assert words.count("Griffin-Lim") == 1


def test_page_shows_mels_losses_and_alignment(page):
    # three mels of the recorded phrase, two of the new one, two losses, one alignment
    assert page.count("<svg ") == 8
    assert INK not in page


def test_page_tells_times_and_losses(page):
    words = "".join(Page(page).words)
    assert "1 min 15 s" in words
    assert "1 min 35 s" in words
    assert "fell by 74%" in words
    assert "from 9.50 in the first epoch to 2.500 in epoch 2" in words


def test_recording_keeps_its_pitch_and_is_aligned_frame_by_frame(demo):
    model = demo_report.Model(demo["--fastpitch"])
    (utterance,) = demo_report.read_filelist(demo["--validation-files"], demo["--dataset-path"], 1)
    data = demo_report.DataConfig(
        dataset_path=demo["--dataset-path"],
        training_files=(demo["--training-files"],),
        validation_files=(demo["--validation-files"],),
    )
    recording = model.recording(utterance, data)
    assert recording.durations.sum() == recording.mel.shape[1]
    assert len(recording.labels) == len(recording.durations)
    voiced = recording.pitch_hz[recording.pitch_hz > 0]
    assert torch.allclose(voiced.median(), torch.tensor(150.0), atol=2)


def test_later_word_on_a_step_counts(tmp_path):
    path = tmp_path / "nvlog.json"
    lines = [("DLLL ", 5.0), ("DLLL ", 3.0), ("", 4.0)]
    steps = [[1, 1, 1], [1, 1, 1], [2, 1, 1]]
    path.write_text(
        "".join(
            prefix + json.dumps({"type": "LOG", "step": step, "data": {"train_loss": loss}}) + "\n"
            for (prefix, loss), step in zip(lines, steps, strict=True)
        )
    )
    assert read_training_log(path).curve("train_loss") == ([1, 2], [3.0, 4.0])


def test_broken_log_is_refused_by_line(tmp_path):
    path = tmp_path / "nvlog.json"
    path.write_text('DLLL {"step": [], "data": {}, "type": "LOG"}\nDLLL {"ste\n')
    with pytest.raises(ValueError, match=r"nvlog\.json:2: expected `DLLL"):
        read_training_log(path)


@pytest.mark.parametrize(
    ("flag", "name", "complaint"),
    [
        ("--fastpitch", "none.pt", "none.pt"),
        ("--log-file", "none.json", "no such log"),
        ("--speech", "nowhere", "inference.py makes it"),
    ],
)
def test_missing_input_is_named_and_no_page_written(demo, capsys, tmp_path, flag, name, complaint):
    flags = demo | {flag: tmp_path / name, "--output": tmp_path / "report.html"}
    with pytest.raises(SystemExit) as stopped:
        demo_report.main([str(part) for pair in flags.items() for part in pair])
    assert stopped.value.code == 2
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_phrases_without_the_needed_columns_are_refused(tmp_path):
    path = tmp_path / "phrases.tsv"
    path.write_text("text\nHello\n")
    with pytest.raises(ValueError, match="lacks the column output"):
        list(demo_report.read_phrases(path))


def test_pictures_of_one_page_do_not_mix_their_parts():
    panels = {"loss": {"training": ([1, 2], [3.0, 1.0])}}
    first, second = (svg_of(plot_curves(panels), name) for name in ("first", "second"))
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_page_without_phrases_or_losses_is_still_a_page():
    sound = Sound(caption="a", wav=b"", picture="")
    phrase = Phrase(text="x", reading="x", spoken=sound, recorded=None)
    empty = Report(
        facts=[],
        timings=[],
        settings=[],
        phrases=[phrase],
        vocoder="griffin_lim",
        shipped_vocoder=None,
        losses=[],
        losses_in_words="",
        alignment="",
        aligned_text="",
    )
    assert Page(render(empty)).open == []
    assert "Griffin-Lim, which needs no training" in render(empty)
    assert "The voice of the recipe" not in render(empty)


def test_durations_read_as_a_person_says_them():
    assert [duration(s) for s in (0.4, 59.6, 61, 3600)] == [
        "0 s",
        "1 min 00 s",
        "1 min 01 s",
        "60 min 00 s",
    ]
