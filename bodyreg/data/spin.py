"""Training data as SPIN distributes it: npz files of people in photographs, read into crops with labels and parsing.

A file has `imgname`, `center`, `scale` and any of `part` (24 annotated key points), `openpose` (25), `S` (24 joints in
3D), `pose`, `shape`, `has_smpl`, `gender` (Kolotouros et al., ICCV 2019; DSR, ICCV 2021). The parsing picture of
ROOT/a/b.jpg is ROOT/grph_sequences/a/b.png.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import torch
from torch import Tensor

from bodyreg.data.parsing import read_parsing
from bodyreg.data.spin_crops import (
    CROP_PX,
    SpinAugmentation,
    crop_joints24,
    crop_keypoints,
    crop_labels,
    crop_picture,
    crop_pose,
    draw_spin_augmentation,
    keep_person,
)
from bodyreg.files import atomic_write, safe_load_npz

__all__ = [
    "JOINTS14_OF_24",
    "JOINTS17_OF_24",
    "MixedSpin",
    "SpinCrops",
    "SpinTable",
    "load_spin",
    "parsing_path",
    "write_spin",
]

log = logging.getLogger(__name__)
JOINTS14_OF_24 = (*range(13), 18)
"""Joints of the annotated 24 that Human3.6M and 3DPW are scored on, in LSP's order."""
JOINTS17_OF_24 = (*range(13), 18, 14, 16, 17)
"""Those that MPI-INF-3DHP is scored on."""
_PARSED = "grph_sequences"
# Field -> shape of a row; of those a file may leave out.
_FIELDS: dict[str, tuple[int, ...]] = {
    "center": (2,), "scale": (), "part": (24, 3), "openpose": (25, 3), "S": (24, 4), "pose": (72,), "shape": (10,),
    "has_smpl": (),
}  # fmt: skip
_REQUIRED = ("imgname", "center", "scale")


@dataclass(frozen=True, eq=False)
class SpinTable:
    """One data set, n people; see `SpinCrops` for what becomes of it.

    names: n paths below the data set's root. centre (n, 2) pixels; scale (n,) boxes of 200 pixels. keypoints (n, 49, 3)
    pixels and confidence. joints24 (n, 24, 4) metres and confidence, or None. theta (n, 24, 3), betas (n, 10), zero
    where has_smpl (n,) is false. gender (n,): 0 male, 1 female, -1 not said.
    """

    names: list[str]
    centre: np.ndarray
    scale: np.ndarray
    keypoints: np.ndarray
    joints24: np.ndarray | None
    theta: np.ndarray
    betas: np.ndarray
    has_smpl: np.ndarray
    gender: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


def load_spin(path: str | Path) -> SpinTable:
    """Read an npz in SPIN's layout.

    Raises:
        UnsafeFileError: an array that is a pickle. ValueError: fields that are missing, of another shape or not finite.
    """
    arrays = safe_load_npz(path)
    missing = [name for name in _REQUIRED if name not in arrays]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}. Pass a data file in SPIN's layout.")
    n = len(arrays["imgname"])
    for name, shape in _FIELDS.items():
        if name in arrays:
            if arrays[name].shape != (n, *shape) or arrays[name].dtype.kind not in "fiub":
                raise ValueError(
                    f"{name} of {path} is {arrays[name].shape} {arrays[name].dtype}. Give numbers {(n, *shape)}."
                )
            if not np.isfinite(arrays[name]).all():
                raise ValueError(f"{name} of {path} is not finite. Mend or drop those people.")
    if (arrays["scale"] <= 0).any():
        raise ValueError(f"A scale of {path} is not positive. It is the side of the person's box over 200 pixels.")
    field = {name: arrays[name].astype(np.float32) for name in _FIELDS if name in arrays}
    has_pose = "pose" in field and "shape" in field
    has_smpl = field.get("has_smpl", np.full(n, float(has_pose))).astype(bool) & has_pose
    theta = field.get("pose", np.zeros((n, 72), np.float32)).reshape(n, 24, 3)
    parts = [field.get(name, np.zeros((n, k, 3), np.float32)) for name, k in (("openpose", 25), ("part", 24))]
    gender = np.full(n, -1)
    if "gender" in arrays:
        gender = np.array([0 if _text(value) == "m" else 1 for value in arrays["gender"]])
    return SpinTable(
        [_text(name) for name in arrays["imgname"]], field["center"], field["scale"], np.concatenate(parts, 1),
        field.get("S"), np.where(has_smpl[:, None, None], theta, 0).astype(np.float32),
        np.where(has_smpl[:, None], field.get("shape", np.zeros((n, 10))), 0).astype(np.float32), has_smpl, gender,
    )  # fmt: skip


def write_spin(path: str | Path, fields: dict[str, np.ndarray]) -> Path:
    """Write arrays as a file of SPIN's layout, after `load_spin` has found nothing wrong with it."""
    with atomic_write(path) as temporary:
        with temporary.open("wb") as file:
            np.savez(file, **fields)  # type: ignore[arg-type]
        load_spin(temporary)
    return Path(path)


def parsing_path(root: str | Path, name: str) -> Path:
    """Where the parsing picture of a photograph lies."""
    return Path(root) / _PARSED / PurePosixPath(name).with_suffix(".png")


class SpinCrops(torch.utils.data.Dataset):
    """Crops with labels: `dataset[i, draw]` is a dictionary of tensors, the same for the same two numbers.

    Keys: image (3, 224, 224) uint8; labels (224, 224) uint8 LIP labels, 255 where there is none (all of it for people
    without key points or parsing picture); keypoints (49, 3) in [-1, 1] and confidence; theta (24, 3), betas (10,),
    has_smpl; joints24 (24, 4), has_joints; centre (2,), scale, size_hw (2,) of the photograph; mirrored, turn_deg;
    gender; index. A picture that cannot be read gives a black crop without labels, and a warning names it; a parsing
    picture that does not fit is left out likewise.

    Args:
        table: of `load_spin`. root: folder of the photographs. augment: draw augmentation.
        reference: parsing as DSR's released code resamples it; missing pictures are all background then.
        seed: of the augmentation.
    """

    def __init__(
        self, table: SpinTable, root: str | Path, *, augment: bool = True, reference: bool = False, seed: int = 0
    ) -> None:
        self.table, self.root = table, Path(root)
        self.augment, self.reference, self.seed = augment, reference, seed

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: tuple[int, int]) -> dict[str, Tensor]:
        index, draw = row
        a = SpinAugmentation()
        if self.augment:
            a = draw_spin_augmentation(np.random.RandomState((self.seed * 1_000_003 + draw) % 2**32))
        return self.item(index, a)

    def item(self, index: int, a: SpinAugmentation) -> dict[str, Tensor]:
        """Person `index` under a given augmentation."""
        table = self.table
        centre, scale = table.centre[index], float(table.scale[index])
        keypoints = crop_keypoints(table.keypoints[index], centre, scale, a)
        joints = np.zeros((24, 4), np.float32)
        if table.joints24 is not None:
            joints = crop_joints24(table.joints24[index], a)
        image, size_hw, usable = self._picture(index, a)
        seen = table.has_smpl[index]
        values = {
            "keypoints": keypoints * (1 if usable else np.array([1, 1, 0], np.float32)),
            "theta": crop_pose(table.theta[index], a) if seen else table.theta[index],
            "betas": table.betas[index], "has_smpl": seen & usable, "joints24": joints,
            "has_joints": table.joints24 is not None and usable, "centre": centre,
            "scale": np.float32(scale * a.scale), "size_hw": np.array(size_hw), "mirrored": a.mirrored,
            "turn_deg": np.float32(a.turn_deg), "gender": table.gender[index], "index": index,
        }  # fmt: skip
        item = {name: torch.as_tensor(np.asarray(value)) for name, value in values.items()}
        item["image"] = torch.from_numpy(image).permute(2, 0, 1).contiguous()
        item["labels"] = torch.from_numpy(self._labels(index, a, size_hw, keypoints, usable))
        return item

    def _picture(self, index: int, a: SpinAugmentation) -> tuple[np.ndarray, tuple[int, int], bool]:
        table, path = self.table, self.root / self.table.names[index]
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if picture is None:
            log.warning("%s is not there or is no picture: this person is left out", path)
            return np.zeros((CROP_PX, CROP_PX, 3), np.uint8), (0, 0), False
        rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        return crop_picture(rgb, table.centre[index], float(table.scale[index]), a), rgb.shape[:2], True

    def _labels(
        self, index: int, a: SpinAugmentation, size_hw: tuple[int, int], keypoints: np.ndarray, usable: bool
    ) -> np.ndarray:
        nothing = np.full((CROP_PX, CROP_PX), 0 if self.reference else 255, np.uint8)
        path = parsing_path(self.root, self.table.names[index])
        if not usable or not path.is_file():
            return nothing
        try:
            labels = read_parsing(path, size_hw)
        except ValueError as error:
            log.warning("%s", error)
            return nothing
        crop = crop_labels(
            labels, self.table.centre[index], float(self.table.scale[index]), a, reference=self.reference
        )
        pixels = keypoints.copy()  # in single precision, as in the released code: the box is cut to whole pixels
        pixels[:, :2] = (pixels[:, :2] + 1) * np.float32(CROP_PX / 2)
        return keep_person(crop, pixels)


class MixedSpin(torch.utils.data.Dataset):
    """Several sets as one: each index draws a set by its share and takes the person of that index, counted round.

    The length is the longest set's. Items are those of `SpinCrops` with the number of the set under `source`.

    Args:
        sets: crops. shares: of each, in sum 1. seed: of the draw.
    """

    def __init__(self, sets: Sequence[SpinCrops], shares: Sequence[float], *, seed: int = 0) -> None:
        if len(sets) != len(shares) or not sets or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"The shares of {len(sets)} sets are {list(shares)}. Give one for each, in sum 1.")
        if any(share > 0 and not len(crops) for crops, share in zip(sets, shares, strict=True)):
            raise ValueError("A set with a share has no people. Set its share to 0.")
        self.sets, self.shares, self.seed = list(sets), np.cumsum(shares), seed

    def __len__(self) -> int:
        return max(len(crops) for crops in self.sets)

    def __getitem__(self, row: tuple[int, int] | int) -> dict[str, Tensor]:
        """Item of (index, epoch)."""
        index, epoch = (row, 0) if isinstance(row, int) else row
        draw = epoch * len(self) + index
        u = np.random.default_rng([self.seed, draw]).random()
        which = min(int(np.searchsorted(self.shares, u, side="right")), len(self.sets) - 1)
        item = self.sets[which][index % len(self.sets[which]), draw]
        return {**item, "source": torch.tensor(which)}


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
