"""The one self-contained page of a run folder."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuromap_moo.files import whole_file
from neuromap_moo.models.metrics import INTERVALS
from neuromap_moo.results.folder import CHOSEN
from neuromap_moo.results.front import Front
from neuromap_moo.results.run import Run
from neuromap_moo.results.text import cell, columns_shown, headline

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin-top: 2rem; }}
img {{ max-width: 100%; height: auto; }}
table {{ border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums;
  display: block; overflow-x: auto; }}
th, td {{ padding: 2px 10px; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; }}
tr.knee td {{ font-weight: 600; }} p.small {{ color: #555; font-size: 13px; }}
</style></head><body>
<h1>{title}</h1><p>{lead}</p>
{body}
<p class="small">{footer}</p></body></html>
"""


def write_report(run: Run, folder: Path) -> None:
    """Write report.html from the run and those of its pictures that lie beside it as PNG."""
    legend = (
        "<p>Squares are cores, numbered and shaded by layer; arrows are links between routers, the busiest in red.</p>"
    )
    meshes = _pictures(folder, {f"mesh_{name}": f"mapping {name}" for name in CHOSEN})
    curves = {"convergence": "hypervolume over evaluations", "operators": "shares of the operators"}
    sections = {
        "Front": [
            *_pictures(folder, {"pareto": "objectives of the front and the baselines"}),
            _front_table(run.front, "mapping_id"),
        ],
        "Baselines": [_front_table(run.baselines, "name")],
        "Mappings on the chip": [legend, *meshes] if meshes else [],
        "Convergence": _pictures(folder, curves),
        "Measurements": _measurements(run.measurements) if run.measurements else [],
    }
    body = "\n".join(part for title, parts in sections.items() if parts for part in (f"<h2>{title}</h2>", *parts))
    versions = run.provenance.get("versions", {})
    footer = (
        f"network {run.problem.network.digest[:12]}, system {run.problem.system.name} "
        f"{run.problem.system.digest[:12]}, seed {run.seed}, "
        + ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    )
    page = PAGE.format(
        title=html.escape(f"{run.name} on {run.problem.system.name}"),
        lead="<br>".join(html.escape(line) for line in headline(run)),
        body=body,
        footer=html.escape(footer),
    )
    with whole_file(folder / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")


def _front_table(front: Front, id_column: str) -> str:
    columns = columns_shown(front.objective_names)
    rows = []
    for i, name in enumerate(front.ids):
        values = (cell(c, front.table[c][i]) + _interval(front, c, i) for c in columns)
        rows.append([name, *values, *([front.notes[i]] if front.notes else [])])
    head = [id_column, *columns, *(["note"] if front.notes else [])]
    return _html_table(head, rows, None if front.notes else front.knee)


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]], knee: int | None = None) -> str:
    """Return a table of texts, the row of the knee marked."""
    lines = []
    for i, row in enumerate(rows):
        mark = ' class="knee"' if i == knee else ""
        lines.append(f"<tr{mark}>" + "".join(f"<td>{html.escape(x)}</td>" for x in row) + "</tr>")
    titles = "".join(f"<th>{html.escape(x)}</th>" for x in head)
    return f"<table><tr>{titles}</tr>{''.join(lines)}</table>"


def _interval(front: Front, column: str, i: int) -> str:
    """Return half of the 95 % interval of a measured value, in per cent."""
    half = front.table.get(INTERVALS.get(column, ""))
    value = front.table[column][i]
    return "" if half is None or not math.isfinite(half[i] / value) else f" ±{half[i] / value:.1%}"


def _measurements(found: Mapping[str, Any]) -> list[str]:
    """Return what became of the attempts on boards: a sentence, and a table of the boards."""
    scatter = ", ".join(
        f"{name} {value:.1%} within an attempt and {found['scatter_between_attempts'][name]:.1%} between them"
        for name, value in found["scatter_within_attempts"].items()
    )
    lead = f"{found['done']} of {found['attempts']} attempts gave a result, {found['controls']} of them at the control."
    lead += f" Scatter: {scatter}." if scatter else ""
    # The statuses that any board had: its only whole numbers.
    kinds = list(dict.fromkeys(k for b in found["boards"].values() for k, v in b.items() if type(v) is int))
    head = ["board", *kinds, "measuring", "lost", "drift", "note"]
    rows = []
    for name, board in found["boards"].items():
        drift = ", ".join(f"{metric} {value:+.1%}" for metric, value in board["drift"].items() if abs(value) >= 5e-4)
        note = found.get("given_up", {}).get(name.partition(" (")[0], "")
        counts = [str(board.get(kind, 0)) for kind in kinds]
        spent = [f"{board[key]:.1f} s" for key in ("seconds_measuring", "seconds_lost")]
        drift = (drift or "none") + (", corrected" if board["drift_corrected"] else "")
        rows.append([name, *counts, *spent, drift, f"left alone: {note}" if note else ""])
    return [f"<p>{html.escape(lead)}</p>", _html_table(head, rows)]


def _pictures(folder: Path, described: Mapping[str, str]) -> list[str]:
    """Return the pictures of a folder that are there, by name and what they show, as parts of the page."""
    parts = []
    for name, text in described.items():
        path = folder / f"{name}.png"
        if path.exists():
            data = base64.b64encode(path.read_bytes()).decode()
            parts.append(f'<p><img alt="{html.escape(text)}" src="data:image/png;base64,{data}"></p>')
    return parts
