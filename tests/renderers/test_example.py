"""The example of the README runs and means what its comments say."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def test_the_ten_lines_run_and_give_gradients(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import draw_renderer

    names: dict = {}
    exec(compile(draw_renderer.EXAMPLE, "example", "exec"), names)
    hard = names["nearest"].pix_to_face[..., 0] >= 0
    assert 0.05 < hard.float().mean() < 0.5
    assert (names["alpha"][hard] > 0.5).all()
    assert ((names["alpha"] > 0.5) == hard).float().mean() > 0.95
    assert names["parts"].colour.shape == (1, 224, 224, 24)
    labels = names["parts"].colour.argmax(-1)[hard]
    assert len(labels.unique()) > 15  # hands and feet may hide a few
    gradient = names["pose"].grad
    assert torch.isfinite(gradient).all() and (gradient != 0).any()
    sys.modules.pop("draw_renderer", None)


def test_the_function_is_not_hidden_by_the_file_of_its_name() -> None:
    import renderers.soft  # imports the file rasterize.py
    from renderers import rasterize

    assert callable(rasterize) and callable(renderers.rasterize)
