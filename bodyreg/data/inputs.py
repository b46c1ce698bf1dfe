"""Readers of what users give beside photographs: boxes, key points and intrinsics.

Each reader returns a dictionary by picture, as the file names it; `lookup` finds the entry of a picture. A file that
is not of its format is a `ValueError` at once; an entry with bad numbers is kept, because it only concerns its own
picture: `check_box`, `box_from_keypoints` and `cameras.Camera` then say what is wrong with it.

All pixels are those of the upright picture, origin at the outer corner of its upper left pixel.
"""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

MIN_BOX_PX = 2.0
"""A box narrower or lower than this is degenerate."""

_INTRINSICS = ("fx", "fy", "cx", "cy")
_BOX_COLUMNS = ("file", "x", "y", "w", "h")
_KEYPOINT_ENDINGS = ("_keypoints", "_openpose")


@dataclass(frozen=True, eq=False)
class Keypoints:
    """Key points of one person: points (J, 3) as x, y in pixels and confidence (0 = not seen), and their joint set."""

    points: np.ndarray
    joint_set: str


def lookup(entries: Mapping[str, T], file: str | Path) -> T | None:
    """Entry of a picture by its path relative to the input folder, else its file name, else "*".

    Path and name are tried with and without the suffix.
    """
    path = PurePosixPath(Path(file).as_posix())
    for key in (path.as_posix(), path.with_suffix("").as_posix(), path.name, path.stem, "*"):
        if key in entries:
            return entries[key]
    return None


def read_boxes(path: str | Path) -> dict[str, list[np.ndarray]]:
    """Boxes (4,) as x, y, w, h by picture, from JSON `{file: [[x, y, w, h], ...]}` or CSV `file,x,y,w,h`.

    Raises:
        ValueError: if the file is missing or not of this form.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        return _boxes_from_csv(path)
    data = _read_json(path)
    form = f'{path.name} must be of the form {{"file.jpg": [[x, y, w, h], ...]}}'
    if not isinstance(data, dict):
        raise ValueError(f"The boxes in {path.name} are a {_kind(data)}, not an object by file name. {form}.")
    boxes: dict[str, list[np.ndarray]] = {}
    for file, rows in data.items():
        if isinstance(rows, list) and len(rows) == 4 and all(_is_number(value) for value in rows):
            rows = [rows]  # one person: the inner brackets are easily forgotten
        if not isinstance(rows, list) or not all(
            isinstance(row, list) and len(row) == 4 and all(_is_number(value) for value in row) for row in rows
        ):
            raise ValueError(f"The boxes of {file!r} in {path.name} are not lists of four numbers. {form}.")
        boxes[file] = [np.array(row, dtype=np.float64) for row in rows]
    return boxes


def read_intrinsics(path: str | Path) -> dict[str, np.ndarray]:
    """Intrinsic matrices (3, 3) in pixels by picture or "*", from JSON `{file or "*": {fx, fy, cx, cy}}`.

    The values themselves are judged when a camera is made of them.

    Raises:
        ValueError: if the file is missing or not of this form.
    """
    path = Path(path)
    data = _read_json(path)
    form = f'{path.name} must be of the form {{"file.jpg" or "*": {{"fx": .., "fy": .., "cx": .., "cy": ..}}}}'
    if not isinstance(data, dict):
        raise ValueError(f"The intrinsics in {path.name} are a {_kind(data)}, not an object by file name. {form}.")
    matrices: dict[str, np.ndarray] = {}
    for file, entry in data.items():
        if not isinstance(entry, dict) or set(entry) != set(_INTRINSICS):
            found = sorted(entry) if isinstance(entry, dict) else _kind(entry)
            raise ValueError(f"The intrinsics of {file!r} in {path.name} hold {found}, not fx, fy, cx, cy. {form}.")
        if not all(_is_number(entry[key]) for key in _INTRINSICS):
            raise ValueError(f"The intrinsics of {file!r} in {path.name} are not all numbers. {form}.")
        fx, fy, cx, cy = (float(entry[key]) for key in _INTRINSICS)
        matrices[file] = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    return matrices


def read_keypoints(path: str | Path) -> dict[str, list[Keypoints]]:
    """People's key points by picture, from whichever of the known formats is found.

    * OpenPose: a folder of `<stem>_keypoints.json` files, or one such file (BODY_25, set "openpose-25");
    * COCO: one JSON of results (a list with `image_id`, `keypoints`) or of annotations (with `images`), 17 key points,
      set "coco-17"; a whole-numbered `image_id` stands for itself and for COCO's twelve-digit file stem;
    * npz: `keypoints` (N, J, 3) and `joint_set`, with `files` (N,) naming each row's picture; without `files` all rows
      belong to the picture called like the npz. A folder may hold these too.

    Raises:
        ValueError: if nothing is found, or a file is not of its format.
    """
    path = Path(path)
    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in (".json", ".npz")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"The folder {path} holds no key points. Put <stem>_keypoints.json or npz files into it.")
    people: dict[str, list[Keypoints]] = {}
    folders_of: dict[str, set[str]] = {}
    for file in files:
        found = _keypoints_from_npz(file) if file.suffix.lower() == ".npz" else _keypoints_from_json(file)
        parent = file.parent.relative_to(path).as_posix() if path.is_dir() else "."
        for key, persons in found.items():
            people.setdefault(key if parent == "." else f"{parent}/{key}", []).extend(persons)
            folders_of.setdefault(key, set()).add(parent)
    for key, parents in folders_of.items():
        if len(parents) == 1 and "." not in parents:  # the bare name is clear too: key points need not mirror folders
            people.setdefault(key, people[f"{next(iter(parents))}/{key}"])
    return people


def check_box(box_xywh: np.ndarray, size_hw: tuple[int, int]) -> str | None:
    """Why a box (4,) x, y, w, h in pixels is of no use in a picture of this size, in two sentences; None if it is.

    Boxes that reach over the picture's border are fine: people may be cut off by it.
    """
    box = np.asarray(box_xywh, dtype=np.float64)
    text = ", ".join(f"{value:g}" for value in box)
    if not np.isfinite(box).all():
        return f"The box ({text}) holds NaN or infinity. Give finite x, y, w, h in pixels of the upright picture."
    x, y, w, h = box
    if w < MIN_BOX_PX or h < MIN_BOX_PX:
        return f"The box ({text}) is degenerate. Give x, y, w, h with a width and height of at least two pixels."
    inside_w = min(x + w, size_hw[1]) - max(x, 0.0)
    inside_h = min(y + h, size_hw[0]) - max(y, 0.0)
    if inside_w < 1 or inside_h < 1:
        return (
            f"The box ({text}) lies outside the picture of {size_hw[1]} x {size_hw[0]} pixels. Give x, y, w, h in "
            "pixels of the upright picture."
        )
    return None


def box_from_keypoints(
    keypoints: np.ndarray, *, margin: float = 1.2, min_confidence: float = 0.05, min_points: int = 3
) -> np.ndarray | None:
    """Box (4,) x, y, w, h around key points (J, 3) that are seen, enlarged by `margin` about its centre.

    Key points end at ankles and eyes, hence the margin of 1.2 (as SPIN, Kolotouros et al., ICCV 2019, takes it). None
    if fewer than `min_points` are finite with at least `min_confidence`, or if they span no area.
    """
    points = np.asarray(keypoints, dtype=np.float64)
    seen = points[np.isfinite(points).all(-1) & (points[:, 2] >= max(min_confidence, 1e-9)), :2]
    if len(seen) < min_points:
        return None
    low, high = seen.min(0), seen.max(0)
    size = (high - low) * margin
    if size.max() < MIN_BOX_PX:
        return None
    size = np.maximum(size, 0.1 * size.max())  # a person seen exactly edge-on still has some width
    return np.concatenate([(low + high - size) / 2, size])


# ---- formats --------------------------------------------------------------------------------------------------------


def _boxes_from_csv(path: Path) -> dict[str, list[np.ndarray]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"The boxes {path} cannot be read ({error}). Give a CSV file file,x,y,w,h.") from error
    columns = list(range(5))
    if rows and {cell.strip().lower() for cell in rows[0]} >= set(_BOX_COLUMNS):
        header = [cell.strip().lower() for cell in rows.pop(0)]
        columns = [header.index(name) for name in _BOX_COLUMNS]
    boxes: dict[str, list[np.ndarray]] = {}
    for number, row in enumerate(rows, 1):
        try:
            name, *values = (row[column].strip() for column in columns)
            boxes.setdefault(name, []).append(np.array([float(value) for value in values]))
        except (IndexError, ValueError) as error:
            raise ValueError(
                f"Row {number} of {path.name} is {','.join(row)!r}, not a file name and four numbers. Give rows "
                "file,x,y,w,h."
            ) from error
    return boxes


def _keypoints_from_json(path: Path) -> dict[str, list[Keypoints]]:
    data = _read_json(path)
    if isinstance(data, dict) and isinstance(data.get("people"), list):
        stem = path.stem
        for ending in _KEYPOINT_ENDINGS:
            stem = stem.removesuffix(ending)
        return {
            stem: [
                Keypoints(_points(_field(person, "pose_keypoints_2d"), 25, path), "openpose-25")
                for person in data["people"]
            ]
        }
    names: dict[Any, str] = {}
    if isinstance(data, dict) and isinstance(data.get("annotations"), list) and isinstance(data.get("images"), list):
        names = {_field(image, "id"): str(_field(image, "file_name")) for image in data["images"]}
        data = data["annotations"]
    if not isinstance(data, list):
        raise ValueError(
            f"{path.name} holds neither OpenPose's `people` nor a list of COCO results. Give key points as OpenPose "
            "JSON, COCO results or npz."
        )
    people: dict[str, list[Keypoints]] = {name: [] for name in names.values()}
    for entry in data:
        image_id = _field(entry, "image_id")
        person = Keypoints(_points(_field(entry, "keypoints"), 17, path), "coco-17")
        keys = [names[image_id]] if image_id in names else [str(image_id)]
        if image_id not in names and isinstance(image_id, int):
            keys.append(f"{image_id:012d}")
        for key in keys:
            people.setdefault(key, []).append(person)
    return people


def _keypoints_from_npz(path: Path) -> dict[str, list[Keypoints]]:
    from bodyreg import skeletons

    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {key: data[key] for key in data.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"The key points {path} cannot be read ({error}). Give an npz of plain arrays.") from error
    if not {"keypoints", "joint_set"} <= set(arrays):
        raise ValueError(f"{path.name} holds {sorted(arrays)}. Give `keypoints` (N, J, 3) and `joint_set`.")
    joint_set = skeletons.get(str(arrays["joint_set"]))
    points = arrays["keypoints"]
    if points.ndim != 3 or points.shape[1:] != (len(joint_set.joints), 3) or points.dtype.kind not in "fiu":
        raise ValueError(
            f"The key points in {path.name} have shape {points.shape}. Give numbers (N, {len(joint_set.joints)}, 3) "
            f"for the joint set {joint_set.name}."
        )
    stem = path.stem
    for ending in _KEYPOINT_ENDINGS:
        stem = stem.removesuffix(ending)
    files = [str(file) for file in arrays["files"].ravel()] if "files" in arrays else [stem] * len(points)
    if len(files) != len(points):
        raise ValueError(
            f"{path.name} names {len(files)} files for {len(points)} people. Give one entry of `files` for each row."
        )
    people: dict[str, list[Keypoints]] = {} if files else {stem: []}
    for file, person in zip(files, points, strict=True):
        people.setdefault(file, []).append(Keypoints(person.astype(np.float64), joint_set.name))
    return people


def _points(values: Any, count: int, path: Path) -> np.ndarray:
    if not isinstance(values, list) or len(values) != 3 * count or not all(_is_number(value) for value in values):
        found = len(values) if isinstance(values, list) else _kind(values)
        raise ValueError(
            f"A person in {path.name} has {found} key point values. Give {3 * count} numbers, x, y and confidence of "
            f"{count} joints."
        )
    return np.array(values, dtype=np.float64).reshape(count, 3)


def _field(entry: Any, key: str) -> Any:
    if not isinstance(entry, dict) or key not in entry or isinstance(entry[key], dict):
        raise ValueError(f"An entry of the key points has no `{key}`. Give OpenPose JSON, COCO results or npz.")
    return entry[key]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ValueError(f"There is no file {path}. Check the path.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}). Check the path and the file.") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    return {list: "list", dict: "object", str: "text", type(None): "null"}.get(type(value), type(value).__name__)
