"""Result records: to files and back, resuming, and files that are not what they should be."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from bodyreg.inference import results
from bodyreg.inference.results import PersonResult, PhotoRecord, ResultsWriter


def person(seed: int = 0, **changes) -> PersonResult:
    rng = np.random.default_rng(seed)
    fields = {
        "global_orient": rng.normal(size=3).astype(np.float32),
        "body_pose": rng.normal(size=69) / 3,
        "betas": rng.normal(size=10),
        "transl": np.array([0.1, 0.2, 4.0]),
        "K": np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]),
        "image_hw": (480, 640),
        "box_xywh": np.array([10.0, 20, 100, 200]),
        "R_crop_from_cam": np.eye(3),
        "joints": {"smpl-24": rng.normal(size=(24, 3)), "h36m-17": rng.normal(size=(17, 3))},
        "keypoints": {"smpl-24": rng.normal(size=(24, 2))},
        "focal_source": "exif",
        "body_name": "free",
        "body_hash": "ab12",
        "gender": "neutral",
        "model_name": "perspose-small",
        "weights_hash": "cd34",
        "found_by": "hog+refined",
        "score": 0.9,
    }
    return PersonResult(**(fields | changes))


def assert_same(a: PersonResult, b: PersonResult) -> None:
    first, second = a.to_fields(), b.to_fields()
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
        if isinstance(value, np.ndarray):
            assert value.dtype == second[name].dtype, name


@pytest.mark.parametrize("suffix", ["npz", "json"])
def test_a_person_goes_to_a_file_and_back_without_loss(tmp_path, suffix):
    one = person()
    path = tmp_path / f"a_0.{suffix}"
    (results.write_npz if suffix == "npz" else results.write_json)(one, path)
    assert_same(results.read_person(path), one)


def test_files_hold_the_fields_of_the_contract_without_pickle(tmp_path):
    results.write_npz(person(), tmp_path / "a_0.npz")
    contract = {
        *("global_orient", "body_pose", "betas", "transl", "K", "image_hw", "box_xywh", "R_crop_from_cam"),
        *("joints_smpl-24", "joints_h36m-17", "keypoints_smpl-24", "focal_source", "body_name", "body_hash"),
        *("model_name", "weights_hash", "frame", "units"),
    }
    with np.load(tmp_path / "a_0.npz", allow_pickle=False) as data:
        assert contract <= set(data.files)
        assert set(data.files) - contract == {"gender", "found_by", "score"}
        assert {
            name: data[name].dtype.kind for name in data.files if data[name].dtype.kind not in "fi"
        } == dict.fromkeys((*results._TEXTS,), "U")
    results.write_json(person(), tmp_path / "a_0.json")
    assert contract <= set(json.loads((tmp_path / "a_0.json").read_text()))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"transl": [0, 0, np.nan]}, "NaN"),
        ({"body_pose": np.zeros((23, 3))}, "shape"),
        ({"betas": "many"}, "not an array"),
        ({"joints": {"smpl-24": np.zeros((24, 2))}}, "joints_smpl-24"),
        ({"keypoints": {"smpl-24": np.full((24, 2), np.inf)}}, "keypoints_smpl-24"),
    ],
)
def test_persons_of_wrong_shape_or_not_finite_are_refused(change, match):
    with pytest.raises(ValueError, match=match):
        person(**change)


def test_files_of_another_kind_are_refused(tmp_path):
    np.savez(tmp_path / "poses.npz", poses=np.zeros((3, 72)))
    np.savez(tmp_path / "pickled.npz", poses=np.array([{}], dtype=object))
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "cut.json").write_text('{"transl": [0, 0')
    for name in ("poses.npz", "pickled.npz", "list.json", "cut.json", "gone.json"):
        with pytest.raises(ValueError, match=r"\. [A-Z]"):
            results.read_person(tmp_path / name)


# ---- folders --------------------------------------------------------------------------------------------------------


def test_stems_never_collide():
    stems = results.output_stems(["a.jpg", "a.PNG", "sub/a.jpg", "b.jpg", "A.webp", "a_jpg.png", "c.tar.jpg"])
    assert stems["sub/a.jpg"] == "sub/a" and stems["b.jpg"] == "b" and stems["c.tar.jpg"] == "c.tar"
    assert stems["a.PNG"] == "a_PNG" and stems["a_jpg.png"] == "a_jpg"
    assert len({stem.lower() for stem in stems.values()}) == 7


def record(file: str, **changes) -> PhotoRecord:
    fields = {
        "status": "done",
        "image_hw": (480, 640),
        "orientation": 1,
        "K": np.eye(3).tolist(),
        "focal_source": "exif",
    }
    return PhotoRecord(file, **(fields | changes))


def test_results_are_written_sorted_whatever_the_order_and_read_back(tmp_path):
    refused = PhotoRecord("c.jpg", "refused", "c.jpg is empty (zero bytes). Copy the photograph again.")
    records = [
        record("b.jpg", people=[{"box_xywh": [1, 2, 3, 4], "score": 1.0, "found_by": "box"}]),
        refused,
        record("a.jpg"),
    ]
    texts = []
    for order in (records, records[::-1]):
        writer = ResultsWriter(tmp_path, {"model": "m", "formats": ("obj", "npz")})
        for item in order:
            writer.add(item)
        assert [item.file for item in writer.close()] == ["a.jpg", "b.jpg", "c.jpg"]
        texts.append((tmp_path / "results.json").read_text())
    assert texts[0] == texts[1]
    back, settings = results.read_results(tmp_path)
    assert back == sorted(records, key=lambda item: item.file)
    assert settings == {"model": "m", "formats": ["obj", "npz"]}
    assert not [path for path in tmp_path.iterdir() if path.name != "results.json"]


def test_records_are_kept_while_the_job_runs(tmp_path):
    writer = ResultsWriter(tmp_path, {}, interval=0.0)
    writer.add(record("a.jpg"))
    assert [item.file for item in results.read_results(tmp_path)[0]] == ["a.jpg"]


def test_refused_records_need_a_reason_and_others_none():
    for status, reason in (("refused", None), ("done", "why"), ("lost", None)):
        with pytest.raises(ValueError):
            PhotoRecord("a.jpg", status, reason)


def test_resuming_takes_what_is_complete(tmp_path):
    settings = {"model": "m", "formats": ("npz",)}
    assert results.resume(tmp_path, settings) == {}
    (tmp_path / "a_0.npz").touch()
    writer = ResultsWriter(tmp_path, settings)
    writer.add(record("a.jpg", files=["a_0.npz"]))
    writer.add(record("b.jpg", files=["b_0.npz"]))  # its file is missing
    writer.add(PhotoRecord("c.jpg", "refused", "It is damaged. Copy it again."))
    writer.add(record("d.jpg", status="nobody"))
    writer.close()
    assert sorted(results.resume(tmp_path, settings)) == ["a.jpg", "d.jpg"]
    with pytest.raises(ValueError, match="other settings"):
        results.resume(tmp_path, settings | {"model": "n"})


def test_damaged_results_are_refused(tmp_path):
    for text in (
        "{",
        "{}",
        "[]",
        '{"version": 99, "records": [], "settings": {}}',
        '{"version": 1, "records": [{}], "settings": {}}',
    ):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(ValueError, match=r"\. (Check|Run)"):
            results.read_results(tmp_path)


def test_person_files_of_a_folder_prefer_npz_and_count_naturally(tmp_path):
    names = [f"f{number}_{k}.{suffix}" for number in (1, 2, 10) for k in (0, 1) for suffix in ("npz", "json", "obj")]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "f3_0.json").touch()
    want = ["f1_0.npz", "f1_1.npz", "f2_0.npz", "f2_1.npz", "f3_0.json", "f10_0.npz", "f10_1.npz"]
    assert [path.name for path in results.person_files(tmp_path)] == want
    writer = ResultsWriter(tmp_path, {})
    writer.add(record("f2.jpg", files=["f2_0.json", "f2_0.npz", "f2_overlay.png"]))
    writer.close()
    assert [path.name for path in results.person_files(tmp_path)] == ["f2_0.npz"]
    assert results.person_files(tmp_path / "f3_0.json") == [tmp_path / "f3_0.json"]


def test_folders_without_people_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(ValueError, match=r"\. (Run|Give)"):
            results.person_files(path)


def test_replace_checks_again():
    with pytest.raises(ValueError, match="transl"):
        replace(person(), transl=np.zeros(4))
