"""Importing the package and asking for help loads nothing heavy, and every public name can be had."""

from __future__ import annotations

import subprocess
import sys

import pytest

import bodyreg

HEAVY = ("torch", "numpy", "cv2", "numba", "lightning", "scipy", "trimesh", "omegaconf", "PIL")


def loaded_after(code: str) -> set[str]:
    """Top-level modules in a fresh process after running `code`."""
    tail = "\nimport sys; print('MODULES', *sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True)
    return set(done.stdout.rsplit("MODULES", 1)[1].split())


def test_import_loads_nothing_heavy():
    loaded = loaded_after("import bodyreg")
    assert "bodyreg" in loaded and not loaded.intersection(HEAVY)


def test_help_loads_nothing_heavy():
    run = "import sys, bodyreg.cli\nsys.argv = ['bodyreg', '--help']\ntry: bodyreg.cli.main()\nexcept SystemExit: pass"
    loaded = loaded_after(run)
    assert "typer" in loaded and not loaded.intersection(HEAVY)


def test_parts_that_need_no_torch_do_not_load_it():
    assert "torch" not in loaded_after("import bodyreg\nbodyreg.Camera, bodyreg.JointSet, bodyreg.MissingFileError")


@pytest.mark.parametrize("name", bodyreg.__all__)
def test_public_names_exist(name):
    assert getattr(bodyreg, name) is not None


def test_public_names_and_their_homes_agree():
    assert set(bodyreg.__all__) == {*bodyreg._HOMES, "__version__"}
    assert set(bodyreg.__all__) <= set(dir(bodyreg))


def test_unknown_name_lists_the_public_ones():
    with pytest.raises(AttributeError, match="no attribute 'infer'.*infer_folder"):
        bodyreg.infer  # noqa: B018


def test_a_body_is_ready_without_torchs_compiler():
    """It takes two seconds to load; drawing initial values without memory does so, and later versions of roma do."""
    code = (
        "from bodyreg.checkpoints import default_weights, load_model\nfrom bodyreg.body import BodyModel\n"
        "load_model(default_weights('perspose_small')), BodyModel.load('free')()\n"
        "import sys; assert 'torch._dynamo' not in sys.modules and 'sympy' not in sys.modules"
    )
    assert "torch" in loaded_after(code)
