"""The golden files: where they are; one file's inputs, expected outputs, and which of these a check has looked at."""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

DEFAULT_FOLDER = Path(__file__).resolve().parent / "data"


def golden_folder() -> Path:
    """The folder of system folders: BODYREG_GOLDEN, else the committed subset."""
    folder = Path(os.environ.get("BODYREG_GOLDEN") or DEFAULT_FOLDER)
    if not folder.is_dir():
        raise ValueError(f"BODYREG_GOLDEN names {folder}, which is no folder. Point it to the golden files.")
    return folder


def golden_files() -> list[Path]:
    """Every npz and json file of every system, and anything else but a README, so that nothing passes unseen."""
    files = [path for path in sorted(golden_folder().glob("*/**/*")) if path.is_file()]
    return [path for path in files if path.name not in ("README.md", ".gitattributes")]


class Golden:
    """A golden npz or json file.

    Attributes:
        path: the file; `name` its stem, `system` its folder.
        inputs, state, assets: arrays by the name after `in/`, `state/` and `asset/`.
        config: the JSON of the `config` entry (empty for json files).
        table: the content of a json file (None for npz).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name, self.system = self.path.stem, self.path.parent.name
        self.config: dict[str, Any] = {}
        self._arrays: dict[str, np.ndarray] = {}
        self._seen: set[str] = set()
        self._table: Any = None
        if self.path.suffix == ".json":
            self._table = json.loads(self.path.read_text(encoding="utf-8"))
            self._table_read = False
        else:
            with np.load(self.path, allow_pickle=False) as file:
                self._arrays = {key: file[key] for key in file.files}
            self.config = json.loads(str(self._arrays.pop("config")))

    @cached_property
    def inputs(self) -> dict[str, np.ndarray]:
        return self._group("in/")

    @cached_property
    def state(self) -> dict[str, np.ndarray]:
        return self._group("state/")

    @cached_property
    def assets(self) -> dict[str, np.ndarray]:
        return self._group("asset/")

    @property
    def table(self) -> Any:
        self._table_read = True
        return self._table

    def names(self, prefix: str = "") -> list[str]:
        """Names of the expected outputs that begin with `prefix`, in the file's order."""
        return [key[4:] for key in self._arrays if key.startswith("out/" + prefix)]

    def out(self, name: str) -> np.ndarray:
        """The expected output of that name; it counts as read from here on."""
        self._seen.add(name)
        return self._arrays["out/" + name]

    def has(self, name: str) -> bool:
        return "out/" + name in self._arrays

    def ignore(self, name: str, why: str) -> None:
        """Leave an output out on purpose; the reason stands in the check's code."""
        if not why.strip():
            raise ValueError(f"{self.system}/{self.name}: ignoring {name!r} needs a reason")
        if name not in self.names():
            raise KeyError(f"{self.system}/{self.name} has no output {name!r} to ignore")
        self._seen.add(name)

    def unread(self) -> list[str]:
        """Outputs that no check has read or ignored; the whole table of a json file counts as one."""
        if self.path.suffix == ".json":
            return [] if self._table_read else ["(the table)"]
        return [name for name in self.names() if name not in self._seen]

    def _group(self, prefix: str) -> dict[str, np.ndarray]:
        return {key[len(prefix) :]: value for key, value in self._arrays.items() if key.startswith(prefix)}
