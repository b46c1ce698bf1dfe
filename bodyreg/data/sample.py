"""The one record that every data set of photographs yields, and the indexed file a data set is prepared into.

A prepared file is an npz without pickles: columns of equal length, and a header that says what they are. Labels that a
data set does not have are columns that are not there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bodyreg.files import atomic_write, safe_load_npz

__all__ = ["GENDERS", "KINDS", "Sample", "SampleTable", "write_table"]

GENDERS = ("neutral", "male", "female")
KINDS = ("smpl", "joints", "keypoints")
"""What is known of a data set's people: SMPL parameters, 3D joints alone, or 2D key points alone."""
_FORMAT = "bodyreg-samples-1"

# Column -> shape of a row and type; those every file has, and those of each kind.
_Column = tuple[tuple[int, ...], type]
_COMMON: dict[str, _Column] = {"image": ((), np.bytes_), "size_hw": ((2,), np.int32), "box_xywh": ((4,), np.float32)}
_OF_KIND: dict[str, dict[str, _Column]] = {
    "smpl": {
        "K": ((3, 3), np.float64), "gender": ((), np.uint8), "theta": ((24, 3), np.float32),
        "betas": ((11,), np.float32), "transl": ((3,), np.float32), "seen": ((), np.bool_),
    },
    "joints": {"K": ((3, 3), np.float64), "joints17": ((17, 3), np.float32), "height": ((), np.float32)},
    "keypoints": {"keypoints17": ((17, 3), np.float32)},
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Sample:
    """One person in one photograph. Labels lie in the photograph's camera frame (OpenCV axes), metres and radians.

    Attributes:
        source: the data set. image: path of the photograph below the data set's root.
        size_hw: (2,) of the photograph, pixels. box_xywh: (4,) pixels.
        kind: one of `KINDS`.
        K: (3, 3) intrinsics, None where no camera is known.
        gender, theta (24, 3) axis-angle, betas (11,), transl (3,): SMPL parameters of kind "smpl".
        seen: whether any vertex of the body is visible.
        joints17: (17, 3) in Human3.6M's order, right side first; height of the person in metres; of kind "joints".
        keypoints17: (17, 3) COCO's x, y in pixels and visibility; of kind "keypoints".
    """

    source: str
    image: str
    size_hw: tuple[int, int]
    box_xywh: np.ndarray
    kind: str
    K: np.ndarray | None = None
    gender: str = "neutral"
    theta: np.ndarray | None = None
    betas: np.ndarray | None = None
    transl: np.ndarray | None = None
    seen: bool = True
    joints17: np.ndarray | None = None
    height: float | None = None
    keypoints17: np.ndarray | None = None


class SampleTable:
    """A prepared data set: `len(table)`, `table[i]` -> `Sample`.

    Args:
        path: of the file that `write_table` wrote.

    Raises:
        ValueError: not such a file.
    """

    def __init__(self, path: str | Path) -> None:
        self._columns = safe_load_npz(path)
        try:
            header = json.loads(str(self._columns.pop("header")))
        except (KeyError, ValueError):
            header = {}
        if header.get("format") != _FORMAT:
            raise ValueError(f"{path} is no prepared data set. Write it with `bodyreg prepare`.")
        self.source, self.split, self.kind = header["source"], header["split"], header["kind"]
        _check(self._columns, self.kind, str(path))

    def __len__(self) -> int:
        return len(self._columns["image"])

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        row: dict[str, Any] = {name: column[index] for name, column in self._columns.items()}
        row["image"] = row["image"].decode("utf-8")
        row["size_hw"] = int(row["size_hw"][0]), int(row["size_hw"][1])
        for name, plain in (("height", float), ("seen", bool)):
            if name in row:
                row[name] = plain(row[name])
        if "gender" in row:
            row["gender"] = GENDERS[int(row["gender"])]
        return Sample(source=self.source, kind=self.kind, **row)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))


def write_table(path: str | Path, source: str, split: str, kind: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows (see `Sample` for their keys) as one indexed file.

    Args:
        path: of the npz. source, split: name of the data set and of its part. kind: one of `KINDS`.
        rows: one mapping a person; `betas` of fewer than 11 numbers are filled up with zeros.

    Raises:
        ValueError: no rows, a missing key, a wrong shape, or a number that is not finite.
    """
    if kind not in KINDS:
        raise ValueError(f"There is no kind of sample {kind!r}. Known: {', '.join(KINDS)}.")
    if not rows:
        raise ValueError(f"Nothing of {source} ({split}) is left to write. Check that the download is complete.")
    columns: dict[str, Any] = {}
    for name, (shape, dtype) in {**_COMMON, **_OF_KIND[kind]}.items():
        try:
            values = [row[name] for row in rows]
        except KeyError:
            raise ValueError(f"Rows of {source} lack {name!r}. Give every key of kind {kind!r}.") from None
        if name == "image":
            values = [str(v).encode("utf-8") for v in values]
        elif name == "gender":
            values = [GENDERS.index(v) for v in values]
        elif name == "betas":
            values = [np.pad(np.asarray(v, np.float64), (0, max(0, 11 - len(v)))) for v in values]
        try:
            columns[name] = np.asarray(values).astype(dtype) if name == "image" else np.asarray(values, dtype=dtype)
        except ValueError as error:
            raise ValueError(f"{name!r} of {source} differs in shape from row to row ({error}). Check it.") from None
        found = columns[name].shape[1:]
        if found != shape:
            raise ValueError(f"{name!r} of {source} has rows of shape {found}. They should be {shape}.")
    _check(columns, kind, f"{source} ({split})")
    header = json.dumps({"format": _FORMAT, "source": source, "split": split, "kind": kind})
    with atomic_write(path) as temporary:
        with temporary.open("wb") as file:
            np.savez(file, header=header, **columns)
    return Path(path)


def _check(columns: Mapping[str, np.ndarray], kind: str, what: str) -> None:
    wanted = {**_COMMON, **_OF_KIND.get(kind, {})}
    if set(columns) != set(wanted):
        raise ValueError(f"{what} has the columns {sorted(columns)}. A file of kind {kind!r} has {sorted(wanted)}.")
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1:
        raise ValueError(f"Columns of {what} differ in length. Prepare the data set again.")
    for name, column in columns.items():
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            row = int(np.flatnonzero(~np.isfinite(column).reshape(len(column), -1).all(1))[0])
            raise ValueError(f"{name!r} of {what} is not finite in row {row}. Mend or drop that label.")
    if "gender" in columns and (columns["gender"] >= len(GENDERS)).any():
        raise ValueError(f"{what} names an unknown gender. Prepare the data set again.")
