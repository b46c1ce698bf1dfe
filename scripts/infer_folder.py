"""Pose everyone in a folder of photographs: `python scripts/infer_folder.py PHOTOS --out DIR`, as `bodyreg infer`."""

from __future__ import annotations

import sys

from bodyreg.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["infer"]
    main()
