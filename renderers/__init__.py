"""Triangles, cameras and pixels: plain arrays in, plain arrays out. Knows no bodies.

Names are imported when first used, so that `import renderers` loads neither torch nor Numba.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_HOME = {
    "render_mesh": "shading",
    "overlay": "shading",
    "silhouette": "shading",
    "side_view": "shading",
    "top_view": "shading",
    "contact_sheet": "shading",
    "PALETTE": "shading",
    "Hard": "backends.cpu",
    "rasterize_hard": "backends.cpu",
    "interpolate": "backends.cpu",
    "interpolate_normals": "backends.cpu",
    "vertex_normals": "backends.cpu",
    "NdcCamera": "cameras",
    "ndc_camera_from_opencv": "cameras",
    "opencv_from_ndc_camera": "cameras",
    "ndc_camera_from_weak_perspective": "cameras",
    "ndc_camera_from_spin": "cameras",
    "ndc_camera_from_fov": "cameras",
    "px_from_ndc": "cameras",
    "ndc_from_px": "cameras",
    "rasterize": "rasterize",
    "Fragments": "rasterize",
    "clip_faces": "clipping",
    "soft_silhouette": "soft",
    "soft_render": "soft",
    "Blend": "soft",
    "Picture": "blending",
    "blur_for": "blending",
    "interpolate_corners": "blending",
    "interpolate_faces": "blending",
    "blend_silhouette": "blending",
    "blend_hard": "blending",
    "labels_hard": "blending",
    "blend_sigmoid": "blending",
    "blend_softmax": "blending",
    "depth_hard": "blending",
    "depth_soft": "blending",
    "Light": "lighting",
    "Material": "lighting",
    "normals_hard": "lighting",
    "shade_phong": "lighting",
    "shade_gouraud": "lighting",
    "shade_flat": "lighting",
    "map_threads": "threads",
    "thread_count": "threads",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'renderers' has no attribute {name!r}")
    return getattr(importlib.import_module(f"renderers.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # Importing the file rasterize.py would put the module where the function of that name belongs.
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
