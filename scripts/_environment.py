"""The checkout's own environment: make `.venv` when there is none, install what is asked for, name its interpreter.

Standard library only: it runs under whatever Python a machine has. Used by `demo.py` and `test.py`; called as a
program it prints the interpreter's path in its last line: `python scripts/_environment.py dev`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "bodyreg-environment.json"
OLDEST_PYTHON = (3, 11)
# Extras that bring others along (pyproject.toml), so that one environment serves demo and tests.
CONTAINS = {
    "test": {"heic", "datasets", "smplx", "plots", "ray"},
    "dev": {"test", "heic", "datasets", "smplx", "plots", "ray"},
}


def python_for(extras: Sequence[str], argv: list[str]) -> str:
    """The interpreter a script should use: a path, after installing `bodyreg[extras]` where that is our task.

    `--no-venv` in `argv` (removed from it) means the running interpreter, the variable BODYREG_PYTHON names another
    one; both are taken as they are. Otherwise `.venv` is made or brought up to date.
    """
    if "--no-venv" in argv:
        argv.remove("--no-venv")
        return sys.executable
    if os.environ.get("BODYREG_PYTHON"):
        return os.environ["BODYREG_PYTHON"]
    return str(ensure(extras))


def ensure(extras: Sequence[str]) -> Path:
    """Make or update `.venv` so that it holds `bodyreg[extras]`, editable; return its interpreter."""
    python = _venv_python()
    stamp = _read_stamp()
    installed = set(stamp.get("extras", []))
    digest = _digest()
    have = installed.union(*(CONTAINS.get(e, set()) for e in installed))
    if python.exists() and stamp.get("digest") == digest and set(extras) <= have:
        return python
    if not python.exists() or not _starts(python):
        _create_venv()
    wanted = sorted(set(extras) | installed)
    print(f"Installing bodyreg[{','.join(wanted)}] into {VENV} (once; minutes on a slow line) ...", flush=True)
    command = [*_pip(python), "install", "--quiet", "-c", str(ROOT / "constraints.txt"), "-e", f".[{','.join(wanted)}]"]
    done = subprocess.run(command, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"pip could not install the project (exit code {done.returncode}). Its message stands above.")
    STAMP.write_text(json.dumps({"digest": digest, "extras": wanted}), encoding="utf-8")
    return python


def _venv_python() -> Path:
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _create_venv() -> None:
    base = _base_python()
    print(f"Making {VENV} with {base} ...", flush=True)
    if subprocess.run([base, "-m", "venv", "--clear", str(VENV)]).returncode:
        # Some distributions ship Python without ensurepip: make it bare, and let the outer pip install into it.
        if subprocess.run([base, "-m", "venv", "--clear", "--without-pip", str(VENV)]).returncode:
            raise SystemExit(f"{base} cannot make virtual environments. Install its venv module, or use --no-venv.")


def _base_python() -> str:
    """An interpreter that is new enough: the running one where possible."""
    if sys.version_info >= OLDEST_PYTHON:
        return sys.executable
    for name in ("python3.14", "python3.13", "python3.12", "python3.11"):
        found = shutil.which(name)
        if found and _starts(Path(found)):
            return found
    raise SystemExit(
        f"This is Python {sys.version.split()[0]}, and no newer one was found. Install Python 3.11 or later."
    )


def _pip(python: Path) -> list[str]:
    if subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return [str(python), "-m", "pip"]
    return [_base_python(), "-m", "pip", "--python", str(python)]


def _starts(python: Path) -> bool:
    try:
        return subprocess.run([str(python), "-c", "pass"], capture_output=True).returncode == 0
    except OSError:
        return False


def _digest() -> str:
    """What the environment depends on: the two files that say what to install, and where the checkout lies."""
    h = hashlib.sha256(str(ROOT).encode())
    for name in ("pyproject.toml", "constraints.txt"):
        h.update((ROOT / name).read_bytes())
    return h.hexdigest()


def _read_stamp() -> dict:
    try:
        return json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


if __name__ == "__main__":
    print(ensure(sys.argv[1:] or ["test"]))
