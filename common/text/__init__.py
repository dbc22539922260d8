# SPDX-License-Identifier: BSD-3-Clause
"""From writing to symbol ids: `TextProcessor(config).encode(text)`."""

from common.text.processor import PreparedText, Reading, TextProcessor

__all__ = ["PreparedText", "Reading", "TextProcessor"]
