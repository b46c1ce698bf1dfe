"""What the checks of PersPose share: comparison with a tolerance, and the toy body of a set."""

from __future__ import annotations

import json

import numpy as np
import torch

from bodyreg.body import BodyModel


def close(actual, expected, atol: float, what: str) -> None:
    """Arrays agree within atol, and neither holds NaN."""
    actual = np.asarray(actual.detach() if isinstance(actual, torch.Tensor) else actual)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, reference {expected.shape}"
    error = np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0)
    assert error <= atol, f"{what}: off by {error:.3g}, allowed {atol:g}"


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array))


def toy_body(golden, dtype: torch.dtype) -> tuple[BodyModel, torch.Tensor]:
    """The toy body of the set that `golden` belongs to, and its 17 x V regressor."""
    with np.load(golden.path.parent / "smpl_synth.npz", allow_pickle=False) as stored:
        arrays = {name.removeprefix("state/"): stored[name] for name in stored.files if name.startswith("state/")}
        num_betas = json.loads(str(stored["config"]))["num_betas"]
    h36m = tensor(arrays.pop("h36m"))
    return BodyModel.from_arrays(arrays, num_betas=num_betas, name="unknown", dtype=dtype), h36m.to(dtype)
