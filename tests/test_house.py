"""Rules of the house that a machine can hold: pins, file sizes, and nothing of one machine in the tree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from bodyreg.config import shipped_configs

ROOT = Path(__file__).resolve().parent.parent
CODE = ("bodyreg", "renderers", "priors", "scripts", "tests", "configs", ".ci")
MADE = {"__pycache__", "node_modules"}  # by tools, in folders that git ignores
TEXT = {".py", ".toml", ".yaml", ".md", ".txt", ".json", ""}


def text_files() -> list[Path]:
    """The project's own text files, with or without git."""
    inside = [p for folder in CODE for p in (ROOT / folder).rglob("*") if p.suffix in TEXT]
    files = [p for p in [*inside, *ROOT.glob("*.*")] if p.is_file() and p.suffix in TEXT]
    return [p for p in files if not MADE & set(p.parts) and p.stat().st_size < 2_000_000]


def plain(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def test_every_direct_dependency_is_pinned_within_its_range():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {plain(line): line.split("==")[1] for line in lines if "==" in line}
    assert {plain(r) for r in wanted} - {"bodyreg"} <= set(pins)
    assert pins["torch"] == "2.13.0" and int(pins["opencv-python-headless"].split(".")[0]) < 5


def test_nothing_of_one_machine_is_in_the_tree():
    found = []
    # Written so that the pattern does not find itself.
    machine = re.compile(r"(^|[^.\w])/(w[o]rk|f[a]rm|r[o]ot)/|--(extra-)?index-" + r"url|://\S*/s[i]mple\b")
    for path in text_files():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if machine.search(line) and path != Path(__file__).resolve():
                found.append(f"{path.relative_to(ROOT)}:{number}")
    assert not found


def test_no_python_file_is_longer_than_500_lines():
    lengths = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in text_files() if p.suffix == ".py"}
    assert not {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > 500}


def test_shipped_configurations_are_the_checkouts():
    assert set(shipped_configs()) == {path.stem for path in (ROOT / "configs").glob("*.yaml")}


def test_tree_stays_small():
    """What we ship and test stays under 50 MB."""
    files = [p for folder in CODE for p in (ROOT / folder).rglob("*") if p.is_file() and not MADE & set(p.parts)]
    assert 0 < sum(path.stat().st_size for path in files) < 50e6
