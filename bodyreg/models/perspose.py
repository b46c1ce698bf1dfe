"""PersPose (Hao and Li, "PersPose: 3D Human Pose Estimation with Perspective Encoding and Perspective Rotation",
ICCV 2025): the network, from a crop and its intrinsics to what inverse kinematics needs.

One class is the whole family. A backbone gives a stride-4 map and a global vector; everything behind it is the paper's:
Perspective Encoding added to an early feature map, heat maps with soft-argmax, root-relative depths, one root density,
orthogonal twists, betas and leaf rotations. The compact member adds two things that pay on a small budget: the global
vector also sees what stands under each joint's heat map, and a dense head (mask, normals, canonical position) gives the
backbone more to learn from in training.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from bodyreg.encoding import mirror_intrinsics, perspective_encoding
from bodyreg.models.decoding import NUM_JOINTS, Decoded, Readout, merge, read_heads, unmirror, unproject

__all__ = ["DENSE_CHANNELS", "PersPose", "RawOutputs", "normalise_image", "scale_intrinsics"]

DENSE_CHANNELS = 7
"""Mask logit, normal in the crop camera's frame (3), canonical position on the rest body (3)."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

UNIT_CROP = 256
"""Heads speak in pixels of a crop this wide, so that weights do not depend on the size a crop is sampled at."""


class RawOutputs(NamedTuple):
    """What the heads return for one pass, before decoding.

    heatmap (B, 25, h/4, w/4) logits; depth (B, 25), rho0 (B, 1) logits; twist (B, 75); shape (B, S) betas;
    leaf (B, 30) five 6D rotations; offset (B, 50) correction of the soft-argmax in crop widths, or None;
    dense (B, 7, h/4, w/4) or None.
    """

    heatmap: torch.Tensor
    depth: torch.Tensor
    rho0: torch.Tensor
    twist: torch.Tensor
    shape: torch.Tensor
    leaf: torch.Tensor
    offset: torch.Tensor | None = None
    dense: torch.Tensor | None = None


def normalise_image(image: torch.Tensor) -> torch.Tensor:
    """(B, 3, h, w) RGB in [0, 1] to the zero-mean, unit-variance input of the backbones (ImageNet statistics)."""
    mean = torch.tensor(IMAGENET_MEAN, dtype=image.dtype, device=image.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, dtype=image.dtype, device=image.device).view(1, 3, 1, 1)
    return (image - mean) / std


class JointPooling(nn.Module):
    """Adds to the global vector the features and viewing rays found under each joint's heat map.

    Args:
        map_channels, vector_channels: of the backbone's outputs.
        joint_channels: features kept a joint.
        hidden: size of the vector returned.
    """

    def __init__(self, map_channels: int, vector_channels: int, joint_channels: int = 48, hidden: int = 640) -> None:
        super().__init__()
        self.vector_channels = hidden
        self.joint_layer = nn.Linear(map_channels + 4, joint_channels)
        self.mix = nn.Sequential(
            nn.Linear(NUM_JOINTS * joint_channels + vector_channels, hidden), nn.LayerNorm(hidden), nn.ReLU(True)
        )
        self.residual = nn.Sequential(
            nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.ReLU(True), nn.Linear(hidden, hidden)
        )

    def forward(
        self, features: torch.Tensor, vector: torch.Tensor, heatmap: torch.Tensor, rays: torch.Tensor
    ) -> torch.Tensor:
        """(B, C, h, w) map, (B, V) vector, (B, 25, h, w) logits, (B, 2, h, w) viewing rays -> (B, hidden)."""
        batch, joints, height, width = heatmap.shape
        share = heatmap.flatten(2).float().softmax(-1).to(features.dtype)
        grid_y, grid_x = torch.meshgrid(
            torch.linspace(-1, 1, height, device=features.device),
            torch.linspace(-1, 1, width, device=features.device),
            indexing="ij",
        )
        grid = torch.stack([grid_x, grid_y]).to(features.dtype).expand(batch, -1, -1, -1)
        columns = torch.cat([features, grid, rays.to(features.dtype)], 1).flatten(2)
        tokens = F.relu(self.joint_layer(share @ columns.transpose(1, 2)))
        mixed = self.mix(torch.cat([tokens.flatten(1), vector], 1))
        return mixed + self.residual(mixed)


class PersPose(nn.Module):
    """Image crop and crop intrinsics to the raw quantities of PersPose.

    Args:
        backbone: module called as backbone(image, encoding) -> (map, vector), with attributes encoding_channels,
            map_channels and vector_channels.
        num_betas: shape components regressed (the paper: 11).
        joint_pooling: let the heads see features under the heat maps (the compact member).
        dense: add the dense training head.
        perspective_encoding: switch of the encoding, for ablation.
    """

    stride = 4

    def __init__(
        self,
        backbone: Any,
        num_betas: int = 11,
        *,
        joint_pooling: bool = False,
        dense: bool = False,
        perspective_encoding: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_betas = num_betas
        self.use_encoding = perspective_encoding
        self.cam_layer = nn.Conv2d(2, backbone.encoding_channels, 1, bias=False)
        nn.init.normal_(self.cam_layer.weight, std=0.01)
        self.hm_layer = nn.Conv2d(backbone.map_channels, NUM_JOINTS, 1)
        self.pooling = JointPooling(backbone.map_channels, backbone.vector_channels) if joint_pooling else None
        width = self.pooling.vector_channels if self.pooling is not None else backbone.vector_channels
        self.depth_layer_global = nn.Linear(width, NUM_JOINTS)
        self.rho0_layer = nn.Linear(width, 1)
        self.twist_layer = nn.Linear(width, 3 * NUM_JOINTS)
        self.shape_layer = nn.Linear(width, num_betas)
        self.leaf_rot_layer = nn.Linear(width, 30)
        # A soft-argmax cannot leave the crop; people cut by the frame need joints that do.
        self.offset_layer = nn.Linear(width, 2 * NUM_JOINTS) if joint_pooling else None
        self.dense_layer = nn.Conv2d(backbone.map_channels, DENSE_CHANNELS, 1) if dense else None

    def forward(self, image: torch.Tensor, K_crop: torch.Tensor, known: torch.Tensor | None = None) -> RawOutputs:
        """One plain pass.

        Args:
            image: (B, 3, h, w) RGB, normalised (see `normalise_image`).
            K_crop: (B, 3, 3) intrinsics of the crop, pixels.
            known: (B,) bool, False where the camera is unknown and the encoding must be silent (COCO); default all.

        Returns:
            Raw head outputs, float32.
        """
        size_hw = (image.shape[-2], image.shape[-1])
        rays = perspective_encoding(K_crop, size_hw, self.stride, known=known).to(image.dtype)
        if not self.use_encoding:
            rays = torch.zeros_like(rays)
        features, vector = self.backbone(image, self.cam_layer(rays))
        heatmap = self.hm_layer(features)
        if self.pooling is not None:
            vector = self.pooling(features, vector, heatmap, rays)
        dense = self.dense_layer(features).float() if self.dense_layer is not None and self.training else None
        return RawOutputs(
            heatmap.float(),
            self.depth_layer_global(vector).float(),
            self.rho0_layer(vector).float(),
            self.twist_layer(vector).float(),
            self.shape_layer(vector).float(),
            self.leaf_rot_layer(vector).float(),
            self.offset_layer(vector).float() if self.offset_layer is not None else None,
            dense,
        )

    def read(self, raw: RawOutputs) -> Readout:
        """Head outputs in units: pixels of a 256-wide crop, metres, rotations."""
        stride = UNIT_CROP / raw.heatmap.shape[-1]
        readout = read_heads(raw.heatmap, raw.depth, raw.rho0, raw.twist, raw.shape, raw.leaf, stride)
        if raw.offset is not None:
            readout = readout._replace(uv=readout.uv + UNIT_CROP * raw.offset.view(-1, NUM_JOINTS, 2))
        return readout

    def predict(self, image: torch.Tensor, K_crop: torch.Tensor, *, flip_test: bool = True) -> Decoded:
        """Metric joints, twists, leaf rotations and betas of crops, crop camera frame.

        Args:
            image: (B, 3, h, w) RGB, normalised. K_crop: (B, 3, 3) intrinsics of the crops, pixels.
            flip_test: average with the mirrored crop (the paper's evaluation).

        Returns:
            Decoded, with uv in pixels of a 256-wide crop and density in metres per such pixel.
        """
        width = image.shape[-1]
        readout = self.read(self(image, K_crop))
        if flip_test:
            mirrored = self.read(self(image.flip(-1), mirror_intrinsics(K_crop, width)))
            readout = merge(readout, unmirror(mirrored, UNIT_CROP))
        return unproject(readout, scale_intrinsics(K_crop, UNIT_CROP / width))


def scale_intrinsics(K: torch.Tensor, factor: float) -> torch.Tensor:
    """(B, 3, 3) intrinsics of the same view sampled `factor` times as finely."""
    scale = torch.tensor([factor, factor, 1.0], dtype=K.dtype, device=K.device)
    return K * scale.view(1, 3, 1)
