from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from bodyreg import skeletons

SETS = {
    "smpl-24": 24, "hybrik-29": 29, "h36m-17": 17, "h36m-17-left": 17, "h36m-16": 16, "h36m-32": 32, "lsp-14": 14,
    "lsp-17": 17, "coco-17": 17, "coco-19": 19, "openpose-18": 18, "openpose-25": 25, "spin-24": 24, "spin-44": 44,
    "spin-49": 49, "mpi3dhp-17": 17, "mpi3dhp-28": 28, "humaneva-15": 15,
}  # fmt: skip


def _ints(text: str) -> list[int]:
    return [int(word) for word in text.split()]


def test_all_sets_and_their_sizes():
    assert {name: len(skeletons.get(name)) for name in skeletons.names()} == SETS


@pytest.mark.parametrize("name", SETS)
def test_set_is_sound(name):
    joint_set = skeletons.get(name)
    n = len(joint_set)
    assert len(set(joint_set.joints)) == len(joint_set.parents) == len(joint_set.mirror) == n
    assert [joint_set.mirror[m] for m in joint_set.mirror] == list(range(n))
    assert len(joint_set.left) == len(joint_set.right)
    assert {joint_set.mirror[i] for i in joint_set.left} == set(joint_set.right)
    roots = [i for i, parent in enumerate(joint_set.parents) if parent < 0]
    assert len(roots) == (2 if name in ("spin-44", "spin-49") else 1)
    for i in range(n):  # every joint reaches a root, and a limb's tree is its mirror image's
        steps, at = 0, i
        while joint_set.parents[at] >= 0:
            at, steps = joint_set.parents[at], steps + 1
            assert steps < n
        parent = joint_set.parents[i]
        assert joint_set.parents[joint_set.mirror[i]] == (joint_set.mirror[parent] if parent >= 0 else -1)


@pytest.mark.parametrize(
    ("name", "mirror"),
    [
        ("smpl-24", "0 2 1 3 5 4 6 8 7 9 11 10 12 14 13 15 17 16 19 18 21 20 23 22"),
        ("openpose-25", "0 1 5 6 7 2 3 4 8 12 13 14 9 10 11 16 15 18 17 22 23 24 19 20 21"),
    ],
)
def test_published_mirror_maps(name, mirror):
    assert list(skeletons.get(name).mirror) == _ints(mirror)


def test_mirror_of_spins_second_half():
    expected = [25 + i for i in _ints("5 4 3 2 1 0 11 10 9 8 7 6 12 13 14 15 16 17 18 19 21 20 23 22")]
    assert list(skeletons.get("spin-49").mirror[25:]) == expected


@pytest.mark.parametrize(
    ("name", "left", "right"),
    [
        ("h36m-17", "4 5 6 11 12 13", "1 2 3 14 15 16"),
        ("mpi3dhp-17", "5 6 7 11 12 13", "2 3 4 8 9 10"),
        ("h36m-16", "4 5 6 10 11 12", "1 2 3 13 14 15"),
        ("humaneva-15", "2 3 4 8 9 10", "5 6 7 11 12 13"),
    ],
)
def test_published_sides(name, left, right):
    assert (list(skeletons.get(name).left), list(skeletons.get(name).right)) == (_ints(left), _ints(right))


@pytest.mark.parametrize(
    ("source", "target", "picks"),
    [
        ("h36m-17", "h36m-17-left", "0 4 5 6 1 2 3 7 8 9 10 11 12 13 14 15 16"),
        ("h36m-17-left", "h36m-17", "0 4 5 6 1 2 3 7 8 9 10 11 12 13 14 15 16"),
        ("h36m-17-left", "lsp-14", "6 5 4 1 2 3 16 15 14 11 12 13 8 10"),
        ("h36m-17", "lsp-14", "3 2 1 4 5 6 16 15 14 11 12 13 8 10"),
        ("openpose-25", "coco-17", "0 16 15 18 17 5 2 6 3 7 4 12 9 13 10 14 11"),
        ("mpi3dhp-28", "mpi3dhp-17", "7 5 14 15 16 9 10 11 23 24 25 18 19 20 4 3 6"),
        ("mpi3dhp-17", "h36m-17-left", "14 11 12 13 8 9 10 15 1 16 0 5 6 7 2 3 4"),
        ("mpi3dhp-17", "h36m-17", "14 8 9 10 11 12 13 15 1 16 0 5 6 7 2 3 4"),
        ("h36m-32", "h36m-17", "0 1 2 3 6 7 8 12 13 14 15 17 18 19 25 26 27"),
        ("h36m-17-left", "lsp-17", "6 5 4 1 2 3 16 15 14 11 12 13 8 10 0 7 9"),
        ("lsp-17", "h36m-17-left", "14 3 4 5 2 1 0 15 12 16 13 9 10 11 8 7 6"),
        ("spin-24", "lsp-17", "0 1 2 3 4 5 6 7 8 9 10 11 12 18 14 16 17"),
        ("spin-24", "h36m-16", "14 2 1 0 3 4 5 16 12 18 9 10 11 8 7 6"),
        ("spin-24", "coco-17", "19 20 21 22 23 9 8 10 7 11 6 3 2 4 1 5 0"),
        ("spin-49", "spin-24", " ".join(str(i) for i in range(25, 49))),
        ("hybrik-29", "smpl-24", " ".join(str(i) for i in range(24))),
        ("openpose-25", "openpose-18", "0 1 2 3 4 5 6 7 9 10 11 12 13 14 15 16 17 18"),
        ("mpi3dhp-28", "h36m-17-left", "4 18 19 20 23 24 25 3 5 6 7 9 10 11 14 15 16"),
    ],
)
def test_published_picks(source, target, picks):
    assert list(skeletons.matching(source, target)) == _ints(picks)


def test_picks_from_spins_superset():
    superset = [25 + i for i in _ints("19 20 21 22 23 9 8 10 7 11 6 3 2 4 1 5 0")]
    assert list(skeletons.matching("spin-49", "coco-17")) == superset
    assert list(skeletons.matching("spin-49", "openpose-25")) == list(range(25))
    # J17 of the superset is 0..12 18 14 16 17; its first 14 are this set
    assert list(skeletons.matching("spin-49", "lsp-14")) == [25 + i for i in [*range(13), 18]]


@pytest.mark.parametrize(("a", "b"), list(itertools.product(SETS, SETS)))
def test_there_and_back_is_identity_on_shared_joints(a, b):
    joints = np.random.default_rng(0).normal(size=(2, SETS[a], 3))
    back = skeletons.convert(skeletons.convert(joints, a, b, fill=np.nan), b, a, fill=np.nan)
    shared = [i for i in skeletons.matching(a, b) if i is not None]
    assert len(set(shared)) == len(shared) > 0
    np.testing.assert_array_equal(back[:, shared], joints[:, shared])
    lacking = [i for i in range(SETS[a]) if i not in shared]
    assert np.isnan(back[:, lacking]).all()


def test_convert_keeps_sides():
    for a, b in itertools.product(SETS, SETS):
        for joint, index in zip(skeletons.get(b).joints, skeletons.matching(a, b), strict=True):
            if index is not None:
                source = skeletons.get(a).joints[index]
                assert ("left_" in joint, "right_" in joint) == ("left_" in source, "right_" in source)


def test_convert_takes_tensors_and_keeps_gradients():
    joints = torch.randn(2, 5, 17, 3, requires_grad=True)
    out = skeletons.convert(joints, "h36m-17", "spin-49", fill=0.0)
    out.sum().backward()
    assert out.shape == (2, 5, 49, 3)
    torch.testing.assert_close(joints.grad, torch.ones_like(joints))


def test_lacking_joints_are_refused_by_name():
    with pytest.raises(ValueError, match="has no pelvis, torso"):
        skeletons.convert(np.zeros((17, 3)), "coco-17", "h36m-17")


def test_wrong_number_of_joints():
    with pytest.raises(ValueError, match=r"\(14, 3\).*17 joints"):
        skeletons.convert(np.zeros((14, 3)), "h36m-17", "lsp-14")


def test_errors_name_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'h36m-17'"):
        skeletons.get("h36m17")
    with pytest.raises(ValueError, match="Did you mean 'left_knee'"):
        skeletons.get("lsp-14").index("left_kne")


@pytest.mark.parametrize("spelling", ["right_hip", "RHip", "R_Hip", "Right Hip", "r-hip", "RightHip", "rHip"])
def test_spellings(spelling):
    assert skeletons.get("lsp-14").index(spelling) == 2
    assert skeletons.get("openpose-25").index("MidHip") == 8
