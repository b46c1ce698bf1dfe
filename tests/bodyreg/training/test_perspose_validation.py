"""Validation in training: the truth scores nothing, everyone counts once, in one process and in two."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bodyreg.cameras import project
from bodyreg.data.mixing import MixedBatches, Mixture
from bodyreg.data.perspose_crops import PersPoseCrops
from bodyreg.data.sample import SampleTable
from bodyreg.models.decoding import Readout
from bodyreg.models.registry import default_settings
from bodyreg.training.perspose import MixedPeople, PersPoseModule, targets_of, train_perspose
from bodyreg.training.perspose_settings import PersPoseSettings
from bodyreg.training.perspose_validation import open_held_out

NARROW = [
    "model.widths=[4,4,4,4]", "model.modules=[1,1,1]", "model.depths=[1,1,1,1]", "model.head_widths=[2,2,2,2]",
    "model.vector_channels=16", "model.crop_size=32", "run.precision=32-true", "run.accelerator=cpu",
    "data.h36m=0", "data.bedlam_train=0", "data.bedlam_val=0", "data.samples=16", "data.batch_size=2",
]  # fmt: skip


def module_of(prepared, bodies, names, crop_size=64):
    """A narrow module and its people, who train on one set alone."""
    settings = PersPoseSettings(model=default_settings("perspose"))
    model = settings.model
    model.widths, model.modules, model.depths, model.crop_size = [4, 4, 4, 4], [1, 1, 1], [1, 1, 1, 1], crop_size
    model.head_widths, model.vector_channels = [2, 2, 2, 2], 16
    data = settings.data
    data.coco = data.mpi3dhp = data.pw3d = data.bedlam_train = data.bedlam_val = 0.0
    held_out = open_held_out(names, prepared, {})
    people = MixedPeople(settings, [SampleTable(prepared / "pw3d_train.npz"), *[None] * 5], [prepared] * 6, bodies,
                         held_out)  # fmt: skip
    return PersPoseModule(settings, bodies["neutral"], 10, held_out), people


def what_the_truth_would_say(self, batch, *, mirrored):
    """Labels in the place of heads."""
    targets = targets_of(batch)
    points = torch.cat([targets.joints24, targets.pelvis17[:, None]], 1)
    focal = targets.K_crop[:, 0, 0, None, None]
    twist = torch.cat([targets.twist, targets.twist[:, :1]], 1)
    return Readout(
        project(points, targets.K_crop), (points - points[:, :1])[..., 2:], points[:, :1, 2:] / focal, twist,
        targets.leaf_rot, targets.betas,
    )  # fmt: skip


def validate(module, people) -> dict[str, float]:
    with torch.no_grad():
        for number, crops in enumerate(people.held_out):
            for batch in torch.utils.data.DataLoader(crops, batch_sampler=crops.batches(2, 0, 1)):
                module.validation_step(batch, 0, number)
    return module.scoring.close()


def test_the_truth_scores_next_to_nothing(prepared, bodies, monkeypatch, caplog):
    """Labels, decoding, inverse kinematics, body, regressor and protocol agree; lost pictures are not scored."""
    caplog.set_level("WARNING")
    module, people = module_of(prepared, bodies, ["pw3d_test"])
    monkeypatch.setattr(PersPoseModule, "_read", what_the_truth_would_say)
    figures = validate(module, people)
    assert set(figures) == {f"pw3d_test/{metric}_mm" for metric in ("MPJPE", "PA-MPJPE", "PVE")}
    # The first shape number is searched in steps of a tenth, and depths may answer for it.
    assert all(value < 25 for value in figures.values()), figures
    people.held_out[0].crops.roots[0] = prepared / "nowhere"
    with pytest.raises(ValueError, match="No sample could be scored"):
        validate(module, people)
    assert "left out" in caplog.text


def test_protocols_are_those_of_the_published_figures(prepared, tmp_path):
    both = open_held_out(["pw3d_test", "mpi3dhp_test"], prepared, {})
    assert [entry.protocol.name for entry in both] == ["pw3d-j14", "mpi3dhp-hybrik-17"]
    assert [len(entry.samples) for entry in both] == [5, 5]
    with pytest.raises(ValueError, match="no protocol"):
        open_held_out(["coco_train2017"], prepared, {})
    with pytest.raises(ValueError, match=r"no .*h36m_test.npz to validate on.*data.held_out"):
        open_held_out(["h36m_test"], prepared, {})


def test_human36m_counts_every_fourth_sample(prepared, tmp_path):
    table = dict(np.load(prepared / "pw3d_test.npz"))
    header = json.loads(str(table.pop("header"))) | {"source": "h36m"}
    np.savez(tmp_path / "h36m_test.npz", header=json.dumps(header), **table)
    (entry,) = open_held_out(["h36m_test"], tmp_path, {})
    assert entry.protocol.name == "h36m-mosh-j14" and entry.rows.tolist() == [0, 4] and len(entry.samples) == 2


def test_a_run_validates_and_goes_on_to_the_same_weights(prepared, bodies, tmp_path, caplog):
    caplog.set_level("INFO", logger="bodyreg.training.perspose")
    out = [f"data.folder={prepared}", "run.steps=2", "data.eval_batch_size=2"]
    quiet = train_perspose("perspose_3dpw", [*NARROW, *out, "data.held_out=[]", f"run.out={tmp_path / 'quiet'}"],
                           bodies=bodies, progress=False)  # fmt: skip
    assert "MPJPE" not in caplog.text
    more = ["data.held_out=[pw3d_test,mpi3dhp_test]", "run.validate_every=1", f"run.out={tmp_path / 'loud'}"]
    loud = train_perspose("perspose_3dpw", [*NARROW, *out, *more], bodies=bodies, progress=False)
    for step in (1, 2):
        assert f"step {step}, pw3d_test/PVE_mm" in caplog.text and f"step {step}, mpi3dhp_test/MPJPE_mm" in caplog.text
    ours, theirs = load_file(quiet), load_file(loud)
    assert list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


TWO = """
import json, os, sys
from bodyreg.body import BodyModel
from bodyreg.training import perspose
from bodyreg.training.perspose_validation import Scoring

kept = {"seen": []}
real_step, real_close = perspose.PersPoseModule.training_step, Scoring.close

def step(self, batch, index):
    kept["seen"].append(batch["K_crop"].tolist())
    kept["module"] = self
    return real_step(self, batch, index)

def close(self):
    kept["figures"] = real_close(self)
    return kept["figures"]

perspose.PersPoseModule.training_step, Scoring.close = step, close
if __name__ == "__main__":
    body = BodyModel.load("free", "neutral", 11)
    perspose.train_perspose("perspose_3dpw", sys.argv[2:], progress=False,
                            bodies={"neutral": body, "male": body, "female": body})
    module = kept.pop("module")
    kept["weights"] = sum(float(p.double().abs().sum()) for p in module.model.parameters())
    with open(f"{sys.argv[1]}/rank{os.environ.get('LOCAL_RANK', '0')}.json", "w") as file:
        json.dump(kept, file)
"""


def test_two_processes_share_the_work_and_agree(prepared, bodies, tmp_path):
    """Gloo on two processes: other batches, the same weights, and validation's figures of one process."""
    (tmp_path / "two.py").write_text(TWO)
    command = [sys.executable, "two.py", str(tmp_path), *NARROW, f"data.folder={prepared}", "run.devices=2",
               "run.steps=2", "data.held_out=[pw3d_test,mpi3dhp_test]", "run.validate_every=2",
               "data.eval_batch_size=2", f"run.out={tmp_path / 'out'}", "run.threads=1",
               "run.checkpoint_every=2"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert one["weights"] == two["weights"] and one["figures"] == two["figures"]

    sizes, shares = [0, 4, 4, 4, 0, 0], [0, 0.4, 0.2, 0.1, 0, 0]
    names = {1: "coco_train2017", 2: "mpi3dhp_train_v2", 3: "pw3d_train"}
    for rank, found in ((0, one), (1, two)):
        batches = MixedBatches(Mixture(sizes, shares, 16), 2, seed=0, rank=rank, world=2)
        for rows, K in zip(list(batches)[:2], found["seen"], strict=True):
            for (number, sample, draw), matrix in zip(rows, K, strict=True):
                name = names[number]
                crops = PersPoseCrops([SampleTable(prepared / f"{name}.npz")], [prepared / name.split("_")[0]], bodies,
                                      32)  # fmt: skip
                np.testing.assert_allclose(crops[0, sample, draw]["K_crop"], matrix, rtol=1e-5)

    module, people = module_of(prepared, bodies, ["pw3d_test", "mpi3dhp_test"], crop_size=32)
    module.load_state_dict(torch.load(tmp_path / "out" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    alone = validate(module.eval(), people)
    assert alone == pytest.approx(one["figures"], rel=1e-5)
