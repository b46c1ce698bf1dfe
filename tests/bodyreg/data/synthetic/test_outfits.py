"""Painted outfits: labels lie where clothes lie, mirror with the person, and push the surface outwards only."""

import numpy as np
import pytest

from bodyreg.data.synthetic.outfits import LIP, OUTFIT, body_atlas, inflate, label_at, mirror_label, sample_outfits

FIELD = OUTFIT()


@pytest.fixture(scope="module")
def rest(free_body):
    vertices = free_body.v_template.numpy()
    atlas = body_atlas(free_body.rest_joints().numpy()[0], vertices, free_body.landmarks)
    return vertices, free_body.part_labels.numpy().astype(np.int64), atlas


def labels(rest, outfit):
    vertices, part, atlas = rest
    return np.array([label_at(p, *v, atlas, outfit) for p, v in zip(part, vertices.astype(float), strict=True)])


def plain_outfit(**fields) -> np.ndarray:
    """T-shirt, trousers to the ankle, shoes, hair."""
    values = dict(sleeve=0.4, shirt_hem=0.0, trouser_end=0.97, neckline=1.0, sock_start=2, shod=1, hair_tilt=0.75)
    values |= dict(hat_offset=3, upper_kind=5, lower_kind=9) | fields
    outfit = np.zeros(len(FIELD), np.float32)
    for name, value in values.items():
        outfit[getattr(FIELD, name)] = value
    return outfit


def share(found, name):
    return float((found == LIP.index(name)).mean())


def test_every_limb_has_its_label(rest, free_body):
    found = labels(rest, plain_outfit())
    where = {name: found[free_body.landmarks[name]] for name in ("nose", "left_thumb", "right_thumb", "left_big_toe")}
    assert [LIP[where[name]] for name in where] == ["face", "left_arm", "right_arm", "left_shoe"]
    J = free_body.rest_joints().numpy()[0]
    vertices = rest[0]
    for joint, name in ((9, "upper_clothes"), (4, "pants"), (5, "pants"), (18, "left_arm"), (19, "right_arm")):
        nearest = np.linalg.norm(vertices - J[joint], axis=1).argsort()[:10]
        assert {LIP[k] for k in found[nearest]} == {name}
    assert share(found, "hair") > 0.02 and share(found, "hat") == 0


@pytest.mark.parametrize(
    "change, more, less",
    [
        ({"sleeve": 0.98}, "upper_clothes", "left_arm"),
        ({"trouser_end": 0.3}, "left_leg", "pants"),
        ({"shod": 0, "trouser_end": 0.8}, "right_leg", "right_shoe"),
        ({"gloved": 1}, "gloves", "right_arm"),
        ({"hat_offset": 0.3}, "hat", "hair"),
        ({"upper_kind": 7, "shirt_hem": 0.5}, "coat", "pants"),
        ({"sock_start": 0.6, "trouser_end": 0.5}, "socks", "pants"),
    ],
)
def test_fields_do_what_they_say(rest, change, more, less):
    before, after = labels(rest, plain_outfit()), labels(rest, plain_outfit(**change))
    assert share(after, more) > share(before, more) and share(after, less) < share(before, less)


def test_labels_mirror_with_the_body(rest, free_body):
    outfit = plain_outfit()
    found, mirrored = labels(rest, outfit), free_body.mirror.numpy()
    beside_middle = np.abs(rest[0][:, 0]) > 1e-3
    agree = mirror_label(found)[beside_middle] == found[mirrored][beside_middle]
    assert agree.mean() > 0.995
    assert (mirror_label(mirror_label(np.arange(20))) == np.arange(20)).all()


def test_clothes_push_outwards_along_normals(rest):
    vertices, part, atlas = rest
    normals = np.tile(np.float32([0, 0, 1]), (len(vertices), 1))
    outfit = plain_outfit(upper_thick=0.01, fold=0.004)
    moved = inflate(vertices, normals, part, vertices, atlas, outfit) - vertices
    found = labels(rest, outfit)
    assert np.abs(moved[:, :2]).max() == 0 and moved[:, 2].min() >= 0
    assert moved[np.isin(found, [LIP.index("face"), LIP.index("left_arm")]), 2].max() < 1e-6
    assert 0.008 < moved[found == 5, 2].mean() < 0.012
    assert moved[:, 2].max() <= 0.01 + 1.7 * 0.004 + 1e-6


def test_random_outfits_are_of_every_kind():
    outfits = sample_outfits(np.random.default_rng(0), 2000)
    assert outfits.shape == (2000, len(FIELD)) and np.isfinite(outfits).all()
    assert set(outfits[:, FIELD.upper_kind]) == {5, 6, 7} and set(outfits[:, FIELD.lower_kind]) == {9, 12}
    assert outfits[:, [FIELD.upper_thick, FIELD.lower_thick, FIELD.hair_thick, FIELD.shoe_thick]].min() >= 0
    np.testing.assert_array_equal(outfits, sample_outfits(np.random.default_rng(0), 2000))
