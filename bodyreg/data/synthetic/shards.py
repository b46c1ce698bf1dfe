"""Geometry buffers on disk: what is visible at every pixel of a crop, before any light, colour or background.

Rendered once, painted anew each time they are drawn (`compose`), so light, cloth and background never repeat. Only
pixels that show the person are kept: part label (1 byte), normal (3), rest position (3), plus one bit a pixel saying
where they are; of garments with a shape of their own also the clothing label (1 byte). A shard is one npz without
pickles.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bodyreg.data.synthetic.garment_labels import lip_label
from bodyreg.data.synthetic.garments import painted_looseness
from bodyreg.data.synthetic.outfits import OUTFIT
from bodyreg.data.synthetic.scenes import LABELS, Scenes
from bodyreg.files import atomic_write
from renderers.backends.cpu import Hard, rasterize_hard
from renderers.backends.jit import kernel
from renderers.threads import map_threads

__all__ = [
    "PIXEL_BYTES", "REST_HIGH", "REST_LOW", "Shard", "join_shards", "label_image", "load_shard", "render_buffers",
    "save_shard",
]  # fmt: skip

PIXEL_BYTES = 7
_OF_CLOTHES = {"fit", "looseness", "clearance"}  # labels that the first shards of painted people lack
REST_LOW = np.array([-0.9, -1.05, -0.2], np.float32)
REST_HIGH = np.array([0.9, 0.75, 0.2], np.float32)
"""Corners of the box, metres, in which rest positions are stored with eight bits an axis."""


@dataclass(frozen=True)
class Shard:
    """Geometry buffers of n crops.

    pixels (P, 7) uint8 (part, normal x y z, rest x y z), or (P, 8) with the label code of `garment_labels.lip_label`
    where people wear garments with a shape of their own and not painted ones; where (n, R, R / 8) uint8 bit mask, row
    by row; start (n + 1) int64 first pixel of each crop; labels: name -> (n, ...) float32.
    """

    pixels: np.ndarray
    where: np.ndarray
    start: np.ndarray
    labels: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.where)

    @property
    def crop_size(self) -> int:
        """Side of the stored crops, pixels."""
        return int(self.where.shape[1])

    @property
    def garments(self) -> str:
        """What people wear: "geometry" or "painted", see `SceneSettings.garments`."""
        return "geometry" if self.pixels.shape[1] > PIXEL_BYTES else "painted"

    @property
    def rotated(self) -> bool:
        """Were the crops made with Perspective Rotation?"""
        return bool((self.labels["R_crop_from_cam"] != np.eye(3)).any())


@kernel
def _pack(face, bary, faces, normals, rest_unit, part, out):  # noqa: ANN001, ANN202
    count = 0
    for r in range(face.shape[0]):
        for c in range(face.shape[1]):
            f = face[r, c]
            if f < 0:
                continue
            i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
            a, b, d = bary[r, c, 0], bary[r, c, 1], bary[r, c, 2]
            out[count, 0] = part[i] if (a >= b and a >= d) else (part[j] if b >= d else part[k])
            nx = a * normals[i, 0] + b * normals[j, 0] + d * normals[k, 0]
            ny = a * normals[i, 1] + b * normals[j, 1] + d * normals[k, 1]
            nz = a * normals[i, 2] + b * normals[j, 2] + d * normals[k, 2]
            scale = 127.0 / max(np.sqrt(nx * nx + ny * ny + nz * nz), 1e-6)
            out[count, 1] = np.uint8(128.0 + nx * scale)
            out[count, 2] = np.uint8(128.0 + ny * scale)
            out[count, 3] = np.uint8(128.0 + nz * scale)
            for axis in range(3):
                value = a * rest_unit[i, axis] + b * rest_unit[j, axis] + d * rest_unit[k, axis]
                out[count, 4 + axis] = np.uint8(min(max(value * 255.0 + 0.5, 0.0), 255.0))
            count += 1
    return count


@kernel
def _pack_labels(face, bary, faces, fields, upper_kind, lower_kind, out):  # noqa: ANN001, ANN202
    count = 0
    mixed = np.empty(fields.shape[1], np.float32)
    for r in range(face.shape[0]):
        for c in range(face.shape[1]):
            f = face[r, c]
            if f < 0:
                continue
            i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
            a, b, d = bary[r, c, 0], bary[r, c, 1], bary[r, c, 2]
            for n in range(len(mixed)):
                mixed[n] = a * fields[i, n] + b * fields[j, n] + d * fields[k, n]
            out[count] = lip_label(mixed, upper_kind, lower_kind)
            count += 1


def label_image(hard: Hard, faces: np.ndarray, fields: np.ndarray, outfit: np.ndarray) -> np.ndarray:
    """(H, W) uint8 label codes (`garment_labels.lip_label`) of what `rasterize_hard` found, 0 where that is nothing.

    faces (F, 3); fields (V, 14) of the person's vertices; outfit (19,).
    """
    inside = hard.face >= 0
    packed, out = np.empty(int(inside.sum()), np.uint8), np.zeros(hard.face.shape, np.uint8)
    upper, lower = outfit[OUTFIT().upper_kind], outfit[OUTFIT().lower_kind]
    _pack_labels(hard.face, hard.bary, np.ascontiguousarray(faces, np.int32), fields, upper, lower, packed)
    out[inside] = packed
    return out


def render_buffers(
    scenes: Scenes, faces: np.ndarray, rest: np.ndarray, part: np.ndarray, crop_size: int, threads: int = 1
) -> Shard:
    """Rasterise scenes into geometry buffers.

    Args:
        scenes: clothed bodies in their crop frames. faces: (F, 3). rest: (V, 3) rest body, metres. part: (V,) labels.
        crop_size: side of the crops, pixels.
        threads: crops worked on at once.
    """
    faces = np.ascontiguousarray(faces, np.int32)
    rest_unit = ((rest - REST_LOW) / (REST_HIGH - REST_LOW)).astype(np.float32)
    part = np.ascontiguousarray(part, np.uint8)
    width = PIXEL_BYTES if scenes.fields is None else PIXEL_BYTES + 1

    def one(i: int) -> tuple[np.ndarray, np.ndarray]:
        K, points = scenes.labels["K_crop"][i], scenes.vertices[i]
        px = np.empty_like(points)
        px[:, :2] = points[:, :2] / points[:, 2:] * np.array([K[0, 0], K[1, 1]]) + K[:2, 2]
        px[:, 2] = points[:, 2]
        hard = rasterize_hard(px, faces, (crop_size, crop_size))
        inside = hard.face >= 0
        packed = np.empty((int(inside.sum()), width), np.uint8)
        _pack(hard.face, hard.bary, faces, scenes.normals[i], rest_unit, part, packed)
        if scenes.fields is not None:
            labels = label_image(hard, faces, scenes.fields[i], scenes.labels["outfit"][i])
            packed[:, PIXEL_BYTES] = labels[inside]
        return packed, np.packbits(inside, axis=1)

    results = map_threads(one, range(len(scenes.vertices)), threads=threads)
    start = np.zeros(len(results) + 1, np.int64)
    start[1:] = np.cumsum([len(packed) for packed, _ in results])
    return Shard(
        np.concatenate([packed for packed, _ in results]) if results else np.zeros((0, width), np.uint8),
        np.stack([mask for _, mask in results])
        if results
        else np.zeros((0, crop_size, (crop_size + 7) // 8), np.uint8),
        start,
        scenes.labels,
    )


def join_shards(shards: list[Shard]) -> Shard:
    """One shard holding the crops of several, in order.

    Raises:
        ValueError: people wear painted clothes in some and garments with a shape of their own in others.
    """
    if len({s.garments for s in shards}) > 1:
        raise ValueError(
            "Some shards hold people in painted clothes, others in garments with a shape. "
            "Keep them in folders of their own."
        )
    offsets = np.cumsum([0] + [len(s.pixels) for s in shards])
    return Shard(
        np.concatenate([s.pixels for s in shards]),
        np.concatenate([s.where for s in shards]),
        np.concatenate([s.start[:-1] + o for s, o in zip(shards, offsets, strict=False)] + [offsets[-1:]]),
        {name: np.concatenate([s.labels[name] for s in shards]) for name in shards[0].labels},
    )


def save_shard(path: str | Path, shard: Shard) -> None:
    """Write a shard under its final name only when it is whole."""
    labels: dict[str, Any] = {f"label/{name}": value for name, value in shard.labels.items()}
    with atomic_write(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, pixels=shard.pixels, where=shard.where, start=shard.start, **labels)


def load_shard(path: str | Path) -> Shard:
    """Read a shard written by `save_shard`; what older ones do not say of painted clothes is filled in.

    Raises:
        ValueError: the file lacks labels, because an older version or another program wrote it.
    """
    with np.load(path, allow_pickle=False) as data:
        found = {name: data[f"label/{name}"] for name in LABELS if f"label/{name}" in data.files}
        if "outfit" in found and not _OF_CLOTHES & set(found):
            looseness, clearance = painted_looseness(found["outfit"])
            fit = np.zeros((len(looseness), *LABELS["fit"]), np.float32)
            found |= {"fit": fit, "looseness": looseness, "clearance": clearance}
        missing = [name for name in LABELS if name not in found]
        if missing:
            raise ValueError(f"{path} lacks the labels {missing}. Render it again with `bodyreg prepare synthetic`.")
        labels = {name: found[name] for name in LABELS}
        return Shard(data["pixels"], data["where"], data["start"], labels)
