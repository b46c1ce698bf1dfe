"""Crowds: boxes hold the people drawn, hidden people are ignored, and nobody is drawn where nobody is said to be."""

import numpy as np
import pytest

from bodyreg.data.synthetic.backgrounds import background_bank
from bodyreg.data.synthetic.compose import View, cut_out_person, paint_person
from bodyreg.data.synthetic.crowds import CELL, Crowds
from bodyreg.data.synthetic.outfits import body_atlas

SIZE = 128


@pytest.fixture(scope="module")
def atlas(free_body):
    return body_atlas(free_body.rest_joints().numpy()[0], free_body.v_template.numpy(), free_body.landmarks)


@pytest.fixture(scope="module")
def scenes(people, atlas):
    bank = background_bank(np.random.default_rng(0), 4, size=SIZE)
    crowds = Crowds(people.shard, atlas, bank, renew=False)
    return [crowds.draw(np.random.default_rng(k)) for k in range(60)]


def test_a_cut_out_laid_over_a_picture_is_the_painted_person(people, atlas):
    size = people.shard.crop_size
    painted = np.full((size, size, 3), 40, np.float32)
    paint_person(painted, people.shard, 0, np.random.default_rng(4), atlas)
    rgb, covered, _ = cut_out_person(people.shard, 0, View(1.0, 0.0, False), size, np.random.default_rng(4), atlas)
    laid = np.full_like(painted, 40) * (1 - covered[..., None]) + rgb
    assert covered.max() == 1 and 0.02 < covered.mean() < 0.9
    assert np.abs(laid - painted).mean() < 3 and np.median(np.abs(laid - painted)[covered == 1]) < 3


@pytest.mark.parametrize("factor", (0.4, 3.0))
def test_a_cut_out_of_another_size_covers_the_same_share(people, atlas, factor):
    shares = []
    for size in (people.shard.crop_size, int(people.shard.crop_size * factor)):
        rgb, covered, _ = cut_out_person(people.shard, 1, View(1.0, 0.3, True), size, np.random.default_rng(0), atlas)
        assert rgb.shape == (size, size, 3) and (rgb[covered == 0] < 1).all()
        shares.append(covered.mean())
    assert shares[1] == pytest.approx(shares[0], rel=0.05)


def test_scenes_are_drawn_from_their_generator_alone(people, atlas, scenes):
    bank = background_bank(np.random.default_rng(0), 4, size=SIZE)
    again = Crowds(people.shard, atlas, bank, renew=False).draw(np.random.default_rng(7))
    assert (again.image == scenes[7].image).all() and (again.boxes == scenes[7].boxes).all()


def test_boxes_lie_in_the_frame_and_hold_all_that_shows_people(scenes):
    shown_outside = []
    for scene in scenes:
        assert scene.image.shape == (SIZE, SIZE, 3) and scene.image.dtype == np.uint8
        assert scene.shown.shape == (SIZE // CELL, SIZE // CELL) and len(scene.boxes) == len(scene.ignored)
        assert (scene.boxes >= 0).all() and (scene.boxes <= SIZE).all()
        assert (scene.boxes[:, 2:] > scene.boxes[:, :2]).all()
        outside = scene.shown.copy()
        for left, top, right, bottom in scene.boxes / CELL:
            outside[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = 0
        shown_outside.append(outside.max())
    assert max(shown_outside) == 0
    counts = np.array([len(scene.boxes) for scene in scenes])
    assert (counts == 0).any() and (counts == 1).any() and (counts > 3).any()


def test_who_is_hardly_seen_is_ignored(scenes):
    boxes = np.concatenate([scene.boxes for scene in scenes])
    ignored = np.concatenate([scene.ignored for scene in scenes])
    assert ignored[(boxes[:, 2:] - boxes[:, :2]).max(1) < 14].all()
    assert 0 < ignored.mean() < 0.6
