"""Half-edge collapses on a closed triangle mesh, always together with the mirror image of the collapse."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

Check = Callable[[int, int], bool]


class SymmetricMesh:
    """Editable closed mesh. faces: (F, 3) ints; mirror: (V,) vertex mirror map (an involution)."""

    def __init__(self, faces: np.ndarray, mirror: np.ndarray) -> None:
        self.faces: dict[int, tuple[int, int, int]] = {i: tuple(f) for i, f in enumerate(faces.tolist())}
        self.at: dict[int, set[int]] = {v: set() for v in range(len(mirror))}
        for i, f in self.faces.items():
            for v in f:
                self.at[v].add(i)
        self.mirror = mirror.tolist()

    def __len__(self) -> int:
        return len(self.at)

    def neighbours(self, v: int) -> set[int]:
        out = {w for i in self.at[v] for w in self.faces[i]}
        out.discard(v)
        return out

    def array(self) -> np.ndarray:
        return np.array(list(self.faces.values()))

    def legal(self, v: int, u: int) -> bool:
        """Whether merging v into u keeps a closed manifold (link condition)."""
        shared = self.neighbours(v) & self.neighbours(u)
        return len(shared) == 2 and all(len(self.at[w]) > 3 for w in shared)

    def kept_faces(self, v: int, u: int) -> list[tuple[tuple[int, int, int], tuple[int, int, int]]]:
        """(before, after) of the faces that survive merging v into u."""
        out = []
        for i in self.at[v]:
            f = self.faces[i]
            if u not in f:
                out.append((f, tuple(u if w == v else w for w in f)))
        return out

    def _merge(self, v: int, u: int) -> list[tuple[int, tuple[int, int, int]]]:
        log = []
        for i in list(self.at[v]):
            f = self.faces[i]
            log.append((i, f))
            if u in f:
                for w in f:
                    self.at[w].discard(i)
                del self.faces[i]
            else:
                self.faces[i] = tuple(u if w == v else w for w in f)
                self.at[u].add(i)
        del self.at[v]
        return log

    def _undo(self, v: int, u: int, log: list[tuple[int, tuple[int, int, int]]]) -> None:
        self.at[v] = set()
        for i, f in log:
            if u not in f:
                self.at[u].discard(i)
            self.faces[i] = f
            for w in f:
                self.at[w].add(i)

    def collapse_pair(self, v: int, u: int, accept: Check | None = None) -> bool:
        """Merge v into u and mirror(v) into mirror(u); False, with nothing changed, where either is not possible."""
        mv, mu = self.mirror[v], self.mirror[u]
        if u == mv or (mv == v and mu != u):
            return False
        if not self.legal(v, u) or (accept and not accept(v, u)):
            return False
        log = self._merge(v, u)
        if mv == v:
            return True
        if mu not in self.at or not self.legal(mv, mu) or (accept and not accept(mv, mu)):
            self._undo(v, u, log)
            return False
        self._merge(mv, mu)
        return True


def collapse_onto_rim(mesh: SymmetricMesh, pocket: Iterable[int], vertices: np.ndarray) -> None:
    """Remove all `pocket` vertices, deepest first, so that the surface closes flat over the rim.

    vertices: (V, 3) positions that decide among the possible targets.
    """
    inside = set(pocket)
    depth: dict[int, int] = {}
    layer = {v for v in inside if mesh.neighbours(v) - inside}
    level = 1
    while layer:
        depth |= dict.fromkeys(layer, level)
        level += 1
        layer = {w for v in layer for w in mesh.neighbours(v) if w in inside and w not in depth}

    def longest(v: int, u: int) -> float:
        spans = [np.ptp(vertices[list(after)], axis=0) for _, after in mesh.kept_faces(v, u)]
        return max((float(s @ s) for s in spans), default=0.0)

    while inside:
        before = len(inside)
        for v in sorted(inside, key=lambda v: (-depth[v], v)):
            if v not in inside:
                continue
            options = [(depth.get(u, 0), longest(v, u), u) for u in mesh.neighbours(v) if depth.get(u, 0) <= depth[v]]
            for _, _, u in sorted(options):
                if mesh.collapse_pair(v, u):
                    inside -= {v, mesh.mirror[v]}
                    break
        if len(inside) == before:
            raise ValueError(f"{before} pocket vertices cannot be collapsed. Check the pocket detection.")
