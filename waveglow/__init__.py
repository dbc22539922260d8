# SPDX-License-Identifier: BSD-3-Clause
"""WaveGlow: an invertible vocoder, from mel and noise to audio in one pass (Prenger, 2019)."""
