"""Run the test suite in the checkout's own environment: `python scripts/test.py [pytest arguments]`.

Makes `.venv` and installs the project with its `test` extra when that has not been done. `--no-venv` uses the running
interpreter instead, the variable BODYREG_PYTHON names another. Two processes share the tests, unless `-n` says how
many. The exit code is pytest's.
"""

from __future__ import annotations

import subprocess
import sys

from _environment import ROOT, python_for


def main() -> int:
    arguments = sys.argv[1:]
    python = python_for(["test"], arguments)
    if not any(argument.startswith("-n") for argument in arguments):
        arguments = ["-n", "2", "--dist", "worksteal", *arguments]
    return subprocess.run([python, "-m", "pytest", *arguments], cwd=ROOT).returncode


if __name__ == "__main__":
    raise SystemExit(main())
