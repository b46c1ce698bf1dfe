"""The report on an installation: every lack has a remedy, damage is found and never raised."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bodyreg import doctor
from bodyreg.body_files import read_body


def findings() -> dict[str, doctor.Finding]:
    found = doctor.examine()
    assert len({f.label for f in found}) == len(found)
    return {f.label: f for f in found}


@pytest.fixture
def licensed(tmp_path, monkeypatch):
    """The folder that BODYREG_DATA names; the user data folder is another, empty one."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("BODYREG_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("bodyreg.files.user_data_folder", lambda: tmp_path / "user")
    return tmp_path / "data"


def test_every_lack_has_a_remedy_and_what_is_there_has_none(licensed):
    for finding in findings().values():
        assert finding.label and finding.found and "\n" not in finding.found + finding.remedy
        if finding.found.startswith(("not installed", "not found", "BROKEN", "none shipped")):
            assert finding.remedy, finding
    assert findings()["torch"] == doctor.Finding("torch", torch.__version__)
    assert findings()["free body"].found.startswith("6890 vertices")
    assert "(no such folder)" in findings()["user data folder"].found


def test_licensed_files_are_found_read_and_told_from_damaged_ones(licensed, smpl_arrays):
    np.savez(licensed / "SMPL_NEUTRAL.npz", **smpl_arrays)
    assert len(read_body(licensed / "SMPL_NEUTRAL.npz").v_template) == 50
    (licensed / "SMPL_MALE.npz").write_bytes(b"not a body")
    (licensed / "J_regressor_h36m.npy").write_bytes(b"")
    found = findings()
    assert found["BODYREG_DATA"] == doctor.Finding("BODYREG_DATA", str(licensed))
    assert found["SMPL neutral"].found == f"{licensed / 'SMPL_NEUTRAL.npz'}, 50 vertices"
    assert found["SMPL male"].found.startswith("BROKEN: ") and found["SMPL male"].remedy == "download it again"
    assert found["SMPL female"].found == "not found" and "register at" in found["SMPL female"].remedy
    assert found["SMPL joints h36m-17"].found == str(licensed / "J_regressor_h36m.npy")
    assert found["SMPL joints coco-17"].found == "not found"


@pytest.mark.parametrize(
    ("cuda", "devices", "works", "found", "remedy"),
    [
        (None, 0, False, "has no CUDA", "CUDA build"),
        ("13.0", 0, False, "none found: PyTorch has CUDA 13.0", "nvidia-smi"),
        ("13.0", 2, True, "cuda:0 Card, cuda:1 Card; the renderer cuda draws", ""),
        ("13.0", 1, False, "BROKEN: no kernel image", "--device cpu"),
    ],
)
def test_the_gpu_is_tried_and_not_only_counted(monkeypatch, cuda, devices, works, found, remedy):
    def draws(device):
        if not works:
            raise RuntimeError("no kernel image\nfor this device")
        return f"the renderer {device} draws"

    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "Card")
    monkeypatch.setattr(doctor, "_draws_alike", draws)
    finding = doctor._gpu()
    assert found in finding.found and remedy in finding.remedy and bool(remedy) == bool(finding.remedy)


def test_a_renderer_that_draws_wrongly_is_broken(monkeypatch):
    assert "draws the test picture" in findings()["renderer, processor"].found
    from renderers import soft

    real = soft.soft_silhouette
    monkeypatch.setattr(
        soft, "soft_silhouette", lambda *args, backend=None, **options: real(*args, backend=backend, **options) * (
            1 if backend == "naive" else 0.9)
    )  # fmt: skip
    assert "BROKEN: the renderer is off by" in findings()["renderer, processor"].found


def test_the_slow_renderer_is_explained(monkeypatch):
    monkeypatch.setattr("renderers.backends.choose", lambda faces, name=None: "naive")
    finding = findings()["renderer, processor"]
    assert finding.found.startswith("naive: the fast one") and "numba" in finding.remedy


def test_extras_are_printed_in_their_brackets(capsys):
    """What looks like markup is text: without its extra, `pip install bodyreg[ray]` would mend nothing."""
    from bodyreg.cli_output import print_rows

    print_rows(("doctor", "found"), [("ray", "pip install bodyreg[ray]")])
    assert "pip install bodyreg[ray]" in capsys.readouterr().out
