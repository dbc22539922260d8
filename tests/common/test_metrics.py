# SPDX-License-Identifier: BSD-3-Clause
"""Means and latencies against numpy's."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from common.distributed import Processes
from common.metrics import SpeechTimes, Stopwatch, WeightedMeans


@pytest.mark.parametrize("as_tensors", [False, True], ids=["number weights", "tensor weights"])
def test_weighted_means_are_those_of_numpy(as_tensors):
    values, weights = torch.randn(6, 2), [3, 1, 4, 1, 5, 9]
    means = WeightedMeans(Processes(cuda=False))
    for (loss, mel_loss), weight in zip(values, weights, strict=True):
        means.add(
            {"loss": loss, "mel_loss": mel_loss}, torch.tensor(weight) if as_tensors else weight
        )
    expected = np.average(values.double().numpy(), axis=0, weights=weights)
    read = means.read(means.names)
    assert list(read) == ["loss", "mel_loss"]
    assert list(read.values()) == pytest.approx(expected, rel=1e-12)
    assert all(type(value) is float for value in read.values())


def test_reading_twice_gives_the_same_and_adding_goes_on():
    means = WeightedMeans(Processes(cuda=False))
    means.add({"loss": torch.tensor(1.0)}, 2)
    assert means.read(["loss"]) == means.read(["loss"]) == {"loss": 1.0}
    means.add({"loss": torch.tensor(4.0)}, 1)
    assert means.read(["loss"]) == {"loss": 2.0}


def test_means_keep_no_graph_and_leave_their_input_alone():
    loss = torch.tensor(2.0, requires_grad=True) * 3
    means = WeightedMeans(Processes(cuda=False))
    means.add({"loss": loss}, 5)
    means.add({"loss": loss}, 5)
    assert means.read(["loss"]) == {"loss": 6.0}
    assert loss == 6
    assert loss.requires_grad


def test_many_small_values_are_not_lost_beside_a_large_one():
    means = WeightedMeans(Processes(cuda=False))
    means.add({"loss": torch.tensor(2.0**25)}, 1)
    for _ in range(100):
        means.add({"loss": torch.tensor(1.0)}, 1)
    assert means.read(["loss"])["loss"] == pytest.approx((2**25 + 100) / 101, rel=1e-12)


def test_a_stopwatch_tells_the_seconds_since_it_was_made():
    before = time.perf_counter()
    watch = Stopwatch(torch.device("cpu"))
    time.sleep(0.01)
    first, second = watch.seconds, watch.seconds
    assert 0.01 <= first <= second <= time.perf_counter() - before


def test_latencies_are_summed_up_as_numpy_does():
    generator, vocoder = np.random.default_rng(0).gamma(2.0, 0.1, (2, 200))
    times = SpeechTimes()
    for seconds in zip(generator, vocoder, strict=True):
        times.add(*seconds, num_symbols=10, num_frames=50, num_samples=11025)
    total = generator + vocoder
    assert times.summary("fastpitch", "hifigan", 22050) == pytest.approx(
        {
            "avg_fastpitch_latency": generator.mean(),
            "avg_fastpitch_frames/s": 50 / generator.mean(),
            "avg_fastpitch_letters/s": 10 / generator.mean(),
            "avg_fastpitch_RTF": 0.5 / generator.mean(),
            "avg_hifigan_latency": vocoder.mean(),
            "avg_hifigan_samples/s": 11025 / vocoder.mean(),
            "avg_hifigan_RTF": 0.5 / vocoder.mean(),
            "avg_latency": total.mean(),
            "90%_latency": np.quantile(total, 0.9),
            "95%_latency": np.quantile(total, 0.95),
            "99%_latency": np.quantile(total, 0.99),
            "avg_samples/s": 11025 / total.mean(),
            "avg_letters/s": 10 / total.mean(),
            "avg_RTF": 0.5 / total.mean(),
        }
    )
