"""Golden files: each file of each system is compared by the check that knows it, and every expected output is read.

A system's checks live in `checks_<system>.py`: `CHECKS`, a list of (pattern, check); the first pattern that matches the
file's name wins, the check gets a `Golden` and asserts. `PENDING`, a dictionary of pattern and reason, lists behaviours
of a built system that are not there yet. A file that nobody knows is a failure.
"""

from __future__ import annotations

import importlib
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from golden import Golden, golden_files, golden_folder


def checks_of(system: str):
    """The module of a system's checks, or a failure that says what to write."""
    name = f"checks_{system}"
    if not (Path(__file__).parent / f"{name}.py").exists():
        pytest.fail(f"No checks for the system {system!r}: write tests/golden/{name}.py.")
    return importlib.import_module(name)


def test_golden(golden_file: Path):
    system = golden_file.relative_to(golden_folder()).parts[0]
    module = checks_of(system)
    label = f"{system}/{golden_file.name}"
    for pattern, reason in getattr(module, "PENDING", {}).items():
        if fnmatch(golden_file.name, pattern) or fnmatch(golden_file.stem, pattern):
            pytest.skip(f"pending: {label} ({reason})")
    for pattern, check in module.CHECKS:
        if fnmatch(golden_file.name, pattern) or fnmatch(golden_file.stem, pattern):
            golden = Golden(golden_file)
            check(golden)
            assert not golden.unread(), f"{label}: outputs that the check does not look at: {golden.unread()}"
            return
    pytest.fail(f"no check for {label}")


def test_there_is_something_to_check():
    """An empty or misnamed folder must not look like success."""
    assert golden_files(), f"{golden_folder()} holds no file of any system"


def test_an_output_that_no_check_reads_is_reported(tmp_path):
    np.savez(tmp_path / "some.npz", **{"config": '{"a": 1}', "in/x": 1.0, "out/y": 2.0, "out/z": 3.0, "out/w/v": 4.0})
    golden = Golden(tmp_path / "some.npz")
    assert golden.config == {"a": 1} and golden.names("w/") == ["w/v"]
    assert golden.out("y") == 2.0
    golden.ignore("z", why="information only")
    assert golden.unread() == ["w/v"]
    with pytest.raises(KeyError):
        golden.ignore("x", why="it is an input")
