"""What the runs of the ablation say together: paired differences with confidence intervals, tables and a plot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from bodyreg.files import atomic_write

ERRORS = ("MPJPE", "PA-MPJPE", "PVE")
WIDE_DEG, OFF_AXIS_DEG = 60.0, 20.0
_COLOURS = {"none": "#888888", "PE": "#3b76b0", "PR": "#d9822b", "PE+PR": "#3f8f5b"}


class Run(NamedTuple):
    """A variant and a seed (None: the common start), and by name errors (metres) and angles (radians) a test person."""

    variant: str
    seed: int | None
    columns: dict[str, np.ndarray]


class Estimate(NamedTuple):
    """A mean in millimetres and half-widths of its 95 % intervals, over seeds and over test people (None: unknown)."""

    mean: float
    over_seeds: float | None
    over_people: float


def estimate(values: np.ndarray) -> Estimate:
    """Estimate of (seeds, people) values in millimetres: Student's t over the seeds' means, the normal over people."""
    seeds, people = values.shape
    means = values.mean(1)
    over_seeds = None
    if seeds > 1:
        over_seeds = float(stats.t.ppf(0.975, seeds - 1) * means.std(ddof=1) / np.sqrt(seeds))
    over_people = float(1.96 * values.mean(0).std(ddof=1) / np.sqrt(people)) if people > 1 else float("nan")
    return Estimate(float(means.mean()), over_seeds, over_people)


def subsets(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Which people belong to each part of the test, by name."""
    wide = np.rad2deg(columns["fov_rad"]) >= WIDE_DEG
    off = np.rad2deg(columns["off_axis_rad"]) >= OFF_AXIS_DEG
    return {
        "all": np.ones(len(wide), bool), f"wide lens (>= {WIDE_DEG:.0f} deg)": wide,
        f"off centre (>= {OFF_AXIS_DEG:.0f} deg)": off, "wide and off centre": wide & off, "neither": ~wide & ~off,
    }  # fmt: skip


def summarise(runs: list[Run]) -> dict[str, Any]:
    """Everything that is reported, by part of the test, error and variant, millimetres.

    Only seeds that every variant has finished count. Differences are to the variant `none` of the same seed and person,
    main effects the mean difference that a switch makes with the other off and on.

    Raises:
        ValueError: two runs were scored on different people.
    """
    reference = runs[0].columns["betas"]
    for run in runs:
        if not np.array_equal(run.columns["betas"], reference):
            raise ValueError(
                f"The run {run.variant} of seed {run.seed} was scored on other people than the first. Give both kinds "
                "of shards the same people."
            )
    names = list(dict.fromkeys(run.variant for run in runs))
    found = {(run.variant, run.seed): run.columns for run in runs}
    seeds = sorted({s for _, s in found if s is not None and all((name, s) in found for name in names)})
    parts: dict[str, Any] = {}
    for part, mask in subsets(runs[0].columns).items():

        def rows(name: str, error: str, of: list, mask: np.ndarray = mask) -> np.ndarray:
            return 1000 * np.stack([found[name, seed][error][mask] for seed in of]).astype(np.float64)

        errors: dict[str, Any] = {}
        for error in ERRORS if mask.any() else ():
            errors[error] = {"start": {name: float(rows(name, error, [None]).mean()) for name in names}}
            if seeds:
                errors[error] |= _compare({name: rows(name, error, seeds) for name in names})
        parts[part] = {"people": int(mask.sum()), "errors": errors}
    return {"seeds": seeds, "parts": parts}


def _compare(values: dict[str, np.ndarray]) -> dict[str, Any]:
    """Means, differences and effects of (seeds, people) errors by variant."""
    none, pe, pr, both = (values[name] for name in ("none", "PE", "PR", "PE+PR"))
    return {
        "mean": {name: estimate(v)._asdict() for name, v in values.items()},
        "by_seed": {name: v.mean(1).tolist() for name, v in values.items()},
        "minus_none": {name: estimate(v - none)._asdict() for name, v in values.items() if name != "none"},
        "effect": {
            "PE": estimate((pe - none + both - pr) / 2)._asdict(),
            "PR": estimate((pr - none + both - pe) / 2)._asdict(),
            "PE+PR beyond their sum": estimate(both - pe - pr + none)._asdict(),
        },
    }


def write_report(out: Path, runs: list[Run], *, budget: dict[str, str]) -> None:
    """Write ablation.json, ablation.md and ablation.png of the runs there are."""
    summary = {"budget": budget, **summarise(runs)}
    with atomic_write(out / "ablation.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    with atomic_write(out / "ablation.md") as temporary:
        temporary.write_text(markdown(summary), encoding="utf-8")
    if summary["seeds"]:
        plot(out / "ablation.png", summary)


def markdown(summary: dict[str, Any]) -> str:
    """Tables: a block a part of the test, a row a variant, the difference to `none` beside each error."""
    lines = [
        ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in summary["budget"].items())
        + f"; finished seeds: {summary['seeds']}.",
        "Millimetres. Differences are to `none` of the same seed and person; half-widths of 95 % intervals over seeds "
        "(Student's t) / over test people.",
    ]
    for part, content in summary["parts"].items():
        errors = content["errors"]
        lines += ["", f"**{part}**, {content['people']} people", ""]
        lines += ["| | " + " | ".join(f"{error} | against none" for error in errors) + " |"]
        lines += ["|---|" + "---:|---:|" * len(errors)]
        first = next(iter(errors.values()), {})
        for name in first.get("mean", {}):
            cells = []
            for entry in errors.values():
                cells.append(_text(entry["mean"][name], seeds_only=True))
                cells.append(_text(entry["minus_none"][name]) if name != "none" else "")
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        for name in first.get("effect", {}):
            cells = [cell for entry in errors.values() for cell in ("", _text(entry["effect"][name]))]
            lines.append(f"| effect of {name} | " + " | ".join(cells) + " |")
        for name in first.get("start", {}):
            cells = [cell for entry in errors.values() for cell in (f"{entry['start'][name]:.1f}", "")]
            lines.append(f"| common checkpoint, {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _text(value: dict[str, Any], *, seeds_only: bool = False) -> str:
    seeds = "?" if value["over_seeds"] is None else f"{value['over_seeds']:.1f}"
    if seeds_only:
        return f"{value['mean']:.1f} ± {seeds}"
    return f"{value['mean']:+.1f} ± {seeds} / {value['over_people']:.1f}"


def plot(path: Path, summary: dict[str, Any]) -> None:
    """Differences to `none`: a panel an error, a group a part of the test, dots seeds, bars intervals over people."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    parts = {name: part for name, part in summary["parts"].items() if part["errors"]}
    figure, axes = pyplot.subplots(1, len(ERRORS), figsize=(5 * len(ERRORS), 4.2), layout="constrained")
    for axis, error in zip(axes, ERRORS, strict=True):
        for k, part in enumerate(parts.values()):
            entry = part["errors"][error]
            none = np.array(entry["by_seed"]["none"])
            for i, (name, value) in enumerate(entry["minus_none"].items()):
                x = k + 0.25 * (i - 1)
                axis.bar(x, value["mean"], 0.22, yerr=value["over_people"], capsize=3, color=_COLOURS[name], alpha=0.75,
                         label=name if k == 0 else None)  # fmt: skip
                seeds = np.array(entry["by_seed"][name]) - none
                axis.plot(np.full(len(seeds), x), seeds, "o", color="black", markersize=3)
        axis.axhline(0, color="black", linewidth=0.8)
        labels = [f"{name.split(' (')[0]}\nn = {part['people']}" for name, part in parts.items()]
        axis.set_xticks(range(len(parts)), labels, fontsize=8)
        axis.set_title(f"{error}: change against neither, mm")
    axes[0].legend(frameon=False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    pyplot.close(figure)
