# SPDX-License-Identifier: BSD-3-Clause
"""FastPitch: parallel text-to-speech with pitch prediction (Łańcucki, 2021)."""
