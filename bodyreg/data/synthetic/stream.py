"""An endless, resumable stream of training batches from geometry shards.

Batch number s is a function of the seed and s alone: a run that stops at step s and starts again there sees exactly the
batches an undisturbed run would have seen.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch

from bodyreg.body import BodyModel
from bodyreg.data.synthetic.backgrounds import background_bank
from bodyreg.data.synthetic.compose import View, compose, random_view
from bodyreg.data.synthetic.outfits import body_atlas
from bodyreg.data.synthetic.scenes import SceneSettings
from bodyreg.data.synthetic.shards import Shard, join_shards, load_shard
from bodyreg.inverse_kinematics import LEAF_JOINTS, ortho_twist
from bodyreg.skeletons import get as joint_set

__all__ = ["ShardStream", "list_shards", "view_labels"]

_PRODUCERS = 2


def list_shards(folder: str | Path) -> list[Path]:
    """The shards of a folder, in order of name.

    Raises:
        ValueError: there are none.
    """
    paths = sorted(Path(folder).glob("*.npz"))
    if not paths:
        raise ValueError(f"{folder} holds no shards. Make some with `bodyreg prepare synthetic --out {folder}`.")
    return paths


class ShardStream(torch.utils.data.IterableDataset):
    """Batches of synthetic crops with labels, forever.

    Args:
        folder: geometry shards. body: the body they were made with. crop_size: side of the pictures, pixels.
        batch_size: pictures a batch. seed: of everything drawn. start: first batch to give.
        augment: False shows every crop upright at 1.1 times its box without occluders, blur or noise.
        backgrounds: the user's pictures; None draws procedural ones. bank_size: how many are kept.
        pool: shards mixed at a time. easy_until: before this batch only scenes with the whole person in view.
        rank, world: this process among several; each gets every world-th batch.
        perspective_rotation: whether the shards must have been made with it.
        parsing: batches also hold parsing (B, S, S) uint8 as `compose` gives it, and looseness and clearance (B,).

    Raises:
        ValueError: the folder holds no shards, or shards made the other way.
    """

    def __init__(
        self, folder: str | Path, body: BodyModel, *, crop_size: int = 192, batch_size: int = 64, seed: int = 0,
        start: int = 0, augment: bool = True, backgrounds: str | Path | None = None, bank_size: int = 400,
        pool: int = 8, easy_until: int = 0, rank: int = 0, world: int = 1, perspective_rotation: bool = True,
        parsing: bool = False,
    ) -> None:  # fmt: skip
        self.paths = list_shards(folder)
        self.crop_size, self.batch_size, self.seed, self.start = crop_size, batch_size, seed, start
        self.augment, self.pool, self.easy_until = augment, pool, easy_until
        self.rank, self.world = rank, world
        self.room, self.parsing = SceneSettings().room, parsing
        self.backgrounds, self.bank_size = backgrounds, bank_size
        rest = body.v_template.detach().cpu().numpy()
        self.atlas = body_atlas(body.rest_joints().detach().cpu().numpy()[0], rest, body.landmarks)
        crown, sole = int(rest[:, 1].argmax()), int(rest[:, 1].argmin())
        dirs = body.shapedirs.detach().cpu().numpy()
        self._height = (rest[crown, 1] - rest[sole, 1], dirs[crown, 1, :10] - dirs[sole, 1, :10])
        self._cached: tuple[tuple[int, int], Shard] | None = None
        self._bank: np.ndarray | None = None
        self._lock = threading.Lock()
        first = load_shard(self.paths[0])
        self._per_shard = len(first)
        if first.rotated != perspective_rotation:
            made, other = ("with", "--no-perspective-rotation") if first.rotated else ("without", "no such option")
            raise ValueError(
                f"The crops in {folder} were made {made} Perspective Rotation and the model has it the other way. Set "
                f"model.perspective_rotation or render others with `bodyreg prepare synthetic` and {other}."
            )

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        with ThreadPoolExecutor(_PRODUCERS) as producer:
            step = self.start * self.world + self.rank
            ready = [producer.submit(self.batch, step + k * self.world) for k in range(_PRODUCERS)]
            step += _PRODUCERS * self.world
            while True:
                batch = ready.pop(0).result()
                ready.append(producer.submit(self.batch, step))
                step += self.world
                yield batch

    def upto(self, end: int, workers: int = 0) -> Iterator[dict[str, torch.Tensor]]:
        """Batches from `start` until this process has given number `end`, exclusive, of its own.

        Args:
            workers: processes that paint, forked from this one, so on Linux and macOS; 0 paints in two threads of this
                one, which a fast accelerator outruns.
        """
        if not workers:
            yield from itertools.islice(self, end - self.start)
            return
        numbers = range(self.start * self.world + self.rank, end * self.world, self.world)
        yield from torch.utils.data.DataLoader(
            _Numbered(self), batch_size=None, sampler=numbers, num_workers=workers, prefetch_factor=2,
            multiprocessing_context="fork", worker_init_fn=lambda _: cv2.setNumThreads(0),
        )  # fmt: skip

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """Batch number `step`.

        Returns:
            The entries of `view_labels`, and image (B, 3, S, S) uint8 RGB, dense (B, 7, S / 4, S / 4) as `compose`
            gives it, height (B,), the person's stature in the rest pose, metres, and fov_rad, off_axis_rad (B,): field
            of view of the photograph's long side, and how far the box's centre is from the optical axis.
        """
        with self._lock:
            shard, rows = self._rows(step)
        return self._draw(shard, rows, step)

    def once(self, people: int | None = None) -> Iterator[dict[str, torch.Tensor]]:
        """Every crop of the folder once, or the first `people` of them; the last batch may be smaller.

        Batches are the first ones of a stream whose pool is the whole folder.
        """
        order = np.random.default_rng([self.seed, 2, 0]).permutation(len(self.paths))
        shard = join_shards([load_shard(self.paths[i]) for i in order])
        rows = np.random.default_rng([self.seed, 3, 0]).permutation(len(shard))[:people]
        for step, start in enumerate(range(0, len(rows), self.batch_size)):
            yield self._draw(shard, rows[start : start + self.batch_size], step)

    def _draw(self, shard: Shard, rows: np.ndarray, step: int) -> dict[str, torch.Tensor]:
        with self._lock:
            if self._bank is None:
                bank_rng = np.random.default_rng([self.seed, 7])
                self._bank = background_bank(bank_rng, self.bank_size, self.backgrounds)
        images = np.empty((len(rows), self.crop_size, self.crop_size, 3), np.uint8)
        dense = np.empty((len(rows), 7, self.crop_size // 4, self.crop_size // 4), np.float32)
        parsing = np.empty((len(rows), self.crop_size, self.crop_size), np.uint8) if self.parsing else None
        views = []
        for k, row in enumerate(rows):
            rng = np.random.default_rng([self.seed, 1, step, k])
            views.append(random_view(rng, self.room, self.augment))
            images[k], dense[k] = compose(
                shard, int(row), views[k], self.crop_size, rng, self._bank, self.atlas, augment=self.augment,
                parsing=None if parsing is None else parsing[k],
            )  # fmt: skip
        labels = {name: value[rows] for name, value in shard.labels.items()}
        batch = view_labels(labels, views, shard.crop_size, self.crop_size)
        batch["height"] = torch.from_numpy((self._height[0] + labels["betas"] @ self._height[1]).astype(np.float32))
        fov, off_axis = _view_angles(labels)
        batch["fov_rad"], batch["off_axis_rad"] = torch.from_numpy(fov), torch.from_numpy(off_axis)
        batch["image"] = torch.from_numpy(images).permute(0, 3, 1, 2)
        batch["dense"] = torch.from_numpy(dense)
        if parsing is not None:
            batch["parsing"] = torch.from_numpy(parsing)
            batch |= {name: torch.from_numpy(labels[name]) for name in ("looseness", "clearance")}
        return batch

    def _rows(self, step: int) -> tuple[Shard, np.ndarray]:
        """The pool of shards that batch `step` draws from, and its rows."""
        pool = min(self.pool, len(self.paths))
        batches_a_pool = max(1, pool * self._per_shard // self.batch_size)
        pools_an_epoch = max(1, len(self.paths) // pool)
        number, inner = divmod(step, batches_a_pool)
        epoch, which = divmod(number, pools_an_epoch)
        cached = self._cached
        if cached is None or cached[0] != (epoch, which):
            order = np.random.default_rng([self.seed, 2, epoch]).permutation(len(self.paths))
            chosen = order[which * pool : (which + 1) * pool]
            cached = ((epoch, which), join_shards([load_shard(self.paths[i]) for i in chosen]))
            self._cached = cached
        shard = cached[1]
        rows = np.random.default_rng([self.seed, 3, number]).permutation(len(shard))
        if step < self.easy_until:
            easy = rows[shard.labels["visible"][rows] > 0.95]
            rows = easy if len(easy) else rows
        start = inner * self.batch_size
        return shard, rows[np.arange(start, start + self.batch_size) % len(rows)]


class _Numbered(torch.utils.data.Dataset):
    """The batches of a stream by number."""

    def __init__(self, stream: ShardStream) -> None:
        self.stream = stream

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return self.stream.batch(number)


def _view_angles(labels: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Field of view of each photograph's long side and angle of the box's centre off its axis, radians, float32."""
    K, box = labels["K"], labels["box_xywh"]
    focal = K[:, [0, 1], [0, 1]]
    slope = (box[:, :2] + box[:, 2:] / 2 - K[:, :2, 2]) / focal
    fov = 2 * np.arctan(labels["image_hw"].max(1) / 2 / focal[:, 0])
    return fov.astype(np.float32), np.arctan(np.linalg.norm(slope, axis=1)).astype(np.float32)


def view_labels(labels: dict[str, np.ndarray], views: list[View], stored: int, size: int) -> dict[str, torch.Tensor]:
    """Labels of stored crops as they are seen through `views`.

    Args:
        labels: as in `scenes.LABELS`, n rows. views: n. stored, size: sides of the stored and the shown crop, pixels.

    Returns:
        float32 tensors, in the camera frame of the shown crop: K_crop (n, 3, 3); joints (n, 25, 3) metres, the last the
        middle of the hip joints, a stand-in for the pelvis of Human3.6M's regressor, which on the free body is there at
        rest and some 2 cm away in poses (no score and no inverse kinematics uses it); R_global (n, 24, 3, 3);
        rest_joints (n, 24, 3), not mirrored; twist (n, 24, 3) unit; leaf (n, 5, 3, 3) local rotations of
        `LEAF_JOINTS`; betas (n, 10).
    """
    turn = np.array([v.turn for v in views])
    zoom = np.array([v.zoom for v in views])
    flip = np.array([v.mirrored for v in views])
    n = len(views)
    c, s, o, one = np.cos(turn), np.sin(turn), np.zeros(n), np.ones(n)
    R_turn = np.stack([c, -s, o, s, c, o, o, o, one], -1).reshape(n, 3, 3)
    mirror = np.array(joint_set("smpl-24").mirror)
    D = np.diag([-1.0, 1.0, 1.0])

    joints = np.einsum("nij,nkj->nki", R_turn, labels["joints"])
    R_global = R_turn[:, None] @ labels["R_global"]
    joints = np.where(flip[:, None, None], joints[:, mirror] @ D, joints)
    R_global = np.where(flip[:, None, None, None], D @ R_global[:, mirror] @ D, R_global)
    K = np.zeros((n, 3, 3))
    K[:, 0, 0] = K[:, 1, 1] = labels["K_crop"][:, 0, 0] * zoom * size / stored
    # The principal point moves as any pixel does; Perspective Rotation has put it in the middle, where it stays.
    pp = np.einsum("nij,nj->ni", R_turn[:, :2, :2], labels["K_crop"][:, :2, 2].astype(np.float64) - stored / 2)
    pp = np.where(flip[:, None], pp * [-1, 1], pp) * (zoom * size / stored)[:, None]
    K[:, :2, 2] = size / 2 + pp
    K[:, 2, 2] = 1
    parents = np.array(joint_set("smpl-24").parents)
    local = np.swapaxes(R_global[:, parents], -1, -2) @ R_global
    rest = torch.from_numpy(labels["rest_joints"].astype(np.float32))
    rotations = torch.from_numpy(R_global.astype(np.float32))
    twist = ortho_twist(rest, rotations)
    joints = np.concatenate([joints, joints[:, [1, 2]].mean(1, keepdims=True)], 1)
    return {
        "K_crop": torch.from_numpy(K.astype(np.float32)),
        "joints": torch.from_numpy(joints.astype(np.float32)),
        "R_global": rotations,
        "rest_joints": rest,
        "twist": twist,
        "leaf": torch.from_numpy(local[:, list(LEAF_JOINTS)].astype(np.float32)),
        "betas": torch.from_numpy(labels["betas"].astype(np.float32)),
    }
