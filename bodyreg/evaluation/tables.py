"""Results as tables: text, Markdown, CSV and JSON, millimetres and per cent, with published figures beside ours.

The foot of a table is the record of each protocol: which frames, whose joints, which root, which mean. Names ending in
`_mm` hold millimetres.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bodyreg.evaluation.evaluate import Result
from bodyreg.evaluation.protocols import METRICS
from bodyreg.evaluation.published import published_for
from bodyreg.files import atomic_write

__all__ = ["FORMATS", "breakdown", "csv_table", "footer", "json_table", "markdown", "rows", "text", "write_tables"]

Row = tuple[str, ...]
FORMATS = {".txt": "text", ".md": "markdown", ".csv": "csv", ".json": "json"}


def shown(metric: str, value: float) -> float:
    """A mean as tables print it: millimetres, or per cent of PCK and AUC."""
    return value * (100 if metric.split(" ")[0] in ("PCK", "AUC") else 1000)


def rows(results: Sequence[Result], *, published: bool = True, digits: int = 1) -> list[Row]:
    """Rows of text, the header first: system, protocol, samples, dropped, metrics, weights or source.

    Args:
        results: one row each. published: add the published figures of the same protocols. digits: after the point.
    """
    _refuse_nothing(results)
    present = {name for result in results for name in result.errors}
    main = [name for name in METRICS if name in present]
    names = [*main, *sorted(present - set(main))]
    figures = []
    if published:
        for protocol in {result.protocol.label: result.protocol for result in results}.values():
            figures += published_for(protocol)
    if not {"PVE"} & set(names) and any("PVE" in result.protocol.metrics for result in results):
        names.insert(min(2, len(names)), "PVE")
    headings = (_heading(name) for name in names)
    out: list[Row] = [("system", "protocol", "samples", "dropped", *headings, "weights or source")]
    for result in results:
        values = [_number(shown(name, result.errors[name]), digits) if name in result.errors else "-" for name in names]
        dropped = str(sum(len(who) for who in result.dropped.values()))
        weights = result.weights_hash[:12] or "-"
        out.append((result.system, result.protocol.label, str(result.samples), dropped, *values, weights))
    for figure in figures:
        values = [_number(figure.values[name], digits) if name in figure.values else "-" for name in names]
        source = f"{figure.mark}: {figure.source}"
        out.append((f"{figure.method} (published)", figure.protocol, "-", "-", *values, source))
    return out


def breakdown(result: Result, by: str = "groups", *, digits: int = 1) -> list[Row]:
    """Rows of text of one result, the header first: its groups, its actions, or its joints.

    Args:
        by: "groups" (what the protocol averages over), "actions" or "joints".
    """
    if by == "joints":
        pairs = [(name, _number(1000 * value, digits)) for name, value in result.joints.items()]
        return [("joint", "MPJPE mm"), *pairs]
    groups = {"groups": result.groups, "actions": result.by_action}.get(by)
    if groups is None:
        raise ValueError(f"There is no breakdown by {by!r}. Choose groups, actions or joints.")
    names = [name for name in result.errors if any(name in means for _, _, means in groups)]
    out: list[Row] = [("group", "samples", *(_heading(name) for name in names))]
    for label, count, means in groups:
        values = [_number(shown(name, means[name]), digits) if name in means else "-" for name in names]
        out.append((label, str(count), *values))
    return out


def footer(results: Sequence[Result]) -> list[str]:
    """What the numbers mean: each protocol's record, the truth's file, samples left out, warnings."""
    lines: list[str] = []
    for protocol in {result.protocol.label: result.protocol for result in results}.values():
        lines += protocol.describe()
        if not published_for(protocol):
            lines.append("published: no figure was made under this protocol")
    for result in results:
        lines.append(f"{result.system}: truth {result.origin or result.dataset}")
        if result.batch_mean and result.protocol.aggregate != "batches":
            batched = ", ".join(f"{name} {shown(name, value):.1f}" for name, value in result.batch_mean.items()
                                if " " not in name)  # fmt: skip
            lines.append(f"{result.system}, mean of batch means, as some published systems print: {batched}")
        for reason, who in result.dropped.items():
            more = " ..." if len(who) > 10 else ""
            lines.append(f"{result.system}: {len(who)} dropped, {reason}: {', '.join(who[:10])}{more}")
        lines += [f"{result.system}: {note}" for note in result.notes]
    return lines


def text(results: Sequence[Result], *, published: bool = True, digits: int = 1) -> str:
    """A table for terminals, with its foot."""
    table = rows(results, published=published, digits=digits)
    widths = [max(len(row[k]) for row in table) for k in range(len(table[0]))]
    left = (0, 1, len(widths) - 1)
    lines = ["  ".join(cell.ljust(w) if k in left else cell.rjust(w) for k, (cell, w) in
                       enumerate(zip(row, widths, strict=True))).rstrip() for row in table]  # fmt: skip
    return "\n".join([*lines, "", *footer(results)]) + "\n"


def markdown(results: Sequence[Result], *, published: bool = True, digits: int = 1) -> str:
    """A table in Markdown, with its foot as a list."""
    header, *body = rows(results, published=published, digits=digits)
    rule = ["---" if k in (0, 1, len(header) - 1) else "---:" for k in range(len(header))]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (header, tuple(rule), *body)]
    return "\n".join([*lines, "", *(f"* {line}" for line in footer(results))]) + "\n"


def csv_table(results: Sequence[Result], *, published: bool = True) -> str:
    """The rows as CSV, with six digits after the point."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows(results, published=published, digits=6))
    return stream.getvalue()


def json_table(results: Sequence[Result]) -> str:
    """Everything of the results, with the protocols' records and the published figures to compare with."""
    _refuse_nothing(results)
    records = []
    for result in results:
        record = asdict(result)
        record["protocol"]["label"] = result.protocol.label
        for key in ("errors", "batch_mean"):
            record[f"{key}_shown"] = {name: shown(name, value) for name, value in record[key].items()}
        record["joints_mm"] = {name: 1000 * value for name, value in result.joints.items()}
        record["units"] = "metres and shares; *_shown: millimetres and per cent"
        record["published"] = [figure._asdict() for figure in published_for(result.protocol)]
        records.append(record)
    return json.dumps({"results": records}, indent=1) + "\n"


def write_tables(path: str | Path, results: Sequence[Result]) -> Path:
    """Write the results; the suffix decides the format: .txt, .md, .csv or .json.

    Raises:
        ValueError: another suffix.
    """
    path = Path(path)
    makers = {"text": text, "markdown": markdown, "csv": csv_table, "json": json_table}
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"Tables are not written as {path.suffix or path.name!r}. Choose {', '.join(FORMATS)}.")
    content = makers[FORMATS[path.suffix.lower()]](results)
    with atomic_write(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
    return path


def _heading(metric: str) -> str:
    units = {"MPJVE": "mm/frame", "Accel": "mm/frame^2", "PCK": "%", "AUC": "%"}
    return f"{metric} {units.get(metric.split(' ')[0], 'mm')}"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}"


def _refuse_nothing(results: Sequence[Result]) -> None:
    if not results:
        raise ValueError("There is no result to print. Score something first.")
