"""What commands print: tables, and a bar while they work."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["Progress", "names", "print_rows"]


def names(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated option, in lower case."""
    return tuple(part.strip().lower() for part in text.split(",") if part.strip())


def print_rows(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows in columns as wide as the terminal lets them be."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*header, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*map(escape, row))  # what stands in square brackets is text, as in `pip install bodyreg[ray]`
    Console(width=None if sys.stdout.isatty() else 200).print(table)


class Progress:
    """A bar for jobs that report (done, total, label); nothing when the output is no terminal."""

    def __enter__(self) -> Any:
        from rich.console import Console
        from rich.progress import Progress as Bar

        self._bar = Bar(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
        self._bar.start()
        self._task = self._bar.add_task("photographs", total=None)
        return self._report

    def _report(self, done: int, total: int, label: str = "") -> None:
        self._bar.update(self._task, completed=done, total=total, description=label or "photographs")

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
