"""What can be wrong with what a user gives, end to end: one record a file, one message a job, no code run."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from bodyreg.body_files import PARENTS
from bodyreg.cli import app
from bodyreg.data import folder as data_folder
from bodyreg.files import MissingFileError, UnsafeFileError
from bodyreg.inference.folder import infer_folder, load_regressor


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be this large and holds almost nothing: decoding it would take all memory."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def cmyk(path: Path) -> None:
    Image.new("CMYK", (90, 70), (10, 200, 30, 0)).save(path)


def sixteen_bits(path: Path) -> None:
    Image.fromarray((np.indices((70, 90)).sum(0) * 400).astype(np.uint16)).save(path)


def alpha(path: Path) -> None:
    Image.new("RGBA", (90, 70), (200, 100, 50, 90)).save(path)


def truncated(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD = {
    "truncated.jpg": (truncated, "truncated"),
    "text.png": (lambda path: path.write_text("Dear diary, this is no picture."), "not a picture"),
    "empty.jpg": (lambda path: path.write_bytes(b""), "zero bytes"),
    "bomb.png": (lambda path: path.write_bytes(png_header(20_000, 20_000)), "20000 x 20000"),
    "gone.jpg": (lambda path: path.symlink_to("nowhere.jpg"), "broken link"),
    "closed.png": (alpha, "permission"),
}
ODD = {"cmyk.jpg": cmyk, "sixteen.png": sixteen_bits, "alpha.png": alpha, "alpha.webp": alpha}


@pytest.fixture
def mixed(tmp_path, monkeypatch) -> Path:
    """A folder of bad, odd and good files."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, (make, _) in BAD.items():
        make(photos / name)
    for name, make in ODD.items():
        make(photos / name)

    def opened(path, *args, **kwargs):  # root may read everything, so the system's answer is played
        if Path(path).name == "closed.png":
            raise PermissionError(13, "Permission denied", str(path))
        return open(path, *args, **kwargs)

    monkeypatch.setattr(data_folder, "open", opened, raising=False)
    return photos


def test_bad_files_have_a_record_with_the_reason_and_the_others_their_results(tmp_path, mixed, regressor):
    summary = infer_folder(mixed, tmp_path / "out", regressor=regressor, overlay=False, formats=("json",))
    records = {record.file: record for record in summary.records}
    assert set(records) == set(BAD) | set(ODD)
    for name, (_, why) in BAD.items():
        assert records[name].status == "refused" and why in records[name].reason, records[name]
        assert records[name].reason.count(". ") >= 1 and not records[name].files
    for name in ODD:
        assert records[name].status == "done" and records[name].image_hw == (70, 90), records[name]
    stored = json.loads((tmp_path / "out" / "results.json").read_text())["records"]
    assert [entry["file"] for entry in stored] == sorted(records)


def test_refused_files_do_not_change_the_exit_code(tmp_path, mixed, tiny_weights):
    line = ["infer", str(mixed), "--out", str(tmp_path / "out"), "--weights", str(tiny_weights), "--formats", "json"]
    result = CliRunner().invoke(app, [*line, "--no-overlay", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "bomb.png" in result.output + result.stderr


def test_command_line_says_what_is_wrong_and_exits_1(tmp_path, tiny_weights):
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "notes.txt").write_text("no photographs here")
    for photos, why in (("nothing", "holds no photographs"), ("nowhere", "There is no folder")):
        line = ["infer", str(tmp_path / photos), "--out", str(tmp_path / "out"), "--weights", str(tiny_weights)]
        result = CliRunner().invoke(app, line)
        assert result.exit_code == 1 and why in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()
    assert CliRunner().invoke(app, ["infer", str(tmp_path)]).exit_code == 2


def test_useless_boxes_refuse_their_picture_alone(tmp_path, regressor, save_photo):
    good = [20, 10, 50, 70]
    boxes = {
        "outside.png": [[500, 500, 40, 40]],
        "flat.png": [[10, 10, 0, 40]],
        "nan.png": [[float("nan"), 0, 40, 40]],
        "partly.png": [[500, 500, 40, 40], good],
        "over_the_edge.png": [[-30, -20, 100, 90]],
        "none.png": [],
    }
    for name in [*boxes, "other.png"]:
        save_photo(tmp_path / "in" / name)
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    summary = infer_folder(
        tmp_path / "in", tmp_path / "out", regressor=regressor, boxes=tmp_path / "boxes.json", overlay=False
    )
    records = {Path(record.file).stem: record for record in summary.records}
    assert {name: record.status for name, record in records.items()} == {
        "outside": "refused", "flat": "refused", "nan": "refused", "partly": "done", "over_the_edge": "done",
        "none": "nobody", "other": "done",
    }  # fmt: skip
    assert "outside the picture" in records["outside"].reason and "degenerate" in records["flat"].reason
    assert "NaN" in records["nan"].reason
    assert len(records["partly"].people) == 1 and "outside the picture" in records["partly"].notes[0]


def test_bad_intrinsics_refuse_their_picture_alone(tmp_path, regressor, save_photo):
    for name in ("nan.png", "negative.png", "fine.png", "other.png"):
        save_photo(tmp_path / "in" / name)
    fine = {"fx": 100, "fy": 100, "cx": 60, "cy": 45}
    given = {"nan.png": {**fine, "fx": float("nan")}, "negative.png": {**fine, "fy": -1}, "fine.png": fine}
    (tmp_path / "K.json").write_text(json.dumps(given))
    summary = infer_folder(
        tmp_path / "in", tmp_path / "out", regressor=regressor, intrinsics=tmp_path / "K.json", overlay=False
    )
    records = {Path(record.file).stem: record for record in summary.records}
    assert records["nan"].status == "refused" and "NaN" in records["nan"].reason
    assert records["negative"].status == "refused" and "fy = -1" in records["negative"].reason
    assert records["fine"].focal_source == "intrinsics" and records["other"].focal_source == "heuristic"


@pytest.mark.parametrize("name", ["boxes", "intrinsics", "keypoints"])
def test_input_files_of_another_kind_are_one_error(tmp_path, regressor, save_photo, name):
    save_photo(tmp_path / "in" / "a.png")
    (tmp_path / "input.json").write_text("{]")
    for path in (tmp_path / "input.json", tmp_path / "missing.json"):
        with pytest.raises(ValueError, match=path.name):
            infer_folder(tmp_path / "in", tmp_path / "out", regressor=regressor, **{name: path})


# ---- bodies and weights ---------------------------------------------------------------------------------------------


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_missing_smpl_names_every_place_searched(tmp_path, tiny_smpl_weights, monkeypatch):
    monkeypatch.setenv("BODYREG_DATA", str(tmp_path / "licensed"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    with pytest.raises(MissingFileError) as caught:
        load_regressor(weights=tiny_smpl_weights, body="smpl", device="cpu")
    message = str(caught.value)
    assert "SMPL_NEUTRAL" in message and str(tmp_path / "licensed") in message and "smpl.is.tue.mpg.de" in message


def test_weights_and_bodies_that_do_not_belong_together(tiny_weights, tiny_smpl_weights, tmp_path):
    with pytest.raises(ValueError, match="--body smpl"):
        load_regressor(weights=tiny_smpl_weights, device="cpu")
    with pytest.raises(ValueError, match="--body free"):
        load_regressor(weights=tiny_weights, body="smpl", device="cpu")
    with pytest.raises(ValueError, match="not 'hrnet'"):
        load_regressor("hrnet", weights=tiny_weights, device="cpu")


def test_a_body_file_that_runs_code_is_refused_and_nothing_is_run(tmp_path, tiny_smpl_weights):
    marker = tmp_path / "it_ran"
    body = tmp_path / "SMPL_NEUTRAL.pkl"
    body.write_bytes(pickle.dumps({"v_template": Bomb(marker), "kintree_table": np.array([PARENTS, range(24)])}))
    with pytest.raises(UnsafeFileError):
        load_regressor(weights=tiny_smpl_weights, body=body, device="cpu")
    assert not marker.exists()


@pytest.mark.parametrize("name", ["evil.pt", "evil.safetensors"])
def test_weights_that_run_code_are_refused_and_nothing_is_run(tmp_path, name, save_photo):
    marker = tmp_path / "it_ran"
    torch.save({"state_dict": Bomb(marker)}, tmp_path / name)
    photos = save_photo(tmp_path / "in" / "a.png").parent
    line = ["infer", str(photos), "--out", str(tmp_path / "out"), "--weights", str(tmp_path / name)]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 1 and name in result.stderr and "Traceback" not in result.output + result.stderr
    assert not marker.exists() and not (tmp_path / "out").exists()


def test_missing_and_damaged_weights(tmp_path, tiny_weights):
    with pytest.raises(ValueError, match="no weights file"):
        load_regressor(weights=tmp_path / "none.safetensors", device="cpu")
    (tmp_path / "half.safetensors").write_bytes(tiny_weights.read_bytes()[:50_000])
    with pytest.raises(ValueError, match="not a readable safetensors"):
        load_regressor(weights=tmp_path / "half.safetensors", device="cpu")


def test_a_fault_of_ours_on_one_file_stops_no_other(tmp_path, regressor, save_photo, monkeypatch):
    from bodyreg.inference import pictures

    read = pictures.read_image

    def faulty(path):
        if path.name == "b.png":
            raise ZeroDivisionError("a fault")
        return read(path)

    monkeypatch.setattr(pictures, "read_image", faulty)
    for name in ("a.png", "b.png", "c.png"):
        save_photo(tmp_path / "in" / name)
    records = infer_folder(tmp_path / "in", tmp_path / "out", regressor=regressor, overlay=False).records
    assert [record.status for record in records] == ["done", "refused", "done"]
    assert "ZeroDivisionError" in records[1].reason


def test_a_name_too_long_for_its_results_is_refused(tmp_path, regressor, save_photo):
    save_photo(tmp_path / "in" / ("x" * 250 + ".png"))
    save_photo(tmp_path / "in" / "y.png")
    records = infer_folder(tmp_path / "in", tmp_path / "out", regressor=regressor).records
    assert [record.status for record in records] == ["refused", "done"] and "Rename" in records[0].reason
