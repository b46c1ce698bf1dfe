"""From the base mesh's quads to the final 6890-vertex triangle mesh: split, close the pockets, decimate.

Vertices of the result are a subset of the base mesh's, so morphs, weights and labels transfer by indexing.
Decimation uses quadric errors (Garland and Heckbert 1997) averaged over several persons.
"""

from __future__ import annotations

import heapq

import numpy as np

from .collapse import SymmetricMesh

TARGET_VERTICES = 6890
_SEEN_FRACTION = 0.16
_POCKET_SIZE = 100
_DIRECTIONS = 300  # over the sphere: 150 in each vertex's hemisphere
_LONGEST_EDGE = 0.055
_PIXEL = 0.0010
_TOLERANCE = 0.0015


def triangulate(quads: np.ndarray, vertices: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """(2Q, 3) triangles: the shorter diagonal on the left side, mirrored onto the right."""
    left = quads[vertices[quads].mean(1)[:, 0] > 0]
    p = vertices[left]
    first = ((p[:, 0] - p[:, 2]) ** 2).sum(1) <= ((p[:, 1] - p[:, 3]) ** 2).sum(1)
    a = np.where(first[:, None], left[:, [0, 1, 2]], left[:, [0, 1, 3]])
    b = np.where(first[:, None], left[:, [0, 2, 3]], left[:, [1, 2, 3]])
    half = np.concatenate([a, b])
    return np.concatenate([half, mirror[half][:, ::-1]])


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    p = vertices[faces]
    n = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
    out = np.stack([np.bincount(faces.ravel(), np.repeat(n[:, k], 3), len(vertices)) for k in range(3)], 1)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def _surface_samples(triangles: np.ndarray) -> np.ndarray:
    """Points on triangles (F, 3, 3), closer together than a depth-map pixel."""
    longest = np.linalg.norm(triangles - triangles[:, [1, 2, 0]], axis=2).max(1)
    steps = 2 ** np.ceil(np.log2(np.maximum(longest / (0.7 * _PIXEL), 1))).astype(int)
    out = []
    for n in np.unique(steps):
        i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1))
        keep = i + j <= n
        bary = np.stack([i[keep], j[keep], n - i[keep] - j[keep]], 1) / n
        out.append(np.einsum("kb,fbi->fki", bary, triangles[steps == n]).reshape(-1, 3))
    return np.concatenate(out)


def seen_fraction(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V,) share of its hemisphere of directions from which each vertex is seen, by orthographic depth maps."""
    normals = vertex_normals(vertices, faces)
    points = _surface_samples(vertices[faces])
    k = np.arange(_DIRECTIONS) + 0.5
    z, turn = 1 - 2 * k / _DIRECTIONS, np.pi * (1 + 5**0.5) * k
    directions = np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], 1)
    seen, faced = np.zeros(len(vertices)), np.zeros(len(vertices))
    for d in directions:
        u = np.cross(d, [0, 1, 0] if abs(d[1]) < 0.9 else [1, 0, 0])
        u /= np.linalg.norm(u)
        axes = np.stack([u, np.cross(d, u)], 1)
        px = np.floor(points @ axes / _PIXEL).astype(np.int32)
        low = px.min(0)
        width = int(np.ptp(px[:, 1])) + 1
        cell = (px[:, 0] - low[0]) * width + px[:, 1] - low[1]
        height = np.full(cell.max() + 1, -np.inf)
        np.maximum.at(height, cell, points @ d)
        vx = np.floor(vertices @ axes / _PIXEL).astype(np.int32) - low
        faces_it = normals @ d > 0
        visible = vertices @ d >= height[np.clip(vx[:, 0] * width + vx[:, 1], 0, len(height) - 1)] - _TOLERANCE
        faced += faces_it
        seen += faces_it & visible
    return seen / np.maximum(faced, 1)


def find_pockets(vertices: np.ndarray, faces: np.ndarray, mirror: np.ndarray, head: np.ndarray) -> list[np.ndarray]:
    """Inward pockets of the head (mouth and eye sockets) as vertex id lists.

    head: (V,) mask of head vertices. Components that touch the cut at the neck are dropped, and so are small ones:
    folds of the ears and nostrils, which a body needs.
    """
    ids = np.flatnonzero(head)
    local = np.full(len(vertices), -1)
    local[ids] = np.arange(len(ids))
    head_faces = faces[head[faces].all(1)]
    fraction = np.ones(len(vertices))
    fraction[ids] = seen_fraction(vertices[ids], local[head_faces])
    hidden = head & ((fraction + fraction[mirror]) / 2 < _SEEN_FRACTION)
    cut = np.zeros(len(vertices), bool)
    cut[np.unique(faces[head[faces].any(1) & ~head[faces].all(1)])] = True
    near: dict[int, set[int]] = {v: set() for v in np.flatnonzero(hidden)}
    for f in faces:
        for a in f:
            if hidden[a]:
                near[int(a)].update(int(b) for b in f if hidden[b])
    out, todo = [], set(near)
    while todo:
        stack, component = [todo.pop()], set()
        while stack:
            v = stack.pop()
            component.add(v)
            fresh = near[v] & todo
            todo -= fresh
            stack += fresh
        members = np.array(sorted(component))
        if len(members) >= _POCKET_SIZE and not cut[members].any():
            out.append(members)
    return sorted(out, key=len, reverse=True)


class _Costs:
    """Quadric costs and shape checks of a collapse, over P persons (P, V, 3)."""

    def __init__(self, persons: np.ndarray, faces: np.ndarray, region_weight: np.ndarray) -> None:
        self.x = np.ascontiguousarray(persons.transpose(1, 0, 2))  # (V, P, 3)
        p = self.x[faces]  # (F, 3, P, 3)
        normal = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
        area = np.linalg.norm(normal, axis=-1, keepdims=True)
        unit = normal / np.maximum(area, 1e-12)
        plane = np.concatenate([unit, -(unit * p[:, 0]).sum(-1, keepdims=True)], -1)
        quadric = plane[..., :, None] * plane[..., None, :] * (area / 2)[..., None]
        self.Q = np.zeros((len(self.x), *quadric.shape[1:]))
        for k in range(3):
            np.add.at(self.Q, faces[:, k], quadric)
        self.weight = region_weight**2
        self.h = np.concatenate([self.x, np.ones((*self.x.shape[:2], 1))], -1)

    def cost(self, v: int, u: int) -> float:
        h = self.h[u]
        error = np.einsum("pi,pij,pj->", h, self.Q[v] + self.Q[u], h) / len(h)
        length2 = ((self.x[v, 0] - self.x[u, 0]) ** 2).sum()
        return float((error + 0.05 * length2**2) * self.weight[v])

    def accept(self, mesh: SymmetricMesh, v: int, u: int) -> bool:
        if len(mesh.at[v]) + len(mesh.at[u]) - 4 > 10:
            return False
        kept = mesh.kept_faces(v, u)
        opposite = mesh.neighbours(v) & mesh.neighbours(u)
        if any(len(mesh.at[w]) <= 4 for w in opposite):
            return False
        before = self.x[np.array([b for b, _ in kept])]
        after = self.x[np.array([a for _, a in kept])]
        n0 = np.cross(before[:, 1] - before[:, 0], before[:, 2] - before[:, 0])
        n1 = np.cross(after[:, 1] - after[:, 0], after[:, 2] - after[:, 0])
        l0, l1 = np.linalg.norm(n0, axis=-1), np.linalg.norm(n1, axis=-1)
        if ((n0 * n1).sum(-1) < 0.3 * l0 * l1).any():
            return False
        spans, old_spans = (((x - x[:, [1, 2, 0]]) ** 2).sum(3) for x in (after, before))
        if spans[..., 0].max() > max(_LONGEST_EDGE**2, old_spans[..., 0].max()):
            return False
        edges, old_edges = spans.sum(1), old_spans.sum(1)
        quality, old = l1 / np.maximum(edges, 1e-12), l0 / np.maximum(old_edges, 1e-12)
        return bool((quality.min(0) > np.minimum(0.15, 0.9 * old.min(0))).all())


def decimate(mesh: SymmetricMesh, persons: np.ndarray, region_weight: np.ndarray) -> None:
    """Collapse mirrored edge pairs of `mesh` in place until exactly 6890 vertices remain.

    persons: (P, V, 3) symmetric shapes, the first is the mean; region_weight: (V,) distance weights.
    """
    costs = _Costs(persons, mesh.array(), region_weight)
    mirror = mesh.mirror
    version = dict.fromkeys(mesh.at, 0)
    heap: list[tuple[float, int, int, int, int]] = []

    def push(v: int) -> None:
        if v > mirror[v]:
            v = mirror[v]
        for u in mesh.neighbours(v):
            if u != mirror[v] and (mirror[v] != v or mirror[u] == u):
                heapq.heappush(heap, (costs.cost(v, u), v, u, version[v], version[u]))

    for v in list(mesh.at):
        if v <= mirror[v]:
            push(v)
    while len(mesh) > TARGET_VERTICES:
        if not heap:
            raise ValueError(f"No collapse left at {len(mesh)} vertices. Loosen the checks of the decimation.")
        _, v, u, tag_v, tag_u = heapq.heappop(heap)
        if v not in mesh.at or u not in mesh.at or version[v] != tag_v or version[u] != tag_u:
            continue
        if mirror[v] != v and len(mesh) == TARGET_VERTICES + 1:
            continue
        ring = mesh.neighbours(v) | mesh.neighbours(mirror[v])
        if not mesh.collapse_pair(v, u, lambda a, b: costs.accept(mesh, a, b)):
            continue
        costs.Q[u] += costs.Q[v]
        if mirror[v] != v:
            costs.Q[mirror[u]] += costs.Q[mirror[v]]
        touched = {min(w, mirror[w]) for w in ring if w in mesh.at}
        for w in touched:
            version[w] += 1
            if mirror[w] != w:
                version[mirror[w]] += 1
        for w in touched:
            push(w)
            for t in mesh.neighbours(w):  # edges that end at w from an untouched vertex have to be priced again
                if min(t, mirror[t]) not in touched:
                    a, b = (t, w) if t <= mirror[t] else (mirror[t], mirror[w])
                    if b != mirror[a] and (mirror[a] != a or mirror[b] == b):
                        heapq.heappush(heap, (costs.cost(a, b), a, b, version[a], version[b]))
