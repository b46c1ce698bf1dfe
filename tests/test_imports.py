"""The directions of import, read from the syntax trees: what each part of the house may use, and who may use what.

Imports inside functions count too; only `if TYPE_CHECKING:` blocks do not, because they never run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("bodyreg", "renderers", "priors")

# Parts of bodyreg: name -> modules (a package's name covers what is in it). The longest matching module wins.
PARTS: dict[str, tuple[str, ...]] = {
    "files": ("files", "pickles"),
    "config": ("config",),
    "skeletons": ("skeletons",),
    "rotations": ("rotations",),
    "windows": ("windows",),
    "cameras": ("cameras", "lens"),
    "crops": ("crops",),
    "encoding": ("encoding",),
    "body": ("body", "body_files", "body_joints", "body_export", "body_smplx", "free_body", "skinning",
             "skinning_cpu"),
    "inverse_kinematics": ("inverse_kinematics",),
    "models": ("models",),
    "checkpoints": ("checkpoints", "lifter_weights"),
    "data": ("data",),
    "losses": ("losses",),
    "adapt": ("adapt",),
    "metrics": ("evaluation", "evaluation.metrics"),
    "protocols": ("evaluation.protocols",),
    "evaluate": tuple(f"evaluation.{name}" for name in (
        "accumulate", "predictions", "truth", "heads", "evaluate", "synthetic", "landmarks", "lifters",
    )),
    "tables": tuple(f"evaluation.{name}" for name in ("published", "tables", "plots", "command")),
    "training": ("training",),
    "inference": ("inference",),
    "top": ("", "__main__", "cli", "cli_output", "cli_prepare", "cli_view", "doctor"),
}
_BASE = {"files", "config", "skeletons", "rotations", "windows"}
_GEOMETRY = {"rotations", "cameras", "crops", "encoding"}
_BODY = {"body", "inverse_kinematics"}
_SCORES = {"skeletons", "body", "models", "adapt", "data", "metrics"}

# Part -> parts and sister packages it may use, besides itself.
MAY_USE: dict[str, set[str]] = {
    "files": set(),
    "config": set(),
    "skeletons": set(),
    "rotations": set(),
    "windows": set(),
    "cameras": {"rotations"},
    "crops": {"rotations", "cameras"},
    "encoding": {"rotations", "cameras", "crops"},
    "body": {"files", "rotations", "skeletons", "renderers.threads", "renderers.backends.jit"},
    "inverse_kinematics": {"files", "rotations", "skeletons", "renderers.threads", "body"},
    "models": _BASE | _GEOMETRY | _BODY,
    "checkpoints": _BASE | _GEOMETRY | _BODY | {"models"},
    "data": {"skeletons", "files", "windows", "renderers", "priors"} | _GEOMETRY | _BODY,
    "losses": {"rotations", "cameras", "skeletons", "renderers", "priors"},
    "adapt": {"models", "losses", "body", "cameras", "rotations", "skeletons", "renderers", "priors"},
    "metrics": set(),
    "protocols": _SCORES,
    # Scoring starts from a configuration and a weights file, and needs crops and cameras of the samples.
    "evaluate": _SCORES | _BASE | _GEOMETRY | _BODY | {"protocols", "checkpoints"},
    "tables": _SCORES | {"files", "protocols", "evaluate"},
    "training": _BASE | _GEOMETRY | _BODY | _SCORES
    | {"losses", "protocols", "evaluate", "tables", "checkpoints", "renderers", "priors"},
    "inference": _BASE | _GEOMETRY | _BODY
    | {"models", "checkpoints", "adapt", "metrics", "data.folder", "data.inputs", "data.lifter_points",
       "data.parsing", "renderers"},
}  # fmt: skip
MAY_USE["top"] = {*PARTS, "renderers", "priors"}

# Third-party packages that may be absent or are costly in licence: the one file (or back end) that may import each.
CONFINED = {
    "pytorch3d": "renderers/backends/pytorch3d.py",
    "smplx": "bodyreg/body_smplx.py",
    "pi_heif": "bodyreg/data/folder.py",
    "ray": "bodyreg/inference/cluster.py",
    "triton": "renderers/backends/cuda*.py",
}
REFUSED = {"torchvision", "timm", "detectron2", "mmcv", "chumpy", "pyrender", "tests", "scripts"}


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of each import that can run; `from a import b` gives a.b when that is a module."""
    yield from _imports(ast.parse(path.read_text(encoding="utf-8")), dotted(path), path.name == "__init__.py")


def _imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in node.orelse:
                yield from _imports(other, module, is_package)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = module.split(".") if is_package else module.split(".")[:-1]
                base = ".".join([*here[: len(here) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                inner = base.split(".")[0] in PACKAGES and is_module(full)
                yield node.lineno, full if inner else base
        else:
            yield from _imports(node, module, is_package)


def part_of(module: str) -> str:
    """The part of bodyreg a dotted module belongs to."""
    name = module.removeprefix("bodyreg").removeprefix(".")
    owners = {prefix: part for part, prefixes in PARTS.items() for prefix in prefixes}
    while name not in owners and "." in name:
        name = name.rpartition(".")[0]
    assert name in owners, f"{module} belongs to no part: name it in PARTS, with what it may use in MAY_USE"
    return owners[name]


def allowed(part: str, target: str) -> bool:
    """May `part` import the dotted module `target` of our packages?"""
    permitted = MAY_USE[part]
    if target.startswith("bodyreg"):
        inner = target.removeprefix("bodyreg").removeprefix(".")
        other = part_of(target)
        return other == part or other in permitted or any(inner == p or inner.startswith(p + ".") for p in permitted)
    return any(target == p or target.startswith(p + ".") for p in permitted)


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_directions(path: Path):
    module = dotted(path)
    package = module.split(".")[0]
    wrong = []
    for line, target in imports(path):
        owner = target.split(".")[0]
        if owner in REFUSED:
            wrong.append(f"line {line}: {target} is not used in this project")
        elif package != "bodyreg" and owner in PACKAGES and owner != package:
            wrong.append(f"line {line}: {package} imports nothing of {owner}")
        elif package == "bodyreg" and owner in PACKAGES and not allowed(part_of(module), target):
            wrong.append(f"line {line}: {part_of(module)} may not use {target}")
    assert not wrong, f"{path.relative_to(ROOT)}: " + "; ".join(wrong)


@pytest.mark.parametrize("name", CONFINED)
def test_third_party_packages_are_confined(name: str):
    users = {
        path.relative_to(ROOT).as_posix() for path in modules() for _, t in imports(path) if t.split(".")[0] == name
    }
    assert all(fnmatch(user, CONFINED[name]) for user in users), users


def test_metrics_stand_on_torch_alone():
    roots = {target.split(".")[0] for _, target in imports(ROOT / "bodyreg/evaluation/metrics.py")}
    assert roots <= {"__future__", "torch", "typing", "collections"}


RUNS_CODE = {"pickle.load", "pickle.loads", "joblib.load", "yaml.load", "eval", "exec", "os.system"}


def code_runners(tree: ast.AST) -> list[str]:
    """Calls that would run what a file says: readers of pickles without a guard, and evaluation of text."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            unguarded = name == "torch.load" and options.get("weights_only") != "True"
            unguarded |= name in ("np.load", "numpy.load") and options.get("allow_pickle") == "True"
            if name in RUNS_CODE or unguarded:
                found.append(f"line {node.lineno}: {name}")
    return found


def test_no_file_is_read_in_a_way_that_runs_it():
    found = {dotted(path): code_runners(ast.parse(path.read_text(encoding="utf-8"))) for path in modules()}
    assert not {module: lines for module, lines in found.items() if lines}
    bad = "torch.load(p)\nnp.load(p, allow_pickle=True)\npickle.load(f)\ntorch.load(p, weights_only=True)\nnp.load(p)"
    assert len(code_runners(ast.parse(bad))) == 3


def test_no_script_is_imported_by_the_packages_and_no_path_is_edited():
    for path in modules():
        assert "sys.path" not in path.read_text(encoding="utf-8"), f"{path} edits sys.path"


def test_this_test_can_fail(tmp_path):
    """The reader sees imports inside functions and relative ones, and leaves out what only type checkers read."""
    text = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import smplx\n"
        "def f():\n    from ..losses import smpl\n    import bodyreg.data.folder\n"
    )
    found = [name for _, name in _imports(ast.parse(text), "bodyreg.models.perspose", False)]
    assert found == ["typing", "bodyreg.losses.smpl", "bodyreg.data.folder"]
    assert not allowed("models", "bodyreg.losses.smpl") and not allowed("models", "bodyreg.data.folder")
    assert allowed("inference", "bodyreg.data.folder") and not allowed("inference", "bodyreg.data.synthetic")
    assert not allowed("body", "renderers.rasterize") and allowed("body", "renderers.threads")
