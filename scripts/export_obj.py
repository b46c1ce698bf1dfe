"""Meshes from saved parameters, no network: `python scripts/export_obj.py RESULTS --out DIR`, as `bodyreg export`."""

from __future__ import annotations

import sys

from bodyreg.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["export"]
    main()
