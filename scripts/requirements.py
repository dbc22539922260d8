# SPDX-License-Identifier: BSD-3-Clause
"""Says which requirements this Python lacks; runs before anything is installed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

# The one parser of requirements that an environment with nothing but pip has.
from pip._vendor.packaging.requirements import InvalidRequirement, Requirement


def read_requirements(path: Path) -> Iterator[Requirement]:
    """The requirements of a file, one a line; comments and empty lines are skipped."""
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if text:
            yield Requirement(text)


def missing(requirement: Requirement, *, keep_installed: bool) -> bool:
    """Whether pip has to install something for this requirement.

    Args:
        keep_installed: whatever version is there will do; one out of bounds is named on stderr.
    """
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return True
    if requirement.specifier.contains(found, prereleases=True):
        return False
    if keep_installed:
        print(
            f"setup: keeping {requirement.name} {found}, untested with it: wanted {requirement}",
            file=sys.stderr,
        )
    return not keep_installed


def print_pins(*, keep_installed: bool) -> None:
    """Prints constraints that hold every installed package at its version, or none."""
    if keep_installed:
        found = {package.metadata["Name"]: package.version for package in distributions()}
        print("\n".join(f"{name}=={number}" for name, number in sorted(found.items())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "what",
        choices=("missing", "pins"),
        help="missing: requirements to install; pins: constraints that hold what is installed",
    )
    parser.add_argument("--keep-installed", action="store_true", help="change no package")
    parser.add_argument("files", type=Path, nargs="*", help="requirements files")
    args = parser.parse_args()
    if args.what == "pins":
        print_pins(keep_installed=args.keep_installed)
        return
    try:
        requirements = [wanted for path in args.files for wanted in read_requirements(path)]
    except (OSError, InvalidRequirement) as error:
        parser.error(str(error))
    for requirement in requirements:
        if missing(requirement, keep_installed=args.keep_installed):
            print(requirement)


if __name__ == "__main__":
    main()
