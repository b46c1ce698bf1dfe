"""How long each stage of a job takes, summed over its threads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping

__all__ = ["STAGES", "StageClock"]

STAGES = ("decode", "people", "crop", "network", "skinning", "export", "overlay", "page")
"""Reading pictures; finding people; cropping; network with decoding and inverse kinematics; posing the mesh and
regressing joints; mesh and parameter files; overlays, views and the contact sheet; what the
page shows."""


class StageClock:
    """Seconds a stage, from any thread.

    Args:
        cpu: count the CPU time of the calling thread instead of wall-clock time. Shares of a total then mean
            something while stages overlap, as long as each stage keeps to its own thread.
    """

    def __init__(self, *, cpu: bool = False) -> None:
        self._now = time.thread_time if cpu else time.perf_counter
        self._lock = threading.Lock()
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = self._now()
        try:
            yield
        finally:
            spent = self._now() - start
            with self._lock:
                self.seconds[stage] += spent

    def add(self, seconds: Mapping[str, float]) -> None:
        """Count what another clock has measured."""
        with self._lock:
            for stage, spent in seconds.items():
                self.seconds[stage] += spent
