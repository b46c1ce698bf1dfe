"""Samples of any data set to what PersPose trains on: a turned, augmented crop and its labels in the crop's frame."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from bodyreg.cameras import Camera
from bodyreg.crops import Crop, crop_image, make_crop, make_crop_without_camera
from bodyreg.data.augment import Augmentation, change_pixels, cut_out, draw_augmentation
from bodyreg.data.sample import Sample, SampleTable
from bodyreg.data.sources import Bodies
from bodyreg.inverse_kinematics import LEAF_JOINTS, ortho_twist
from bodyreg.rotations import matrix_from_aa

__all__ = ["PersPoseCrops"]

log = logging.getLogger(__name__)
_FARTHEST_BOX = (-0.2, 1.2)  # of the longer side of the photograph


class PersPoseCrops(torch.utils.data.Dataset):
    """Crops with labels: `dataset[set, sample, draw]` is a dictionary of tensors, the same for the same three numbers.

    Keys: image (3, s, s) uint8; K_crop (3, 3) pixels; is_smpl, is_bedlam, is_3dhp, is_coco; joints24 (24, 3), joints17
    (17, 3), vertices (V, 3), twist (24, 3), leaf (5, 3, 3), betas (S,), height of SMPL samples; joints17_3dhp (17, 3);
    keypoints (17, 3). Labels that a sample lacks are zeros. A sample that cannot be cropped or read is of no kind at
    all, and a warning names it: one broken picture must not end a long run.

    Args:
        tables: prepared data sets. roots: the folder of each one's download.
        bodies: body models by gender, with Human3.6M's regressor.
        crop_size: s, pixels. augment: draw augmentation. aim_jitter: and where the turned camera aims.
        perspective_rotation: False for ablation. reference_pixels: sample pixels as the published weights expect.
        turn_about_image_centre: the published in-plane turn, whose labels are some pixels off; False turns rightly.
        seed: of the augmentation.
    """

    def __init__(
        self,
        tables: Sequence[SampleTable],
        roots: Sequence[str | Path],
        bodies: Bodies,
        crop_size: int = 256,
        *,
        augment: bool = True,
        aim_jitter: bool = False,
        perspective_rotation: bool = True,
        reference_pixels: bool = True,
        turn_about_image_centre: bool = True,
        seed: int = 0,
    ) -> None:
        if len(tables) != len(roots):
            raise ValueError(f"There are {len(tables)} tables and {len(roots)} folders. Give one folder a table.")
        self.tables, self.roots, self.bodies = list(tables), [Path(root) for root in roots], bodies
        self.size_hw = (crop_size, crop_size)
        self.augment, self.aim_jitter, self.seed = augment, aim_jitter, seed
        self.perspective_rotation, self.reference_pixels = perspective_rotation, reference_pixels
        self.turn_about_image_centre = turn_about_image_centre
        self._any_body = next(iter(bodies.values()))

    def __len__(self) -> int:
        return sum(len(table) for table in self.tables)

    def __getitem__(self, row: tuple[int, int, int]) -> dict[str, Tensor]:
        table, index, draw = row
        sample = self.tables[table][index]
        rng = np.random.default_rng([self.seed, draw])
        augmentation = draw_augmentation(rng, aim_jitter=self.aim_jitter) if self.augment else Augmentation()
        try:
            item, crop = self._labels(sample, augmentation)
            picture = crop_image(_read(self.roots[table] / sample.image), crop)
        except ValueError as error:
            log.warning("%s sample %d (%s) is left out: %s", sample.source, index, sample.image, error)
            return self._empty()
        if augmentation.cut_out:
            picture = cut_out(picture, rng)
        if augmentation.pixels:
            picture = change_pixels(picture, rng)
        item["image"] = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)
        return item

    def _labels(self, sample: Sample, a: Augmentation) -> tuple[dict[str, Tensor], Crop]:
        item = self._empty()
        if sample.kind == "keypoints":
            crop = make_crop_without_camera(
                sample.box_xywh, self.size_hw, scale=a.scale, reference_pixels=self.reference_pixels
            )
            keypoints = np.array(sample.keypoints17, dtype=np.float64)
            keypoints[:, :2] = crop.crop_px_from_full_px(keypoints[:, :2])
            keypoints[~crop.inside(keypoints[:, :2]), 2] = 0
            _fill(item, keypoints=keypoints, K_crop=crop.K_crop, is_coco=True)
            return item, crop
        if sample.kind == "joints":
            crop = self._crop(sample, sample.box_xywh, None, a)
            joints = crop.crop_from_cam(np.asarray(sample.joints17, np.float64))
            _fill(item, joints17_3dhp=joints, K_crop=crop.K_crop, is_3dhp=True, height=sample.height)
            return item, crop

        body, theta = self.bodies[sample.gender], np.asarray(sample.theta)
        betas = np.zeros(body.num_betas, np.float32)
        betas[: min(11, body.num_betas)] = np.asarray(sample.betas)[: body.num_betas]
        with torch.no_grad():
            inputs = (betas, theta[1:].reshape(-1), theta[0], sample.transl)
            shape, *rest = (torch.as_tensor(np.asarray(x, np.float32))[None] for x in inputs)
            posed = body(shape, *rest)
            rest_vertices = body.rest_vertices(shape)[0]
            twist = ortho_twist(body.rest_joints(shape), posed.R_global)[0]
            joints17 = body.regress(posed.vertices, "h36m-17")[0]
        vertices, joints24 = posed.vertices[0].double().numpy(), posed.joints[0].double().numpy()
        box = _box_of(vertices, sample)
        crop = self._crop(sample, box, vertices if sample.seen else None, a)
        turned = crop.crop_from_cam
        _fill(
            item, K_crop=crop.K_crop, is_smpl=True, is_bedlam=sample.source == "bedlam", joints24=turned(joints24),
            joints17=turned(joints17.double().numpy()), vertices=turned(vertices), twist=turned(twist.double().numpy()),
            leaf=matrix_from_aa(torch.as_tensor(theta[list(LEAF_JOINTS)])).numpy(), betas=betas,
            height=float(rest_vertices[:, 1].max() - rest_vertices[:, 1].min()),
        )  # fmt: skip
        return item, crop

    def _crop(self, sample: Sample, box: np.ndarray, points: np.ndarray | None, a: Augmentation) -> Crop:
        camera = Camera(np.asarray(sample.K, np.float64), sample.size_hw)
        aim = camera.K[:2, 2] + np.array(a.aim) * max(box[2:])
        return make_crop(
            camera, box, self.size_hw, perspective_rotation=self.perspective_rotation, points_cam=points, aim_px=aim,
            in_plane_rad=a.in_plane_rad, in_plane_about_image_centre=self.turn_about_image_centre, scale=a.scale,
            reference_pixels=self.reference_pixels,
        )  # fmt: skip

    def _empty(self) -> dict[str, Tensor]:
        body, no = self._any_body, torch.tensor(False)
        K = torch.tensor([[600.0, 0, 128], [0, 600, 128], [0, 0, 1]])
        sizes = {
            "joints24": (24, 3), "joints17": (17, 3), "vertices": tuple(body.v_template.shape), "twist": (24, 3),
            "leaf": (5, 3, 3), "betas": (body.num_betas,), "joints17_3dhp": (17, 3), "keypoints": (17, 3),
        }  # fmt: skip
        item = {name: torch.zeros(size) for name, size in sizes.items()}
        kinds = {name: no.clone() for name in ("is_smpl", "is_bedlam", "is_3dhp", "is_coco")}
        image = torch.zeros(3, *self.size_hw, dtype=torch.uint8)
        return {**item, **kinds, "height": torch.tensor(1.8), "K_crop": K, "image": image}


def _fill(item: dict[str, Tensor], **values: np.ndarray | bool | float | None) -> None:
    for name, value in values.items():
        item[name] = torch.as_tensor(np.asarray(value)).to(item[name].dtype)


def _box_of(vertices: np.ndarray, sample: Sample) -> np.ndarray:
    """Box around the mesh's projection, cut at a fifth of the longer side beyond the photograph."""
    px = vertices @ np.asarray(sample.K, np.float64).T
    ahead = px[:, 2] > 1e-3
    if not ahead.any():
        return sample.box_xywh
    least, most = (f * max(sample.size_hw) for f in _FARTHEST_BOX)
    px = np.clip(px[ahead, :2] / px[ahead, 2:], least, most)
    low, high = px.min(0), px.max(0)
    return np.concatenate([low, high - low]) if (high - low > 1).all() else sample.box_xywh


def _read(path: Path) -> np.ndarray:
    # As stored: intrinsics of data sets speak of the stored pixels, whatever a picture says about its orientation.
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if picture is None:
        raise ValueError(f"{path} is not there or is no picture. Unpack the data set's pictures.")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
