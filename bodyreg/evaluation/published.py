"""Figures that others published, each with the protocol it was made under and where it was seen.

Marks of trust: "read" in the system's own code, files or README; "quoted" from another paper or page; "recalled"
without a source at hand, which is for orientation and is not to be cited.
"""

from __future__ import annotations

from typing import NamedTuple

from bodyreg.evaluation.protocols import Protocol

__all__ = ["PUBLISHED", "Published", "published_for"]


class Published(NamedTuple):
    """One figure: method, protocol's name, values by metric (mm, PCK and AUC per cent), mark, source."""

    method: str
    protocol: str
    values: dict[str, float]
    mark: str
    source: str


def _mesh(method: str, mpjpe: float | None, pa: float | None, pve: float | None, mark: str, source: str,
          protocol: str = "pw3d-j14") -> Published:  # fmt: skip
    values = {"MPJPE": mpjpe, "PA-MPJPE": pa, "PVE": pve}
    given = {name: value for name, value in values.items() if value is not None}
    return Published(method, protocol, given, mark, source)


_H36M, _CROSS = "h36m-mesh-p2", ("MPJPE", "PCK", "AUC")
PUBLISHED: tuple[Published, ...] = (
    _mesh("SPIN", 96.9, 59.2, 116.4, "recalled", "PA: README of VIBE; MPJPE, PVE recalled"),
    _mesh("VIBE, no 3DPW", None, 56.5, None, "read", "README of VIBE", "pw3d-j14-vibe"),
    _mesh("PARE, no 3DPW", 82.0, 50.9, 97.9, "read", "README of PARE"),
    _mesh("PARE with 3DPW", 74.5, 46.5, 88.6, "read", "README of PARE"),
    _mesh("DSR, no 3DPW", 91.7, 54.1, 105.8, "quoted", "Tian et al., survey of mesh recovery, Table 4"),
    _mesh("DSR with 3DPW", 85.7, 51.7, 99.5, "recalled", "PA: public benchmark index; MPJPE, PVE recalled"),
    _mesh("HybrIK R34 with 3DPW", 72.4, 44.5, None, "read", "README of HybrIK"),
    _mesh("HybrIK W48, no 3DPW", 88.0, 48.6, None, "read", "README of HybrIK"),
    _mesh("HybrIK W48 with 3DPW", 71.3, 41.8, None, "read", "README of HybrIK"),
    _mesh("CLIFF R50 with 3DPW", 72.0, 45.7, 85.3, "read", "name of the released checkpoint"),
    _mesh("CLIFF W48 with 3DPW", 69.0, 43.0, 81.2, "read", "name of the released checkpoint"),
    _mesh("BEDLAM-CLIFF, synthetic only", 72.0, 46.6, 85.0, "quoted", "tables of later papers"),
    _mesh("BEDLAM-CLIFF with 3DPW", 66.9, 43.0, 78.5, "quoted", "tables of later papers"),
    _mesh("HMR2.0a", 70.0, 44.5, None, "recalled", "Goel et al. 2023", "pw3d-j44-hmr2"),
    _mesh("HMR2.0b", 81.3, 54.3, 93.1, "quoted", "tables of later papers", "pw3d-j44-hmr2"),
    _mesh("TokenHMR, paper model", 70.9, 44.8, 84.3, "read", "README of TokenHMR", "pw3d-j44-hmr2"),
    _mesh("TokenHMR, release", 72.0, 45.5, 84.8, "read", "README of TokenHMR", "pw3d-j44-hmr2"),
    _mesh("WHAM ViT (video)", 57.8, 35.9, 68.7, "quoted", "tables of later papers", "pw3d-j14-midhip"),
    _mesh("PromptHMR", 58.7, 36.1, 69.4, "quoted", "tables of later papers"),
    _mesh("CameraHMR", 62.1, 38.5, 72.9, "recalled", "Patel and Black 2025"),
    _mesh("CameraHMR with 3DPW", 56.0, 35.1, 65.9, "quoted", "tables of later papers"),
    _mesh("NLF-L", 60.3, 37.3, 71.4, "recalled", "Sarandi and Pons-Moll 2024"),
    _mesh("NLF-L with fit, fine-tuned", 54.9, 33.6, 63.7, "quoted", "tables of later papers"),
    _mesh("SAM 3D Body (H)", 54.8, 33.2, 64.1, "quoted", "MPJPE: its README; rest from later papers"),
    _mesh("SAM 3D Body (DINOv3)", 54.8, 33.8, 63.6, "quoted", "MPJPE: its README; rest from later papers"),
    _mesh("PersPose", 60.1, 39.1, 72.4, "read", "README of PersPose"),
    _mesh("SPIN", 62.5, 41.1, None, "recalled", "PA: README of VIBE; MPJPE recalled", _H36M),
    _mesh("VIBE, no 3DPW", None, 41.5, None, "read", "README of VIBE", _H36M),
    _mesh("DSR", 60.9, 40.3, None, "quoted", "Tian et al., survey of mesh recovery, Table 4", _H36M),
    _mesh("CLIFF W48", 47.1, 32.7, None, "recalled", "Li et al. 2022", _H36M),
    _mesh("HMR2.0a", 44.8, 33.6, None, "recalled", "Goel et al. 2023", _H36M),
    _mesh("HMR2.0b", 50.0, 32.4, None, "recalled", "Goel et al. 2023", _H36M),
    _mesh("HybrIK R34", 55.5, 33.8, None, "read", "README of HybrIK", "h36m-moon-p2"),
    _mesh("HybrIK W48, no 3DPW", 50.4, 29.5, None, "read", "README of HybrIK", "h36m-moon-p2"),
    _mesh("HybrIK W48 with 3DPW", 47.1, 29.8, None, "read", "README of HybrIK", "h36m-moon-p2"),
    _mesh("PersPose", 43.0, 28.3, 52.7, "read", "README of PersPose", "h36m-mosh-j14"),
    _mesh("PersPose", 71.9, 54.4, None, "read", "README of PersPose", "mpi3dhp-hybrik-17"),
    _mesh("SPIN", None, 67.5, None, "read", "README of VIBE", "mpi3dhp-mesh-17"),
    _mesh("VIBE", None, 63.4, None, "read", "README of VIBE", "mpi3dhp-mesh-17"),
    _mesh("VideoPose3D 243, CPN", 46.8, 37.2, None, "recalled", "MPJPE: its README", "h36m-lift-17"),
    _mesh("P-STMO 243, CPN", 42.8, None, None, "read", "its README", "h36m-lift-17"),
    _mesh("KTPFormer 243, CPN", 40.1, 31.9, None, "quoted", "P1: public leaderboard; P2 recalled", "h36m-lift-17"),
    _mesh("MixSTE 243, CPN", 40.9, 32.6, None, "quoted", "tables of later papers", "h36m-lift-17"),
    _mesh("GLA-GCN 243, CPN", 44.4, 34.8, None, "quoted", "tables of later papers", "h36m-lift-17"),
    _mesh("GLA-GCN 243, GT 2D", 21.0, None, None, "quoted", "its paper, trained with sequences", "h36m-lift-17"),
    _mesh("ConvFormer 243, CPN", 43.2, 34.2, None, "read", "its paper", "h36m-lift-17"),
    _mesh("GUMLP, CPN, one frame", 49.4, None, None, "read", "README of UAO", "h36m-lift-17"),
    _mesh("GUMLP and UAO, oracle root", 46.7, None, None, "read", "README of UAO", "h36m-lift-17"),
    Published("KTPFormer 81, GT 2D", "mpi3dhp-lift-17", {"MPJPE": 16.7}, "quoted", "public leaderboard"),
    Published("GLA-GCN 81, GT 2D", "mpi3dhp-lift-17", {"MPJPE": 27.76, "PCK": 98.53, "AUC": 79.12}, "recalled",
              "Yu et al. 2023"),
    Published("ConvFormer 9", "mpi3dhp-lift-17", {"MPJPE": 53.6, "PCK": 96.4, "AUC": 69.8}, "read", "its paper"),
    *(
        Published(f"{lifter}, {kind}", "mpi3dhp-cross-16", dict(zip(_CROSS, values, strict=True)), "read",
                  "README of PoseDA")
        for lifter, before, after in (
            ("SemGCN", (95.96, 80.68, 48.48), (86.56, 83.85, 50.98)),
            ("SimpleBaseline", (81.23, 85.85, 53.95), (69.19, 89.90, 58.50)),
            ("ST-GCN", (81.19, 85.92, 53.78), (74.41, 88.58, 55.52)),
            ("VideoPose3D", (82.55, 85.71, 53.35), (66.07, 90.87, 60.07)),
        )
        for kind, values in (("source only", before), ("global adaptation", after))
    ),
)  # fmt: skip


def published_for(protocol: Protocol) -> list[Published]:
    """Figures made under a protocol as it was named; a protocol with changes has none that compare."""
    return [] if protocol.changed else [figure for figure in PUBLISHED if figure.protocol == protocol.name]
