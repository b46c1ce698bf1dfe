"""The files of a result folder as records: one a person (npz, JSON), one a photograph (`results.json`), and back.

Everything a person's files hold is in `PersonResult`; a folder read back gives the records that were written, so that
resuming, exporting and refining need no network.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from bodyreg.files import atomic_write, safe_load_npz

FRAME = "camera of the photograph, OpenCV axes: x right, y down, z forward"
CROP_FRAME = "turned camera of the person's crop (R_crop_from_cam), OpenCV axes: x right, y down, z forward"
UNITS = "metres, radians, pixels (origin at the outer corner of the upper left pixel)"
RESULTS = "results.json"
VERSION = 1

_SHAPES: dict[str, tuple[int | None, ...]] = {
    "global_orient": (3,),
    "body_pose": (69,),
    "betas": (None,),
    "transl": (3,),
    "K": (3, 3),
    "image_hw": (2,),
    "box_xywh": (4,),
    "R_crop_from_cam": (3, 3),
}
_TEXTS = (
    "focal_source",
    "body_name",
    "body_hash",
    "gender",
    "model_name",
    "weights_hash",
    "found_by",
    "frame",
    "units",
)
_JOINTS, _KEYPOINTS = "joints_", "keypoints_"


@dataclass(frozen=True, eq=False)
class PersonResult:
    """One posed person in the photograph's camera frame.

    Attributes:
        global_orient: (3,) axis-angle of the pelvis; body_pose (69,) of joints 1..23 relative to their parents.
        betas: (S,) shape; transl (3,) metres, added after turning about the rest pelvis.
        K: (3, 3) intrinsics of the upright photograph; image_hw (2,) its height and width in pixels.
        box_xywh: (4,) pixels; R_crop_from_cam (3, 3) turned camera of the crop from the photograph's camera.
        joints: set name -> (J, 3) metres, keypoints: set name -> (J, 2) pixels; `joints_<set>`, `keypoints_<set>`.
        focal_source: where the focal length came from.
        body_name, body_hash, gender: the body model that the parameters belong to.
        model_name, weights_hash: the network.
        found_by, score: how the person was found, and how surely.
        refined_by: what the parameters were refined to after the network: "keypoints openpose-25" and the like, perhaps
            followed by "+silhouette" or "+parsing"; empty where they are the network's own.

    All arrays are float64 (image_hw int64), so that npz and JSON say exactly the same.

    Raises:
        ValueError: for a wrong shape or a number that is not finite.
    """

    global_orient: np.ndarray
    body_pose: np.ndarray
    betas: np.ndarray
    transl: np.ndarray
    K: np.ndarray
    image_hw: np.ndarray
    box_xywh: np.ndarray
    R_crop_from_cam: np.ndarray
    joints: Mapping[str, np.ndarray]
    keypoints: Mapping[str, np.ndarray]
    focal_source: str
    body_name: str
    body_hash: str
    gender: str
    model_name: str
    weights_hash: str
    found_by: str
    score: float = 1.0
    refined_by: str = ""
    frame: str = FRAME
    units: str = UNITS

    def __post_init__(self) -> None:
        for name, shape in _SHAPES.items():
            dtype = np.int64 if name == "image_hw" else np.float64
            object.__setattr__(self, name, _array(getattr(self, name), shape, name, dtype))
        for group, width in (("joints", 3), ("keypoints", 2)):
            checked = {
                name: _array(points, (None, width), f"{group}_{name}", np.float64)
                for name, points in getattr(self, group).items()
            }
            object.__setattr__(self, group, checked)
        object.__setattr__(self, "score", float(self.score))

    def to_fields(self) -> dict[str, Any]:
        """Field name -> array, number or text, under the names that the files use."""
        named = {item.name: getattr(self, item.name) for item in fields(self)}
        joints, keypoints = named.pop("joints"), named.pop("keypoints")
        if not self.refined_by:
            del named["refined_by"]
        named |= {_JOINTS + name: points for name, points in joints.items()}
        return named | {_KEYPOINTS + name: points for name, points in keypoints.items()}

    def in_crop_frame(self) -> PersonResult:
        """The same person as the network saw them: in the camera that Perspective Rotation turned onto their box.

        Global orientation, translation and joints are turned by `R_crop_from_cam`, and `frame` says so; pose, shape and
        what is said in pixels of the photograph stay.

        Raises:
            ValueError: the record is in that frame already, or lacks SMPL's joints.
        """
        import torch

        from bodyreg.crops import rotate_smpl
        from bodyreg.rotations import aa_from_matrix, matrix_from_aa

        if self.frame != FRAME or "smpl-24" not in self.joints:
            raise ValueError(
                f"The person is in the frame {self.frame!r} with joints of {sorted(self.joints)}. Give the record that "
                "the folder job wrote."
            )
        R = self.R_crop_from_cam
        rest_pelvis = self.joints["smpl-24"][0] - self.transl
        R_root, transl = rotate_smpl(
            matrix_from_aa(torch.from_numpy(self.global_orient)).numpy(), self.transl, rest_pelvis, R
        )
        return replace(
            self, global_orient=aa_from_matrix(torch.from_numpy(R_root)).numpy(), transl=transl, frame=CROP_FRAME,
            joints={name: points @ R.T for name, points in self.joints.items()},
        )  # fmt: skip

    @classmethod
    def from_fields(cls, named: Mapping[str, Any], source: str = "The result") -> PersonResult:
        """Inverse of `to_fields`, from a file's content; `source` names it in errors. Unknown fields are dropped."""
        missing = [name for name in (*_SHAPES, *_TEXTS) if name not in named]
        if missing:
            raise ValueError(f"{source} lacks {', '.join(missing)}. Give a file written by bodyreg.")
        try:
            values: dict[str, Any] = {name: named[name] for name in _SHAPES}
            values |= {name: str(named[name]) for name in _TEXTS}
            for group, prefix in (("joints", _JOINTS), ("keypoints", _KEYPOINTS)):
                values[group] = {k.removeprefix(prefix): v for k, v in named.items() if k.startswith(prefix)}
            refined_by = str(named.get("refined_by", ""))
            return cls(**values, score=float(named.get("score", 1.0)), refined_by=refined_by)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{source} is not a person's result: {error}") from error


@dataclass(frozen=True)
class PhotoRecord:
    """What became of one input file.

    Attributes:
        file: path relative to the input folder, with forward slashes.
        status: "done", "nobody" (read, but no person in it) or "refused".
        reason: why it was refused, two sentences.
        image_hw: height and width of the upright picture; orientation: EXIF orientation that was undone.
        K, focal_source: the camera.
        people: one entry a person, largest first: `box_xywh`, `score`, `found_by`.
        files: result files of this picture, relative to the result folder.
        notes: given boxes or key points that were of no use, and why.
    """

    file: str
    status: str
    reason: str | None = None
    image_hw: tuple[int, int] | None = None
    orientation: int | None = None
    K: list[list[float]] | None = None
    focal_source: str | None = None
    people: list[dict[str, Any]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.status not in ("done", "nobody", "refused"):
            raise ValueError(f"The status of {self.file} is {self.status!r}. Use done, nobody or refused.")
        if (self.status == "refused") != bool(self.reason):
            raise ValueError(
                f"The record of {self.file} is {self.status} with reason {self.reason!r}. Refused files "
                "have a reason, others none."
            )
        if self.image_hw is not None:  # a list where it comes from JSON
            object.__setattr__(self, "image_hw", tuple(self.image_hw))


# ---- one person -----------------------------------------------------------------------------------------------------


def write_npz(person: PersonResult, file: Path | IO[bytes]) -> None:
    """Write a person as a compressed npz without pickle: numbers as arrays, texts as unicode arrays."""
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in person.to_fields().items()}
    np.savez_compressed(file, **arrays)


def write_json(person: PersonResult, file: Path) -> None:
    """Write a person as JSON, numbers in full precision."""
    named = {
        name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in person.to_fields().items()
    }
    file.write_text(json.dumps(named, indent=1, allow_nan=False), encoding="utf-8")


def read_person(path: str | Path) -> PersonResult:
    """A person from an npz or JSON file of a result folder.

    Raises:
        ValueError: if it cannot be read or is another kind of file.
    """
    path = Path(path)
    if path.suffix.lower() == ".npz":
        return PersonResult.from_fields(safe_load_npz(path), str(path))
    data = _read_json(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path} does not hold a person's result. Give a file written by bodyreg.")
    return PersonResult.from_fields(data, str(path))


# ---- a folder -------------------------------------------------------------------------------------------------------


def output_stems(files: Iterable[str]) -> dict[str, str]:
    """Stem below the result folder for every input file (relative path, forward slashes).

    It is the path without its suffix; pictures that differ in nothing but the suffix (or in case, where file systems
    take that for the same name) keep it as `<stem>_<suffix>`, so that none overwrites another's results.
    """
    files = list(files)
    plain = {file: PurePosixPath(file).with_suffix("").as_posix() for file in files}
    count = Counter(stem.lower() for stem in plain.values())
    stems: dict[str, str] = {}
    taken = {stem.lower() for stem in plain.values() if count[stem.lower()] == 1}
    for file, stem in plain.items():
        if count[stem.lower()] > 1:
            stem += "_" + PurePosixPath(file).suffix.lstrip(".")
            while stem.lower() in taken:
                stem += "_"
            taken.add(stem.lower())
        stems[file] = stem
    return stems


class ResultsWriter:
    """Keeps `results.json` of a running job: records may come from any thread and in any order.

    The file is replaced as a whole, at most every `interval` seconds and at the end, sorted by file name and without
    times, so that a resumed run ends with the file of an undisturbed one.
    """

    def __init__(
        self,
        folder: str | Path,
        settings: Mapping[str, Any],
        records: Iterable[PhotoRecord] = (),
        interval: float = 5.0,
    ) -> None:
        self.path = Path(folder) / RESULTS
        self.settings = dict(settings)
        self._records = {record.file: record for record in records}
        self._interval = interval
        self._written = time.monotonic()
        self._lock = threading.Lock()

    def add(self, record: PhotoRecord) -> None:
        """Take a file's record; a later one of the same file replaces it."""
        with self._lock:
            self._records[record.file] = record
            if time.monotonic() - self._written >= self._interval:
                self._write()

    def close(self) -> list[PhotoRecord]:
        """Write `results.json` and give all records, sorted by file."""
        with self._lock:
            return self._write()

    def _write(self) -> list[PhotoRecord]:
        records = sorted(self._records.values(), key=lambda record: record.file)
        content = {
            "version": VERSION,
            "frame": FRAME,
            "units": UNITS,
            "settings": self.settings,
            "records": [_record_fields(record) for record in records],
        }
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        self._written = time.monotonic()
        return records


def read_results(folder: str | Path) -> tuple[list[PhotoRecord], dict[str, Any]]:
    """Records and settings of a result folder's `results.json`.

    Raises:
        ValueError: if there is none or it is damaged.
    """
    path = Path(folder) / RESULTS
    data = _read_json(path)
    try:
        if data["version"] != VERSION:
            raise ValueError(f"version {data['version']}")
        records = [PhotoRecord(**_known(entry, PhotoRecord)) for entry in data["records"]]
        return records, dict(data["settings"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a results file of this version ({error}). Run the job without --resume."
        ) from error


def resume(folder: str | Path, settings: Mapping[str, Any]) -> dict[str, PhotoRecord]:
    """Records of an earlier run that need not be made again: not refused, and every file of theirs is there.

    A folder without `results.json` gives none. Refused files are tried again, since they may have been mended.

    Raises:
        ValueError: if the earlier run had other settings, so that the results would be a mixture.
    """
    if not (Path(folder) / RESULTS).exists():
        return {}
    records, earlier = read_results(folder)
    asked = json.loads(json.dumps(dict(settings)))  # tuples and such as the file has them
    different = sorted(key for key in asked.keys() | earlier.keys() if asked.get(key) != earlier.get(key))
    if different:
        raise ValueError(
            f"{folder} was made with other settings ({', '.join(different)}). Use those, or another folder, or leave "
            "--resume out."
        )
    return {
        record.file: record
        for record in records
        if record.status != "refused" and all((Path(folder) / name).is_file() for name in record.files)
    }


def person_files(path: str | Path) -> list[Path]:
    """The parameter files that a path stands for: itself, or one a person (npz before JSON) of a result folder.

    Raises:
        ValueError: if there are none.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"There is no file or folder {path}. Give a result folder or a person's npz or JSON file.")
    if (path / RESULTS).is_file():
        names = [name for record in read_results(path)[0] for name in record.files]
    else:
        names = [file.relative_to(path).as_posix() for file in path.rglob("*") if not file.name.startswith(".")]
    chosen: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (not name.endswith(".npz"), name)):
        stem, suffix = name.rsplit(".", 1) if "." in name else (name, "")
        if suffix in ("npz", "json") and stem.rpartition("_")[2].isdecimal():
            chosen.setdefault(stem, name)
    if not chosen:
        raise ValueError(f"{path} holds no people's npz or JSON files. Run `bodyreg infer` with --formats npz,json.")
    return [path / name for _, name in sorted(chosen.items(), key=lambda item: _natural(item[0]))]


# ---- small helpers --------------------------------------------------------------------------------------------------


def _array(value: Any, shape: tuple[int | None, ...], name: str, dtype: Any) -> np.ndarray:
    try:
        array = np.asarray(value).astype(dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is not an array of numbers. Give shape {shape}.") from error
    if array.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True)):
        raise ValueError(f"{name} has shape {array.shape}. Give {shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity. Give finite numbers.")
    return array


def _record_fields(record: PhotoRecord) -> dict[str, Any]:
    return {item.name: getattr(record, item.name) for item in fields(record)}


def _known(entry: Mapping[str, Any], kind: type) -> dict[str, Any]:
    names = {item.name for item in fields(kind)}
    return {key: value for key, value in entry.items() if key in names}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}). Check the path and the file.") from error


def _natural(text: str) -> tuple[Any, ...]:
    """Sorts person 10 behind person 2, and frame 10 behind frame 2."""
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text))
