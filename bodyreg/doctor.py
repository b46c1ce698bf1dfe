"""What this installation has, as a table: for bug reports, and for users whose files are not found."""

from __future__ import annotations

import os
import platform
from importlib import util
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_CORE = ("torch", "numpy", "numba", "opencv-python-headless", "lightning")
_OPTIONAL = {  # module -> (distribution, how to get it)
    "pi_heif": ("pi-heif", "HEIC photographs: pip install bodyreg[heic]"),
    "h5py": ("h5py", "HDF5 data sets: pip install bodyreg[datasets]"),
    "joblib": ("joblib", "joblib data sets: pip install bodyreg[datasets]"),
    "smplx": ("smplx", "second body engine: pip install bodyreg[smplx]"),
    "pytorch3d": ("pytorch3d", "one more rasteriser; install it from its own site"),
    "triton": ("triton", "CUDA kernels; comes with torch on Linux"),
}


def examine() -> dict[str, str]:
    """Label -> finding, in the order to print. Finds faults; never raises for one."""
    found = {
        "bodyreg": f"{_version('bodyreg')} in {Path(__file__).resolve().parent}",
        "Python": f"{platform.python_version()} on {platform.platform()}",
        **{name: _version(name) for name in _CORE},
        "devices": _devices(),
        "processors": str(os.cpu_count()),
        "renderers": _renderers(),
    }
    for module, (name, hint) in _OPTIONAL.items():
        found[name] = _version(name) if util.find_spec(module) else f"not installed ({hint})"
    found.update(_places())
    found["free body"] = _free_body()
    for gender in ("neutral", "male", "female"):
        found[f"SMPL {gender}"] = _smpl(gender)
    found["weights"] = _weights()
    found["configurations"] = _configurations()
    return found


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown version"


def _devices() -> str:
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    names = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return ", ".join(["cpu", *names])


def _renderers() -> str:
    from renderers.backends import available

    lacking = {name: "" if lack is None else f" (no: {lack.rstrip('.')})" for name, lack in available().items()}
    return ", ".join(name + lack for name, lack in lacking.items())


def _places() -> dict[str, str]:
    from bodyreg.files import ENVIRONMENT, search_places

    places = search_places()[1:]
    return {
        name if name == ENVIRONMENT else name.removeprefix("the "): "not set"
        if path is None
        else f"{path}{'' if path.is_dir() else ' (no such folder)'}"
        for name, path in places
    }


def _free_body() -> str:
    from bodyreg.body import BodyModel

    try:
        body = BodyModel.load("free")
    except (ValueError, OSError) as error:
        return f"BROKEN: {error}"
    return f"{len(body.v_template)} vertices, hash {body.hash[:12]}"


def _smpl(gender: str) -> str:
    from bodyreg.body_files import find_body

    try:
        return str(find_body(None, gender))
    except ValueError:
        return "not found (register at https://smpl.is.tue.mpg.de; the free body works without it)"


def _weights() -> str:
    from bodyreg.checkpoints import default_weights
    from bodyreg.lifter_weights import default_lifter
    from bodyreg.models.registry import MODELS

    shipped = []
    for name, entry in MODELS.items():
        try:
            shipped.append((default_lifter if entry.kind == "lifter" else default_weights)(name).stem)
        except ValueError:
            continue
    return ", ".join(shipped) or "none shipped"


def _configurations() -> str:
    from bodyreg.config import shipped_configs

    return ", ".join(shipped_configs()) or "none found"
