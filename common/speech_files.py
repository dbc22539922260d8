# SPDX-License-Identifier: BSD-3-Clause
"""Where inference.py writes: audio, mels, and how long they took."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from common.audio import write_wav
from common.config import AudioConfig
from common.files import check_file, check_folder
from common.inference_config import InferenceConfig
from common.mels import save_mel
from common.metrics import SpeechTimes
from common.phrases import Phrase
from common.speaking import fade_end
from common.tb_dllogger import open_json_log

logger = logging.getLogger(__name__)

LOG_FILE = "nvlog_infer.json"


def check_output(config: InferenceConfig) -> None:
    """Refuses paths that cannot be written."""
    if config.names_file:
        check_file(config.output, "--output")
    check_folder(config.folder, "--output")
    log_file = log_path(config)
    if log_file is not None:
        check_file(log_file, "--log-file")


def output_path(phrase: Phrase, config: InferenceConfig) -> Path:
    """Where the audio of a phrase goes."""
    return config.output if config.names_file else config.output / phrase.output


def log_path(config: InferenceConfig) -> Path | None:
    """Where the DLLogger lines go; nowhere beside a single WAV file, unless that is asked for."""
    if config.log_file is not None or config.names_file:
        return config.log_file
    return config.folder / LOG_FILE


def write_phrase(
    path: Path, mel: Tensor, wave: Tensor, config: InferenceConfig, audio: AudioConfig
) -> None:
    """Writes the audio, its end faded, and the mel if it is wanted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_wav(path, fade_end(wave.cpu(), config.fade_out * audio.hop_length), audio.sampling_rate)
    if config.save_mels:
        save_mel(path.with_suffix(".npy"), mel)


def report(
    measured: SpeechTimes,
    phrases: Sequence[Phrase],
    config: InferenceConfig,
    vocoder_name: str,
    sampling_rate: int,
) -> None:
    """Says where the audio is and how fast it came, in detail where that was asked for, and logs
    it."""
    metrics = measured.summary("fastpitch", vocoder_name, sampling_rate)
    if measured.num_symbols == 0:  # mels, for which nobody read
        metrics = {k: v for k, v in metrics.items() if "fastpitch" not in k and "letters" not in k}
    log_file = log_path(config)
    if log_file is not None:
        log = open_json_log(log_file)
        log.log((), metrics)
        log.flush()
    if config.warmup_steps or config.repeats > 1:
        for name, value in metrics.items():
            logger.info("%-26s %.4g", name, value)
    else:
        logger.info("Spoken %.3g times as fast as it sounds", metrics["avg_RTF"])
    first, last = (output_path(phrase, config) for phrase in (phrases[0], phrases[-1]))
    if len(phrases) == 1:
        logger.info("Wrote %s", first)
    else:
        logger.info("Wrote %d WAV files, %s to %s", len(phrases), first, last)


def read_newest_report(folder: Path) -> dict[str, float]:
    """What `report` logged into a folder last.

    Raises:
        FileNotFoundError: nobody spoke into it
    """
    lines = (folder / LOG_FILE).read_text(encoding="utf-8").splitlines()
    return json.loads(lines[-1].removeprefix("DLLL "))["data"]
