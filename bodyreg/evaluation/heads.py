"""Models on image data: a regressor's own joints, the joints of its mesh, and a lifter fed by 2D joints.

All three become sources of the same kind, so that one table compares them. A regressor's own joints are SMPL's 24 and a
pelvis; what a protocol asks for beyond these follows from them through a linear map, fitted on posed bodies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bodyreg import skeletons
from bodyreg.body import BodyModel
from bodyreg.cameras import Camera, project, resolve_camera
from bodyreg.crops import crop_image, make_crop
from bodyreg.data.folder import read_image
from bodyreg.data.lifter_cameras import h36m_cameras
from bodyreg.data.sample import SampleTable
from bodyreg.data.sources import image_size
from bodyreg.data.spin import SpinTable
from bodyreg.data.synthetic.poses import PoseSampler
from bodyreg.evaluation.accumulate import Samples
from bodyreg.evaluation.protocols import get
from bodyreg.evaluation.truth import PosedBodies, Source, StoredJoints, samples_of_images
from bodyreg.lens import pixels_from_screen, screen_from_pixels

__all__ = ["Estimates", "HeadMap", "Lifter", "People", "fit_head_map", "head_joints", "lift_people", "mesh",
           "people_of_spin", "people_of_table", "regress_people"]  # fmt: skip

Lifter = Callable[[Tensor], Tensor]
"""(B, T, 17, 2) screen coordinates in the order of "h36m-17" to (B, T, 17, 3) root-relative joints, metres."""


class People(NamedTuple):
    """Who is in which photograph: paths, boxes (N, 4) x y w h in pixels, cameras, and 2D joints (N, 17, 2) or None.

    The 2D joints are pixels in the order of "h36m-17".
    """

    images: list[str]
    boxes: np.ndarray
    cameras: list[Camera]
    keypoints: np.ndarray | None
    samples: Samples

    def take(self, rows: np.ndarray) -> People:
        """Those of some rows."""
        keypoints = None if self.keypoints is None else self.keypoints[rows]
        images, cameras = [self.images[k] for k in rows], [self.cameras[k] for k in rows]
        return People(images, self.boxes[rows], cameras, keypoints, self.samples.take(rows))


def people_of_table(table: SampleTable, truth: Source | None = None) -> People:
    """People of a prepared data set; with their true joints projected as 2D joints where they are bodies.

    Args:
        table: of kind "smpl" or "joints". truth: `PosedBodies` of the same table, for the 2D joints of kind "smpl".
    """
    rows = list(table)
    if any(row.K is None for row in rows):
        raise ValueError(f"{table.source} has people without a camera. Score on a data set with intrinsics.")
    cameras = [Camera(np.asarray(row.K), row.size_hw) for row in rows]
    if table.kind == "joints":
        joints = torch.from_numpy(np.stack([np.asarray(row.joints17) for row in rows])).double()
    elif truth is not None:
        chunks = np.array_split(np.arange(len(rows)), max(1, len(rows) // 256))
        joints = torch.cat([truth.points(chunk, get("pw3d-j14")).joints for chunk in chunks])
    else:
        joints = None
    keypoints = None
    if joints is not None:
        K = torch.from_numpy(np.stack([camera.K for camera in cameras]))
        keypoints = project(joints, K).numpy()
    boxes = np.stack([row.box_xywh for row in rows]).astype(np.float64)
    images = [row.image for row in rows]
    return People(images, boxes, cameras, keypoints, samples_of_images(images))


def people_of_spin(table: SpinTable, root: str | Path) -> People:
    """People of an npz in SPIN's layout; cameras of Human3.6M where the names tell one, else a guess from the size.

    Args:
        table: from `load_spin`. root: folder the pictures' names begin below.
    """
    known = {camera.name: camera for cameras in h36m_cameras().values() for camera in cameras}
    cameras, boxes = [], []
    sizes: dict[str, tuple[int, int]] = {}
    for name, centre, scale in zip(table.names, table.centre, table.scale, strict=True):
        folder = str(Path(name).parent)
        key = folder if folder != "." else name
        if key not in sizes:
            sizes[key] = image_size(Path(root) / name)
        lens = next((camera for label, camera in known.items() if label in name), None)
        if lens is None:
            cameras.append(resolve_camera(sizes[key]))
        else:
            fx, fy = lens.lens[:2] * lens.size_wh[0] / 2
            cx, cy = pixels_from_screen(torch.from_numpy(lens.lens[2:4]), lens.size_wh).tolist()
            cameras.append(Camera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), sizes[key]))
        side = 200 * float(scale)
        boxes.append([centre[0] - side / 2, centre[1] - side / 2, side, side])
    keypoints = None
    if (table.keypoints[:, 25:, 2] > 0).any():
        picked = skeletons.convert(table.keypoints, "spin-49", "h36m-17")
        # Where one of the 17 is not annotated there is nothing to feed a lifter with.
        keypoints = picked[..., :2].astype(np.float64) if (picked[..., 2] > 0).all() else None
    return People(list(table.names), np.array(boxes), cameras, keypoints, samples_of_images(table.names))


class Estimates(NamedTuple):
    """What a regressor says of people, in the frames of their photographs' cameras, metres, float32.

    R_local (N, 24, 3, 3) rotations, global orientation first; betas (N, S); transl (N, 3); joints25 (N, 25, 3) the
    network's own joints: SMPL's 24 and the pelvis that Human3.6M's regressor gives.
    """

    R_local: Tensor
    betas: Tensor
    transl: Tensor
    joints25: Tensor


def regress_people(
    regressor: Any, people: People, root: str | Path, *, margin: float = 1.0, batch_size: int = 16
) -> Estimates:
    """Run a regressor over people in photographs.

    Args:
        regressor: has `crop_hw`, `settings`, `body` and `predict(crops, K_crop)`, as `inference.regress.Regressor`.
        root: folder the pictures' paths begin below. margin: factor on the boxes. batch_size: people a forward pass.
    """
    settings, parts = regressor.settings, []
    for start in range(0, len(people.images), batch_size):
        crops = []
        pixels = []
        for k in range(start, min(start + batch_size, len(people.images))):
            crop = make_crop(
                people.cameras[k], people.boxes[k], regressor.crop_hw, margin=margin,
                perspective_rotation=settings.perspective_rotation, reference_pixels=settings.reference_pixels,
            )  # fmt: skip
            pixels.append(crop_image(read_image(Path(root) / people.images[k]).rgb, crop))
            crops.append(crop)
        found = regressor.predict(np.stack(pixels), np.stack([crop.K_crop for crop in crops]))
        R = torch.from_numpy(np.stack([crop.R_crop_from_cam for crop in crops])).float().mT  # camera from crop
        R_local = found.R_local.clone()
        R_local[:, 0] = R @ R_local[:, 0]
        # The body turns about its rest pelvis: t' = R (J0 + t) - J0.
        J0 = regressor.body.rest_joints(found.betas.to(regressor.device)).cpu()[:, 0]
        transl = (R @ (J0 + found.transl)[..., None])[..., 0] - J0
        parts.append(Estimates(R_local, found.betas, transl, found.xyz @ R.mT))
    return Estimates(*(torch.cat([getattr(part, name) for part in parts]) for name in Estimates._fields))


def mesh(estimates: Estimates, body: BodyModel, samples: Samples) -> PosedBodies:
    """The regressed bodies as a source."""
    return PosedBodies(estimates.R_local, estimates.betas, estimates.transl, lambda gender: body, samples)


class HeadMap(NamedTuple):
    """(17, 25) weights, rows summing to one, from a regressor's own joints to "h36m-17"; mean residual in metres.

    The residual is that of bodies the map was not fitted on: what the map adds to an error at most, on average.
    """

    weights: Tensor
    residual_m: float


def fit_head_map(body: BodyModel, *, poses: int = 384, seed: int = 0) -> HeadMap:
    """The linear map that takes SMPL's 24 joints and Human3.6M's pelvis of posed bodies to Human3.6M's 17 joints.

    Least squares on poses of the shipped sampler and random shapes; a third is held out for the residual.
    """
    rng = np.random.default_rng(seed)
    drawn = PoseSampler(None).sample(poses, rng)
    betas = torch.from_numpy(rng.normal(0, 1, (poses, body.num_betas)).astype(np.float32))
    pose, orient = torch.from_numpy(drawn.body_pose), torch.from_numpy(drawn.global_orient)
    with torch.no_grad():
        posed = body(betas, pose, orient)
        wanted = body.regress(posed.vertices, "h36m-17").double()
    inputs = torch.cat([posed.joints.double(), wanted[:, :1]], 1)
    x, y = ((points - inputs[:, :1]).transpose(1, 2) for points in (inputs[:, 1:], wanted))
    fitted = poses * 2 // 3
    solution = torch.linalg.lstsq(x[:fitted].reshape(-1, 24), y[:fitted].reshape(-1, 17)).solution.T
    weights = torch.cat([1 - solution.sum(1, keepdim=True), solution], 1)
    residual = (weights @ inputs[fitted:] - wanted[fitted:]).norm(dim=-1).mean()
    return HeadMap(weights, float(residual))


def head_joints(estimates: Estimates, head_map: HeadMap, samples: Samples) -> StoredJoints:
    """The regressor's own joints, before inverse kinematics, as a source of "h36m-17"."""
    return StoredJoints(head_map.weights @ estimates.joints25.double(), "h36m-17", samples)


def lift_people(lifter: Lifter, people: People) -> StoredJoints:
    """Poses that a lifter makes of the 2D joints, sequence by sequence in the order of frames.

    Args:
        lifter: see `Lifter`; people: with 2D joints.

    Raises:
        ValueError: there are no 2D joints, or the lifter gives another shape.
    """
    if people.keypoints is None:
        raise ValueError("The data set has no 2D joints of all 17 to feed a lifter with. Prepare it with key points.")
    samples = people.samples
    out = torch.full((len(samples), 17, 3), float("nan"), dtype=torch.float64)
    tracks: dict[str, list[int]] = {}
    for k, sequence in enumerate(samples.sequences):
        tracks.setdefault(sequence, []).append(k)
    for rows in tracks.values():
        ordered: Sequence[int] = sorted(rows, key=lambda k: int(samples.frames[k]))
        h, w = people.cameras[ordered[0]].size_hw
        screen = screen_from_pixels(torch.from_numpy(people.keypoints[list(ordered)]).float(), (w, h))[None]
        with torch.no_grad():
            lifted = lifter(screen)
        if tuple(lifted.shape) != (1, len(ordered), 17, 3):
            raise ValueError(
                f"The lifter made {tuple(lifted.shape)} of {tuple(screen.shape)}. Give one that returns "
                f"(1, {len(ordered)}, 17, 3), a pose for every frame."
            )
        out[list(ordered)] = lifted[0].double().cpu()
    return StoredJoints(out, "h36m-17", samples)
