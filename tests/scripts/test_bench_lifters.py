"""The benchmark of lifters runs, counts what it says and puts pruned networks beside their hosts."""

import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench_lifters.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_lifters", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_of_a_host_and_its_pruned_network(bench, tmp_path, capsys):
    options = ["mixste", "hot_mixste", "--preset", "small", "--repeat", "1", "--no-memory", "--threads", "1"]
    assert bench.main([*options, "--json", str(tmp_path / "figures.json")]) == 0
    rows = json.loads((tmp_path / "figures.json").read_text())["lifters"]
    assert rows["hot_mixste"]["gflops_layers"] < 0.7 * rows["mixste"]["gflops_layers"]
    for row in rows.values():
        assert row["gflops_layers"] < row["gflops"] and min(row["seconds_fused"], row["seconds_explicit"]) > 0
        assert 0 < row["bfloat16_error"] < 0.1
    assert "times as fast as its host" in capsys.readouterr().out


def test_unknown_lifters_are_named(bench, capsys):
    assert bench.main(["mixst"]) == 1
    assert "Did you mean 'mixste'" in capsys.readouterr().err
