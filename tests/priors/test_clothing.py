"""The clothing prior: learned counts, symmetry, files from us and from strangers, other meshes."""

import numpy as np
import pytest

from priors.clothing import ClothingPrior, faces_hash
from priors.clothing_labels import C_GROUPS, LABELS, MC_LABELS, MIRROR
from priors.clothing_learning import LabelCounts, learn, mirror_faces


def strip(n: int = 40):
    """A flat band of 2 n triangles, symmetric in x: vertices (V, 3), faces (F, 3), vertex mirror (V,)."""
    x = np.arange(-(n // 2), n // 2 + 1) / n
    vertices = np.concatenate([np.stack([x, np.full_like(x, y), 0 * x], 1) for y in (0.0, 0.05)])
    m, faces = len(x), []
    for i in range(m - 1):
        a, b, c, d = i, i + 1, m + i, m + i + 1
        faces += [(a, b, c), (b, d, c)] if i < n // 2 else [(a, b, d), (a, d, c)]
    mirror = np.concatenate([np.arange(m)[::-1], m + np.arange(m)[::-1]])
    return vertices, np.array(faces), mirror


def scans(truth, rng, count, size=32):
    """Views of random faces, each pixel labelled by a draw from its face's row of `truth` (F, 20)."""
    counts = LabelCounts(len(truth))
    edges = truth.cumsum(1)
    for _ in range(count):
        pix_to_face = rng.integers(-1, len(truth), (size, size))
        labels = (rng.random((size, size, 1)) > edges[pix_to_face]).sum(-1)
        labels[pix_to_face < 0] = 0
        counts.add(pix_to_face, labels)
    return counts


@pytest.fixture(scope="module")
def truth():
    """(F, 20) distribution without background that is its own mirror image."""
    _, faces, mirror = strip()
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.full(20, 0.3), len(faces))
    rows[:, 0] = 0
    rows = rows + rows[mirror_faces(faces, mirror)][:, MIRROR]
    return rows / rows.sum(1, keepdims=True)


def test_learning_recovers_the_generating_distribution(truth):
    """Error falls as one over the root of the number of scans; rows sum to one, the result is symmetric."""
    _, faces, mirror = strip()
    across, errors = mirror_faces(faces, mirror), []
    for count in (4, 64, 1024):
        counts = scans(truth, np.random.default_rng(1), count)
        prior = learn(counts, faces, mirror=across, smoothing=0.0, pseudo=0.01)
        errors.append(np.abs(prior.probabilities - truth).mean())
        np.testing.assert_allclose(prior.probabilities.sum(1), 1, atol=1e-6)
        np.testing.assert_allclose(prior.probabilities, prior.probabilities[across][:, MIRROR], atol=1e-7)
    assert errors[2] < 0.001 and errors[1] < errors[0] / 3 and errors[2] < errors[1] / 3


def test_counts_are_what_a_loop_counts():
    rng = np.random.default_rng(2)
    pix_to_face, labels = rng.integers(-1, 7, (9, 11)), rng.integers(0, 20, (9, 11))
    near = rng.random((9, 11)) < 0.7
    counts, naive = LabelCounts(7), np.zeros((7, 20), int)
    counts.add(pix_to_face, labels, near)
    for f, label, ok in zip(pix_to_face.ravel(), labels.ravel(), near.ravel(), strict=True):
        if f >= 0 and label > 0 and ok:
            naive[f, label] += 1
    np.testing.assert_array_equal(counts.counts, naive)
    both = counts + counts
    np.testing.assert_array_equal(both.counts, 2 * naive)
    assert both.views == 2


def test_relearning_gives_the_same_numbers(truth):
    _, faces, mirror = strip()
    one, two = (
        learn(scans(truth, np.random.default_rng(3), 8), faces, mirror=mirror_faces(faces, mirror)) for _ in range(2)
    )
    np.testing.assert_array_equal(one.probabilities, two.probabilities)


def test_unseen_faces_take_their_neighbours_and_smoothing_shares():
    _, faces, _ = strip()
    counts = LabelCounts(len(faces))
    left, right = np.arange(10), np.arange(70, 80)
    counts.add(np.concatenate([left, right])[None], np.repeat([5, 9], 10)[None])
    prior = learn(counts, faces, smoothing=0.0, pseudo=0.0)
    assert (prior.probabilities[:38, 5] == 1).all() and (prior.probabilities[42:, 9] == 1).all()
    smooth = learn(counts, faces, smoothing=0.5, pseudo=0.0)
    np.testing.assert_allclose(smooth.probabilities.sum(1), 1, atol=1e-6)
    assert learn(counts, faces, pseudo=1.0).probabilities[:, 1:].min() > 0
    assert learn(counts, faces, pseudo=1.0).probabilities[:, 0].max() == 0


@pytest.mark.parametrize(
    ("pix_to_face", "labels", "message"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), "differ in size"),
        (np.full((2, 2), 7), np.zeros((2, 2), int), "Faces go to 7 of 7"),
        (np.zeros((2, 2), int), np.full((2, 2), 20), "labels 0 to 19"),
        (np.zeros((2, 2), int), np.full((2, 2), -1), "labels 0 to 19"),
    ],
)
def test_views_of_something_else_are_refused(pix_to_face, labels, message):
    with pytest.raises(ValueError, match=message):
        LabelCounts(7).add(pix_to_face, labels)


def test_nothing_to_learn_from_is_refused():
    _, faces, _ = strip()
    with pytest.raises(ValueError, match="No labelled pixel"):
        learn(LabelCounts(len(faces)), faces)
    with pytest.raises(ValueError, match="faces of the fitted body"):
        learn(LabelCounts(3), faces)
    with pytest.raises(ValueError, match="Add those of one body"):
        LabelCounts(3) + LabelCounts(4)
    with pytest.raises(ValueError, match="not in the mesh"):
        mirror_faces(faces, np.roll(np.arange(faces.max() + 1), 3))


def test_groups_and_vertices(truth):
    _, faces, _ = strip()
    prior = ClothingPrior(truth.astype(np.float32))
    groups = prior.groups()
    for column, members in enumerate(C_GROUPS.values()):
        np.testing.assert_allclose(groups[:, column], truth[:, list(members)].sum(1), atol=1e-6)
    names = [LABELS.index(name) for name in MC_LABELS]
    np.testing.assert_allclose(prior.minimal_clothing(), truth[:, names], atol=1e-6)
    assert (prior.hard().argmax(1) == truth.argmax(1)).all() and (prior.hard().sum(1) == 1).all()
    assert ((prior.entropy() > 0) & (prior.entropy() < np.log(20))).all()
    at_vertices = prior.vertices(faces, faces.max() + 1)
    k = 17
    np.testing.assert_allclose(at_vertices[k], truth[(faces == k).any(1)].mean(0), atol=1e-6)
    again = ClothingPrior.from_vertices(at_vertices, faces)
    np.testing.assert_allclose(again.probabilities[3], at_vertices[faces[3]].mean(0), atol=1e-6)
    assert again.faces_hash == faces_hash(faces)


def test_weights_give_a_plain_prior():
    weights = np.eye(24)
    faces = np.array([[20, 20, 18], [15, 15, 15], [12, 12, 12], [7, 10, 7]])
    prior = ClothingPrior.from_weights(weights, faces)
    winners = [LABELS[k] for k in prior.probabilities.argmax(1)]
    assert winners[:2] == ["leftArm", "face"] and winners[3] == "leftShoe"
    assert prior.probabilities.min() > 0.002


def test_round_trip_through_a_file(truth, tmp_path):
    vertices, faces, _ = strip()
    joints = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
    centroids = vertices[faces].mean(1).astype(np.float32)
    prior = ClothingPrior(truth.astype(np.float32), faces_hash(faces), centroids, joints, {"source": "a test"})
    prior.save(tmp_path / "a.npz")
    again = ClothingPrior.load(tmp_path / "a.npz", faces=len(faces))
    for name in ("probabilities", "centroids", "joints"):
        np.testing.assert_array_equal(getattr(prior, name), getattr(again, name))
    assert again.meta == {"source": "a test"} and again.faces_hash == prior.faces_hash
    prior.save(tmp_path / "small.npz", steps=1024)
    small = ClothingPrior.load(tmp_path / "small.npz").probabilities
    assert np.abs(small - prior.probabilities).max() < 0.011 and (small.sum(1, dtype=np.float64) == 1).all()
    assert (small * 1024 == np.round(small * 1024)).all()


def test_published_array_is_read(truth, tmp_path):
    np.save(tmp_path / "semantic_prior.npy", truth[None])
    prior = ClothingPrior.load(tmp_path / "semantic_prior.npy", faces=len(truth))
    np.testing.assert_allclose(prior.probabilities, truth, atol=1e-7)
    with pytest.raises(ValueError, match="80 rows and the body 13776 faces"):
        ClothingPrior.load(tmp_path / "semantic_prior.npy", faces=13776)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((4, 20)), "sums to 20"),
        (np.full((4, 20), np.nan), "not finite"),
        (np.concatenate([np.full((4, 19), 0.1), np.full((4, 1), -0.9)], 1), "negative"),
        (np.full((4, 19), 1 / 19), r"shape \(4, 19\)"),
        (np.ones(20), "Give \\(F, 20\\) probabilities"),
        (np.ones((4, 20), int), "int64"),
    ],
)
def test_files_that_are_no_prior_are_refused(array, message, tmp_path):
    np.save(tmp_path / "bad.npy", array)
    with pytest.raises(ValueError, match=message):
        ClothingPrior.load(tmp_path / "bad.npy")


def test_foreign_files_run_nothing_and_are_refused(truth, tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "other.npz", prior=truth)
    for name, message in (("objects.npy", "plain numpy"), ("text.npz", "plain numpy"), ("other.npz", "lacks")):
        with pytest.raises(ValueError, match=message):
            ClothingPrior.load(tmp_path / name)
    ClothingPrior(truth.astype(np.float32)).save(tmp_path / "good.npz")
    good = dict(np.load(tmp_path / "good.npz"))
    for key, value, message in (("labels", np.array(LABELS[::-1]), "other labels"), ("meta", np.array("{"), "no JSON")):
        np.savez(tmp_path / "bad.npz", **{**good, key: value})
        with pytest.raises(ValueError, match=message):
            ClothingPrior.load(tmp_path / "bad.npz")


def test_transfer_to_another_mesh_of_the_same_body(truth):
    """Vertices and faces in another order, the body longer and shifted: each face finds its own row."""
    vertices, faces, _ = strip()
    rng = np.random.default_rng(5)
    smooth = np.zeros((len(faces), 20), np.float32)
    centroids = vertices[faces].mean(1)
    smooth[:, 5], smooth[:, 9] = 0.5 + centroids[:, 0], 0.5 - centroids[:, 0]
    joints = np.zeros((24, 3))
    prior = ClothingPrior(smooth, faces_hash(faces), centroids.astype(np.float32), joints.astype(np.float32))
    assert prior.transfer(vertices, faces, joints, np.eye(24)[np.zeros(len(vertices), int)]) is prior
    order, new = rng.permutation(len(vertices)), rng.permutation(len(faces))
    other, moved = np.argsort(order)[faces][new], 1.1 * vertices[order] + (0.3, 0.1, -0.2)
    weights = np.eye(24)[np.zeros(len(vertices), int)]
    there = prior.transfer(moved, other, joints + (0.3, 0.1, -0.2), weights)
    assert np.abs(there.probabilities - smooth[new]).max() < 0.02
    assert there.meta["transferred"] and there.faces_hash == faces_hash(other)
    with pytest.raises(ValueError, match="does not say which rest body"):
        ClothingPrior(smooth).transfer(moved, other, joints, weights)
    for wrong, message in ((other, "another mesh"), (other[:5], "80 rows and the body 5 faces")):
        with pytest.raises(ValueError, match=message):
            prior.check_faces(wrong)
