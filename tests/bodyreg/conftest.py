"""What several tests need: small bodies of random numbers, and a few synthetic people of the free body."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from bodyreg.body import BodyModel
from bodyreg.body_files import PARENTS
from bodyreg.data.synthetic.poses import PoseSampler
from bodyreg.data.synthetic.scenes import Scenes, SceneSettings, make_scenes
from bodyreg.data.synthetic.shards import Shard, render_buffers, save_shard


def make_smpl_arrays(ring: int = 48, components: int = 10, seed: int = 0) -> dict[str, np.ndarray]:
    """SMPL-format arrays on a double cone of `ring` + 2 vertices: closed, consistently wound, genus 0."""
    rng = np.random.default_rng(seed)
    v_count = ring + 2
    angle = np.arange(ring) * 2 * np.pi / ring
    circle = np.stack([0.4 * np.cos(angle), 0.1 * np.sin(3 * angle), 0.3 * np.sin(angle)], 1)
    template = np.concatenate([circle, [[0.0, 0.9, 0.02], [0.0, -0.9, 0.01]]])
    i, j = np.arange(ring), (np.arange(ring) + 1) % ring
    top, bottom = np.full(ring, ring), np.full(ring, ring + 1)
    weights = rng.random((v_count, 24)) ** 6
    regressor = rng.random((24, v_count)) ** 4
    return {
        "v_template": template,
        "shapedirs": rng.normal(size=(v_count, 3, components)) * 0.02,
        "posedirs": rng.normal(size=(v_count, 3, 207)) * 0.004,
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.array([PARENTS, range(24)], dtype=np.int64),
        "f": np.concatenate([np.stack([j, i, top], 1), np.stack([i, j, bottom], 1)]).astype(np.uint32),
        "kid_template": template * 0.4 + rng.normal(size=(v_count, 3)) * 0.01 + (0.1, 0.5, 0.0),
    }


@pytest.fixture(name="make_smpl_arrays")
def make_smpl_arrays_fixture():
    """The maker itself: call it with a ring size, a number of shape components and a seed."""
    return make_smpl_arrays


@pytest.fixture
def smpl_arrays() -> dict[str, np.ndarray]:
    """A body of 50 vertices and ten shape components."""
    return make_smpl_arrays()


class People(NamedTuple):
    """Synthetic people and the geometry buffers made of them."""

    scenes: Scenes
    shard: Shard


@pytest.fixture(scope="session")
def free_body() -> BodyModel:
    return BodyModel.load("free")


@pytest.fixture(scope="session")
def people(free_body: BodyModel) -> People:
    """Some 24 people of the shipped pose prior in painted clothes, in crops of 96 pixels."""
    return _people(free_body, "painted")


@pytest.fixture(scope="session")
def dressed(free_body: BodyModel) -> People:
    """The same people in garments with a shape of their own."""
    return _people(free_body, "geometry")


def _people(free_body: BodyModel, garments: str) -> People:
    rng = np.random.default_rng(5)
    settings = SceneSettings(crop_size=96, garments=garments)
    scenes = make_scenes(free_body, PoseSampler(None).sample(24, rng), rng, settings)
    rest, part = free_body.v_template.numpy(), free_body.part_labels.numpy()
    return People(scenes, render_buffers(scenes, free_body.faces.numpy(), rest, part, 96))


@pytest.fixture(scope="session")
def shard_folder(people: People, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two shards with `people`."""
    folder = tmp_path_factory.mktemp("shards")
    half, n = len(people.shard) // 2, len(people.shard)
    for k, rows in enumerate((range(half), range(half, n))):
        save_shard(folder / f"shard_{k}.npz", _rows(people.shard, rows))
    return folder


def _rows(shard: Shard, rows: range) -> Shard:
    first, last = shard.start[rows.start], shard.start[rows.stop]
    labels = {name: value[rows.start : rows.stop] for name, value in shard.labels.items()}
    start = shard.start[rows.start : rows.stop + 1] - first
    return Shard(shard.pixels[first:last], shard.where[rows.start : rows.stop], start, labels)
