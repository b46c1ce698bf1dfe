"""From bodies in their crops' frames to people in their photographs: Perspective Rotation undone, meshes and joints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from bodyreg import skeletons
from bodyreg.body import BodyModel
from bodyreg.cameras import Camera
from bodyreg.crops import Crop, unrotate_smpl
from bodyreg.inference.people import PersonBox
from bodyreg.inference.regress import BodyEstimate
from bodyreg.inference.results import PersonResult
from bodyreg.rotations import aa_from_matrix

__all__ = ["PlacedPerson", "place_people", "project_joints", "saved_joint_sets"]

_NEAREST_M = 0.01  # joints nearer to the camera plane, or behind it, are projected as if they were here


class PlacedPerson(NamedTuple):
    """One person of a photograph: what is saved, and the mesh (V, 3) in the photograph's camera frame, metres."""

    result: PersonResult
    vertices: np.ndarray


def saved_joint_sets(body: BodyModel) -> list[str]:
    """Joint sets that a person's record holds: SMPL's own and all that the body can regress without a further file."""
    known = set(skeletons.names()) - {"h36m-17-left"}  # the same joints as h36m-17 in another order
    return [name for name in body.joint_sets if name in known]


@torch.no_grad()
def place_people(
    estimate: BodyEstimate,
    people: Sequence[PersonBox],
    crops: Sequence[Crop],
    cameras: Sequence[Camera],
    body: BodyModel,
    *,
    model_name: str,
    weights_hash: str,
) -> list[PlacedPerson | None]:
    """Bring a batch of bodies back into their photographs.

    Args:
        estimate: of B bodies, each in the frame of its crop.
        people, crops, cameras: B each: the box, the crop, the camera of the person's photograph.
        body: the body the estimate speaks of.
        model_name, weights_hash: for the record.

    Returns:
        B people; None where the network's numbers are not finite.
    """
    count = len(people)
    R_crop_from_cam = np.stack([crop.R_crop_from_cam for crop in crops])
    R_local = estimate.R_local.double().numpy()
    betas = estimate.betas.double().numpy()
    finite = np.isfinite(R_local).all((1, 2, 3)) & np.isfinite(betas).all(1)
    finite &= torch.isfinite(estimate.transl).all(1).numpy()
    rest_pelvis = body.rest_joints(betas)[:, 0].double().cpu().numpy()
    R_root, transl = unrotate_smpl(R_local[:, 0], estimate.transl.double().numpy(), rest_pelvis, R_crop_from_cam)
    R_cam = torch.from_numpy(np.concatenate([R_root[:, None], R_local[:, 1:]], 1))
    R_cam[torch.from_numpy(~finite)] = torch.eye(3, dtype=R_cam.dtype)
    pose_aa = aa_from_matrix(R_cam).reshape(count, 72).numpy()
    # The mesh is posed from the very numbers that are saved, so that whoever loads them gets this mesh.
    posed = body(betas=betas, body_pose=pose_aa[:, 3:], global_orient=pose_aa[:, :3], transl=transl)
    joints = {"smpl-24": posed.joints}
    for name in saved_joint_sets(body):
        if name not in joints:
            joints[name] = body.regress(posed.vertices, name)
    joints_m = {name: value.double().cpu().numpy() for name, value in joints.items()}
    vertices = posed.vertices.cpu().numpy()
    placed: list[PlacedPerson | None] = []
    for i, (person, crop, camera) in enumerate(zip(people, crops, cameras, strict=True)):
        if not (finite[i] and np.isfinite(vertices[i]).all()):
            placed.append(None)
            continue
        its_joints = {name: value[i] for name, value in joints_m.items()}
        result = PersonResult(
            global_orient=pose_aa[i, :3],
            body_pose=pose_aa[i, 3:],
            betas=betas[i],
            transl=transl[i],
            K=camera.K,
            image_hw=np.array(camera.size_hw),
            box_xywh=person.box_xywh,
            R_crop_from_cam=crop.R_crop_from_cam,
            joints=its_joints,
            keypoints={name: project_joints(camera, value) for name, value in its_joints.items()},
            focal_source=camera.focal_source,
            body_name=body.name,
            body_hash=body.hash,
            gender=body.gender,
            model_name=model_name,
            weights_hash=weights_hash,
            found_by=person.how,
            score=person.score,
        )
        placed.append(PlacedPerson(result, vertices[i]))
    return placed


def project_joints(camera: Camera, joints: np.ndarray) -> np.ndarray:
    """Pixels (J, 2) of joints (J, 3) in the camera frame; those behind the camera as if they were just before it."""
    in_front = joints.copy()
    in_front[:, 2] = np.maximum(in_front[:, 2], _NEAREST_M)
    return camera.project(in_front)
