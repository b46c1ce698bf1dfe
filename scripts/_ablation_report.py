"""What paired runs say together: differences with confidence intervals, tables and a plot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from bodyreg.files import atomic_write

WIDE_DEG, OFF_AXIS_DEG = 60.0, 20.0


class Design(NamedTuple):
    """What is compared: a name for the files, columns of errors, the variant that others are compared with, colours by
    variant (in the table's order), parts of the test by name, and effects, linear combinations of variants."""

    name: str
    errors: tuple[str, ...]
    base: str
    colours: dict[str, str]
    parts: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
    effects: dict[str, dict[str, float]]


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


def subsets(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Which people belong to each part of the test, by name."""
    wide = np.rad2deg(columns["fov_rad"]) >= WIDE_DEG
    off = np.rad2deg(columns["off_axis_rad"]) >= OFF_AXIS_DEG
    return {
        "all": np.ones(len(wide), bool), f"wide lens (>= {WIDE_DEG:.0f} deg)": wide,
        f"off centre (>= {OFF_AXIS_DEG:.0f} deg)": off, "wide and off centre": wide & off, "neither": ~wide & ~off,
    }  # fmt: skip


PERSPOSE = Design(
    "ablation", ("MPJPE", "PA-MPJPE", "PVE"), "none",
    {"none": "#888888", "PE": "#3b76b0", "PR": "#d9822b", "PE+PR": "#3f8f5b"}, subsets,
    {
        "PE": {"PE": 0.5, "none": -0.5, "PE+PR": 0.5, "PR": -0.5},
        "PR": {"PR": 0.5, "none": -0.5, "PE+PR": 0.5, "PE": -0.5},
        "PE+PR beyond their sum": {"PE+PR": 1, "PE": -1, "PR": -1, "none": 1},
    },
)  # fmt: skip
"""The main effects are the mean difference that a switch makes with the other off and on."""


def estimate(values: np.ndarray) -> Estimate:
    """Estimate of (seeds, people) values in millimetres: Student's t over the seeds' means, the normal over people."""
    seeds, people = values.shape
    means = values.mean(1)
    over_seeds = None
    if seeds > 1:
        over_seeds = float(stats.t.ppf(0.975, seeds - 1) * means.std(ddof=1) / np.sqrt(seeds))
    over_people = float(1.96 * values.mean(0).std(ddof=1) / np.sqrt(people)) if people > 1 else float("nan")
    return Estimate(float(means.mean()), over_seeds, over_people)


def summarise(runs: list[Run], design: Design) -> dict[str, Any]:
    """Everything that is reported, by part of the test, error and variant, millimetres.

    Only seeds that every variant has finished count. Differences are to the design's base of the same seed and person.

    Raises:
        ValueError: two runs were scored on different people.
    """
    reference = runs[0].columns["betas"]
    for run in runs:
        if not np.array_equal(run.columns["betas"], reference):
            raise ValueError(
                f"The run {run.variant} of seed {run.seed} was scored on other people than the first. Give every run "
                "the same people."
            )
    names = list(dict.fromkeys(run.variant for run in runs))
    found = {(run.variant, run.seed): run.columns for run in runs}
    seeds = sorted({s for _, s in found if s is not None and all((name, s) in found for name in names)})
    parts: dict[str, Any] = {}
    for part, mask in design.parts(runs[0].columns).items():

        def rows(name: str, error: str, of: list, mask: np.ndarray = mask) -> np.ndarray:
            return 1000 * np.stack([found[name, seed][error][mask] for seed in of]).astype(np.float64)

        errors: dict[str, Any] = {}
        for error in design.errors if mask.any() else ():
            errors[error] = {"start": {name: float(rows(name, error, [None]).mean()) for name in names}}
            if seeds:
                errors[error] |= _compare({name: rows(name, error, seeds) for name in names}, design)
        parts[part] = {"people": int(mask.sum()), "errors": errors}
    return {"seeds": seeds, "parts": parts}


def _compare(values: dict[str, np.ndarray], design: Design) -> dict[str, Any]:
    """Means, differences and effects of (seeds, people) errors by variant."""
    base = values[design.base]
    effects = {
        name: sum(factor * values[variant] for variant, factor in parts.items())
        for name, parts in design.effects.items()
    }
    return {
        "mean": {name: estimate(v)._asdict() for name, v in values.items()},
        "by_seed": {name: v.mean(1).tolist() for name, v in values.items()},
        "minus_base": {name: estimate(v - base)._asdict() for name, v in values.items() if name != design.base},
        "effect": {name: estimate(np.asarray(value))._asdict() for name, value in effects.items()},
    }


def write_report(out: Path, runs: list[Run], design: Design, *, budget: dict[str, str]) -> None:
    """Write a table as JSON and Markdown and a plot, named as the design is, of the runs there are."""
    summary = {"budget": budget, **summarise(runs, design)}
    with atomic_write(out / f"{design.name}.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    with atomic_write(out / f"{design.name}.md") as temporary:
        temporary.write_text(markdown(summary, design), encoding="utf-8")
    if summary["seeds"]:
        plot(out / f"{design.name}.png", summary, design)


def markdown(summary: dict[str, Any], design: Design) -> str:
    """Tables: a block a part of the test, a row a variant, the difference to the base beside each error."""
    lines = [
        ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in summary["budget"].items())
        + f"; finished seeds: {summary['seeds']}.",
        f"Millimetres. Differences are to `{design.base}` of the same seed and person; half-widths of 95 % intervals "
        "over seeds (Student's t) / over test people.",
    ]
    for part, content in summary["parts"].items():
        errors = content["errors"]
        lines += ["", f"**{part}**, {content['people']} people", ""]
        lines += ["| | " + " | ".join(f"{error} | against {design.base}" for error in errors) + " |"]
        lines += ["|---|" + "---:|---:|" * len(errors)]
        first = next(iter(errors.values()), {})
        for name in first.get("mean", {}):
            cells = []
            for entry in errors.values():
                cells.append(_text(entry["mean"][name], seeds_only=True))
                cells.append(_text(entry["minus_base"][name]) if name != design.base else "")
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        for name in first.get("effect", {}):
            cells = [cell for entry in errors.values() for cell in ("", _text(entry["effect"][name]))]
            lines.append(f"| effect of {name} | " + " | ".join(cells) + " |")
        names = list(first.get("start", {}))
        alike = all(len(set(entry["start"].values())) == 1 for entry in errors.values())
        for name in names[:1] if alike else names:
            cells = [cell for entry in errors.values() for cell in (f"{entry['start'][name]:.1f}", "")]
            lines.append(f"| common checkpoint{'' if alike else ', ' + name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _text(value: dict[str, Any], *, seeds_only: bool = False) -> str:
    seeds = "?" if value["over_seeds"] is None else f"{value['over_seeds']:.1f}"
    if seeds_only:
        return f"{value['mean']:.1f} ± {seeds}"
    return f"{value['mean']:+.1f} ± {seeds} / {value['over_people']:.1f}"


def plot(path: Path, summary: dict[str, Any], design: Design) -> None:
    """Differences to the base: a panel an error, a group a part of the test, dots seeds, bars intervals over people."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    parts = {name: part for name, part in summary["parts"].items() if part["errors"]}
    figure, axes = pyplot.subplots(1, len(design.errors), figsize=(5 * len(design.errors), 4.5), layout="constrained")
    for axis, error in zip(axes, design.errors, strict=True):
        for k, part in enumerate(parts.values()):
            entry = part["errors"][error]
            base = np.array(entry["by_seed"][design.base])
            step = 0.75 / len(entry["minus_base"])
            for i, (name, value) in enumerate(entry["minus_base"].items()):
                x = k + step * (i - (len(entry["minus_base"]) - 1) / 2)
                axis.bar(x, value["mean"], 0.88 * step, yerr=value["over_people"], capsize=3, alpha=0.75,
                         color=design.colours[name], label=name if k == 0 else None)  # fmt: skip
                seeds = np.array(entry["by_seed"][name]) - base
                axis.plot(np.full(len(seeds), x), seeds, "o", color="black", markersize=3)
        axis.axhline(0, color="black", linewidth=0.8)
        labels = [f"{name.split(' (')[0]}\nn = {part['people']}" for name, part in parts.items()]
        axis.set_xticks(range(len(parts)), labels, fontsize=8)
        axis.set_title(f"{error}: change against {design.base}, mm")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=8, frameon=False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    pyplot.close(figure)
