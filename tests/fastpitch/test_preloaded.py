# SPDX-License-Identifier: BSD-3-Clause
"""Features in a device's memory: the batches are those of the packed files, but for rounding."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import train
from benchmarks.corpus import PITCH, make_corpus
from benchmarks.loader import TEXT
from common.config import AudioConfig
from common.text import TextProcessor
from fastpitch.data_function import FastPitchDataset
from fastpitch.packed import open_packed
from fastpitch.preloaded import PreloadedFeatures, check_memory
from fastpitch.prior import InterpolatedPrior
from tests.conftest import assert_same

AUDIO = AudioConfig(n_mel_channels=8)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    text = TextProcessor(dataclasses.replace(TEXT, p_arpabet=0.5))
    utterances, data = make_corpus(tmp_path_factory.mktemp("corpus"), 7, AUDIO, text)
    return utterances, data, text, open_packed(utterances, data, AUDIO)


def batch_of(corpus, source, items):
    utterances, data, text, _ = corpus
    dataset = FastPitchDataset(utterances, data, AUDIO, text, **PITCH, seed=3, source=source)
    return dataset.collate([dataset[2, item] for item in items])


@pytest.mark.parametrize("items", [[0, 3, 5], [6], [6, 1, 2, 4]])  # 6 ends where memory does
def test_in_single_precision_batches_are_bitwise_those_of_the_packed_files(corpus, items):
    packed = corpus[-1]
    preloaded = PreloadedFeatures(packed, CPU, torch.float32)
    ours, expected = (batch_of(corpus, source, items) for source in (preloaded, packed))
    assert_same(vars(ours), vars(expected))
    assert ours.mel.is_contiguous()


def test_in_half_precision_only_mels_differ_and_hardly(corpus):
    packed = corpus[-1]
    preloaded = PreloadedFeatures(packed, CPU)
    assert preloaded.mel.dtype == torch.float16
    ours, expected = (batch_of(corpus, source, [4, 0]) for source in (preloaded, packed))
    assert ours.mel.dtype == torch.float32
    torch.testing.assert_close(ours.mel, expected.mel, rtol=0, atol=0.004)
    assert_same(vars(ours) | {"mel": None}, vars(expected) | {"mel": None})


def test_priors_made_at_once_are_bitwise_those_made_one_by_one(corpus):
    preloaded = PreloadedFeatures(corpus[-1], CPU)
    sizes = [(1, 1), (460, 54), (277, 9), (68, 4), (877, 163), (460, 54), (1, 30)]
    priors = preloaded.pad_priors(*zip(*sizes, strict=True))
    alone = InterpolatedPrior()
    for padded, (num_frames, num_symbols) in zip(priors, sizes, strict=True):
        expected = torch.zeros(877, 163)
        expected[:num_frames, :num_symbols] = torch.from_numpy(alone(num_frames, num_symbols))
        assert torch.equal(padded, expected)


def test_the_memory_that_is_needed_is_told_and_too_little_is_a_sentence(caplog):
    caplog.set_level("INFO")
    check_memory(2 * 2**30, 13_000, 3 * 2**30)
    assert "--preload gpu: 2.00 GiB for 13000 clips" in caplog.text
    with pytest.raises(ValueError, match=r"needs 2\.00 GiB of GPU memory .* 1\.00 GiB are free"):
        check_memory(2 * 2**30, 13_000, 2**30)


def test_without_a_gpu_preloading_is_refused(corpus, tmp_path, capsys):
    filelist = str(corpus[1].training_files[0])
    command = ["-d", str(corpus[1].dataset_path), "-o", str(tmp_path), "--preload", "gpu"]
    command += ["--training-files", filelist, "--validation-files", filelist, "--epochs", "0"]
    command += ["--batch-size", "1", "-lr", "0.1", "--pitch-mean", "200", "--pitch-std", "20"]
    with pytest.raises(SystemExit) as end:
        train.main([*command, "--n-mel-channels", "8", "--text-cleaners", "english_cleaners_v2"])
    assert end.value.code == 2
    assert "--preload gpu needs --cuda: leave it out" in capsys.readouterr().err
