"""The scripts' environment: which interpreter is taken, when `.venv` is made anew, and with which commands."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """The module, working on an empty checkout; `commands` collects what it would run."""
    spec = importlib.util.spec_from_file_location("environment_under_test", SCRIPTS / "_environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("first")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv" / "stamp.json")
    monkeypatch.delenv("BODYREG_PYTHON", raising=False)
    module.commands = []

    class Done:
        returncode = 0

    def run(command, **_):
        module.commands.append([str(word) for word in command])
        if command[1:3] == ["-m", "venv"]:
            python = module._venv_python()
            python.parent.mkdir(parents=True)
            python.touch()
        return Done()

    monkeypatch.setattr(module.subprocess, "run", run)
    return module


def installs(module) -> list[str]:
    return [command[-1] for command in module.commands if "install" in command]


def test_running_interpreter_and_named_one_are_taken_as_they_are(environment, monkeypatch):
    arguments = ["--no-venv", "-k", "x"]
    assert environment.python_for(["test"], arguments) == sys.executable
    assert arguments == ["-k", "x"]
    monkeypatch.setenv("BODYREG_PYTHON", "elsewhere/python")
    assert environment.python_for(["test"], []) == "elsewhere/python"
    assert not environment.commands


def test_environment_is_made_once_and_again_when_the_pins_change(environment):
    first = environment.ensure(["test"])
    assert first == environment._venv_python() and installs(environment) == [".[test]"]
    assert any(command[1:3] == ["-m", "venv"] for command in environment.commands)
    assert any(str(environment.ROOT / "constraints.txt") in command for command in environment.commands)
    environment.ensure(["test"])
    environment.ensure(["heic"])  # the test extra brings it
    assert installs(environment) == [".[test]"]
    environment.ensure(["dev"])
    assert installs(environment)[1:] == [".[dev,test]"]
    (environment.ROOT / "constraints.txt").write_text("second")
    environment.ensure(["test"])
    assert len(installs(environment)) == 3


def test_failed_installation_is_reported_and_tried_again(environment, monkeypatch):
    run = environment.subprocess.run

    def failing(command, **options):
        done = run(command, **options)
        done.returncode = int("install" in command)
        return done

    monkeypatch.setattr(environment.subprocess, "run", failing)
    with pytest.raises(SystemExit, match="could not install"):
        environment.ensure(["test"])
    monkeypatch.setattr(environment.subprocess, "run", run)
    environment.ensure(["test"])
    assert len(installs(environment)) == 2
