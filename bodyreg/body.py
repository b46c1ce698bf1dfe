"""The body as a function: SMPL's linear blend skinning over a real SMPL file or over the free body.

The function is the one published by Loper et al., "SMPL: A Skinned Multi-Person Linear Model" (SIGGRAPH Asia 2015):
shape blend shapes, joints regressed from the shaped rest mesh, pose blend shapes, linear blend skinning. This module is
written from that paper; the `smplx` package is only an optional second engine (`engine="smplx"`).

Frame: the body's own, y up, the person looks along +z, the person's left is +x. Metres and radians.
"""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bodyreg.body_files import BodyArrays, check_arrays, find_body, kid_column, mirror_map, read_body
from bodyreg.body_joints import LANDMARKS, regressor_matrix
from bodyreg.rotations import matrix_from_aa
from bodyreg.skinning import SkinningTensors, SparseWeights, Tree, coordinate_major, global_rotations, skin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bodyreg.body_smplx import SmplxEngine

log = logging.getLogger(__name__)

ArrayLike = Tensor | np.ndarray


class BodyOutput(NamedTuple):
    """Posed bodies, in the frame that `global_orient` and `transl` lead to, metres.

    vertices (B, V, 3); joints (B, 24, 3) of the kinematic chain (not the regressor applied to posed vertices);
    betas (B, S); body_pose (B, 23, 3, 3) and global_orient (B, 3, 3) as rotation matrices whatever form was given;
    transl (B, 3); R_global (B, 24, 3, 3) rotation of every joint relative to the outer frame.
    """

    vertices: Tensor
    joints: Tensor
    betas: Tensor
    body_pose: Tensor
    global_orient: Tensor
    transl: Tensor
    R_global: Tensor


class BodyModel(torch.nn.Module):
    """A posable body of SMPL's form. Build one with `BodyModel.load` or `BodyModel.from_arrays`.

    Attributes: `name` ("free", "smpl" or "unknown"), `gender`, `hash` (SHA-256 of the model's arrays), `num_betas`,
    `parents` (tuple of 24, root -1), `faces` (F, 3) int64, `v_template` (V, 3), `shapedirs` (V, 3, S),
    `posedirs` (V, 3, 207), `J_regressor` (24, V), `weights` (V, 24), `landmarks` (name -> vertex), `engine`.

    The arrays are buffers that stay out of state dicts: weights files never carry a licensed body with them.
    Betas and poses of one model mean nothing on another, so results should record `name` and `hash`
    (see `check_origin`).
    """

    faces: Tensor
    weights: Tensor
    J_regressor: Tensor
    _template: Tensor
    _dirs: Tensor
    _rest: Tensor
    _rest_dirs: Tensor

    def __init__(self, arrays: BodyArrays, *, num_betas: int | None = None, kid: bool = False, engine: str = "own",
                 dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if engine not in ("own", "smplx"):
            raise ValueError(f"Unknown body engine {engine!r}. Use 'own' or 'smplx'.")
        shapedirs, self.has_kid = _select_columns(arrays, num_betas, kid)
        self.name, self.gender, self.hash, self.engine = arrays.name, arrays.gender, arrays.hash, engine
        self.parents: tuple[int, ...] = arrays.parents
        self.num_betas: int = shapedirs.shape[2]
        self._arrays = arrays
        self._tree = Tree.of(self.parents)
        v_count = len(arrays.v_template)
        # Coordinate-major columns (3V instead of V x 3) make blending and skinning run along contiguous vertices, and
        # shape and pose correctives stacked in one matrix are one product.
        dirs = np.concatenate([coordinate_major(shapedirs), coordinate_major(arrays.posedirs)])
        rest_dirs = np.einsum("jv,vcs->sjc", arrays.J_regressor, shapedirs)
        for buffer, value in {
            "_template": arrays.v_template.T.reshape(1, 3 * v_count),
            "_dirs": dirs,
            "J_regressor": arrays.J_regressor,
            "weights": arrays.weights,
            "_rest": arrays.J_regressor @ arrays.v_template,
            "_rest_dirs": rest_dirs.reshape(self.num_betas, 72),
        }.items():
            tensor = torch.from_numpy(np.array(value, dtype=np.float64, order="C")).to(dtype)
            if buffer == "_dirs":  # in memory a vertex's row after another: the blend product is twice as fast so
                tensor = tensor.t().contiguous().t()
            self.register_buffer(buffer, tensor, persistent=False)
        self._sparse = SparseWeights.of(arrays.weights)
        self.register_buffer("faces", torch.from_numpy(arrays.faces.astype(np.int64)), persistent=False)
        self._regressors: dict[str, np.ndarray] = dict(arrays.regressors)
        self._second: SmplxEngine | None = None
        if engine == "smplx":
            from bodyreg.body_smplx import SmplxEngine

            self._second = SmplxEngine(arrays, shapedirs, dtype)

    # ------------------------------------------------------------------------------------------------ construction

    @classmethod
    def load(cls, source: str | Path | None = "free", gender: str = "neutral", num_betas: int | None = None,
             engine: str = "own", *, kid: bool = False, kid_template: str | Path | None = None,
             dtype: torch.dtype = torch.float32) -> BodyModel:
        """Load a body by name or path.

        Args:
            source: "free" (or None) for the body that ships with the package; "smpl" for the user's SMPL file found
                by the search list (`BODYREG_DATA`, then the user data folder); else a file, or a folder that holds
                SMPL files under any of their usual names.
            gender: "neutral", "male" or "female".
            num_betas: how many shape numbers the model takes, the kid column included; default 10, with kid 11.
                One more than the file's components adds the kid column without being asked.
            engine: "own", or "smplx" to run the same arrays through the smplx package.
            kid: make the last beta the mix with the child template (as in AGORA and PersPose).
            kid_template: (V, 3) .npy for real SMPL; by default looked for beside the model and in the search list.

        Raises:
            MissingFileError: no such file; the message lists the places searched.
            ValueError: the file is not an SMPL model, one sentence for each kind of fault.
        """
        if gender not in ("neutral", "male", "female"):
            raise ValueError(f"Unknown gender {gender!r}. Use 'neutral', 'male' or 'female'.")
        if source is None or str(source) == "free":
            from bodyreg.free_body import load_free_body

            arrays = check_arrays(load_free_body(gender), name="free", gender=gender)
        else:
            path = find_body(None if str(source) == "smpl" else source, gender)
            arrays = read_body(path, gender=gender, kid_template=kid_template, want_kid=kid, num_betas=num_betas)
        return cls(arrays, num_betas=num_betas, kid=kid, engine=engine, dtype=dtype)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], *, num_betas: int | None = None, name: str | None = None,
                    gender: str = "neutral", kid: bool = False, engine: str = "own",
                    dtype: torch.dtype = torch.float32) -> BodyModel:
        """Build a body from arrays under the keys of SMPL's files (`v_template`, `shapedirs`, ...).

        `name` defaults to "smpl" for 6,890 vertices and "unknown" otherwise; `num_betas` to all components up to 10.
        """
        checked = check_arrays(arrays, name=name, gender=gender)
        return cls(checked, num_betas=num_betas, kid=kid, engine=engine, dtype=dtype)

    # ---------------------------------------------------------------------------------------------------- function

    def forward(self, betas: ArrayLike | None = None, body_pose: ArrayLike | None = None,
                global_orient: ArrayLike | None = None, transl: ArrayLike | None = None) -> BodyOutput:
        """Shape, pose and place bodies.

        Args:
            betas: (B, S) shape numbers; missing means the mean shape.
            body_pose: (B, 69) or (B, 23, 3) axis-angle, or (B, 23, 3, 3) matrices, relative to the parent joint.
            global_orient: (B, 3) axis-angle or (B, 3, 3) matrix of the pelvis. The body turns about its rest pelvis,
                which is not the origin and depends on the betas.
            transl: (B, 3) metres, added last.

        Batches of one broadcast. Numpy arrays are taken as well; everything is computed in the dtype and on the
        device of the model. Differentiable in all four.
        """
        betas_, R_local, transl_ = self._inputs(betas, body_pose, global_orient, transl)
        # Half precision is a matter of networks: in bfloat16 a body would be off by centimetres.
        with torch.autocast(device_type=self._dirs.device.type, enabled=False):
            if self._second is not None:
                vertices, joints = self._second(betas_, R_local, transl_)
                R_global = global_rotations(R_local, self._tree)
            else:
                vertices, joints, R_global = skin(self._tensors(), self._tree, betas_, R_local, transl_)
        return BodyOutput(vertices, joints, betas_, R_local[:, 1:], R_local[:, 0], transl_, R_global)

    def rest_joints(self, betas: ArrayLike | None = None) -> Tensor:
        """(B, 24, 3) joints of the shaped body in the rest pose, metres; (1, 24, 3) of the mean shape without betas."""
        betas_ = self._betas(betas, 1 if betas is None else len(betas))
        return torch.addmm(self._rest.reshape(1, 72), betas_, self._rest_dirs).view(-1, 24, 3)

    def rest_vertices(self, betas: ArrayLike | None = None) -> Tensor:
        """(B, V, 3) vertices of the shaped body in the rest pose, metres; pose correctives are zero there."""
        betas_ = self._betas(betas, 1 if betas is None else len(betas))
        flat = torch.addmm(self._template, betas_, self._dirs[: self.num_betas])
        return flat.view(len(betas_), 3, -1).transpose(1, 2).contiguous()

    def _tensors(self) -> SkinningTensors:
        return SkinningTensors(self._template, self._dirs, self._rest, self._rest_dirs, self.weights, self._sparse)

    # ------------------------------------------------------------------------------------- named points and labels

    def regress(self, vertices: ArrayLike, joint_set: str | ArrayLike) -> Tensor:
        """(B, J, 3) joints of a named set (or of a (J, V) matrix) from vertices (B, V, 3), in their frame and unit.

        The matrix is applied about the vertices' mean, G (V - mean) + mean: published regressors have rows that sum
        to 0.9996, which would shift the joints of a body five metres away by two millimetres.

        The free body carries its own matrices, which approximate the published ones: a number made with them is
        never comparable with a published one. Real SMPL needs the published files (see `bodyreg.files`).
        """
        points = torch.as_tensor(vertices)
        if points.ndim < 2 or points.shape[-2:] != (len(self.weights), 3):
            raise ValueError(f"Vertices have shape {tuple(points.shape)}, this body needs (..., {len(self.weights)}, "
                             "3). Pass the vertices this body model returned.")
        if isinstance(joint_set, str):
            if joint_set not in self._regressors:
                self._regressors[joint_set] = regressor_matrix(joint_set, self._arrays)
            named = self._regressors[joint_set]
            used = torch.from_numpy(np.flatnonzero(named.any(0))).to(points.device)  # a hundred vertices of thousands
            matrix, chosen = torch.from_numpy(named).to(points)[:, used], points[..., used, :]
        else:
            matrix, chosen = torch.as_tensor(joint_set).to(points), points
        mean = points.mean(-2, keepdim=True)
        return matrix @ (chosen - mean) + mean

    @property
    def joint_sets(self) -> tuple[str, ...]:
        """Names of the regressors that are at hand without a further file."""
        return ("smpl-24", *sorted(self._arrays.regressors))

    @property
    def part_labels(self) -> Tensor:
        """(V,) int64, the joint that moves each vertex most: the usual 24 body parts."""
        return self.weights.argmax(1)

    @property
    def mirror(self) -> Tensor:
        """(V,) int64, the vertex on the other side of the body (an involution)."""
        return torch.from_numpy(self._mirror).to(self.weights.device)

    @cached_property
    def _mirror(self) -> np.ndarray:
        return mirror_map(self._arrays)

    @property
    def landmarks(self) -> dict[str, int]:
        """Vertex of each named point (nose, eyes, ears, toes, heels, finger tips, head top); empty if unknown.

        The slots are those that the smplx package fixes for SMPL's topology.
        """
        return dict(LANDMARKS) if len(self.weights) == 6890 else {}

    # ------------------------------------------------------------------------------------------------------ arrays

    @property
    def v_template(self) -> Tensor:
        """(V, 3) mean body in the rest pose, metres."""
        return self._template.view(3, -1).t()

    @property
    def shapedirs(self) -> Tensor:
        """(V, 3, S) displacement for each beta of one, metres."""
        return self._dirs[: self.num_betas].view(self.num_betas, 3, -1).permute(2, 1, 0)

    @property
    def posedirs(self) -> Tensor:
        """(V, 3, 207) pose correctives, metres per entry of R - I of joints 1..23, row-major."""
        return self._dirs[self.num_betas :].view(207, 3, -1).permute(2, 1, 0)

    @property
    def arrays(self) -> BodyArrays:
        """The checked arrays the model was built from, with every shape component."""
        return self._arrays

    def check_origin(self, body_name: str, body_hash: str) -> None:
        """Refuse parameters that were made for another body model (ValueError)."""
        if body_hash != self.hash:
            raise ValueError(f"These parameters belong to the body {body_name!r} ({body_hash[:12]}), "
                             f"not to {self.name!r} ({self.hash[:12]}). Load that body to use them.")

    def extra_repr(self) -> str:
        kid = " with kid column" if self.has_kid else ""
        return (f"{self.name}, {self.gender}, {len(self.weights)} vertices, {len(self.faces)} faces, "
                f"{self.num_betas} betas{kid}, engine={self.engine}, hash={self.hash[:12]}")

    # ------------------------------------------------------------------------------------------------------ inputs

    def _inputs(self, betas: Any, body_pose: Any, global_orient: Any, transl: Any) -> tuple[Tensor, Tensor, Tensor]:
        sizes = {name: len(x) for name, x in (("betas", betas), ("body_pose", body_pose),
                                              ("global_orient", global_orient), ("transl", transl)) if x is not None}
        batch = max(sizes.values(), default=1)
        if any(n not in (1, batch) for n in sizes.values()):
            raise ValueError(f"Batch sizes differ: {sizes}. Give every argument the same first axis, or one of 1.")
        betas = self._betas(betas, batch)
        rotations = [self._rotations(global_orient, 1, "global_orient"), self._rotations(body_pose, 23, "body_pose")]
        if any(x.ndim == 4 for x in rotations):
            rotations = [x if x.ndim == 4 else matrix_from_aa(x) for x in rotations]
        R_local = torch.cat([x.expand(batch, *x.shape[1:]) for x in rotations], 1)
        R_local = R_local if R_local.ndim == 4 else matrix_from_aa(R_local)  # of both at once, where both are angles
        transl = self._cast(torch.zeros(1, 3) if transl is None else transl)
        if transl.shape[1:] != (3,):
            raise ValueError(f"transl has shape {tuple(transl.shape)}. It must be (B, 3) metres.")
        return betas, R_local, transl.expand(batch, 3)

    def _cast(self, x: Any) -> Tensor:
        return torch.as_tensor(x).to(device=self._dirs.device, dtype=self._dirs.dtype)

    def _betas(self, betas: Any, batch: int) -> Tensor:
        betas = self._cast(torch.zeros(1, self.num_betas) if betas is None else betas)
        if betas.ndim != 2 or betas.shape[1] != self.num_betas:
            raise ValueError(f"betas have shape {tuple(betas.shape)}. This body takes (B, {self.num_betas}); "
                             "load it with another num_betas or cut the betas.")
        return betas.expand(batch, -1)

    def _rotations(self, x: Any, count: int, name: str) -> Tensor:
        """(B or 1, count, 3) axis-angle or (B or 1, count, 3, 3) matrices from any of the accepted layouts."""
        if x is None:
            return torch.eye(3, dtype=self._dirs.dtype, device=self._dirs.device).expand(1, count, 3, 3)
        x = self._cast(x)
        tail = tuple(x.shape[1:])
        if tail in ((3 * count,), (count, 3)):
            return x.reshape(-1, count, 3)
        if tail == (count, 3, 3) or (count == 1 and tail == (3, 3)):
            return x.reshape(-1, count, 3, 3)
        raise ValueError(f"{name} has shape {tuple(x.shape)}. It must be (B, {3 * count}) axis-angle or "
                         f"(B, {'' if count == 1 else f'{count}, '}3, 3) rotation matrices.")


def _select_columns(arrays: BodyArrays, num_betas: int | None, kid: bool) -> tuple[np.ndarray, bool]:
    """(V, 3, S) shape columns, the kid column last if it is wanted, and whether it is there."""
    stored = arrays.shapedirs.shape[2]
    if num_betas is None:
        num_betas = min(10, stored) + int(kid)
    kid = kid or (num_betas == stored + 1 and arrays.kid_template is not None)
    wanted = num_betas - int(kid)
    if not 0 <= wanted <= stored:
        raise ValueError(f"{num_betas} betas were asked of a body with {stored} shape components"
                         f"{' and a kid column' if kid else ''}. Ask for at most {stored + int(kid)}, or bring a "
                         "file with more (SMPL v1.1.0 has 300).")
    columns = arrays.shapedirs[:, :, :wanted]
    return (np.concatenate([columns, kid_column(arrays)], 2) if kid else columns), kid
