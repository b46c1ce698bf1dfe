"""Painting: dense labels show the posed body, paint keeps to the silhouette, and a stored picture comes out again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bodyreg.data.synthetic.compose import View, compose, paint_person, random_view
from bodyreg.data.synthetic.outfits import body_atlas
from bodyreg.data.synthetic.shards import load_shard
from bodyreg.data.synthetic.stream import view_labels
from renderers.backends.cpu import rasterize_hard, vertex_normals

FILES = Path(__file__).parent / "files"
GREY = np.full((1, 64, 64, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def atlas(free_body):
    return body_atlas(free_body.rest_joints().numpy()[0], free_body.v_template.numpy(), free_body.landmarks)


@pytest.fixture(scope="module")
def views(people):
    rng = np.random.default_rng(3)
    return [
        View(float(rng.uniform(1, 1.4)), float(rng.uniform(-0.5, 0.5)), bool(k % 2)) for k in range(len(people.shard))
    ]


def test_dense_labels_show_the_body_that_the_labels_pose(people, views, atlas, free_body):
    """Mask, normals and rest positions against the body posed by the view's own labels and drawn anew."""
    labels = view_labels(people.shard.labels, views, 96, 96)
    parents = [max(p, 0) for p in free_body.parents]
    local = labels["R_global"][:, parents].mT @ labels["R_global"]
    transl = labels["joints"][:, 0] - labels["rest_joints"][:, 0]
    with torch.no_grad():
        posed = free_body(labels["betas"], local[:, 1:], labels["R_global"][:, 0], transl).vertices.numpy()
    faces, rest = free_body.faces.numpy().astype(np.int32), free_body.v_template.numpy()
    found = []
    for i, view in enumerate(views):
        _, dense = compose(people.shard, i, view, 96, np.random.default_rng(i), GREY, atlas, augment=False)
        K, px = labels["K_crop"][i].numpy(), posed[i].copy()
        px[:, :2] = (px[:, :2] / px[:, 2:] * K[0, 0] + K[:2, 2]) / 4  # dense cells are four pixels wide
        hard = rasterize_hard(px.astype(np.float32), faces, (24, 24))
        drawn, labelled = hard.face >= 0, dense[0] > 0
        both = drawn & labelled
        corner, weight = faces[hard.face[both]], hard.bary[both][..., None]
        position = (rest[corner] * weight).sum(1)
        normal = (vertex_normals(posed[i].astype(np.float32), faces)[corner] * weight).sum(1)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        found.append((
            both.sum() / (drawn | labelled).sum(),
            np.median(np.linalg.norm(position - dense[4:7][:, both].T, axis=1)),
            np.median((normal * dense[1:4][:, both].T).sum(1)),
        ))  # fmt: skip
    for mirrored in (0, 1):  # clothes are thicker than skin, so not equal; a wrong sign or axis is far off
        overlap, distance, cosine = np.array(found[mirrored::2]).T
        assert overlap.mean() > 0.82 and overlap.min() > 0.7
        assert distance.mean() < 0.02 and distance.max() < 0.04
        assert cosine.mean() > 0.98


def test_paint_keeps_to_the_silhouette(people, atlas):
    view = View(1.0, 0.0, False)
    labels = dict(people.shard.labels, image_hw=np.full((len(people.shard), 2), 1e6, np.float32))
    labels["crop_from_full"] = np.tile(np.float32([[1, 0, -1e5], [0, 1, -1e5], [0, 0, 1]]), (len(people.shard), 1, 1))
    shard = replace(people.shard, labels=labels)  # a frame that cuts nothing off
    for i in range(4):
        picture, dense = compose(shard, i, view, 96, np.random.default_rng(i), GREY, atlas, augment=False)
        inside = np.unpackbits(shard.where[i], axis=1, count=96) > 0
        background = picture[~inside]
        assert (background == background[0]).all()
        assert (picture[inside] != background[0]).any(-1).mean() > 0.95
        assert dense.shape == (7, 24, 24) and set(np.unique(dense[0])) <= {0.0, 1.0}


def test_what_lies_outside_the_photograph_is_black(people, atlas):
    cut = int(people.shard.labels["visible"].argmin())
    view = View(1.0, 0.0, False)
    picture, _ = compose(people.shard, cut, view, 96, np.random.default_rng(0), GREY, atlas, augment=False)
    H = np.linalg.inv(people.shard.labels["crop_from_full"][cut].astype(np.float64))
    y, x = np.mgrid[0:96, 0:96] + 0.5
    full = np.einsum("ij,jhw->ihw", H, np.stack([x, y, np.ones_like(x)]))
    u, v = full[:2] / full[2]
    h, w = people.shard.labels["image_hw"][cut]
    outside = (u < -1e-3) | (v < -1e-3) | (u > w + 1e-3) | (v > h + 1e-3)
    assert outside.any() and not picture[outside].any()
    inside = (u > 1e-3) & (v > 1e-3) & (u < w - 1e-3) & (v < h - 1e-3)
    assert picture[inside].any(-1).mean() > 0.99


def test_stored_pictures_come_out_again():
    """The same buffers, colours and view give the picture that was stored; rounding may differ between processors."""
    shard, stored = load_shard(FILES / "shard.npz"), np.load(FILES / "painted.npz")
    bank = np.full((1, 48, 48, 3), 128, np.uint8)
    views = [View(1.3, 0.0, False), View(1.0, 0.3, True), View(1.4, -0.4, False)]
    for k, view in enumerate(views):
        rng, size = np.random.default_rng(k), 48 if k else 96
        picture, dense = compose(shard, k, view, size, rng, bank, stored["atlas"], augment=False)
        off = np.abs(picture.astype(int) - stored[f"image{k}"])
        assert off.max() <= 1 and (off > 0).mean() < 1e-3
        np.testing.assert_allclose(dense, stored[f"dense{k}"], atol=1e-6)


def test_pictures_depend_on_their_seed_alone(people, atlas, views):
    def draw(seed):
        return compose(people.shard, 0, views[0], 64, np.random.default_rng(seed), GREY, atlas)[0]

    np.testing.assert_array_equal(draw(1), draw(1))
    assert len({draw(seed).tobytes() for seed in range(6)}) == 6


def test_painting_over_a_picture_needs_no_view(people, atlas):
    canvas = np.full((192, 192, 3), 50, np.float32)
    style = paint_person(canvas, people.shard, 1, np.random.default_rng(0), atlas)
    inside = np.unpackbits(people.shard.where[1], axis=1, count=96).repeat(2, 0).repeat(2, 1) > 0
    assert (canvas[~inside] == 50).all() and (canvas[inside] != 50).any(-1).mean() > 0.95
    again = paint_person(canvas, people.shard, 2, np.random.default_rng(9), atlas, like=style)
    assert (again.light == style.light).all() and not (again.colour == style.colour).all()


def test_views_show_the_person_and_some_room():
    rng = np.random.default_rng(0)
    views = [random_view(rng, 1.4, True) for _ in range(300)]
    shows = 1.4 / np.array([view.zoom for view in views])
    assert shows.min() >= 0.95 and shows.max() <= 1.35
    assert 0.4 < np.mean([view.mirrored for view in views]) < 0.6
    assert random_view(rng, 1.4, False) == View(1.4 / 1.1, 0.0, False)
