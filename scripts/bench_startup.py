"""Measure start-up: `import bodyreg` and `bodyreg --help`, best of several, in processes of their own.

python scripts/bench_startup.py [--repeat N]      exit code 1 when a figure is above its limit
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

LIMITS = {  # label -> (arguments of python, seconds)
    "python -c 'pass'": (["-c", "pass"], None),
    "import bodyreg": (["-c", "import bodyreg"], 0.3),
    "bodyreg --help": (["-m", "bodyreg", "--help"], 0.5),
}


def best(arguments: list[str], repeat: int) -> float:
    """Seconds of the fastest of `repeat` runs after one that warms the disk caches."""
    seconds = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=7)
    repeat = parser.parse_args().repeat
    late = False
    for label, (arguments, limit) in LIMITS.items():
        seconds = best(arguments, repeat)
        late |= limit is not None and seconds > limit
        print(f"{label:20s} {seconds:6.3f} s" + (f"   limit {limit} s" if limit else ""))
    return int(late)


if __name__ == "__main__":
    raise SystemExit(main())
