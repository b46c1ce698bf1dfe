"""Scoring: the numbers of a naive loop, every averaging order, and a clear message for each kind of wrong input."""

from __future__ import annotations

import numpy as np
import pytest

from bodyreg import skeletons
from bodyreg.evaluation import metrics, protocols
from bodyreg.evaluation.accumulate import Samples
from bodyreg.evaluation.evaluate import evaluate, match
from bodyreg.evaluation.truth import StoredJoints, Truth


def source(joints, samples, joint_set="h36m-17"):
    return StoredJoints(joints, joint_set, samples)


def naive_mpjpe(p: np.ndarray, g: np.ndarray) -> float:
    return float(np.mean([np.sqrt(((a - b) ** 2).sum()) for a, b in zip(p, g, strict=True)]))


def fixed_example() -> tuple[np.ndarray, np.ndarray]:
    f, j, c = np.meshgrid(np.arange(6.0), np.arange(17.0), np.arange(3.0), indexing="ij")
    g = 0.5 * np.sin(0.7 * f + 1.3 * j + 2.1 * c) + 0.2 * np.cos(0.4 * f + 0.3 * j * (c + 1))
    return 0.9 * g + 0.06 * np.cos(0.5 * f + 0.9 * j + 1.7 * c), g


@pytest.mark.parametrize(
    ("protocol", "joint_set", "expected"),
    [
        ("h36m-lift-17[pred_root=subtract,aggregate=frames]", "h36m-17",
         {"MPJPE": 105.001885, "PA-MPJPE": 79.010429, "N-MPJPE": 91.169127, "MPJVE": 57.307037}),
        ("pw3d-j14", "h36m-17-left", {"MPJPE": 109.418841, "PA-MPJPE": 78.931340}),
        ("pw3d-j14-midhip", "h36m-17-left", {"MPJPE": 93.555129, "PA-MPJPE": 78.931340}),
        ("mpi3dhp-mesh-17", "h36m-17", {"MPJPE": 105.001885, "PCK": 803.92157, "AUC": 329.22201}),
        ("mpi3dhp-lift-17[pred_root=subtract]", "mpi3dhp-17",
         {"MPJPE": 118.441803, "PCK": 619.04762, "AUC": 231.95084}),
        ("pw3d-j14-midhip[joints=" + "+".join(skeletons.get("h36m-17").joints) + ",root=pelvis]", "h36m-17",
         {"Accel": 34.962489}),
    ],
)  # fmt: skip
def test_the_fixed_numbers_come_out_of_the_whole_path(protocol, joint_set, expected):
    p, g = fixed_example()
    samples = Samples.of(range(6), ["one"] * 6)
    truth = Truth(source(g, samples, joint_set), protocols.get(protocol).dataset, "")
    result = evaluate(source(p, samples, joint_set), truth, protocol, batch_size=4)
    for name, value in expected.items():
        assert 1000 * result.errors[name] == pytest.approx(value, abs=1e-5 if name in ("PCK", "AUC") else 1e-6)


def test_action_means_are_those_of_a_naive_loop(h36m_truth, noisy):
    joints, samples = h36m_truth.source.joints.numpy(), h36m_truth.source.samples
    pred = noisy(joints)
    result = evaluate(source(pred, samples), h36m_truth, "h36m-lift-17[pred_root=subtract]", batch_size=4)
    rooted_p, rooted_g = pred - pred[:, :1], joints - joints[:, :1]
    by_action: dict[str, list[float]] = {}
    velocity: dict[str, list[float]] = {}
    for k, name in enumerate(samples.names):
        by_action.setdefault(samples.actions[k], []).append(naive_mpjpe(rooted_p[k], rooted_g[k]))
        if samples.frames[k]:
            step = naive_mpjpe(rooted_p[k] - rooted_p[k - 1], rooted_g[k] - rooted_g[k - 1])
            velocity.setdefault(samples.actions[k], []).append(step)
        assert name
    assert result.errors["MPJPE"] == pytest.approx(np.mean([np.mean(v) for v in by_action.values()]), abs=1e-9)
    assert result.errors["MPJVE"] == pytest.approx(np.mean([np.mean(v) for v in velocity.values()]), abs=1e-9)
    assert {name: count for name, count, _ in result.groups} == {"Walking": 16, "Eating": 7}
    assert result.samples == 23 and not result.dropped and not result.notes


def test_each_averaging_order_gives_its_own_number():
    """Two actions of 10 and 1000 frames, the first in two sequences, one of them all alone with its error."""
    counts, errors = [4, 6, 1000], [0.100, 0.010, 0.050]
    labels = [(f"{s}/{k}", s, a, k) for s, a, n in zip("abc", "xxy", counts, strict=True) for k in range(n)]
    names, sequences, actions, frames = (list(column) for column in zip(*labels, strict=True))
    samples = Samples.of(names, sequences, actions, ["S9"] * 1010, sequences, frames)
    joints = np.random.default_rng(0).normal(0, 0.4, (1010, 17, 3))
    shift = np.repeat(errors, counts)[:, None, None] * np.array([1.0, 0, 0])
    pred = joints + shift
    pred[:, 0] = joints[:, 0]
    truth = Truth(source(joints, samples), "h36m", "")
    found = {}
    for aggregate in ("frames", "actions", "sequences", "scenes", "subject-actions", "batches"):
        protocol = f"h36m-lift-17[pred_root=subtract,metrics=MPJPE,aggregate={aggregate}]"
        found[aggregate] = evaluate(source(pred, samples), truth, protocol, batch_size=500).errors["MPJPE"]
    e = np.array(errors) * 16 / 17
    x = (4 * e[0] + 6 * e[1]) / 10
    frames_mean = (10 * x + 1000 * e[2]) / 1010
    first = (10 * x + 490 * e[2]) / 500
    assert found["frames"] == found["scenes"] == pytest.approx(frames_mean)
    assert found["actions"] == found["subject-actions"] == pytest.approx((x + e[2]) / 2)
    assert found["sequences"] == pytest.approx(e.mean())
    assert found["batches"] == pytest.approx((first + 2 * e[2]) / 3)


@pytest.mark.parametrize("pred_root", protocols.PRED_ROOTS)
def test_the_three_habits_of_the_predicted_root(h36m_truth, noisy, pred_root):
    joints, samples = h36m_truth.source.joints.numpy(), h36m_truth.source.samples
    rooted = joints - joints[:, :1]
    pred = noisy(rooted)
    treated = {"raw": pred, "subtract": pred - pred[:, :1], "zero": pred.copy()}
    treated["zero"][:, 0] = 0
    result = evaluate(source(pred, samples), h36m_truth, f"h36m-lift-17[pred_root={pred_root},aggregate=frames]")
    expected = np.mean([naive_mpjpe(p, g) for p, g in zip(treated[pred_root], rooted, strict=True)])
    assert result.errors["MPJPE"] == pytest.approx(expected, abs=1e-9)


def test_velocities_stop_at_seams_and_gaps():
    joints = np.random.default_rng(0).normal(0, 0.4, (9, 17, 3))
    samples = Samples.of([f"n{k}" for k in range(9)], ["a"] * 6 + ["b"] * 3, frames=[0, 5, 10, 25, 30, 35, 0, 5, 10])
    pred = joints + np.random.default_rng(1).normal(0, 0.02, joints.shape)
    shuffled = np.random.default_rng(2).permutation(9)
    names = [samples.names[k] for k in shuffled]
    protocol = "pw3d-j14-midhip[root=pelvis,joints=" + "+".join(skeletons.get("h36m-17").joints) + "]"
    result = evaluate(source(pred[shuffled], Samples.of(names)), Truth(source(joints, samples), "pw3d", ""), protocol)
    p, g = (x - x[:, :1] for x in (pred, joints))
    runs = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    each = [naive_mpjpe(p[a] - 2 * p[b] + p[c], g[a] - 2 * g[b] + g[c]) for a, b, c in runs]
    assert result.errors["Accel"] == pytest.approx(np.mean(each), abs=1e-9)


def test_alignment_over_more_joints_than_are_averaged(h36m_truth, noisy):
    """HybrIK aligns on all 17 and averages 14."""
    joints, samples = h36m_truth.source.joints, h36m_truth.source.samples
    pred = joints + 0.05 * (joints - joints.mean(1, keepdim=True)).roll(1, 1)
    every = "+".join(skeletons.get("h36m-17").joints)
    result = evaluate(source(pred, samples), h36m_truth, f"h36m-moon-p2[alignment={every}]")
    rows = protocols.get("h36m-moon-p2").rows("joints")
    aligned = metrics.align(pred, joints).aligned
    expected = metrics.mpjpe(aligned[:, rows], joints[:, rows]).mean()
    assert result.errors["PA-MPJPE"] == pytest.approx(float(expected), abs=1e-9)
    on_14 = evaluate(source(pred, samples), h36m_truth, "h36m-moon-p2")
    assert on_14.errors["PA-MPJPE"] != pytest.approx(result.errors["PA-MPJPE"])


def test_both_side_orders_agree_when_declared_and_differ_wildly_when_not(make_people, noisy):
    joints, samples = make_people("h36m-17-left")
    truth = Truth(source(joints, samples, "h36m-17-left"), "h36m", "")
    pred = noisy(joints, 0.02)
    right_first = skeletons.convert(pred, "h36m-17-left", "h36m-17")
    a = evaluate(source(pred, samples, "h36m-17-left"), truth, "h36m-mesh-p1")
    b = evaluate(source(right_first, samples, "h36m-17"), truth, "h36m-mesh-p1")
    mixed = evaluate(source(pred, samples, "h36m-17"), truth, "h36m-mesh-p1")
    assert a.errors["MPJPE"] == pytest.approx(b.errors["MPJPE"], abs=1e-12)
    assert mixed.errors["MPJPE"] > 5 * a.errors["MPJPE"]
    assert "legs' left and right look exchanged" in mixed.notes[0] and "h36m-17-left" in mixed.notes[0]


def test_exchanged_sides_are_noticed(h36m_truth, noisy):
    joints, samples = h36m_truth.source.joints.numpy(), h36m_truth.source.samples
    pred = noisy(joints, 0.02)[:, list(skeletons.get("h36m-17").mirror)]
    (note,) = evaluate(source(pred, samples), h36m_truth, "h36m-mesh-p1").notes
    assert note.startswith("left and right look exchanged") and "mm as given" in note


def test_joints_of_the_camera_where_joints_about_the_root_are_asked_for_are_noticed(h36m_truth):
    joints, samples = h36m_truth.source.joints, h36m_truth.source.samples
    absolute = source(joints - joints[:, :1] + joints.new_tensor([0.0, 0.0, 4.0]), samples)
    result = evaluate(absolute, h36m_truth, "h36m-lift-17")
    assert any("lies 4.0 m from zero" in note and "pred_root=subtract" in note for note in result.notes)
    assert not evaluate(absolute, h36m_truth, "h36m-lift-17[pred_root=subtract]").notes
    assert not evaluate(source(joints - joints[:, :1], samples), h36m_truth, "h36m-lift-17").notes


@pytest.mark.parametrize(("factor", "unit"), [(1000, "millimetres"), (100, "centimetres")])
def test_other_units_are_named(h36m_truth, noisy, factor, unit):
    pred = factor * noisy(h36m_truth.source.joints.numpy())
    with pytest.raises(ValueError, match=f"look like {unit}.*--units"):
        evaluate(source(pred, h36m_truth.source.samples), h36m_truth, "h36m-lift-17")


def test_metres_divided_once_too_often_and_truth_in_millimetres(h36m_truth):
    joints, samples = h36m_truth.source.joints, h36m_truth.source.samples
    with pytest.raises(ValueError, match="divided by 1000 once too often"):
        evaluate(source(joints / 1000, samples), h36m_truth, "h36m-lift-17")
    with pytest.raises(ValueError, match="truth reaches .* not in metres"):
        evaluate(source(joints, samples), Truth(source(1000 * joints, samples), "h36m", ""), "h36m-lift-17")


def test_missing_and_extra_frames_are_named(h36m_truth):
    joints, samples = h36m_truth.source.joints, h36m_truth.source.samples
    fewer = Samples.of(samples.names[1:])
    with pytest.raises(ValueError, match="1 are missing: S9/Walking/0"):
        evaluate(source(joints[1:], fewer), h36m_truth, "h36m-lift-17")
    with pytest.raises(ValueError, match="1 are not in the truth: S9/Walking/99"):
        more = Samples.of([*samples.names, "S9/Walking/99"])
        evaluate(source(joints[[*range(23), 0]], more), h36m_truth, "h36m-lift-17")
    with pytest.raises(ValueError, match="22 predictions without names and 23 samples"):
        evaluate(source(joints[1:], Samples.of(range(22))), h36m_truth, "h36m-lift-17")
    with pytest.raises(ValueError, match="looks like"):
        misspelt = Samples.of([name.replace("Walking", "walking") for name in samples.names])
        evaluate(source(joints, misspelt), h36m_truth, "h36m-lift-17")


def test_names_match_across_folders_and_lone_people():
    wanted = Samples.of(["seq/image_1.jpg#0", "seq/image_1.jpg#1", "seq/image_2.jpg#0"])
    theirs = Samples.of(["/home/them/seq/image_2.jpg", "/home/them/seq/image_1.jpg#1", "/home/them/seq/image_1.jpg"])
    assert match(theirs, wanted).tolist() == [2, 1, 0]
    windows = Samples.of([r".\seq\image_1.jpg".replace(".\\", ""), r"seq\image_1.jpg#1", r"seq\image_2.jpg"])
    assert match(windows, wanted).tolist() == [0, 1, 2]


def test_other_numbers_of_joints(h36m_truth):
    joints, samples = h36m_truth.source.joints, h36m_truth.source.samples
    with pytest.raises(ValueError, match=r"\(23, 16, 3\).*needs \(23, 17, 3\)"):
        source(joints[:, :16], samples)
    smpl = np.random.default_rng(0).normal(size=(23, 24, 3))
    with pytest.raises(ValueError, match="needs torso, neck, nose, head of h36m-17"):
        evaluate(source(smpl, samples, "smpl-24"), h36m_truth, "h36m-lift-17")
    limbs = "+".join(skeletons.get("lsp-14").joints[:12])
    shared = evaluate(source(smpl, samples, "smpl-24"), h36m_truth, f"h36m-mesh-p1[joints={limbs}]")
    assert len(shared.joints) == 12


def test_predictions_that_are_not_finite_are_named_and_never_silently_dropped(h36m_truth, noisy):
    joints, samples = h36m_truth.source.joints.numpy(), h36m_truth.source.samples
    pred = noisy(joints)
    pred[3, 5, 1], pred[20] = np.nan, np.inf
    with pytest.raises(ValueError, match="2 of 23 predictions.*S9/Walking/3, S11/Walking 1/2"):
        evaluate(source(pred, samples), h36m_truth, "h36m-mesh-p1")
    result = evaluate(source(pred, samples), h36m_truth, "h36m-mesh-p1", allow_failures=True)
    good = np.delete(np.arange(23), [3, 20])
    rows = protocols.get("h36m-mesh-p1").rows("joints")
    p, g = (x[good][:, rows] - x[good, :1] for x in (pred, joints))
    assert result.samples == 21 and result.dropped == {"prediction not finite": [samples.names[3], samples.names[20]]}
    assert result.errors["MPJPE"] == pytest.approx(np.mean([naive_mpjpe(a, b) for a, b in zip(p, g, strict=True)]))
    with pytest.raises(ValueError, match="23 of 23"):
        evaluate(source(np.full_like(pred, np.nan), samples), h36m_truth, "h36m-mesh-p1", allow_failures=True)


def test_a_protocol_of_another_data_set_is_refused_with_those_that_fit(h36m_truth):
    with pytest.raises(ValueError, match="is for pw3d, and the truth is of 'h36m'.*h36m-mesh-p1"):
        evaluate(h36m_truth.source, h36m_truth, "pw3d-j14")
    smpl = np.random.default_rng(0).normal(size=(2, 24, 3))
    anything = Truth(source(smpl, Samples.of("ab"), "smpl-24"), "emdb", "")
    assert evaluate(anything.source, anything, "smpl24-midhip").errors["MPJPE"] == 0


def test_samples_without_the_labels_an_average_needs(make_people):
    joints, samples = make_people()
    bare = Samples.of(samples.names)
    truth = Truth(source(joints, bare), "h36m", "")
    with pytest.raises(ValueError, match=r"averages over actions.*aggregate=frames"):
        evaluate(truth.source, truth, "h36m-lift-17")


def test_every_nth_sample_and_one_camera(make_people):
    joints, samples = make_people()
    truth = Truth(source(joints, samples), "h36m", "")
    counted = Samples.of(samples.names[::4])
    assert evaluate(source(joints[::4], counted), truth, "h36m-mosh-j14").samples == 6
    cameras = Samples.of([f"S9_Eating.{camera}_{k:06d}.jpg" for k in range(3) for camera in (54138969, 60457274)])
    both = Truth(source(joints[:6], cameras), "h36m", "")
    assert evaluate(source(joints[1:6:2], Samples.of(cameras.names[1::2])), both, "h36m-mesh-p2").samples == 3
    with pytest.raises(ValueError, match="None of 23 samples counts under h36m-mesh-p2"):
        evaluate(truth.source, truth, "h36m-mesh-p2")


def test_labels_of_samples_must_fit():
    with pytest.raises(ValueError, match="'a' comes more than once"):
        Samples.of(["a", "b", "a"])
    with pytest.raises(ValueError, match="2 names and 3 actions"):
        Samples.of("ab", actions=["x", "y", "z"])
