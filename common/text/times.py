# SPDX-License-Identifier: BSD-3-Clause
"""Times of day and numeric dates in words."""

from __future__ import annotations

import re

from common.text.counting import cardinal, count, count_or_year
from common.text.tables import MONTHS

_TIME = re.compile(
    r"(?<![\d:.])(?P<hour>[01]?\d|2[0-4]):(?P<minute>[0-5]\d)(?![\d:])(?P<oclock>\so'clock)?"
    r"(?:(?P<meridiem>(?=\s[ap]\.?m\b))|(?P<hours>(?=\s(?:hours|hrs)\b)))?",
    re.IGNORECASE,
)
_BRITISH_TIME = re.compile(r"(?<=\d)\.(?=[0-5]\d\s[ap]\.?m\b)", re.IGNORECASE)  # 9.30 am
_ISO_DATE = re.compile(r"(?<![\w-])(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)(?![\w-])")
_SLASH_DATE = re.compile(
    r"(?<![\w/])(?P<month>\d{1,2})/(?P<day>\d{1,2})/(?P<year>\d{4}|\d{2})(?![\w/])"
)


def expand_dates(text: str) -> str:
    """ "2024-01-15" and "1/15/2024" -> "january fifteen, twenty twenty four"."""
    return _SLASH_DATE.sub(_date, _ISO_DATE.sub(_date, text))


def expand_times(text: str) -> str:
    """ "10:00" -> "ten o'clock"; "5:30 p.m." -> "five thirty p.m."; "23:59" keeps its colon."""
    return _TIME.sub(_time, _BRITISH_TIME.sub(":", text))


def _time(match: re.Match) -> str:
    hour, minute = int(match["hour"]), match["minute"]
    has_meridiem = match["meridiem"] is not None
    if minute != "00":
        return f"{cardinal(hour)}{' ' if has_meridiem else ':'}{count(minute)}"
    if has_meridiem:
        return cardinal(hour)
    if match["hours"] is not None or 12 < hour < 24:
        return f"{cardinal(hour)} hundred"
    return f"{cardinal(hour)} o'clock" if 0 < hour < 24 else "midnight"


def _date(match: re.Match) -> str:
    """American order with slashes, unless only the other one is possible."""
    month, day = int(match["month"]), int(match["day"])
    if month > 12 and "/" in match[0]:
        month, day = day, month
    if not 1 <= month <= 12 or not 1 <= day <= 31:
        return match[0]
    return f"{MONTHS[month - 1]} {cardinal(day)}, {count_or_year(match['year'])}"
