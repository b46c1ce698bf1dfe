"""SMPL files, real or exported, as plain checked arrays.

What a file must hold, and what real ones look like (v1.0 and v1.1, Python-2 pickles with chumpy objects, 10 or 300
shape components), follows the public distribution at https://smpl.is.tue.mpg.de.
Nothing here executes code from a file.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bodyreg.files import MissingFileError, find_licensed, safe_load_npz, safe_unpickle, sha256_arrays

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

#: Parent of each of SMPL's 24 joints; the root's is -1.
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
REQUIRED = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
REGRESSOR_KEY = "regressor/"
REGISTER_SMPL = "https://smpl.is.tue.mpg.de"
KID_NAMES = ("smpl_kid_template.npy", "kid_template.npy")
#: Where the official archives and other people's code put the files below a folder.
SUBFOLDERS = ("", "smpl", "models", "smpl/models")


@dataclass(frozen=True, eq=False)
class BodyArrays:
    """A body in SMPL's form, checked: shapes agree, rows of weights and regressor sum to one, the tree is SMPL's.

    v_template (V, 3) metres; shapedirs (V, 3, S); posedirs (V, 3, 207); J_regressor (24, V); weights (V, 24);
    faces (F, 3) int64; `name` "free", "smpl" or "unknown"; `hash` over all arrays but the kid template;
    `kid_template` (V, 3) or None; `mirror` (V,) or None; `regressors` name of joint set -> (J, V).
    """

    v_template: np.ndarray
    shapedirs: np.ndarray
    posedirs: np.ndarray
    J_regressor: np.ndarray
    weights: np.ndarray
    faces: np.ndarray
    parents: tuple[int, ...]
    name: str
    gender: str
    hash: str
    kid_template: np.ndarray | None = None
    mirror: np.ndarray | None = None
    regressors: dict[str, np.ndarray] = field(default_factory=dict)
    path: Path | None = None


def file_names(gender: str) -> tuple[str, ...]:
    """Every name under which a gender's SMPL file is found in the wild, in the order of search."""
    if gender not in ("neutral", "male", "female"):
        raise ValueError(f"Unknown gender {gender!r}. Use 'neutral', 'male' or 'female'.")
    letter = {"neutral": "neutral", "male": "m", "female": "f"}[gender]
    stems = (f"SMPL_{gender.upper()}", f"basicmodel_{letter}_lbs_10_207_0_v1.1.0",
             f"basicModel_{letter}_lbs_10_207_0_v1.0.0")
    return tuple(stem + suffix for stem in stems for suffix in (".pkl", ".npz"))


def find_body(source: str | Path | None, gender: str) -> Path:
    """The SMPL file of a gender: `source` itself, or found in it, in `BODYREG_DATA` or in the user data folder.

    Raises:
        MissingFileError: listing the names tried, the places searched and where to register.
    """
    return find_licensed(file_names(gender), given=source, subfolders=SUBFOLDERS, what=f"the {gender} SMPL body model",
                         register=REGISTER_SMPL)


def read_body(path: str | Path, *, gender: str = "neutral", kid_template: str | Path | None = None,
              want_kid: bool = False, num_betas: int | None = None) -> BodyArrays:
    """Read and check one SMPL file (.npz, else a pickle of any age).

    The gender in the file or its name wins over the argument. The kid template is taken from the file, from
    `kid_template`, from beside the file, or, when `want_kid`, from the search list.
    """
    path = Path(path)
    raw = safe_load_npz(path) if path.suffix.lower() == ".npz" else safe_unpickle(path)
    if not isinstance(raw, dict):
        raise ValueError(f"{path} holds a {type(raw).__name__}, not a dictionary of arrays. Give an SMPL model file.")
    raw = dict(raw)
    shape = getattr(raw.get("shapedirs"), "shape", (0,))
    if want_kid or kid_template is not None or num_betas == shape[-1] + 1:
        kid_path = Path(kid_template) if kid_template is not None else _kid_path(path, required=want_kid)
        if kid_path is not None and (kid_template is not None or raw.get("kid_template") is None):
            raw["kid_template"] = np.load(kid_path, allow_pickle=False)
    return check_arrays(raw, gender=_gender_of(raw, path) or gender, path=path)


def find_kid_template() -> Path:
    """The SMPL child template of AGORA; raises MissingFileError where it is nowhere."""
    return find_licensed(KID_NAMES, subfolders=SUBFOLDERS, what="the SMPL child template",
                         register="https://agora.is.tue.mpg.de")


def _kid_path(model: Path, *, required: bool) -> Path | None:
    beside = {p.name.lower(): p for p in model.parent.iterdir()}
    for name in KID_NAMES:
        if name in beside:
            return beside[name]
    try:
        return find_kid_template()
    except MissingFileError:
        if required:
            raise
        return None


def _text(value: Any) -> str:
    """Text of a str, bytes or 0-d array entry; files made by others hold all three."""
    value = value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _gender_of(raw: Mapping[str, Any], path: Path) -> str | None:
    said = _text(raw["gender"]).lower() if "gender" in raw else ""
    if said in ("neutral", "male", "female"):
        return said
    name = path.name.lower()
    for gender, marks in (("female", ("female", "_f_")), ("neutral", ("neutral",)), ("male", ("male", "_m_"))):
        if any(mark in name for mark in marks):
            return gender
    return None


def check_arrays(arrays: Mapping[str, Any], *, name: str | None = None, gender: str = "neutral",
                 path: Path | None = None) -> BodyArrays:
    """Check arrays under the keys of SMPL's files and return them as a record.

    Raises:
        ValueError: with one sentence for what is wrong and one for what to do. A mesh that is not one closed,
            consistently wound surface is only logged as a warning.
    """
    where = f" in {path}" if path else ""
    missing = [key for key in REQUIRED if arrays.get(key) is None]
    if missing:
        raise ValueError(f"The body model{where} lacks {', '.join(missing)}. Give a file in SMPL's format.")
    for key, right in (("bs_style", "lbs"), ("bs_type", "lrotmin")):
        if key in arrays and _text(arrays[key]) != right:
            raise ValueError(f"The body model{where} has {key} {_text(arrays[key])!r}. Only SMPL's {right!r} is known.")
    a = {key: _floats(arrays[key], key, where) for key in REQUIRED[:5]}
    v_count = _check_shapes(a, where)
    faces, parents = _check_faces(arrays["f"], v_count, where), _check_tree(arrays["kintree_table"], where)
    for key, sums in (("weights", a["weights"].sum(1)), ("J_regressor", a["J_regressor"].sum(1))):
        worst = float(np.abs(sums - 1).max())
        if not worst <= 1e-3:
            raise ValueError(f"Rows of {key}{where} miss a sum of one by up to {worst:.3g}. The file is damaged or "
                             "not an SMPL model.")
    fault = mesh_fault(faces, v_count)
    if fault:
        log.warning("The mesh of the body model%s %s; silhouettes and exports may suffer.", where, fault)
    if name is None:
        marked = "bodyreg_name" in arrays and _text(arrays["bodyreg_name"]) == "free"
        name = "free" if marked else "smpl" if v_count == 6890 else "unknown"
    kid = None if arrays.get("kid_template") is None else _floats(arrays["kid_template"], "kid_template", where)
    if kid is not None and kid.shape != (v_count, 3):
        raise ValueError(f"The kid template{where} has shape {kid.shape}. It must be ({v_count}, 3), "
                         "of the same topology as the body.")
    mirror = None if arrays.get("vert_sym_idxs") is None else np.asarray(arrays["vert_sym_idxs"]).reshape(-1)
    # A dictionary in memory and in pickles, flat keys in npz files, which hold arrays only.
    regressors = {key: np.asarray(m, np.float64) for key, m in dict(arrays.get("regressors") or {}).items()}
    regressors |= {key[len(REGRESSOR_KEY):]: np.asarray(arrays[key], np.float64) for key in arrays
                   if key.startswith(REGRESSOR_KEY)}
    return BodyArrays(**a, faces=faces, parents=parents, name=name, gender=gender, kid_template=kid,
                      mirror=None if mirror is None else mirror.astype(np.int64), regressors=regressors, path=path,
                      hash=_hash(a, faces))


def _hash(a: Mapping[str, np.ndarray], faces: np.ndarray) -> str:
    """SHA-256 of the arrays as float32, so that a pickle and its conversion to npz are the same body."""
    as32 = {key: np.ascontiguousarray(value, dtype=np.float32) for key, value in a.items()}
    # Columns of zeros at the end are padding for other programs, not another body.
    used = np.flatnonzero(as32["shapedirs"].any((0, 1)))
    as32["shapedirs"] = np.ascontiguousarray(as32["shapedirs"][:, :, : used[-1] + 1 if len(used) else 0])
    return sha256_arrays({**as32, "f": faces})


def _floats(value: Any, key: str, where: str) -> np.ndarray:
    value = value.toarray() if hasattr(value, "toarray") else value
    try:
        array = np.asarray(value)
        array = array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{key}{where} is a {type(value).__name__}, not an array of numbers. "
                         "Convert the file to plain arrays first.") from None
    if not np.isfinite(array).all():
        raise ValueError(f"{key}{where} holds NaN or infinity. The file is damaged.")
    return array


def _check_shapes(a: Mapping[str, np.ndarray], where: str) -> int:
    if a["v_template"].ndim != 2 or a["v_template"].shape[1] != 3:
        raise ValueError(f"v_template{where} has shape {a['v_template'].shape}. It must be (V, 3).")
    v = len(a["v_template"])
    wanted = {"shapedirs": (v, 3, None), "posedirs": (v, 3, 207), "J_regressor": (24, v), "weights": (v, 24)}
    for key, shape in wanted.items():
        got = a[key].shape
        if len(got) != len(shape) or any(w is not None and g != w for g, w in zip(got, shape, strict=True)):
            want = str(shape).replace("None", "S")
            raise ValueError(f"{key}{where} has shape {got}. With {v} vertices and 24 joints it must be {want}; "
                             "models with hands or faces (SMPL-H, SMPL-X) are not read.")
    return v


def _check_faces(f: Any, v_count: int, where: str) -> np.ndarray:
    faces = np.asarray(f)
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu":
        raise ValueError(f"f{where} has shape {faces.shape} and type {faces.dtype}. It must be (F, 3) integers.")
    faces = faces.astype(np.int64)
    if faces.size and (faces.min() < 0 or faces.max() >= v_count):
        raise ValueError(f"Faces{where} use vertices {faces.min()}..{faces.max()}, the mesh has {v_count}. "
                         "The file is damaged or mixes two topologies.")
    return faces


def _check_tree(kintree: Any, where: str) -> tuple[int, ...]:
    table = np.asarray(kintree)
    if table.shape != (2, 24):
        raise ValueError(f"kintree_table{where} has shape {table.shape}. It must be (2, 24).")
    # The root is stored as -1, or as that number in 32 unsigned bits; it is the root whatever stands there.
    parents = (-1, *(int(p) for p in table[0, 1:]))
    if parents != PARENTS:
        raise ValueError(f"kintree_table{where} has parents {parents}. SMPL's are {PARENTS}; other skeletons "
                         "cannot be used here.")
    return parents


def mesh_fault(faces: np.ndarray, v_count: int) -> str | None:
    """What keeps (F, 3) faces from being one closed, consistently wound genus-0 surface, or None."""
    if len(faces) != 2 * v_count - 4:
        return f"has {len(faces)} faces where a closed surface of {v_count} vertices has {2 * v_count - 4}"
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    key = directed[:, 0] * v_count + directed[:, 1]
    if len(np.unique(key)) != len(key):
        return "is not consistently wound"
    if not np.isin(directed[:, 1] * v_count + directed[:, 0], key).all():
        return "is not closed"
    return None


def kid_column(arrays: BodyArrays) -> np.ndarray:
    """(V, 3, 1) shape column towards the child: the child's template, centred on its vertex mean, minus the adult's.

    The rule of AGORA (Patel et al., CVPR 2021), used by PersPose as the eleventh beta.
    """
    kid = arrays.kid_template
    if kid is None:
        raise MissingFileError("This body has no child template, which the kid column needs. Pass kid_template=, or "
                               "put smpl_kid_template.npy (register at https://agora.is.tue.mpg.de) beside the model.")
    return (kid - kid.mean(0) - arrays.v_template)[:, :, None]


def mirror_map(arrays: BodyArrays) -> np.ndarray:
    """(V,) the vertex on the other side: the file's `vert_sym_idxs`, else the vertex nearest to the mirrored place.

    Raises:
        ValueError: the map is not an involution, so the mesh has no usable symmetry.
    """
    mirror = arrays.mirror
    v_count = len(arrays.v_template)
    if mirror is None:
        from scipy.spatial import cKDTree

        template = np.asarray(arrays.v_template, np.float64)
        mirror = cKDTree(template).query(template * (-1.0, 1.0, 1.0))[1].astype(np.int64)
    in_range = mirror.shape == (v_count,) and mirror.min() >= 0 and mirror.max() < v_count
    if not in_range or not np.array_equal(mirror[mirror], np.arange(v_count)):
        raise ValueError("The body's mirror map does not return to its start, so left and right cannot be exchanged. "
                         "Use a file with vert_sym_idxs (the male and female ones have it).")
    return mirror
