"""The command line: exit codes, messages, and that every command calls its function as that is written."""

from __future__ import annotations

import importlib
import inspect
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bodyreg.checkpoints import save_weights
from bodyreg.cli import app
from bodyreg.data.synthetic import prepare
from bodyreg.evaluation import synthetic
from bodyreg.files import MissingFileError
from bodyreg.inference.folder import FolderSummary
from bodyreg.inference.results import PhotoRecord
from bodyreg.models.registry import ModelSettings, build

# Command line -> module and function it must call.
CALLS = {
    "infer photos --out out --formats obj,GLB --fov 60 --no-overlay": ("bodyreg.inference.folder", "infer_folder"),
    "export out --out meshes --formats amass": ("bodyreg.inference.export", "export_results"),
    "train perspose_small run.steps=1": ("bodyreg.training.run", "train"),
    "prepare synthetic --out shards --count 3": ("bodyreg.data.synthetic.prepare", "prepare_synthetic"),
}
RETURNS = {
    "infer_folder": FolderSummary(Path("out"), (PhotoRecord("a.jpg", "refused", "It is empty."),), 0, 1.0, {}),
    "export_results": [Path("a")],
    "prepare_synthetic": [Path("a")],
}


def run(line: str | list[str]):
    return CliRunner().invoke(app, line.split() if isinstance(line, str) else line, prog_name="bodyreg")


@pytest.fixture(params=CALLS, ids=[line.split(" ")[0] for line in CALLS])
def call(request, monkeypatch):
    """A command line, and a list that fills with the arguments its function is called with; `outcome` may be raised."""
    module_name, function = CALLS[request.param]
    module = importlib.import_module(module_name)
    signature = inspect.signature(getattr(module, function))

    class Call:
        line = request.param
        arguments: dict = {}
        outcome: Exception | None = None

    def stand_in(*args, **kwargs):
        Call.arguments = dict(signature.bind(*args, **kwargs).arguments)  # TypeError if the command calls it wrongly
        if Call.outcome is not None:
            raise Call.outcome
        return RETURNS.get(function)

    monkeypatch.setattr(module, function, stand_in)
    return Call


def test_command_calls_its_function(call):
    result = run(call.line)
    assert result.exit_code == 0, result.output
    assert call.arguments


def test_infer_takes_degrees_and_reports_refused_files(monkeypatch):
    module = importlib.import_module("bodyreg.inference.folder")
    options = {}
    monkeypatch.setattr(module, "infer_folder", lambda *_, **kw: options.update(kw) or RETURNS["infer_folder"])
    result = run("infer photos --out out --fov 60 --formats obj,GLB")
    assert result.exit_code == 0
    assert options["fov"] == pytest.approx(math.pi / 3) and options["formats"] == ("obj", "glb")
    assert "a.jpg: It is empty." in result.stderr and "1 refused" in result.stdout


def test_evaluate_prints_and_writes_scores(monkeypatch, tmp_path):
    settings = ModelSettings(widths=[8, 8, 8, 8], depths=[1, 1, 1, 1], map_channels=8)
    save_weights(tmp_path / "w.safetensors", build(settings), settings)
    calls = []

    def stand_in(loaded, body, shards, *, people):
        calls.append((loaded.settings, body.name, shards, people))
        score = synthetic.Score
        return [score("network", people, {"MPJPE": 12.34}), score("mean pose", people, {"PVE": 5.0})]

    monkeypatch.setattr(synthetic, "evaluate_synthetic", stand_in)
    rendered, clothes = [], []

    def ensure(folder, people, *, settings, **_):
        rendered.append((folder, people))
        clothes.append(settings.garments)

    monkeypatch.setattr(prepare, "ensure_shards", ensure)
    line = ["evaluate", "perspose_small", "data.held_out=there", "--people", "7", "--out", str(tmp_path / "s.json")]
    result = run([*line, "--weights", str(tmp_path / "w.safetensors")])
    assert result.exit_code == 0, result.output
    assert calls == [(settings, "free", Path("there"), 7)] and rendered == [(Path("there"), 2048)]
    assert "12.3" in result.stdout and "-" in result.stdout
    assert [score["name"] for score in json.loads((tmp_path / "s.json").read_text())["scores"]] == [
        "network",
        "mean pose",
    ]
    result = run([*line, "--data", "elsewhere", "--weights", str(tmp_path / "w.safetensors")])
    assert result.exit_code == 0 and calls[-1][2] == Path("elsewhere") == rendered[-1][0]
    assert clothes == ["painted", None], "the card's figures are of painted people; a folder of the user's has its own"
    save_weights(tmp_path / "smpl.safetensors", build(settings), settings, body="smpl")
    result = run([*line, "--weights", str(tmp_path / "smpl.safetensors")])
    assert result.exit_code == 1 and "have the free body" in result.stderr and len(calls) == 2
    result = run([*line, "--weights", "nowhere.safetensors"])
    assert result.exit_code == 1 and "no weights file" in result.stderr


@pytest.mark.parametrize("config", ["perspose_dsr", "dsr"])
def test_evaluate_takes_configurations_with_sections_of_their_own(config, monkeypatch, tmp_path):
    settings = ModelSettings(widths=[8, 8, 8, 8], depths=[1, 1, 1, 1], map_channels=8)
    save_weights(tmp_path / "w.safetensors", build(settings), settings)
    folders = []
    monkeypatch.setattr(prepare, "ensure_shards", lambda folder, *_, **__: None)
    monkeypatch.setattr(synthetic, "evaluate_synthetic", lambda loaded, body, shards, **_: folders.append(shards) or [])
    line = ["evaluate", config, "semantic.image_size=48", "data.held_out=there"]
    result = run([*line, "--weights", str(tmp_path / "w.safetensors")])
    assert result.exit_code == 0, result.output
    assert folders == [Path("there")]
    result = run(["evaluate", config, "semantics.image_size=48"])
    assert result.exit_code == 1 and "unknown key" in result.stderr


@pytest.mark.parametrize(
    "error", [ValueError("The file is bad. Mend it."), MissingFileError("Cannot find SMPL."), OSError("No space left.")]
)
def test_errors_of_the_user_are_one_message_and_exit_1(call, error):
    call.outcome = error
    result = run(call.line)
    assert result.exit_code == 1
    assert result.stderr.strip() == f"Error: {error}"


def test_debug_shows_the_error_itself(call):
    call.outcome = ValueError("inner")
    result = run(["--debug", *call.line.split()])
    assert isinstance(result.exception, ValueError)


def test_errors_of_ours_are_not_hidden(call):
    call.outcome = TypeError("a bug")
    assert isinstance(run(call.line).exception, TypeError)


@pytest.mark.parametrize("line", ["infer", "infer photos", "nonsense", "infer photos --out o --batch-size 0", "train"])
def test_misuse_is_exit_2(line):
    assert run(line).exit_code == 2


def test_only_commands_that_exist_are_listed():
    listed = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert listed | {group.name for group in app.registered_groups} == {
        "infer", "lift", "refine", "export", "train", "evaluate", "prepare", "models", "view", "doctor",
    }  # fmt: skip


@pytest.mark.parametrize("line", ["--help", "infer --help"])
def test_help_ends_with_examples_that_can_be_typed(line, monkeypatch):
    module = importlib.import_module("bodyreg.inference.folder")
    monkeypatch.setattr(module, "infer_folder", lambda *_, **__: RETURNS["infer_folder"])
    text = run(line).output.partition("Examples:")[2]
    examples = [example.strip().removeprefix("bodyreg ") for example in text.splitlines() if example.strip()]
    assert len(examples) >= 4
    for example in examples:
        command, *_ = example.split()
        assert run(f"{command} --help").exit_code == 0
        if command == "infer":
            assert run(example).exit_code == 0, example


def test_models_and_doctor_run():
    assert "perspose_small" in run("models").output
    report = run("doctor")
    assert report.exit_code == 0 and "6890 vertices" in report.output


def test_unknown_configuration_and_key():
    result = run("train perspose_smal")
    assert result.exit_code == 1 and "Did you mean 'perspose_small'" in result.stderr
    result = run("train perspose_small run.stepz=1")
    assert result.exit_code == 1 and "run.steps" in result.stderr


def test_module_can_be_run_and_takes_debug_anywhere(tmp_path):
    line = [sys.executable, "-m", "bodyreg"]
    done = subprocess.run([*line, "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("bodyreg ")
    done = subprocess.run(
        [*line, "export", "no_such_thing", "--out", str(tmp_path), "--debug"], capture_output=True, text=True
    )
    assert done.returncode == 1 and "Traceback" in done.stderr and "no_such_thing" in done.stderr
