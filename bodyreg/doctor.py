"""What this installation has and what it lacks, each with one line on how to get it: for users, and for bug reports."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib import util
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["Finding", "examine"]

_CORE = ("torch", "numpy", "numba", "opencv-python-headless", "lightning")
_OPTIONAL = {  # module -> (distribution, what for, how to get it)
    "pi_heif": ("pi-heif", "HEIC photographs", "pip install bodyreg[heic]"),
    "h5py": ("h5py", "HDF5 data sets", "pip install bodyreg[datasets]"),
    "joblib": ("joblib", "joblib data sets", "pip install bodyreg[datasets]"),
    "smplx": ("smplx", "second body engine", "pip install bodyreg[smplx]"),
    "matplotlib": ("matplotlib", "bars of evaluations", "pip install bodyreg[plots]"),
    "ray": ("ray", "infer --engine ray", "pip install bodyreg[ray]"),
    "triton": ("triton", "CUDA kernels", "comes with PyTorch on Linux"),
    "pytorch3d": ("pytorch3d", "one more rasteriser", "install it as its own site says"),
}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        label: what was looked at. found: what is there.
        remedy: one sentence on how to get or mend it; empty where there is nothing to do.
    """

    label: str
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Everything, in the order to print. Finds faults; never raises for one."""
    return [
        Finding("bodyreg", f"{_version('bodyreg')} in {Path(__file__).resolve().parent}"),
        Finding("Python", f"{platform.python_version()} on {platform.platform()}"),
        *(_looked_at(name, partial(version, name), "pip install bodyreg") for name in _CORE),
        *_optional(),
        Finding("processors", str(os.cpu_count())),
        _gpu(),
        *_renderers(),
        *_places(),
        *_licensed(),
        _looked_at("free body", _free_body, "pip install --force-reinstall bodyreg"),
        _weights(),
        _people(),
        _configurations(),
    ]


def _looked_at(label: str, look: Callable[[], str], remedy: str) -> Finding:
    """What `look` finds, or what kept it from finding anything."""
    try:
        return Finding(label, look())
    except PackageNotFoundError:
        return Finding(label, "not installed", remedy)
    except Exception as error:  # whatever a broken installation raises is a finding
        return Finding(label, f"BROKEN: {_first_line(error)}", remedy)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown version"


def _optional() -> Iterator[Finding]:
    for module, (name, purpose, remedy) in _OPTIONAL.items():
        if util.find_spec(module):
            yield Finding(name, _version(name))
        else:
            yield Finding(name, f"not installed ({purpose})", remedy)


def _gpu() -> Finding:
    """Whether a GPU is there and draws what the processor draws."""
    import torch

    if torch.version.cuda is None:
        return Finding(
            "GPU", "none used: this PyTorch has no CUDA", "with an NVIDIA GPU, install a CUDA build from pytorch.org"
        )
    if not torch.cuda.is_available():
        return Finding(
            "GPU", f"none found: PyTorch has CUDA {torch.version.cuda}", "see whether `nvidia-smi` lists one and runs"
        )
    names = ", ".join(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))
    return _looked_at("GPU", lambda: f"{names}; {_draws_alike('cuda')}", "run with --device cpu, and report this line")


def _draws_alike(device: str) -> str:
    """A triangle drawn on a device against the readable back end; raises where they differ."""
    import torch

    from renderers.backends import choose
    from renderers.soft import soft_silhouette

    triangle = torch.tensor([[[-0.6, -0.5, 2.0], [0.7, -0.4, 2.0], [0.0, 0.8, 2.0]]])
    wanted = soft_silhouette(triangle, [1], image_size=16, backend="naive")
    drawn = soft_silhouette(triangle.to(device), [1], image_size=16)
    off = float((drawn.cpu() - wanted).abs().max())
    if not off < 1e-3:
        raise ValueError(f"the renderer is off by {off:.2g} in a test picture")
    return f"the renderer {choose(triangle.to(device))} draws the test picture"


def _renderers() -> Iterator[Finding]:
    """The back end that float32 tensors get on the processor and on a GPU, and what keeps the others idle."""
    import torch

    from renderers.backends import BACKENDS, choose, remedy, why_idle

    chosen = choose(torch.zeros(1, 3, 3))
    why = "the fastest for the processor" if chosen == "cpu" else "the fast one for the processor is missing"
    finding = _looked_at("renderer, processor", lambda: f"{chosen}: {why}; {_draws_alike('cpu')}", remedy("cpu"))
    yield finding if chosen == "cpu" else replace(finding, remedy=remedy("cpu"))
    idle = why_idle("cuda")
    if idle is None:
        yield Finding("renderer, GPU", "cuda: the fastest for NVIDIA GPUs")
    else:
        yield Finding("renderer, GPU", f"none: {idle.rstrip('.')}", "" if "device" in idle else remedy("cuda"))
    others = [name for name in BACKENDS if name not in ("cpu", "cuda") and why_idle(name) is None]
    yield Finding("renderers on request", ", ".join(others))


def _places() -> Iterator[Finding]:
    """Where licensed files are looked for."""
    from bodyreg.files import ENVIRONMENT, search_places

    for name, path in search_places()[1:]:
        label = name if name == ENVIRONMENT else name.removeprefix("the ")
        if path is None:
            yield Finding(label, "not set", f"set {name} to the folder of your licensed files, or use the next")
        else:
            missing = not path.is_dir()
            yield Finding(label, f"{path}{' (no such folder)' if missing else ''}", "make it" if missing else "")


def _licensed() -> Iterator[Finding]:
    """Files that users bring: found and readable, or where to register."""
    from bodyreg.body_files import find_body, find_kid_template, read_body
    from bodyreg.body_joints import PUBLISHED_SETS, find_regressor
    from bodyreg.files import MissingFileError
    from bodyreg.models.hmr import find_mean_parameters

    def body(gender: str) -> str:
        path = find_body(None, gender)
        return f"{path}, {len(read_body(path, gender=gender).v_template)} vertices"

    smpl, agora = "register at smpl.is.tue.mpg.de", "register at agora.is.tue.mpg.de"
    looks: list[tuple[str, Callable[[], object], str]] = [
        *((f"SMPL {g}", partial(body, g), f"{smpl}; the free body works without") for g in _GENDERS),
        ("SMPL child template", find_kid_template, f"{agora}; only kid shapes need it"),
        *(
            (f"SMPL joints {name}", partial(find_regressor, name), f"{smpl}; the free body has its own")
            for name in PUBLISHED_SETS
        ),
        ("SPIN's mean", find_mean_parameters, f"{smpl}; only published HMR weights need it"),
    ]
    for label, look, remedy in looks:
        try:
            yield Finding(label, str(look()))
        except MissingFileError:
            yield Finding(label, "not found", remedy)
        except Exception as error:  # a damaged file is a finding
            yield Finding(label, f"BROKEN: {_first_line(error)}", "download it again")


_GENDERS = ("neutral", "male", "female")


def _free_body() -> str:
    from bodyreg.body import BodyModel

    body = BodyModel.load("free")
    return f"{len(body.v_template)} vertices, hash {body.hash[:12]}"


def _weights() -> Finding:
    from bodyreg.checkpoints import default_weights
    from bodyreg.lifter_weights import default_lifter
    from bodyreg.models.registry import MODELS

    shipped = []
    for name, entry in MODELS.items():
        try:
            shipped.append((default_lifter if entry.kind == "lifter" else default_weights)(name).stem)
        except ValueError:
            continue
    remedy = "" if shipped else "pip install --force-reinstall bodyreg"
    return Finding("weights", ", ".join(shipped) or "none shipped", remedy)


def _people() -> Finding:
    """How `infer` finds people where nobody says."""
    import cv2
    import numpy as np

    from bodyreg.inference.blazepose import find

    try:
        find(np.zeros((64, 64, 3), np.uint8), 0.5)
    except (OSError, cv2.error) as error:
        return Finding("people finder", f"BlazePose does not run: {error}", "pip install --force-reinstall bodyreg")
    return Finding("people finder", f"BlazePose, by OpenCV {cv2.__version__}", "")


def _configurations() -> Finding:
    from bodyreg.config import shipped_configs

    found = ", ".join(shipped_configs())
    return Finding("configurations", found or "none found", "" if found else "pip install --force-reinstall bodyreg")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
