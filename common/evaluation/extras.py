# SPDX-License-Identifier: BSD-3-Clause
"""Packages that only some measurements need."""

from __future__ import annotations

import importlib
from types import ModuleType

REQUIREMENTS = "requirements-evaluation.txt"


def import_extra(module: str, package: str, measure: str) -> ModuleType:
    """A module of a package that need not be installed.

    Args:
        module: to import
        package: that has it
        measure: of `--measures` that needs it

    Raises:
        ValueError: it is not installed
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"--measures {measure} needs the package {package} ({error}): pip install -r "
            f"{REQUIREMENTS}, or name other measures"
        ) from error
