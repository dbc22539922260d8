# SPDX-License-Identifier: BSD-3-Clause
"""Who may import whom (docs/architecture.md), and that every module imports on any machine."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("common", "fastpitch", "hifigan", "waveglow")
ENTRY_POINTS = ("train", "inference", "prepare_dataset", "evaluate")
# Commands inside packages, run with python -m; they stand above models.py as well.
PACKAGE_COMMANDS = ("fastpitch.extract_mels", "hifigan.train", "waveglow.train")
# What each layer may import of the project; siblings are not among it.
ALLOWED = {
    "common": {"common"},
    "fastpitch": {"fastpitch", "common"},
    "hifigan": {"hifigan", "common"},
    "waveglow": {"waveglow", "common"},
    "models": {"models", "common", "fastpitch", "hifigan", "waveglow"},
    "train": {"common", "fastpitch", "models"},
    "inference": {"common", "fastpitch", "models"},
    "prepare_dataset": {"common", "fastpitch"},
    "evaluate": {"common", "fastpitch", "models"},
}
PROJECT = {*ALLOWED, "tests", "scripts"}
# (library, the only modules that may import it)
RESERVED = {
    "torch.distributed": {"common.distributed"},
    "torch.amp": {"common.precision"},
    "tensorboard": {"common.tb_dllogger"},
    "dllogger": {"common.tb_dllogger"},
}
# Modules that are imported only where a library is installed that not every machine can have.
NEEDS = {"fastpitch.kernels": "triton", "hifigan.kernels": "triton"}


def sources():
    for name in (*ENTRY_POINTS, "models"):
        yield name, ROOT / f"{name}.py"
    for layer in LAYERS:
        for path in sorted((ROOT / layer).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path


MODULES = dict(sources())


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_layer_may(module):
    layer = module.partition(".")[0]
    imported = {name.partition(".")[0] for name in imports_of(MODULES[module])}
    allowed = ALLOWED[layer] | ({"models"} if module in PACKAGE_COMMANDS else set())
    assert imported & PROJECT <= allowed


def test_nobody_imports_an_entry_point():
    for module, path in MODULES.items():
        names = set(imports_of(path))
        assert not names & {*ENTRY_POINTS, *PACKAGE_COMMANDS}, module


@pytest.mark.parametrize("library", RESERVED)
def test_one_module_alone_uses_a_reserved_library(library):
    users = {
        module
        for module, path in MODULES.items()
        if any(f"{name}.".startswith(f"{library}.") for name in imports_of(path))
        or f"{library}." in path.read_text(encoding="utf-8")
    }
    assert users <= RESERVED[library]


def test_only_checkpoint_and_feature_modules_read_and_write_tensors():
    users = {
        module
        for module, path in MODULES.items()
        if {"torch.load(", "torch.save("} & calls_of(path)
    }
    assert users == {
        "common.checkpoint",
        "fastpitch.clip_features",
        "fastpitch.preparation",
    }


def calls_of(path):
    return {
        f"{ast.unparse(node.func)}("
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    }


@pytest.mark.parametrize("name", ["eval(", "exec(", "globals(", "print("])
def test_no_module_uses(name):
    exempt = {"common.text.__main__", "evaluate"} if name == "print(" else set()
    users = {module for module, path in MODULES.items() if name in calls_of(path)}
    assert users <= exempt


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports_without_a_gpu_or_apex(module):
    if module in NEEDS:
        pytest.importorskip(NEEDS[module])
    if not module.endswith("__main__"):
        importlib.import_module(module)


def test_no_folder_shadows_an_installed_package():
    installed = {module.name for module in pkgutil.iter_modules() if module.module_finder.path}
    own = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    elsewhere = {
        module.name
        for module in pkgutil.iter_modules()
        if Path(module.module_finder.path).resolve() != ROOT
    }
    assert installed and not own & elsewhere
