"""Protocols: every shipped record is sound, names with changes are read back, and wrong ones are refused by name."""

from __future__ import annotations

import pytest

from bodyreg import skeletons
from bodyreg.evaluation import protocols


@pytest.mark.parametrize("name", protocols.names())
def test_shipped_protocol_is_sound(name):
    protocol = protocols.get(name)
    assert protocol.label == name == protocol.name
    assert {*protocol.rows("pck_joints"), *protocol.root_rows(), *protocol.rows("joints")} == set(protocol.needed())
    assert name in protocols.fitting(protocol.dataset)
    assert protocol.source and any(name in line for line in protocol.describe())


def test_the_named_decisions_are_the_published_ones():
    j14, midhip = protocols.get("pw3d-j14"), protocols.get("pw3d-j14-midhip")
    right_first = [3, 2, 1, 4, 5, 6, 16, 15, 14, 11, 12, 13, 8, 10]
    assert j14.rows("joints") == midhip.rows("joints") == right_first
    assert j14.root_rows() == [0] and midhip.root_rows() == [1, 4]
    assert protocols.get("pw3d-j44-hmr2").rows("joints") == [*range(25, 38), 43]
    assert protocols.get("pw3d-j44-hmr2").root_rows() == [39]
    challenge = protocols.get("pw3d-j24-challenge")
    assert sorted(challenge.rows("pck_joints")) == [1, 2, 4, 5, 7, 8, *range(16, 22)]
    lift = protocols.get("mpi3dhp-lift-17")
    assert lift.root_rows() == [14] and lift.rows("pck_joints") == list(range(14)) and lift.pred_root == "zero"
    assert sum(len(joints) for joints in lift.groups.values()) == 14
    assert protocols.get("h36m-moon-p2").rows("joints") == [1, 2, 3, 4, 5, 6, 8, *range(10, 17)]
    assert protocols.get("smpl24-midhip").root_rows() == [1, 2]
    assert len(skeletons.get(protocols.get("mpi3dhp-cross-16").joint_set)) == 16


def test_a_changed_protocol_says_so_and_can_be_named_again():
    changed = protocols.get("h36m-lift-17").varied(pred_root="zero", aggregate="frames")
    assert changed.label == "h36m-lift-17[pred_root=zero,aggregate=frames]"
    assert protocols.get(changed.label) == changed
    again = changed.varied(pred_root="subtract")
    assert again.label == "h36m-lift-17[pred_root=subtract,aggregate=frames]" and again.pred_root == "subtract"
    few = protocols.get("pw3d-j14[joints=left_knee+right_knee,pck_m=0.05]")
    assert few.rows("joints") == [5, 2] and few.pck_m == 0.05


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pw3d-j41", "Did you mean 'pw3d-j14'"),
        ("pw3d-j14[root=tail]", "no joint 'tail'"),
        ("pw3d-j14[pred_rot=raw]", "Did you mean 'pred_root'"),
        ("pw3d-j14[pred_root=drop]", "raw, zero, subtract"),
        ("pw3d-j14[aggregate=days]", "frames, actions"),
        ("pw3d-j14-midhip[pred_root=zero]", "mean of 2 joints"),
        ("pw3d-j14[metrics=MPJPE+XYZ]", "Known: MPJPE"),
        ("pw3d-j14[pck_m=wide]", "no number"),
        ("pw3d-j14[pred_root=raw", "NAME\\[field=value"),
        ("pw3d-j14[]", "NAME\\[field=value"),
    ],
)
def test_wrong_names_say_what_is_right(name, message):
    with pytest.raises(ValueError, match=message):
        protocols.get(name)
