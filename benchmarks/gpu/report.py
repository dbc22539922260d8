# SPDX-License-Identifier: BSD-3-Clause
"""What the stages of a GPU check found: as a table, as JSON, as a verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a stage."""

    name: str
    status: str  # passed, failed or skipped
    seconds: float = 0.0
    numbers: Mapping[str, float] = field(default_factory=dict)  # by unit, or name and unit
    note: str = ""  # why it failed or was skipped; or what else there is to say


def table(results: Sequence[Result]) -> str:
    """A row a stage, in Markdown."""
    rows = ["| stage | result | took | measured | note |", "|---|---|--:|---|---|"]
    for result in results:
        measured = ", ".join(f"{shown(v)} {unit}" for unit, v in result.numbers.items())
        took = "" if result.status == SKIPPED else f"{result.seconds:.0f} s"
        cells = (result.name, result.status.upper(), took, measured, result.note)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def verdict(results: Sequence[Result]) -> str:
    """How many stages passed, failed and were skipped."""
    counts = {
        status: sum(result.status == status for result in results)
        for status in (PASSED, FAILED, SKIPPED)
    }
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def write_report(
    output: Path, machine: Mapping[str, Any], results: Sequence[Result], performance: str
) -> None:
    """Writes report.json, for programs, report.md, for readers, and performance.md, for the docs.

    Args:
        performance: a section in Markdown
    """
    contents = {
        "machine": dict(machine),
        "verdict": verdict(results),
        "stages": [asdict(result) for result in results],
    }
    text = json.dumps(contents, indent=2)
    (output / "report.json").write_text(f"{text}\n", encoding="utf-8")
    facts = ", ".join(f"{name} {value}" for name, value in machine.items())
    text = f"{facts}.\n\n{table(results)}\n\n{verdict(results)}\n"
    (output / "report.md").write_text(text, encoding="utf-8")
    (output / "performance.md").write_text(f"{performance}\n", encoding="utf-8")


def shown(value: float) -> str:
    """A number, with decimals where they tell."""
    decimals = 0 if value == round(value) or abs(value) >= 100 else 2
    return f"{value:,.{decimals}f}"
