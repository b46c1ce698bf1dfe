"""The plain loop takes its steps, learns something, and leaves weights that load."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from bodyreg.checkpoints import load_model

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train_plain_torch.py"


def test_two_steps(tmp_path, monkeypatch, capsys) -> None:
    spec = importlib.util.spec_from_file_location("train_plain_torch", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    weights = module.main(
        ["model.widths=[8,8,16,16]", "model.depths=[1,1,1,1]", "model.map_channels=8", "data.crop_sizes=[64]",
         "data.phase_ends=[1.0]", "data.batch_size=2", "data.bank_size=2", "data.people=4", "data.held_out_people=4",
         "run.validation_people=2", "run.steps=2", "semantic.image_size=24", "semantic.warmup_steps=0",
         "semantic.prior=skinning"]
    )  # fmt: skip
    assert load_model(weights).settings.name == "perspose_small"
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    assert len(lines) == 2 and "nan" not in "".join(lines)
