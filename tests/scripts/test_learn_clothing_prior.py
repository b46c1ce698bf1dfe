"""Learning the clothing prior from rendered people; the prior that ships is of this body, symmetric, and right."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from bodyreg.body import BodyModel
from priors.clothing import ClothingPrior, faces_hash
from priors.clothing_labels import LABELS, MIRROR
from priors.clothing_learning import mirror_faces

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    path = ROOT / "scripts" / "learn_clothing_prior.py"
    spec = importlib.util.spec_from_file_location("learn_clothing_prior", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def body():
    return BodyModel.load("free")


@pytest.fixture(scope="module")
def shipped():
    return ClothingPrior.load()


def run(script, monkeypatch, folder, name, *options):
    out = folder / f"{name}.npz"
    options = ("--people", "24", "--views", "3", "--out", str(out), "--picture", str(folder / "p.png"), *options)
    monkeypatch.setattr("sys.argv", ["learn_clothing_prior", *options])
    script.main()
    return ClothingPrior.load(out)


def test_learning_is_deterministic_and_near_what_dressed_the_people(script, monkeypatch, tmp_path, capsys, body):
    one, two = (run(script, monkeypatch, tmp_path, name) for name in "ab")
    np.testing.assert_array_equal(one.probabilities, two.probabilities)
    said = capsys.readouterr().out
    error = float(said.split("generating distribution: ")[1].split()[0])
    assert 0 < error < 0.025
    across = mirror_faces(body.faces.numpy(), body.mirror.numpy())
    np.testing.assert_array_equal(one.probabilities, one.probabilities[across][:, MIRROR])
    assert (tmp_path / "p.png").stat().st_size > 5000
    other = run(script, monkeypatch, tmp_path, "c", "--seed", "1")
    assert not np.array_equal(one.probabilities, other.probabilities)


def test_the_shipped_prior_is_of_this_body(shipped, body):
    faces = body.faces.numpy()
    shipped.check_faces(faces)
    assert len(shipped) == 13776 and shipped.faces_hash == faces_hash(faces)
    np.testing.assert_allclose(shipped.probabilities.sum(1, dtype=np.float64), 1, atol=1e-6)
    across = mirror_faces(faces, body.mirror.numpy())
    np.testing.assert_array_equal(shipped.probabilities, shipped.probabilities[across][:, MIRROR])
    assert shipped.meta["people"] >= 2000
    asset = ROOT / "priors" / "assets" / "clothing.npz"
    assert asset.stat().st_size < 500_000 and (ROOT / "docs" / "clothing_prior.png").stat().st_size < 300_000


def test_the_shipped_prior_says_what_people_wear_where(shipped, body):
    at = shipped.vertices(body.faces.numpy(), 6890)
    marks = body.landmarks
    for vertex, label in (("nose", "face"), ("left_index", "leftArm"), ("right_index", "rightArm"),
                          ("left_heel", "leftShoe"), ("right_big_toe", "rightShoe")):  # fmt: skip
        assert at[marks[vertex]].argmax() == LABELS.index(label), vertex
        assert at[marks[vertex], LABELS.index(label)] > 0.45, vertex  # trousers and socks reach some heels
    joints = body.rest_joints()[0].numpy()
    rest = body.v_template.numpy()
    for joint, label, least in ((9, "upperclothes", 0.4), (4, "pants", 0.35), (5, "pants", 0.35)):
        near = np.linalg.norm(rest - joints[joint], axis=1).argsort()[:20]
        assert at[near].mean(0).argmax() == LABELS.index(label)
        assert at[near, LABELS.index(label)].mean() > least
    # Group by group the learned prior agrees with skinning weights on most of the body.
    plain = ClothingPrior.from_weights(body.weights.numpy(), body.faces.numpy())
    assert (plain.groups().argmax(1) == shipped.groups().argmax(1)).mean() > 0.75


def test_the_prior_moves_to_another_body_with_other_vertices(shipped):
    """A man of another shape whose vertices and faces are shuffled: each face finds nearly its own row."""
    man = BodyModel.load("free", "male")
    betas = np.random.default_rng(0).normal(0, 0.7, (1, 10)).astype(np.float32)
    vertices, joints = man.rest_vertices(betas)[0].numpy(), man.rest_joints(betas)[0].numpy()
    rng = np.random.default_rng(1)
    order, new = rng.permutation(6890), rng.permutation(13776)
    faces = np.argsort(order)[man.faces.numpy()][new]
    there = shipped.transfer(vertices[order], faces, joints, man.weights.numpy()[order])
    error = np.abs(there.probabilities - shipped.probabilities[new]).sum(1) / 2
    assert error.mean() < 0.06
    assert (there.probabilities.argmax(1) == shipped.probabilities[new].argmax(1)).mean() > 0.93
