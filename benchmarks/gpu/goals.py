# SPDX-License-Identifier: BSD-3-Clause
"""What a GPU check found, next to this project's goals and to what the public recipe reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.report import PASSED, Result, shown
from benchmarks.gpu.stages import full_speed_name, speech_name

COMMAND = "bash scripts/gpu_check.sh"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A number that a stage prints."""

    what: str
    stage: str
    number: str  # by the name that the stage gives it
    goal: float
    public: float  # of the public recipe on one A100, in half precision
    more_is_better: bool = False


def goals() -> list[Goal]:
    """For one H100. That for FastPitch is what the public recipe reaches with eight A100s."""
    found = []
    for compiled in (False, True):
        trained = {"number": "frames/s", "more_is_better": True}
        how = f"bf16{', compiled' * compiled}: frames/s"
        found += [
            Goal(
                what=f"FastPitch, training, 256 clips a step, {how}",
                stage=full_speed_name("FastPitch", compiled),
                goal=1_022_722,
                public=148_149,
                **trained,
            ),
            Goal(
                what=f"HiFi-GAN V1, training, 128 clips a step, {how}",
                stage=full_speed_name("HiFi-GAN", compiled),
                goal=60_000,
                public=15_579,
                **trained,
            ),
        ]
        one, eight = (speech_name("HiFi-GAN", size, "fp16", compiled) for size in (1, 8))
        how = f"fp16{', compiled' * compiled}: ms"
        found += [
            Goal(
                what=f"FastPitch, 128 characters, {how}",
                stage=one,
                number="ms FastPitch",
                goal=1.5,
                public=5,
            ),
            Goal(
                what=f"the same with HiFi-GAN V1 and denoising, {how}",
                stage=one,
                number="ms in all",
                goal=5,
                public=15,
            ),
            Goal(
                what=f"the same, 8 texts at once, {how}",
                stage=eight,
                number="ms in all",
                goal=20,
                public=69,
            ),
        ]
    return found


def comparison(results: Sequence[Result]) -> str:
    """A row for each goal that was measured, in Markdown; above 1 is better than the other."""
    numbers = {result.name: result.numbers for result in results if result.status == PASSED}
    rows = [
        "| what | here | goal | here to goal | public recipe, one A100 | here to that |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for goal in goals():
        here = numbers.get(goal.stage, {}).get(goal.number)
        if here is None:
            continue
        ratios = [
            here / other if goal.more_is_better else other / here
            for other in (goal.goal, goal.public)
        ]
        cells = (
            goal.what,
            *(shown(here), shown(goal.goal), f"{ratios[0]:.2f}"),
            *(shown(goal.public), f"{ratios[1]:.2f}"),
        )
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def performance(machine: Mapping[str, Any], results: Sequence[Result]) -> str:
    """A section for docs/performance.md."""
    facts = ", ".join(f"{name} {value}" for name, value in machine.items())
    utilization = [_utilization(result) for result in results if "TFLOP/s" in result.numbers]
    return "\n\n".join(
        [
            "## On a GPU",
            f"`{COMMAND}`; {facts}. Frames are mel frames of recordings, without padding; "
            "latencies are those of a batch, from symbols to audio. A ratio above 1 is better.",
            comparison(results),
            *utilization,
        ]
    )


def _utilization(result: Result) -> str:
    text = f"{result.name}: {shown(result.numbers['TFLOP/s'])} TFLOP/s"
    if "% of peak" in result.numbers:
        text += f", {shown(result.numbers['% of peak'])} % of what the device's data sheet says"
    return f"{text} ({result.note})."
