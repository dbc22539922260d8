# SPDX-License-Identifier: BSD-3-Clause
"""What WaveGlow trains on: segments of recordings."""

from __future__ import annotations

from common.segments import SegmentDataset


class WaveGlowDataset(SegmentDataset):
    """Reads recordings, as loud as they are."""
