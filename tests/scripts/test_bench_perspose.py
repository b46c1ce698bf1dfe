"""The benchmark of PersPose measures people that inverse kinematics brings back, and names every part."""

import importlib.util
from pathlib import Path

import torch

from bodyreg.body import BodyModel
from bodyreg.inverse_kinematics import inverse_kinematics

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench_perspose.py"


def test_parts_are_measured_on_people_who_can_be_solved():
    free_body = BodyModel.load("free")
    spec = importlib.util.spec_from_file_location("bench_perspose", SCRIPT)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    aim, twist, betas, leaf = bench.people(free_body, 3, torch.Generator().manual_seed(1))
    solved = inverse_kinematics(free_body, aim, twist, betas, leaf)
    posed = free_body(solved.betas, solved.R_local[:, 1:], solved.R_local[:, 0], solved.transl)
    assert (posed.joints - aim).norm(dim=-1).mean() < 0.05
    figures = bench.behind(2, repeat=2)
    assert set(figures) == {"decode_and_flip_merge", "search", "inverse_kinematics", "all"}
    assert all(value["ms"] > 0 and value["cpu_ms"] > 0 for value in figures.values())
    slow = bench.best(lambda: sum(range(200_000)), 2)
    assert slow["cpu_ms"] > bench.best(lambda: None, 2)["cpu_ms"]
