"""Garments: outside the body, where their numbers say, posed with it, and seen in pictures with their labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bodyreg.data.synthetic.compose import View, compose
from bodyreg.data.synthetic.garment_labels import BARE_TORSO, FIELDS, FIT
from bodyreg.data.synthetic.garments import Tailor, label_vertices, sample_garments
from bodyreg.data.synthetic.outfits import LIP, OUTFIT, body_atlas, mirror_label
from bodyreg.data.synthetic.prepare import prepare_synthetic
from bodyreg.data.synthetic.scenes import LABELS, SceneSettings
from bodyreg.data.synthetic.shards import join_shards, load_shard, save_shard
from bodyreg.data.synthetic.stream import ShardStream
from bodyreg.data.synthetic.surroundings import _motion_blur
from priors.clothing_labels import C_GROUPS, MC_COLUMNS
from priors.clothing_labels import LABELS as LIP_LABELS
from renderers.backends.cpu import vertex_normals

OF, FF = OUTFIT(), FIT()
DOWN = np.array([0.0, -1.0, 0.0])
CLOTH = (5, 6, 7, 9, 10, 12)


@pytest.fixture(scope="module")
def tailor(free_body):
    return Tailor(free_body)


def cut(fit=(), **outfit):
    """A T-shirt, trousers to the ankle, shoes and short hair, skin-tight; `fit` and `outfit` change fields."""
    values = dict(sleeve=0.4, shirt_hem=0.0, trouser_end=0.97, neckline=1.0, sock_start=2, shod=1, hair_tilt=0.75)
    values |= dict(hat_offset=3, upper_kind=5, lower_kind=9, hair_thick=0.01, shoe_thick=0.01) | outfit
    sizes = dict(upper_ease=0.004, sleeve_ease=0.004, lower_ease=0.004, waist=0.1, neck_radius=0.09) | dict(fit)
    out, cuts = np.zeros(len(OF), np.float32), np.zeros(len(FF), np.float32)
    for name, value in values.items():
        out[getattr(OF, name)] = value
    for name, value in sizes.items():
        cuts[getattr(FF, name)] = value
    return out, cuts


def posed(body, betas=None, pose=None, orient=None):
    betas = np.zeros((1, 10), np.float32) if betas is None else betas[None]
    with torch.no_grad():
        out = body(betas, pose, orient)
        return (
            betas[0], body.rest_vertices(betas)[0].numpy(), body.rest_joints(betas)[0].numpy(),
            out.vertices[0].numpy(), out.joints[0].numpy(), out.R_global[0].numpy(),
        )  # fmt: skip


def seen_labels(tailor, outfit, fit):
    return label_vertices(tailor.fields(outfit, fit)[0], outfit)


def outside(tailor, clothed, bare, normals, worn):
    """Share of the worn vertices of a clothed body that lie outside the bare one, by its nearest vertices."""
    from scipy.spatial import cKDTree

    _, near = cKDTree(bare).query(clothed[worn])
    return ((clothed[worn] - bare[near]) * normals[near]).sum(1) > -1e-3


def test_cloth_is_outside_the_body_in_rest_and_in_poses(tailor, free_body):
    """More than 95 % of all garment vertices, over bodies of any shape, from tight to very loose."""
    rng = np.random.default_rng(0)
    outfits, fits = sample_garments(rng, 16)
    found = []
    for k, (outfit, fit) in enumerate(zip(outfits, fits, strict=True)):
        pose = None if k % 2 else rng.normal(0, 0.15, (1, 69)).astype(np.float32)
        person = posed(free_body, rng.normal(0, 0.8, 10).astype(np.float32), pose)
        clothed = tailor.dress(*person, DOWN, outfit, fit)
        worn = np.isin(label_vertices(clothed.fields, outfit), CLOTH)
        found.append(outside(tailor, clothed.vertices, person[3], vertex_normals(person[3], tailor.faces), worn))
    assert np.concatenate(found).mean() > 0.95
    assert min(share.mean() for share in found) > 0.85


def test_outfits_cover_the_labels_that_dsr_compares(tailor):
    """Every label of DSR-MC and every group of DSR-C is worn by somebody; both sides alike."""
    outfits, fits = sample_garments(np.random.default_rng(1), 300)
    found = np.unique(np.concatenate([seen_labels(tailor, *both) for both in zip(outfits, fits, strict=True)]))
    assert set(MC_COLUMNS) <= set(found.tolist())
    for name, members in C_GROUPS.items():
        assert name == "background" or set(members) & set(found.tolist()), name
    assert set(found.tolist()) == set(range(1, 21))  # every one of LIP's labels, and bare torsos
    assert tuple(name.lower().replace("_", "") for name in LIP if name != "gloves") == tuple(
        name.lower() for name in LIP_LABELS if name != "glove"
    )


@pytest.mark.parametrize(
    ("change", "fit", "more", "less"),
    [
        ({"sleeve": 0.95}, {}, 5, 14),
        ({"trouser_end": 0.3}, {}, 16, 9),
        ({"trouser_end": 0.5, "lower_kind": 12}, {}, 12, 9),
        ({"upper_kind": 7, "shirt_hem": 0.6}, {}, 7, 9),
        ({"upper_kind": 6, "shirt_hem": 0.5, "trouser_end": -1}, {}, 6, 9),
        ({"upper_kind": 10}, {}, 10, 9),
        ({"shirt_hem": -0.4}, {}, BARE_TORSO, 5),
        ({"hat_offset": 0.3}, {}, 1, 2),
        ({"gloved": 1}, {}, 3, 15),
        ({"trouser_end": 0.3}, {"shoe_top": 0.3}, 18, 9),
        ({}, {"scarf": 0.02}, 11, 5),
        ({}, {"glasses": 1}, 4, 13),
        ({}, {"hair_length": 0.2}, 2, 5),
    ],
)
def test_fields_do_what_they_say(tailor, change, fit, more, less):
    before, after = (
        np.bincount(seen_labels(tailor, *worn), minlength=21) for worn in (cut(), cut(fit, **change))
    )  # fmt: skip
    assert after[more] > before[more] and after[less] < before[less]


def test_a_coat_opens_onto_the_shirt(tailor):
    closed = seen_labels(tailor, *cut(upper_kind=7, shirt_hem=0.5))
    opened = seen_labels(tailor, *cut({"opening": 0.04}, upper_kind=7, shirt_hem=0.5))
    assert (closed == 5).sum() == 0 and (opened == 5).sum() > 5
    assert np.abs(tailor.rest[opened == 5, 0]).max() < 0.04


def test_labels_mirror_with_the_body(tailor, free_body):
    found = seen_labels(tailor, *cut({"neck_dip": 0.05}, gloved=1, trouser_end=0.6))
    beside = np.abs(tailor.rest[:, 0]) > 1e-3
    assert (mirror_label(found)[beside] == found[free_body.mirror.numpy()][beside]).all()


def test_looser_garments_stand_off_farther(tailor, free_body):
    person = posed(free_body)
    clearance = []
    for loose in (0.0, 0.25, 0.5, 0.75, 1.0):
        outfits, fits = sample_garments(np.random.default_rng(2), 12, (loose, loose))
        assert fits[:, FF.looseness] == pytest.approx(loose)
        clearance.append(np.mean([tailor.dress(*person, DOWN, *w).clearance for w in zip(outfits, fits, strict=True)]))
    assert (np.diff(clearance) > 0.003).all() and clearance[0] < 0.015 and clearance[-1] > 0.04


def test_what_is_bare_is_the_body_itself(tailor, free_body):
    person = posed(free_body, pose=np.full((1, 69), 0.1, np.float32))
    outfit, fit = cut()
    clothed = tailor.dress(*person, DOWN, outfit, fit)
    bare = (clothed.fields[:, : FIELDS().arm] < -0.03).all(1)
    assert bare.sum() > 1500
    assert np.abs(clothed.vertices - person[3])[bare].max() < 1e-6


def test_a_skirt_is_one_cone_around_both_legs(tailor, free_body):
    person = posed(free_body)
    outfit, fit = cut({"cone_flare": 0.3, "lower_ease": 0.02}, lower_kind=12, trouser_end=0.6, shirt_hem=-0.1)
    clothed = tailor.dress(*person, DOWN, outfit, fit)
    skirt = clothed.vertices[label_vertices(clothed.fields, outfit) == 12]
    hem = skirt[:, 1].min()
    assert hem == pytest.approx(tailor.atlas[2] - 0.6 * (tailor.atlas[2] - tailor.atlas[3]), abs=2e-3)
    low = skirt[skirt[:, 1] < hem + 0.05]
    assert low[:, 0].max() > 0.25 and low[:, 0].min() < -0.25  # wider than the hips
    front = low[low[:, 2] > 0.1]
    assert np.diff(np.sort(front[:, 0])).max() < 0.09  # nothing open between the legs


def test_clothes_turn_with_the_person(tailor, free_body):
    """The whole person turned, with gravity: the same clothed surface, turned."""
    outfit, fit = (x[3] for x in sample_garments(np.random.default_rng(3), 4))
    pose = np.full((1, 69), 0.08, np.float32)
    turn = np.array([[0.3, -0.5, 0.2]], np.float32)
    plain, turned = posed(free_body, pose=pose), posed(free_body, pose=pose, orient=turn)
    R = turned[5][0]
    one = tailor.dress(*plain, DOWN, outfit, fit).vertices
    two = tailor.dress(*turned, R @ DOWN, outfit, fit).vertices
    centre = plain[4][0]
    np.testing.assert_allclose((one - centre) @ R.T + centre, two, atol=2e-5)


def test_same_seed_same_clothes_and_bad_ranges_are_refused():
    one, two = (sample_garments(np.random.default_rng(4), 50) for _ in range(2))
    assert all(np.array_equal(a, b) and np.isfinite(a).all() for a, b in zip(one, two, strict=True))
    for bad in ((0.5, 0.2), (-0.1, 1), (0, 1.5)):
        with pytest.raises(ValueError, match="two numbers from 0 to 1"):
            sample_garments(np.random.default_rng(0), 1, bad)
    with pytest.raises(ValueError, match="Choose 'geometry' or 'painted'"):
        SceneSettings(garments="knitted")


def test_garments_leave_everything_else_of_a_scene_as_it_is(people, dressed):
    same = set(LABELS) - {"outfit", "fit", "looseness", "clearance"}
    for name in same:
        np.testing.assert_array_equal(people.shard.labels[name], dressed.shard.labels[name])
    labels = dressed.shard.labels
    assert (labels["clearance"] > 0.002).all() and np.ptp(labels["looseness"]) > 0.3
    np.testing.assert_array_equal(labels["looseness"], labels["fit"][:, FF.looseness])
    assert dressed.shard.garments == "geometry" and people.shard.garments == "painted"


def test_parsing_shows_what_is_painted(dressed, free_body):
    """Labels in the picture are those of the buffers; a mirrored view exchanges left and right."""
    shard = dressed.shard
    rest = free_body.v_template.numpy()
    atlas = body_atlas(free_body.rest_joints().numpy()[0], rest, free_body.landmarks)
    bank = np.full((1, 96, 96, 3), 90, np.uint8)
    for i in range(4):
        whole = View(1.0, 0.0, False)
        plain, mirrored = np.full((96, 96), 77, np.uint8), np.empty((96, 96), np.uint8)
        compose(shard, i, whole, 96, np.random.default_rng(0), bank, atlas, augment=False, parsing=plain)
        compose(shard, i, whole._replace(mirrored=True), 96, np.random.default_rng(0), bank, atlas, augment=False,
                parsing=mirrored)  # fmt: skip
        stored = np.zeros((96, 96), np.uint8)
        stored[np.unpackbits(shard.where[i], axis=1, count=96) > 0] = shard.pixels[
            shard.start[i] : shard.start[i + 1], 7
        ]
        stored[stored == BARE_TORSO] = 10
        shown = plain > 0
        assert shown.sum() > 300 and plain.max() < 20
        np.testing.assert_array_equal(plain[shown], stored[shown])
        assert (mirror_label(mirrored[:, ::-1]) == plain).mean() > 0.995


def test_parsing_costs_no_randomness_and_hides_what_is_hidden(dressed, free_body):
    shard = dressed.shard
    atlas = body_atlas(free_body.rest_joints().numpy()[0], free_body.v_template.numpy(), free_body.landmarks)
    bank = np.full((1, 96, 96, 3), 90, np.uint8)
    less = 0
    for k in range(20):
        parsing, clear = np.empty((96, 96), np.uint8), np.empty((96, 96), np.uint8)
        view = View(1.2, 0.2, False)
        without, _ = compose(shard, k % 6, view, 96, np.random.default_rng(k), bank, atlas)
        picture, _ = compose(shard, k % 6, view, 96, np.random.default_rng(k), bank, atlas, parsing=parsing)
        compose(shard, k % 6, view, 96, np.random.default_rng(k), bank, atlas, augment=False, parsing=clear)
        np.testing.assert_array_equal(without, picture)
        shown = parsing > 0
        np.testing.assert_array_equal(parsing[shown], clear[shown])
        less += shown.sum() < (clear > 0).sum()
    assert 3 <= less < 20


def test_streams_give_parsing_where_asked(dressed, free_body, tmp_path):
    save_shard(tmp_path / "a.npz", dressed.shard)
    options = {"crop_size": 64, "batch_size": 5, "bank_size": 2, "seed": 3}
    plain = ShardStream(tmp_path, free_body, **options).batch(0)
    batch = ShardStream(tmp_path, free_body, **options, parsing=True).batch(0)
    assert set(batch) - set(plain) == {"parsing", "looseness", "clearance"}
    assert batch["parsing"].shape == (5, 64, 64) and batch["parsing"].dtype == torch.uint8
    assert (batch["parsing"] > 0).float().mean() > 0.05 and batch["looseness"].shape == (5,)
    assert all(torch.equal(plain[name], batch[name]) for name in plain)


def test_older_shards_load_and_kinds_are_not_mixed(people, dressed, tmp_path):
    old = {name: v for name, v in people.shard.labels.items() if name not in ("fit", "looseness", "clearance")}
    save_shard(tmp_path / "old.npz", replace(people.shard, labels=old))
    again = load_shard(tmp_path / "old.npz")
    assert set(again.labels) == set(LABELS) and again.garments == "painted"
    np.testing.assert_allclose(again.labels["looseness"], people.shard.labels["looseness"], atol=1e-6)
    with pytest.raises(ValueError, match="folders of their own"):
        join_shards([again, dressed.shard])


def test_folders_keep_their_kind(tmp_path):
    small = SceneSettings(crop_size=32, garments="painted")
    options = {"per_shard": 2, "progress": False, "threads": 1}
    prepare_synthetic(tmp_path / "a", 2, settings=small, **options)
    made = prepare_synthetic(tmp_path / "a", 4, settings=replace(small, garments=None), **options)
    assert [load_shard(path).garments for path in made] == ["painted", "painted"]
    with pytest.raises(ValueError, match="holds people in painted garments and geometry ones were asked for"):
        prepare_synthetic(tmp_path / "a", 6, settings=replace(small, garments="geometry"), **options)
    new = prepare_synthetic(tmp_path / "b", 2, settings=SceneSettings(crop_size=32, looseness=(0.9, 1.0)), **options)
    assert load_shard(new[0]).garments == "geometry" and load_shard(new[0]).labels["looseness"].min() > 0.89


def test_motion_blur_smears_along_its_line_and_keeps_the_light():
    point = np.zeros((41, 41, 3), np.float32)
    point[20, 20] = 100
    rows, columns = np.mgrid[:41, :41] - 20
    for angle in (0.0, 0.7, np.pi / 2):
        blurred = _motion_blur(point, 9.0, angle)
        weight = blurred[..., 0] / blurred[..., 0].sum()
        along = np.cos(angle) * columns + np.sin(angle) * rows
        across = -np.sin(angle) * columns + np.cos(angle) * rows
        assert blurred.sum() == pytest.approx(300, rel=1e-3)
        assert abs((weight * along).sum()) < 0.3 and abs((weight * across).sum()) < 0.3
        assert 2.0 < np.sqrt((weight * along**2).sum()) < 3.6 and np.sqrt((weight * across**2).sum()) < 0.8
