"""Bars of errors by joint and by action, one colour a system (matplotlib, extra `plots`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bodyreg.evaluation.evaluate import Result
from bodyreg.files import atomic_write

__all__ = ["plot_actions", "plot_joints", "write_plots"]

_COLOURS = ("#1f5f8b", "#d1495b", "#66a182", "#edae49", "#5c4b8a", "#8d99ae")


def plot_joints(path: str | Path, results: Sequence[Result]) -> Path:
    """Write a picture of the mean error of each joint, millimetres; joints that no result has are left out.

    Args:
        path: of a .png, .svg or .pdf. results: one colour each.

    Raises:
        ValueError: no results, or matplotlib is not installed.
    """
    names = list(dict.fromkeys(name for result in results for name in result.joints))
    series = [(_label(r), [1000 * r.joints.get(name, float("nan")) for name in names]) for r in results]
    return _bars(path, "Mean error by joint", "MPJPE, mm", names, series)


def plot_actions(path: str | Path, results: Sequence[Result]) -> Path:
    """Write a picture of the mean error of each action, or of each group that the protocol averages over; millimetres.

    Args:
        path: of a .png, .svg or .pdf. results: one colour each.

    Raises:
        ValueError: no result has actions or groups, or matplotlib is not installed.
    """
    tables = []
    for result in results:
        metric = next(iter(result.errors))
        groups = result.by_action or result.groups
        tables.append((_label(result), metric, {name: 1000 * means[metric] for name, _, means in groups}))
    names = list(dict.fromkeys(name for _, _, means in tables for name in means))
    if not names:
        raise ValueError("The samples carry no actions and no groups. Plot joints, or score data with actions.")
    series = [(label, [means.get(name, float("nan")) for name in names]) for label, _, means in tables]
    return _bars(path, "Mean error by action", f"{tables[0][1]}, mm", names, series)


def write_plots(folder: str | Path, results: Sequence[Result]) -> list[Path]:
    """Write joints.png and, where samples carry actions or groups, actions.png."""
    written = [plot_joints(Path(folder) / "joints.png", results)]
    if any(result.by_action or result.groups for result in results):
        written.append(plot_actions(Path(folder) / "actions.png", results))
    return written


def _label(result: Result) -> str:
    return f"{result.system} ({result.protocol.label})"


def _bars(
    path: str | Path, title: str, unit: str, names: Sequence[str], series: Sequence[tuple[str, Sequence[float]]]
) -> Path:
    if not series:
        raise ValueError("There is no result to plot. Score something first.")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("matplotlib is not installed. Run: pip install 'bodyreg[plots]'.") from None
    figure = Figure(figsize=(max(6.0, 0.55 * len(names) + 1.5), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    width = 0.8 / len(series)
    for k, (label, values) in enumerate(series):
        places = [i + (k - (len(series) - 1) / 2) * width for i in range(len(names))]
        axes.bar(places, values, width, label=label, color=_COLOURS[k % len(_COLOURS)])
    axes.set_xticks(range(len(names)), [name.replace("_", " ") for name in names], rotation=40, ha="right")
    axes.set(title=title, ylabel=unit, ylim=(0, None))
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.legend(loc="outside lower center", frameon=False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=130)
    return Path(path)
