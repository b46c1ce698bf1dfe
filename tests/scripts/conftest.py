"""Scripts as modules, found as `python scripts/NAME.py` finds them and what they import."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="session")
def load_scripts() -> Callable[..., list[ModuleType]]:
    """Load scripts by name, each after those that it imports."""

    def load(*names: str) -> list[ModuleType]:
        sys.path.insert(0, str(SCRIPTS))
        try:
            modules = []
            for name in names:
                spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
                modules.append(importlib.util.module_from_spec(spec))
                sys.modules[name] = modules[-1]
                spec.loader.exec_module(modules[-1])
        finally:
            sys.path.remove(str(SCRIPTS))
        return modules

    return load
