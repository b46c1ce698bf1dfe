"""The main job on the demonstration photographs, in the checkout's own environment: `python scripts/demo.py`.

Makes `.venv` and installs the project when that has not been done, runs `bodyreg infer` on `scripts/demo_photos` into
`out/`, and says where to look. Further arguments go to `bodyreg infer`. `--no-venv` uses the running interpreter, the
variable BODYREG_PYTHON names another.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from _environment import ROOT, python_for

PHOTOS = Path(__file__).resolve().parent / "demo_photos"
OUT = ROOT / "out"


def main() -> int:
    arguments = sys.argv[1:]
    python = python_for(["heic"], arguments)
    command = [python, "-m", "bodyreg", "infer", str(PHOTOS), "--out", str(OUT), "--refine"]
    code = subprocess.run([*command, *arguments], cwd=ROOT).returncode
    if code == 0:
        overlays = sorted(p.relative_to(ROOT) for p in OUT.rglob("*_overlay.png"))
        print(f"\nThe results lie in {OUT}. For a first look, open this page in a browser:")
        print(f"  {(OUT / 'index.html').relative_to(ROOT)}")
        print("or these pictures:")
        for path in overlays:
            print(f"  {path}")
        print("Beside each overlay: the body as OBJ (any mesh viewer) and its SMPL parameters as npz and JSON.")
        print("results.json has one record for each photograph.")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
