"""Training on several machines: the documented command, on two that are one, over gloo and in two steps."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

from bodyreg.checkpoints import load_model, read_header

# What `python -m bodyreg train` does, and what this process saw of it.
RECORDED = """
import json, os, sys
import torch
from bodyreg.training import regressor, run
seen = []
step = regressor.RegressorModule.training_step
def recorded(self, batch, index):
    seen.append([float(batch["image"].float().mean()), self.trainer.world_size, self.trainer.num_nodes])
    recorded.module = self
    return step(self, batch, index)
regressor.RegressorModule.training_step = recorded
if __name__ == "__main__":
    run.train("perspose_small", sys.argv[2:], progress=False)
    weights = sum(float(p.detach().double().abs().sum()) for p in recorded.module.model.parameters())
    with open(f"{sys.argv[1]}/{os.environ['RANK']}.json", "w") as file:
        json.dump({"seen": seen, "weights": weights}, file)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_machines_share_the_work_and_end_with_one_network(shard_folder, tmp_path):
    (tmp_path / "recorded.py").write_text(RECORDED)
    training = [
        "run.nodes=2", "run.devices=1", "run.steps=2", "model.widths=[8,8,16,16]", "model.depths=[1,1,1,1]",
        "model.map_channels=8", "model.crop_size=64", "data.crop_sizes=[32]", "data.phase_ends=[1.0]",
        "data.batch_size=4", "data.bank_size=2", f"data.shards={shard_folder}", f"data.held_out={shard_folder}",
        "run.accelerator=cpu", "run.threads=1", "run.validation_people=8", "run.validate_every=2", "run.out=out",
    ]  # fmt: skip
    port = free_port()
    machines = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={rank}", "--nproc-per-node=1",
             "--master-addr=127.0.0.1", f"--master-port={port}", "recorded.py", str(tmp_path), *training],
            cwd=tmp_path, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    for machine in machines:
        _, errors = machine.communicate(timeout=540)
        assert machine.returncode == 0, errors[-3000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["weights"] == second["weights"]
    assert [seen[1:] for seen in first["seen"] + second["seen"]] == [[2, 2]] * 4
    pictures = {seen[0] for seen in first["seen"] + second["seen"]}
    assert len(pictures) == 4, "every process and step has a batch of its own"
    loaded = load_model(tmp_path / "out" / "perspose_small.safetensors")
    kept = sum(float(p.double().abs().sum()) for p in loaded.model.parameters() if p.isfinite().all())
    assert 0 < kept < first["weights"] * (1 + 1e-3)  # in half precision, without the heads that only teach
    header = read_header(tmp_path / "out" / "perspose_small.safetensors")
    assert (header["trained_steps"], header["pictures_seen"]) == ("2", "16")
