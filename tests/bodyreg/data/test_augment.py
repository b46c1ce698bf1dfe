"""Augmentation: probabilities and ranges as published, pixels stay pixels, the generator decides everything."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bodyreg.data.augment import Augmentation, change_pixels, cut_out, draw_augmentation


def test_probabilities_and_ranges():
    rng = np.random.default_rng(0)
    drawn = [draw_augmentation(rng) for _ in range(4000)]
    share = lambda predicate: np.mean([predicate(a) for a in drawn])  # noqa: E731
    assert share(lambda a: a.pixels) == pytest.approx(0.8, abs=0.03)
    assert share(lambda a: a.in_plane_rad != 0) == pytest.approx(0.4, abs=0.03)
    assert share(lambda a: a.scale != 1) == pytest.approx(0.16, abs=0.03)
    assert share(lambda a: a.cut_out) == pytest.approx(0.32, abs=0.03)
    assert all(a == Augmentation() for a in drawn if not a.pixels)
    turns, scales = [a.in_plane_rad for a in drawn], [a.scale for a in drawn]
    assert -math.pi / 6 <= min(turns) < -0.5 and 0.5 < max(turns) <= math.pi / 6
    assert 0.7 <= min(scales) < 0.72 and max(scales) <= 1.1


def test_aim_is_drawn_only_where_asked_and_for_every_sample():
    rng = np.random.default_rng(0)
    aims = np.array([draw_augmentation(rng, aim_jitter=True).aim for _ in range(500)])
    assert (aims != 0).all() and 0.09 < np.abs(aims).max() <= 0.1


def test_cut_out_hides_one_rectangle():
    rng = np.random.default_rng(3)
    image = np.full((64, 48, 3), 77, np.uint8)
    flat = 0
    for _ in range(40):
        hidden = (cut_out(image, rng) != 77).any(-1)
        rows, columns = np.flatnonzero(hidden.any(1)), np.flatnonzero(hidden.any(0))
        inside = hidden[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert inside.mean() > 0.97 and 0.01 < hidden.mean() <= 0.41
        flat += len(np.unique(cut_out(image, rng)[..., 0])) == 2
    assert (image == 77).all() and 8 < flat < 32


def test_pixels_change_within_their_range_and_by_the_generator_alone():
    image = np.random.default_rng(0).integers(0, 256, (32, 24, 3), dtype=np.uint8)
    kept = image.copy()
    results = [change_pixels(image, np.random.default_rng(seed)) for seed in range(60)]
    assert (image == kept).all()
    assert all(r.shape == image.shape and r.dtype == np.uint8 for r in results)
    assert (change_pixels(image, np.random.default_rng(5)) == results[5]).all()
    unchanged = np.mean([(r == image).all() for r in results])
    assert 0.02 < unchanged < 0.35  # .9 x .7 x .5 x .5 x .9 = 0.14
    assert any((r[..., 0] == r[..., 1]).all() for r in results)  # grey


@pytest.mark.parametrize("value", [0, 255])
def test_black_and_white_survive(value):
    for seed in range(30):
        change_pixels(np.full((8, 8, 3), value, np.uint8), np.random.default_rng(seed))
