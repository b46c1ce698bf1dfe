"""Boxes, key points and intrinsics as users give them, well and badly formed."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from bodyreg.cameras import Camera
from bodyreg.data.inputs import box_from_keypoints, check_box, lookup, read_boxes, read_intrinsics, read_keypoints


def write(path, data):
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


# ---- lookup ---------------------------------------------------------------------------------------------------------


def test_the_closest_name_wins():
    entries = {"sub/a.jpg": 1, "a.jpg": 2, "a": 3, "*": 4}
    assert lookup(entries, "sub/a.jpg") == 1
    assert lookup(entries, "other/a.jpg") == 2
    assert lookup(entries, "a.png") == 3
    assert lookup(entries, "b.png") == 4
    assert lookup({}, "b.png") is None


# ---- boxes ----------------------------------------------------------------------------------------------------------


def test_boxes_from_json_and_csv_agree(tmp_path):
    from_json = read_boxes(write(tmp_path / "b.json", {"a.jpg": [[1, 2, 3, 4.5], [5, 6, 7, 8]], "b.jpg": []}))
    from_csv = read_boxes(write(tmp_path / "b.csv", "\ufefffile,x,y,w,h\na.jpg,1,2,3,4.5\n\na.jpg, 5,6,7,8\n"))
    np.testing.assert_array_equal(from_json["a.jpg"], [[1, 2, 3, 4.5], [5, 6, 7, 8]])
    np.testing.assert_array_equal(from_csv["a.jpg"], from_json["a.jpg"])
    assert from_json["b.jpg"] == []
    no_header = read_boxes(write(tmp_path / "c.csv", "a.jpg,1,2,3,4.5\n"))
    np.testing.assert_array_equal(no_header["a.jpg"], [[1, 2, 3, 4.5]])
    other_order = read_boxes(write(tmp_path / "d.csv", "score,w,h,x,y,file\n0.5,3,4.5,1,2,a.jpg\n"))
    np.testing.assert_array_equal(other_order["a.jpg"], [[1, 2, 3, 4.5]])


def test_one_box_without_inner_brackets_is_one_person(tmp_path):
    np.testing.assert_array_equal(
        read_boxes(write(tmp_path / "b.json", {"a.jpg": [1, 2, 3, 4]}))["a.jpg"], [[1, 2, 3, 4]]
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("b.json", "{"),
        ("b.json", "[[1, 2, 3, 4]]"),
        ("b.json", '{"a.jpg": [[1, 2, 3]]}'),
        ("b.json", '{"a.jpg": [[1, 2, 3, "4"]]}'),
        ("b.json", '{"a.jpg": {"x": 1}}'),
        ("b.json", "[" * 100_000),
        ("b.csv", "file,x,y,w,h\na.jpg,1,2,3\n"),
        ("b.csv", "file,x,y,w\na.jpg,1,2,3\n"),
        ("b.csv", "a.jpg,1,2,3,wide\n"),
    ],
)
def test_malformed_boxes_are_refused(tmp_path, name, text):
    with pytest.raises(ValueError, match=r"\. (Check|Give|b\.json must)"):
        read_boxes(write(tmp_path / name, text))


@pytest.mark.parametrize("name", ["gone.json", "gone.csv"])
def test_missing_box_files_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="There is no file|cannot be read"):
        read_boxes(tmp_path / name)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((10, 10, 50, 50), None),
        ((-30, -30, 50, 50), None),
        ((-500, -500, 5000, 5000), None),
        ((math.nan, 10, 50, 50), "NaN"),
        ((10, 10, math.inf, 50), "NaN or infinity"),
        ((10, 10, 0, 50), "degenerate"),
        ((10, 10, 50, -4), "degenerate"),
        ((100, 10, 50, 50), "outside"),
        ((10, 80, 50, 50), "outside"),
        ((-60, 10, 50, 50), "outside"),
        ((0, -50.5, 20, 50), "outside"),
    ],
)
def test_boxes_are_judged_one_by_one(box, reason):
    said = check_box(np.array(box, dtype=float), (80, 100))
    if reason is None:
        assert said is None
    else:
        assert reason in said and ". Give" in said


def test_bad_numbers_in_a_box_file_only_concern_their_record(tmp_path):
    boxes = read_boxes(write(tmp_path / "b.json", '{"a.jpg": [[NaN, 2, 3, 4]], "b.jpg": [[1, 2, 30, 40]]}'))
    assert "NaN" in check_box(boxes["a.jpg"][0], (80, 100))
    assert check_box(boxes["b.jpg"][0], (80, 100)) is None


# ---- intrinsics -----------------------------------------------------------------------------------------------------


def test_intrinsics_by_file_and_for_all(tmp_path):
    path = write(
        tmp_path / "k.json",
        {"a.jpg": {"fx": 500, "fy": 510, "cx": 320, "cy": 240}, "*": {"fx": 1, "fy": 2, "cx": 3, "cy": 4}},
    )
    matrices = read_intrinsics(path)
    np.testing.assert_array_equal(lookup(matrices, "sub/a.jpg"), [[500, 0, 320], [0, 510, 240], [0, 0, 1]])
    np.testing.assert_array_equal(lookup(matrices, "b.jpg"), [[1, 0, 3], [0, 2, 4], [0, 0, 1]])


def test_nan_and_zero_intrinsics_are_refused_where_a_camera_is_made(tmp_path):
    text = '{"a.jpg": {"fx": NaN, "fy": 1, "cx": 2, "cy": 3}, "b.jpg": {"fx": 0, "fy": 1, "cx": 2, "cy": 3}}'
    matrices = read_intrinsics(write(tmp_path / "k.json", text))
    with pytest.raises(ValueError, match=r"NaN or infinity\. Give"):
        Camera(matrices["a.jpg"], (480, 640))
    with pytest.raises(ValueError, match=r"fx = 0 .*\. Give"):
        Camera(matrices["b.jpg"], (480, 640))


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[1]",
        '{"*": 5}',
        '{"*": {"fx": 1, "fy": 1, "cx": 1}}',
        '{"*": {"fx": 1, "fy": 1, "cx": 1, "cy": null}}',
        '{"*": {"fx": 1, "fy": 1, "cx": 1, "cy": 1, "k1": 0.1}}',
        '{"fx": 1, "fy": 1, "cx": 1, "cy": 1}',
    ],
)
def test_malformed_intrinsics_are_refused(tmp_path, text):
    with pytest.raises(ValueError, match=r"\. (Check|k\.json must)"):
        read_intrinsics(write(tmp_path / "k.json", text))


# ---- key points -----------------------------------------------------------------------------------------------------


def openpose(rng, people=2):
    return {"version": 1.3, "people": [{"pose_keypoints_2d": rng.uniform(1, 99, 75).tolist()} for _ in range(people)]}


def test_openpose_folder(tmp_path):
    rng = np.random.default_rng(0)
    one = openpose(rng)
    write(tmp_path / "a_keypoints.json", one)
    write(tmp_path / "empty_keypoints.json", {"people": []})
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub" / "b_openpose.json", openpose(rng, 1))
    people = read_keypoints(tmp_path)
    assert [person.joint_set for person in lookup(people, "a.jpg")] == ["openpose-25"] * 2
    np.testing.assert_array_equal(people["a"][1].points.ravel(), one["people"][1]["pose_keypoints_2d"])
    assert lookup(people, "empty.png") == []
    assert len(lookup(people, "b.jpg")) == 1 and lookup(people, "c.jpg") is None
    assert len(read_keypoints(tmp_path / "a_keypoints.json")["a"]) == 2


def test_equal_names_in_two_folders_are_kept_apart(tmp_path):
    for folder, count in (("one", 1), ("two", 3)):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "a_keypoints.json", openpose(np.random.default_rng(count), count))
    people = read_keypoints(tmp_path)
    assert (len(lookup(people, "one/a.jpg")), len(lookup(people, "two/a.jpg")), lookup(people, "a.jpg")) == (1, 3, None)


def test_coco_results_and_annotations(tmp_path):
    points = np.random.default_rng(0).uniform(0, 99, (3, 51)).tolist()
    rows = [
        {"image_id": i, "category_id": 1, "keypoints": p, "score": 0.9} for i, p in zip([7, 7, 9], points, strict=True)
    ]
    people = read_keypoints(write(tmp_path / "results.json", rows))
    assert len(lookup(people, "000000000007.jpg")) == 2 and len(lookup(people, "9.jpg")) == 1
    assert people["7"][0].joint_set == "coco-17"
    np.testing.assert_array_equal(people["7"][1].points.ravel(), points[1])
    named = read_keypoints(write(tmp_path / "named.json", [{"image_id": "x.jpg", "keypoints": points[0]}]))
    assert len(lookup(named, "x.jpg")) == 1
    full = {"images": [{"id": 7, "file_name": "p.jpg"}, {"id": 8, "file_name": "q.jpg"}], "annotations": rows[:2]}
    annotated = read_keypoints(write(tmp_path / "annotations.json", full))
    assert len(annotated["p.jpg"]) == 2 and annotated["q.jpg"] == []


def test_npz_names_its_joint_set_and_files(tmp_path):
    points = np.random.default_rng(0).uniform(0, 99, (3, 14, 3)).astype(np.float32)
    np.savez(tmp_path / "all.npz", keypoints=points, joint_set="lsp-14", files=np.array(["a.jpg", "b.jpg", "a.jpg"]))
    people = read_keypoints(tmp_path / "all.npz")
    assert len(people["a.jpg"]) == 2 and people["b.jpg"][0].joint_set == "lsp-14"
    np.testing.assert_array_equal(people["b.jpg"][0].points, points[1])
    np.savez(tmp_path / "c_keypoints.npz", keypoints=points, joint_set="lsp-14")
    assert len(read_keypoints(tmp_path / "c_keypoints.npz")["c"]) == 3


def test_malformed_keypoints_are_refused(tmp_path):
    bad = {
        "a.json": '{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}',
        "b.json": '{"people": [{}]}',
        "c.json": '{"something": 1}',
        "d.json": '[{"image_id": 1, "keypoints": [1, 2]}]',
        "e.json": '[{"keypoints": [1, 2]}]',
        "f.json": "nonsense",
    }
    for name, text in bad.items():
        with pytest.raises(ValueError, match=r"\. (Check|Give)"):
            read_keypoints(write(tmp_path / name, text))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="holds no key points"):
        read_keypoints(tmp_path / "nothing")


def test_malformed_npz_is_refused(tmp_path):
    points = np.zeros((2, 14, 3))
    cases = {
        "unnamed": {"keypoints": points},
        "wrong_count": {"keypoints": points, "joint_set": "coco-17"},
        "unknown_set": {"keypoints": points, "joint_set": "no-such-set"},
        "pickled": {"keypoints": np.array([{"a": 1}], dtype=object), "joint_set": "lsp-14"},
        "files": {"keypoints": points, "joint_set": "lsp-14", "files": np.array(["a.jpg"])},
    }
    for name, arrays in cases.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(ValueError):
            read_keypoints(tmp_path / f"{name}.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(ValueError, match="cannot be read"):
        read_keypoints(tmp_path / "text.npz")


def test_box_around_the_key_points_that_are_seen():
    points = np.array([[10, 20, 0.9], [30, 60, 0.8], [20, 40, 0.7], [500, 500, 0.0], [math.nan, 1, 1]])
    np.testing.assert_allclose(box_from_keypoints(points, margin=1.2), [8, 16, 24, 48])
    np.testing.assert_allclose(box_from_keypoints(points, margin=1.0), [10, 20, 20, 40])
    assert box_from_keypoints(points[:2]) is None
    assert box_from_keypoints(np.full((5, 3), 7.0)) is None
    thin = box_from_keypoints(np.array([[10, 0, 1], [10, 50, 1], [10, 100, 1.0]]), margin=1.0)
    np.testing.assert_allclose(thin, [5, 0, 10, 100])
