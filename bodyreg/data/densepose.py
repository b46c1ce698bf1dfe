"""DensePose-COCO (Guler et al., CVPR 2018): people of COCO 2014 whose surface was labelled, as 2D key points.

What is written are the key points of exactly these people, in the form of `coco`. The surface labels themselves (parts
and chart coordinates of single pixels) are not: to lie on a mesh they need the table from charts to vertices that
DensePose's authors distribute with SMPL, and PersPose, which these samples train, has no loss on them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bodyreg.data.coco import keypoint_rows
from bodyreg.data.sample import write_table
from bodyreg.data.sources import find_files, read_json

__all__ = ["WHERE", "prepare"]

WHERE = "http://densepose.org (annotations) and https://cocodataset.org/#download (pictures of 2014)"
SPLITS = ("train", "minival", "valminusminival")
_SURFACE = ("dp_I", "dp_U", "dp_V", "dp_x", "dp_y")


def prepare(root: str | Path, out: str | Path, bodies: object = None, split: str = "train") -> Path:
    """Every person with surface labels of whom at least one of `coco.LIMBS` is labelled.

    Args:
        root: holds annotations/densepose_coco_2014_SPLIT.json and the folder train2014 or val2014. out: the file
            written. bodies: not needed.

    Raises:
        MissingFileError: the download is not complete. ValueError: nobody in the file has surface labels, or their
            lists differ in length.
    """
    (path,) = find_files(root, [f"annotations/densepose_coco_2014_{split}.json"], what="DensePose-COCO", where=WHERE)
    content = read_json(path)
    if not any(_labelled(label, path) for label in content["annotations"]):
        raise ValueError(
            f"Nobody in {path} has surface labels ({', '.join(_SURFACE)}). Fetch DensePose's own file, or use "
            "`bodyreg prepare coco` for key points of everybody."
        )
    folder = "train2014" if split == "train" else "val2014"
    rows = keypoint_rows(content, folder, lambda label: _labelled(label, path))
    return write_table(out, "densepose", split, "keypoints", rows)


def _labelled(label: dict[str, Any], path: Path) -> bool:
    """Does a person have surface labels, all lists of one length?"""
    lengths = {len(label.get(name, [])) for name in _SURFACE}
    if len(lengths) > 1:
        raise ValueError(
            f"Surface labels of annotation {label.get('id')} in {path} differ in length. Fetch the file again."
        )
    return lengths != {0}
