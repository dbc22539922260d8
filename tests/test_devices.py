# SPDX-License-Identifier: BSD-3-Clause
"""Without a GPU: what runs on one mixes no devices, and waits for it nowhere unawares."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

ROOT = Path(__file__).parent.parent

# Prints what waited, by what was done. Numbers must be those of the CPU.
WORK = """
import json
import torch

torch.inference_mode = torch.no_grad  # whose tensors have versions, as those of the device need

from torch.testing import assert_close
from common.audio import AudioConfig
from common.denoiser import Denoiser, zero_mel
from common.distributed import Processes
from common.precision import Precision
from common.rehearsal import rehearse
from common.synthesizer import Controls, SymbolSequence, Synthesizer
from common.task import Progress
from common.weight_norm import fold_norms
from fastpitch.pitch_transform import compose, custom, shift
from hifigan.channels_last import ChannelsLastHiFiGAN
from tests.conftest import golden
from tests.fastpitch.test_model import load
from tests.stand_in import DEVICE, StandIn
from tests.test_mixed_precision import TASKS, run_config

FIRST = Progress(epoch=1, step=1)
CPU = torch.device("cpu")
TEXTS = [SymbolSequence(ids=[5, 9, 20, 3], speaker=1), SymbolSequence(ids=[7, 8], speaker=0)]
waits = {}


class Elsewhere(Processes):
    def __init__(self):
        super().__init__(cuda=False)
        self.device = DEVICE


def noting(name, work):
    device.waits.clear()
    result = work()
    waits[name] = dict(device.waits)
    return result


def train(name):
    make_task, _ = TASKS[name]
    task, batch = make_task(amp=False, processes=Elsewhere())
    batch = batch.to(DEVICE)
    metrics = noting(f"{name}, step", lambda: task.train_step([batch, batch], FIRST))
    noting(f"{name}, validation", lambda: task.eval_step(batch))
    if name == "fastpitch":
        task_here, batch_here = make_task(amp=False)
        expected = task_here.train_step([batch_here], FIRST)
        assert_close(metrics["loss"].cpu(), expected["loss"], rtol=1e-4, atol=1e-4)
        rehearse(task, batch, FIRST, run_config(False), task.processes)
    return task


def speak(acoustic_model, vocoder, where):
    vocoder = ChannelsLastHiFiGAN(vocoder.to(where))
    hum = vocoder.infer(zero_mel(AudioConfig(), where))
    synthesizer = Synthesizer(
        acoustic_model.to(where),
        Denoiser(vocoder, 0.1, AudioConfig(), hum),
        symbols=(),
        padding_idx=acoustic_model.config.padding_idx,
        precision=Precision(False, where),
    )
    controls = Controls(pitch_transform=compose([shift(20.0), custom]))
    waves = noting("speech", lambda: synthesizer.vocode(synthesizer.generate(TEXTS, controls)))
    return [wave.cpu() for wave in waves]


with StandIn() as device:
    tasks = {name: train(name) for name in TASKS}
    acoustic_model = load(golden("fastpitch_tiny_speakers"))
    vocoder = tasks["hifigan"].generator.model
    fold_norms(vocoder)
    expected = speak(acoustic_model, vocoder, CPU)
    assert_close(speak(acoustic_model, vocoder, DEVICE), expected, rtol=1e-3, atol=1e-3)
print(json.dumps(waits))
"""


@pytest.fixture(scope="module")
def waits():
    """By what was done on the device: the files in which the host waited, and how often."""
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this PyTorch has no devices that are written in Python")
    done = subprocess.run(
        [sys.executable, "-c", WORK], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return {
        what: {place.partition(":")[0]: count for place, count in places.items()}
        for what, places in found.items()
    }


@pytest.mark.parametrize("name", ["hifigan", "waveglow"])
def test_a_vocoder_s_step_and_validation_mix_no_devices_and_wait_nowhere(waits, name):
    assert waits[f"{name}, step"] == waits[f"{name}, validation"] == {}


def test_a_step_of_fastpitch_mixes_no_devices_and_waits_only_for_the_search_without_triton(waits):
    search = {"fastpitch/alignment.py"}
    assert waits["fastpitch, step"].keys() == waits["fastpitch, validation"].keys() == search


def test_speaking_mixes_no_devices_and_waits_for_lengths_and_for_the_check_of_denoised_texts(waits):
    assert waits["speech"] == {
        "fastpitch/alignment.py": 1,
        "common/synthesizer.py": 1,
        "common/denoiser.py": 2,  # of each text, inside of PyTorch
    }
