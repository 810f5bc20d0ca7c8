"""What a run found, in words and in cells of tables."""

from __future__ import annotations

import math
from typing import Any

from neuromap_moo.models.metrics import COLUMNS, MAXIMISED
from neuromap_moo.results.run import ROBUST, ROBUSTNESS, Run, robust_mappings

#: Columns of the tables on the page and on the screen, after the objectives.
SHOWN = ("latency_s", "energy_j", "throughput_hz", "bottleneck", "cores_used", "chips_used", "message_hops")


def headline(run: Run) -> list[str]:
    """Say in a few plain lines what the run found."""
    lines = [
        f"{len(run.front)} non-dominated mappings from {run.evaluations} evaluations by {run.algorithm} in "
        f"{run.seconds:.1f} s; hypervolume {run.hypervolume:.4f}."
    ]
    for name, gain in run.summary()["best"].items():
        text = f"Best {name}: {cell(name, gain['best'])}"
        for base, value in (
            ("vendor_default", gain["reduction_vs_vendor_default"]),
            (f"the best baseline, {gain['best_baseline']}", gain["reduction_vs_best_baseline"]),
        ):
            if value is not None and abs(value) < 5e-4:
                text += f", equal to {base}"
            elif value is not None:
                text += f", {abs(value):.1%} {_direction(name, value)} {base}"
        lines.append(text + ".")
    if ROBUSTNESS in run.front.table:
        n = robust_mappings(run.front)
        lines.append(
            f"{n} of {len(run.front)} mappings stay non-dominated on {ROBUST:.0%} or more of the systems drawn from "
            "the brackets of the constants."
        )
    return lines


def columns_shown(objectives: tuple[str, ...]) -> list[str]:
    """Objectives first, then the other columns worth a look."""
    return [*objectives, *(c for c in SHOWN if c not in objectives)]


def cell(column: str, value: Any) -> str:
    """Write one value of a metric column for people: with its unit and an SI prefix."""
    unit = COLUMNS[column]
    if unit is None:
        return str(value)
    if unit == "" and float(value).is_integer() and abs(value) < 1e5:
        return str(int(value))
    if not math.isfinite(value):
        return f"{value} {unit}".strip()
    from matplotlib.ticker import EngFormatter  # takes long to import, and is needed at the end alone

    return EngFormatter(unit, 3)(float(value)).strip()


def _direction(name: str, gain: float) -> str:
    more = (gain > 0) == (name in MAXIMISED)
    return "above" if more else "below"
