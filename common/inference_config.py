# SPDX-License-Identifier: BSD-3-Clause
"""What inference.py is told: its flags, and which of them have no effect."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

from common.cli import flag, flag_name
from common.config import AMP_DTYPES, ONLY_COMPATIBLE

logger = logging.getLogger(__name__)

MOST_SEMITONES = 120  # ten octaves, all that one can hear
OTHER_SOUNDS = (".aac", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wma")
IGNORED = ("l2_promote", "torchscript", "torch_tensorrt", "affinity")
CONTROLS = (  # of FastPitch
    "pace",
    "pitch_transform_flatten",
    "pitch_transform_invert",
    "pitch_transform_amplify",
    "pitch_transform_shift",
    "pitch_transform_semitones",
    "pitch_transform_custom",
    "speaker",
)
UNAVAILABLE = {
    "report_mel_loss": "predicted and recorded mels differ in length and do not compare",
}


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """Inference: what to speak, and how."""

    input: str | None = flag(
        None,
        short="-i",
        help="text file, a phrase a line; .tsv with a header, whose column mel names mels to speak "
        "in place of texts; - is standard input",
    )
    text: str | None = flag(None, help="one phrase to speak, instead of --input")
    output: Path = flag(
        Path("output/inference"),
        short="-o",
        help="folder of the WAV files; or a .wav file, for one phrase",
    )
    fastpitch: Path | None = flag(
        None,
        help="FastPitch checkpoint; only texts need it (default: the voice in "
        "pretrained_models/voice, with its HiFi-GAN where it has one)",
    )
    hifigan: Path | None = flag(
        None,
        help="HiFi-GAN checkpoint (default where --fastpitch is given: Griffin-Lim, metallic, but "
        "always there)",
    )
    hifigan_config: Path | None = flag(
        None,
        help="settings of a HiFi-GAN of the original repository (default: config.json beside it)",
    )
    waveglow: Path | None = flag(None, help="WaveGlow checkpoint, in place of --hifigan")
    waveglow_sigma_infer: float = flag(
        0.9, short="-s", help="standard deviation of the noise that WaveGlow turns into audio"
    )
    denoising_strength: float = flag(
        0.0, short="-d", help="how much of the vocoder's own hum is taken from its audio"
    )
    dataset_path: Path = flag(Path(), help="folder that mel and pitch columns are relative to")
    speaker: int = flag(0, help="speaker of phrases that name none")
    save_mels: bool = flag(False, help="write each mel too, as .npy of shape (frames, bands)")
    ema: bool = flag(False, help="use the averaged weights")

    pace: float = flag(1.0, help="speed; 2 is twice as fast")
    pitch_transform_flatten: bool = flag(False, help="speak at one pitch")
    pitch_transform_invert: bool = flag(False, help="turn rises into falls")
    pitch_transform_amplify: float = flag(1.0, help="widen (above 1) or narrow the pitch range")
    pitch_transform_shift: float = flag(0.0, help="raise or lower pitch by so many Hz")
    pitch_transform_semitones: float = flag(
        0.0, help="raise or lower pitch by so many semitones, 12 to an octave"
    )
    pitch_transform_custom: bool = flag(
        False, help="apply `custom` in fastpitch/pitch_transform.py"
    )
    fade_out: int = flag(10, help="frames over which the end of each phrase fades")

    cuda: bool = flag(False, help="run on a GPU")
    amp: bool = flag(False, help="mixed precision")
    amp_dtype: str = flag(
        "fp16",
        choices=AMP_DTYPES,
        help="half precision of --amp: fp16 on any GPU, bf16 from Ampere on and on CPUs, of which "
        "those with avx512_bf16 or amx_bf16 are twice as fast",
    )
    batch_size: int = flag(64, short="-bs", help="phrases at a time")
    warmup_steps: int = flag(0, help="passes over all phrases that are not measured, at first")
    repeats: int = flag(1, help="passes over all phrases, for measuring")
    seed: int = flag(
        1234, help="seed of the choice between letters and phonemes, and of WaveGlow's noise"
    )
    log_file: Path | None = flag(
        None, help="DLLogger file (default: nvlog_infer.json in --output, where that is a folder)"
    )
    compile: bool = flag(
        False,
        help="on a GPU, compile FastPitch and HiFi-GAN into CUDA graphs: the first batches of each "
        "size take long, later ones are faster",
    )
    cudnn_benchmark: bool = flag(False, help="let cuDNN search for the fastest algorithms")

    sampling_rate: int | None = flag(
        None, short="-sr", help="of the mels; must be that of the checkpoints, which is the default"
    )
    hop_length: int | None = flag(None, help="of the mels; as --sampling-rate")
    win_length: int | None = flag(None, help="of the mels; as --sampling-rate")
    max_wav_value: float = flag(32768.0, help=ONLY_COMPATIBLE)
    l2_promote: bool = flag(False, help=ONLY_COMPATIBLE)
    torchscript: bool = flag(False, help=ONLY_COMPATIBLE)
    torch_tensorrt: bool = flag(False, help=ONLY_COMPATIBLE)
    checkpoint_format: str = flag("pyt", choices=("pyt", "ts"), help="ts cannot be read")
    report_mel_loss: bool = flag(False, help="cannot be used")
    affinity: str | None = flag(None, help=ONLY_COMPATIBLE)

    def __post_init__(self) -> None:
        if (self.input is None) == (self.text is None):
            raise ValueError("give --text 'one phrase', or --input FILE, and not both")
        if not 0 < self.pace < math.inf:
            raise ValueError(f"--pace must be positive, got {self.pace}")
        for name in (
            "pitch_transform_amplify",
            "pitch_transform_shift",
            "pitch_transform_semitones",
        ):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{flag_name(name)} must be finite, got {getattr(self, name)}")
        if abs(self.pitch_transform_semitones) > MOST_SEMITONES:
            raise ValueError(
                f"--pitch-transform-semitones must lie within {MOST_SEMITONES} semitones, got "
                f"{self.pitch_transform_semitones:g}"
            )
        for name in ("batch_size", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{flag_name(name)} must be positive, got {getattr(self, name)}")
        for name in (
            "warmup_steps",
            "fade_out",
            "speaker",
            "waveglow_sigma_infer",
            "denoising_strength",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"{flag_name(name)} must not be negative, got {getattr(self, name)}"
                )
        if self.checkpoint_format == "ts":
            raise ValueError("--checkpoint-format ts: TorchScript files cannot be read, use pyt")
        if self.hifigan is not None and self.waveglow is not None:
            raise ValueError("--hifigan and --waveglow exclude each other: one vocoder is enough")
        if self.compile and not self.cuda:
            raise ValueError("--compile needs a GPU: add --cuda, or leave it out")
        if self.hifigan_config is not None and self.hifigan is None:
            raise ValueError("--hifigan-config has no use without --hifigan")
        for name, reason in UNAVAILABLE.items():
            if getattr(self, name):
                raise ValueError(f"{flag_name(name)} cannot be used: {reason}")
        if self.output.suffix.lower() in OTHER_SOUNDS:
            raise ValueError(
                f"--output {self.output}: only WAV files are written: name a .wav file, or a folder"
            )
        if self.names_file and self.text is None:
            raise ValueError(f"--output {self.output}: must be a folder for the phrases of --input")

    @property
    def names_file(self) -> bool:
        """Whether `output` is one WAV file, not a folder."""
        return self.output.suffix.lower() == ".wav"

    @property
    def vocoder(self) -> Path | None:
        """Checkpoint of the vocoder, whichever it is."""
        return self.hifigan or self.waveglow

    @property
    def folder(self) -> Path:
        """Where all files go."""
        return self.output.parent if self.names_file else self.output


def warn_of_ignored(config: InferenceConfig, speaks_texts: bool) -> None:
    """Names the flags that were given for nothing."""
    for names, is_idle, why in (
        (IGNORED, True, ""),
        (("denoising_strength",), config.vocoder is None, " without --hifigan or --waveglow"),
        (("waveglow_sigma_infer",), config.waveglow is None, " without --waveglow"),
        (CONTROLS, not speaks_texts, " on mels"),
    ):
        for name in names:
            if is_idle and getattr(config, name) != getattr(InferenceConfig, name):
                logger.warning("%s has no effect%s", flag_name(name), why)
