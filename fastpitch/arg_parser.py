# SPDX-License-Identifier: BSD-3-Clause
"""FastPitch's settings: names are the flags and the keys of a checkpoint's `config`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.cli import flag, flag_name
from common.config import ONLY_COMPATIBLE

# What --freeze can name: how the names of its parameters begin.
PARTS = {
    "encoder": ("encoder.layers.",),
    "decoder": ("decoder.", "proj."),
    "duration_predictor": ("duration_predictor.",),
    "pitch_predictor": ("pitch_predictor.",),
    "pitch_embedding": ("pitch_emb.",),
    "energy_predictor": ("energy_predictor.",),
    "energy_embedding": ("energy_emb.",),
    "aligner": ("attention.",),
    "symbol_embedding": ("encoder.word_emb.",),
    "speaker_embedding": ("speaker_emb.",),
}


@dataclass(frozen=True, kw_only=True)
class FastPitchConfig:
    """FastPitch: sizes of the network."""

    n_mel_channels: int = flag(80, help="number of mel bands")
    n_symbols: int = flag(148, help="size of the alphabet; set by --symbol-set")
    padding_idx: int = flag(0, help="symbol id of padding; set by --symbol-set")
    symbols_embedding_dim: int = flag(384, help="channels of the symbol embedding")
    n_speakers: int = flag(1, help="number of speakers; above 1 the file lists name them")
    speaker_emb_weight: float = flag(1.0, help="weight of the speaker embedding")

    in_fft_n_layers: int = flag(6, help="encoder: number of layers")
    in_fft_n_heads: int = flag(1, help="encoder: attention heads")
    in_fft_d_head: int = flag(64, help="encoder: channels of a head")
    in_fft_conv1d_kernel_size: int = flag(3, help="encoder: kernel of the convolutions")
    in_fft_conv1d_filter_size: int = flag(1536, help="encoder: channels between the convolutions")
    in_fft_output_size: int = flag(384, help="encoder: output channels")
    p_in_fft_dropout: float = flag(0.1, help="encoder: dropout")
    p_in_fft_dropatt: float = flag(0.1, help="encoder: dropout of attention weights")
    p_in_fft_dropemb: float = flag(0.0, help="encoder: dropout of its input")

    out_fft_n_layers: int = flag(6, help="decoder: number of layers")
    out_fft_n_heads: int = flag(1, help="decoder: attention heads")
    out_fft_d_head: int = flag(64, help="decoder: channels of a head")
    out_fft_conv1d_kernel_size: int = flag(3, help="decoder: kernel of the convolutions")
    out_fft_conv1d_filter_size: int = flag(1536, help="decoder: channels between the convolutions")
    out_fft_output_size: int = flag(384, help="decoder: output channels")
    p_out_fft_dropout: float = flag(0.1, help="decoder: dropout")
    p_out_fft_dropatt: float = flag(0.1, help="decoder: dropout of attention weights")
    p_out_fft_dropemb: float = flag(0.0, help="decoder: dropout of its input")

    dur_predictor_kernel_size: int = flag(3, help="duration predictor: kernel")
    dur_predictor_filter_size: int = flag(256, help="duration predictor: channels")
    p_dur_predictor_dropout: float = flag(0.1, help="duration predictor: dropout")
    dur_predictor_n_layers: int = flag(2, help="duration predictor: number of layers")

    pitch_predictor_kernel_size: int = flag(3, help="pitch predictor: kernel")
    pitch_predictor_filter_size: int = flag(256, help="pitch predictor: channels")
    p_pitch_predictor_dropout: float = flag(0.1, help="pitch predictor: dropout")
    pitch_predictor_n_layers: int = flag(2, help="pitch predictor: number of layers")
    pitch_embedding_kernel_size: int = flag(3, help="pitch embedding: kernel")

    energy_conditioning: bool = flag(False, help="predict energy and condition the decoder on it")
    energy_predictor_kernel_size: int = flag(3, help="energy predictor: kernel")
    energy_predictor_filter_size: int = flag(256, help="energy predictor: channels")
    p_energy_predictor_dropout: float = flag(0.1, help="energy predictor: dropout")
    energy_predictor_n_layers: int = flag(2, help="energy predictor: number of layers")
    energy_embedding_kernel_size: int = flag(3, help="energy embedding: kernel")

    def __post_init__(self) -> None:
        if not self.symbols_embedding_dim == self.in_fft_output_size == self.out_fft_output_size:
            raise ValueError(
                "--symbols-embedding-dim, --in-fft-output-size and --out-fft-output-size must be "
                f"equal, got {self.symbols_embedding_dim}, {self.in_fft_output_size} and "
                f"{self.out_fft_output_size}"
            )
        if self.symbols_embedding_dim % 2:
            raise ValueError(
                "--symbols-embedding-dim must be even (sines and cosines), "
                f"got {self.symbols_embedding_dim}"
            )
        for name, value in vars(self).items():
            if name.startswith("p_") and not 0 <= value < 1:
                raise ValueError(f"{flag_name(name)} must lie in [0, 1), got {value}")
            if name.endswith("kernel_size") and value % 2 == 0:
                raise ValueError(f"{flag_name(name)} must be odd to keep the length, got {value}")


@dataclass(frozen=True, kw_only=True)
class FastPitchLossConfig:
    """Loss: weights of its terms."""

    dur_predictor_loss_scale: float = flag(1.0, help="weight of the duration loss")
    pitch_predictor_loss_scale: float = flag(1.0, help="weight of the pitch loss")
    attn_loss_scale: float = flag(1.0, help="weight of the alignment loss")
    kl_loss_start_epoch: int = flag(250, help="first epoch with the binarization loss")
    kl_loss_warmup_epochs: int = flag(100, help="epochs over which the binarization loss rises")
    kl_loss_weight: float = flag(1.0, help="final weight of the binarization loss")
    max_seq_len: int = flag(2048, help=f"positions are computed for any length; {ONLY_COMPATIBLE}")

    def kl_weight(self, epoch: int) -> float:
        """Weight of the binarization loss in an epoch (counted from 1)."""
        if epoch < self.kl_loss_start_epoch:
            return 0.0
        elapsed = epoch - self.kl_loss_start_epoch
        return self.kl_loss_weight * min(elapsed / max(self.kl_loss_warmup_epochs, 1), 1.0)


def _part_names(text: str) -> tuple[str, ...]:
    """`encoder,pitch-predictor` -> ("encoder", "pitch_predictor")."""
    names = (name.strip().replace("-", "_") for name in text.split(","))
    return tuple(name for name in names if name)


@dataclass(frozen=True, kw_only=True)
class FineTuningConfig:
    """Fine-tuning: what a training that begins with trained weights leaves as it is."""

    freeze: tuple[str, ...] = flag(
        (),
        parse=_part_names,
        help=f"parts that do not learn, with commas between: {', '.join(PARTS)}; a training that "
        "is continued remembers them",
    )

    def __post_init__(self) -> None:
        for name in self.freeze:
            if name not in PARTS:
                raise ValueError(f"--freeze must name parts among {', '.join(PARTS)}; got {name}")


@dataclass(frozen=True, kw_only=True)
class WatchingConfig:
    """Watching: what TensorBoard plays."""

    hifigan: Path | None = flag(
        None, help="HiFi-GAN checkpoint that speaks the validation clips (default: Griffin-Lim)"
    )
