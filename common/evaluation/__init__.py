# SPDX-License-Identifier: BSD-3-Clause
"""How good speech is, by measurements: words, spectra, pitch, durations, naturalness."""
