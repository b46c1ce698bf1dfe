"""The 21 figures that PersPose logs for a batch of mixed data sets (Hao and Li, ICCV 2025, released training code).

They watch training; results for tables come from the protocols, which average over samples and not over batches.
"""

from __future__ import annotations

from torch import Tensor

from bodyreg.evaluation.metrics import align, angle_between, normed_difference, point_errors
from bodyreg.losses.keypoints import masked_mean
from bodyreg.losses.perspose import (
    COCO_JOINTS,
    MPI3DHP_JOINTS,
    PersPoseTargets,
    coco_targets,
    mpi3dhp_targets,
    smpl_targets,
)
from bodyreg.losses.smpl import TWIST_JOINTS
from bodyreg.models.decoding import Decoded

__all__ = ["EVALUATED_14", "logged_figures"]

EVALUATED_14 = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)
"""Joints of Human3.6M's order that 3DPW and Human3.6M are scored on."""


def logged_figures(
    decoded: Decoded,
    targets: PersPoseTargets,
    joints17: Tensor,
    vertices: Tensor,
    true_joints17: Tensor,
    true_vertices: Tensor,
) -> dict[str, Tensor]:
    """Figures by name, in the log's order: pixels, centimetres, degrees, mm a pixel; the last five metres.

    Args:
        decoded: what the network says, in pixels of the targets' crops.
        targets: labels of the batch.
        joints17, vertices: (B, 17, 3), (B, V, 3) of the predicted body, Human3.6M's regressor.
        true_joints17, true_vertices: the same of the true body; only samples with SMPL labels count.
    """
    smpl, mpi = smpl_targets(targets), mpi3dhp_targets(targets)
    uv_coco, mask_coco = coco_targets(targets)
    is_smpl, is_3dhp, rows = targets.is_smpl[:, None], targets.is_3dhp[:, None], list(MPI3DHP_JOINTS[1])
    mm = 1000 * decoded.density[..., 0]

    depth, true_depth = decoded.depth, (smpl.points - smpl.points[:, :1])[..., 2:]
    depth_mpi = decoded.depth[:, rows] - decoded.depth[:, 24:]
    true_mpi = (mpi.points - mpi.points[:, :1])[..., 2:]
    xyz, true_xyz = decoded.xyz[:, :24], (smpl.points - smpl.points[:, :1])[:, :24]
    xyz_error = 100 * (xyz - true_xyz).abs()
    twists = list(TWIST_JOINTS)
    twist_angle = angle_between(decoded.ortho_twist[:, twists], targets.twist[:, twists]).rad2deg()

    # Bodies about their regressed pelvis; 14 joints where the truth is a mesh, all 17 of MPI-INF-3DHP.
    pelvis, true_pelvis = joints17[:, :1], true_joints17[:, :1]
    body14, true14 = (joints17 - pelvis)[:, EVALUATED_14], (true_joints17 - true_pelvis)[:, EVALUATED_14]
    body17, true17 = joints17 - pelvis, targets.joints17_3dhp - targets.joints17_3dhp[:, :1]
    return {
        "err_uv": masked_mean(point_errors_2d(decoded.uv, smpl.uv)[:, :24], smpl.mask[:, :24]),
        "err_uv_coco": masked_mean(point_errors_2d(decoded.uv[:, COCO_JOINTS[1]], uv_coco), mask_coco),
        "err_uv_hp3d": masked_mean(point_errors_2d(decoded.uv[:, rows], mpi.uv), mpi.mask),
        "err_d": masked_mean(100 * (depth - true_depth).abs()[..., 0], smpl.mask),
        "err_d_aligned": masked_mean(100 * normed_difference(depth, true_depth).abs()[..., 0], smpl.mask),
        "err_d_hp3d": masked_mean(100 * (depth_mpi - true_mpi).abs()[..., 0], mpi.mask),
        "err_d_aligned_hp3d": masked_mean(100 * normed_difference(depth_mpi, true_mpi).abs()[..., 0], mpi.mask),
        "err_rho0": masked_mean((mm[:, :1] - smpl.density[:, 0]).abs(), is_smpl),
        "err_rho0_hp3d": masked_mean((mm[:, 24:] - mpi.density[:, 0]).abs(), is_3dhp),
        "err_xyz": masked_mean(100 * point_errors(xyz, true_xyz), is_smpl),
        "err_x": masked_mean(xyz_error[..., 0], is_smpl),
        "err_y": masked_mean(xyz_error[..., 1], is_smpl),
        "err_z": masked_mean(xyz_error[..., 2], is_smpl),
        "err_xyz_aligned": masked_mean(100 * normed_difference(xyz, true_xyz).norm(dim=-1), is_smpl),
        "err_h": mm.new_zeros(()),
        "err_twist": masked_mean(twist_angle, is_smpl),
        "MPJPE": masked_mean(point_errors(body14, true14), is_smpl),
        "PA_MPJPE": masked_mean(point_errors(align(body14, true14).aligned, true14), is_smpl),
        "MPVPE": masked_mean(point_errors(vertices - pelvis, true_vertices - true_pelvis), is_smpl),
        "MPJPE_hp3d": masked_mean(point_errors(body17, true17), is_3dhp),
        "PA_MPJPE_hp3d": masked_mean(point_errors(align(body17, true17).aligned, true17), is_3dhp),
    }


def point_errors_2d(pred: Tensor, true: Tensor) -> Tensor:
    """(..., J) distances of pixels (..., J, 2)."""
    return (pred - true).norm(dim=-1)
