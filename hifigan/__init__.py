# SPDX-License-Identifier: BSD-3-Clause
"""HiFi-GAN: from mel to audio with a generator trained against discriminators (Kong, 2020)."""
