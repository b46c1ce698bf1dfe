"""bodyreg: photographs in, posed SMPL bodies out.

The public names below are loaded when they are first used, so that `import bodyreg` stays fast and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bodyreg.body import BodyModel, BodyOutput
    from bodyreg.cameras import Camera, resolve_camera
    from bodyreg.crops import Crop, make_crop
    from bodyreg.files import MissingFileError
    from bodyreg.inference.export import export_results
    from bodyreg.inference.folder import infer_folder
    from bodyreg.skeletons import JointSet, convert

# In the order a reader would use them; `_HOMES` says which module defines each.
__all__ = [
    "infer_folder",
    "export_results",
    "BodyModel",
    "BodyOutput",
    "Camera",
    "resolve_camera",
    "Crop",
    "make_crop",
    "JointSet",
    "convert",
    "MissingFileError",
    "__version__",
]

_HOMES = {
    "infer_folder": "bodyreg.inference.folder",
    "export_results": "bodyreg.inference.export",
    "BodyModel": "bodyreg.body",
    "BodyOutput": "bodyreg.body",
    "Camera": "bodyreg.cameras",
    "resolve_camera": "bodyreg.cameras",
    "Crop": "bodyreg.crops",
    "make_crop": "bodyreg.crops",
    "JointSet": "bodyreg.skeletons",
    "convert": "bodyreg.skeletons",
    "MissingFileError": "bodyreg.files",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'bodyreg' has no attribute {name!r}. Its public names: {', '.join(__all__)}.")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("bodyreg")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0.0.0+checkout"
