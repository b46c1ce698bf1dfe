"""Geometry buffers: they show the projected person, survive the disk, and say what is wrong with a foreign file."""

from dataclasses import replace

import numpy as np
import pytest

from bodyreg.data.synthetic.shards import PIXEL_BYTES, REST_HIGH, REST_LOW, join_shards, load_shard, save_shard


def test_silhouettes_are_where_the_vertices_project(people):
    shard, gaps = people.shard, []
    for i in range(len(shard)):
        K, V = shard.labels["K_crop"][i], people.scenes.vertices[i]
        px = V[:, :2] / V[:, 2:] * K[0, 0] + K[:2, 2]
        rows, columns = np.nonzero(np.unpackbits(shard.where[i], axis=1, count=96))
        for axis, drawn in ((0, columns), (1, rows)):
            low, high = px[:, axis].min(), px[:, axis].max()
            gaps += [drawn.min() - low] if low > 0 else []
            gaps += [drawn.max() + 1 - high] if high < 96 else []
    # A pixel is drawn when its centre is covered: half a pixel either way, more at tips thinner than a pixel.
    assert len(gaps) > 30 and abs(np.mean(gaps)) < 0.15 and np.abs(gaps).max() < 2.5


def test_buffers_hold_parts_unit_normals_and_rest_positions(people, free_body):
    shard = people.shard
    assert shard.pixels.shape[1] == PIXEL_BYTES and len(shard.pixels) == shard.start[-1]
    assert (np.unpackbits(shard.where, axis=2).sum((1, 2)) == np.diff(shard.start)).all()
    normals = (shard.pixels[:, 1:4].astype(float) - 128) / 127
    assert np.abs(np.linalg.norm(normals, axis=1) - 1).max() < 0.03
    assert (normals[:, 2] < 0.1).mean() > 0.99  # what is seen faces the camera
    rest = REST_LOW + (REST_HIGH - REST_LOW) / 255 * shard.pixels[::97, 4:]
    vertices, part = free_body.v_template.numpy(), free_body.part_labels.numpy()
    distance = np.linalg.norm(rest[:, None] - vertices, axis=-1)
    assert distance.min(1).max() < 0.03
    assert (part[distance.argmin(1)] == shard.pixels[::97, 0]).mean() > 0.9
    inside = (vertices > REST_LOW).all() and (vertices < REST_HIGH).all()
    assert inside


def test_saved_is_read_back_equal(people, tmp_path):
    save_shard(tmp_path / "a.npz", people.shard)
    again = load_shard(tmp_path / "a.npz")
    for name in ("pixels", "where", "start"):
        np.testing.assert_array_equal(getattr(people.shard, name), getattr(again, name))
    for name, value in people.shard.labels.items():
        np.testing.assert_array_equal(value, again.labels[name])
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"] and again.crop_size == 96


def test_joined_shards_keep_each_crop(people):
    n, both = len(people.shard), join_shards([people.shard, people.shard])
    assert len(both) == 2 * n and len(both.start) == 2 * n + 1
    for i in (0, n - 1):
        one = both.pixels[both.start[n + i] : both.start[n + i + 1]]
        np.testing.assert_array_equal(one, people.shard.pixels[people.shard.start[i] : people.shard.start[i + 1]])
    np.testing.assert_array_equal(both.labels["betas"][n:], people.shard.labels["betas"])


def test_shard_of_an_older_kind_is_refused(people, tmp_path):
    labels = {name: value for name, value in people.shard.labels.items() if name != "betas"}
    save_shard(tmp_path / "old.npz", replace(people.shard, labels=labels))
    with pytest.raises(ValueError, match=r"lacks the labels \['betas'\]. Render it again"):
        load_shard(tmp_path / "old.npz")
