"""Sets of mappings with their metrics: the front of a run, and its baselines."""

from __future__ import annotations

import csv
import os
from collections import abc
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuromap_moo.arrays import FloatArray
from neuromap_moo.errors import InputError
from neuromap_moo.files import whole_file
from neuromap_moo.mapping.mapping import Mapping
from neuromap_moo.models.metrics import MAXIMISED, Metrics, minimised


@dataclass(frozen=True)
class Front:
    """n mappings with an id, every metric column (n,) in `table`, and a note each.

    For a front the mappings are non-dominated and sorted by the first objective; for baselines they are as they come.
    """

    ids: tuple[str, ...]
    mappings: tuple[Mapping, ...]
    table: Metrics
    objective_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def objectives(self) -> FloatArray:
        """Objective values (n, m) as they stand in the table."""
        return np.stack([self.table[name] for name in self.objective_names], axis=1).astype(np.float64)

    @property
    def by_id(self) -> dict[str, Mapping]:
        """Mappings by id."""
        return dict(zip(self.ids, self.mappings, strict=True))

    def best(self, objective: str) -> int:
        """Index of the best mapping in one metric column; the first of equals."""
        return int(np.nanargmin(minimised(self.table, (objective,))[:, 0]))  # nan where it could not be measured

    @property
    def knee(self) -> int:
        """Index of the knee: the mapping farthest below the plane (line) through the best one in each objective.

        Objectives are scaled to [0, 1] over the front (after Das, Structural Optimization 18, 1999). Where these
        extremes span no plane that faces the origin, all objectives weigh the same; where all mappings lie on the
        plane, it is the best in the first objective.
        """
        F = minimised(self.table, self.objective_names)
        span = np.ptp(F, axis=0)
        G = (F - F.min(axis=0)) / np.where(span > 0, span, 1.0)
        try:
            normal = np.linalg.solve(G[G.argmin(axis=0)], np.ones(G.shape[1]))
        except np.linalg.LinAlgError:
            normal = np.ones(G.shape[1])
        if (normal <= 0).any():
            normal = np.ones(G.shape[1])
        height = G @ normal
        if np.ptp(height) < 1e-9:  # all on the plane
            return self.best(self.objective_names[0])
        return int(height.argmin())


def save_table(
    path: str | os.PathLike[str],
    front: Front,
    id_column: str = "mapping_id",
    extra: abc.Mapping[str, Any] | None = None,
) -> None:
    """Write one row per mapping as CSV: the id, every metric column, then `extra` columns and notes if there are any.

    Floats are written with as many digits as they need to be read back exactly.
    """
    extra = dict(extra or {})
    if front.notes:
        extra["note"] = front.notes
    save_columns(path, {id_column: front.ids, **front.table, **extra})


def save_columns(path: str | os.PathLike[str], table: abc.Mapping[str, Any]) -> None:
    """Write columns of equal length as CSV, floats as in `save_table`."""
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(list(table))
        writer.writerows([_text(value) for value in row] for row in zip(*table.values(), strict=True))


def save_parquet(path: str | os.PathLike[str], table: abc.Mapping[str, Any]) -> None:
    """Write columns of equal length as Parquet; InputError where pyarrow is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("format=parquet: needs pyarrow; pip install 'neuromap-moo[parquet]', or format=csv") from error
    with whole_file(path) as temporary:
        columns = {name: np.asarray(values) for name, values in table.items()}
        pyarrow.parquet.write_table(pyarrow.table(columns), temporary)


def load_table(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Read a CSV written by this package as lists of text by column."""
    try:
        with open(path, newline="", encoding="utf-8") as f:
            rows = list(csv.reader(f))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"'{path}': cannot be read ({error}); expected a table of a run folder") from error
    if not rows or len({len(row) for row in rows}) > 1:
        raise InputError(f"'{path}': expected a table of a run folder, it is empty or has rows of different length")
    return {name: [row[i] for row in rows[1:]] for i, name in enumerate(rows[0])}


def reductions(front: Front, baselines: Front) -> dict[str, dict[str, Any]]:
    """Per objective: the best value, and its relative gain over vendor_default and over the best baseline.

    A gain of 0.3 means 30 % less (for throughput_hz, 30 % more).
    """
    gains: dict[str, dict[str, Any]] = {}
    for name in front.objective_names:
        best = float(front.table[name][front.best(name)])
        vendor = float(baselines.table[name][baselines.ids.index("vendor_default")])
        rival = baselines.best(name)
        gains[name] = {
            "best": best,
            "vendor_default": vendor,
            "reduction_vs_vendor_default": _gain(name, best, vendor),
            "best_baseline": baselines.ids[rival],
            "reduction_vs_best_baseline": _gain(name, best, float(baselines.table[name][rival])),
        }
    return gains


def _gain(name: str, best: float, base: float) -> float | None:
    if base == 0:
        return None
    return best / base - 1 if name in MAXIMISED else 1 - best / base


def _text(value: Any) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    return repr(value) if isinstance(value, float) else str(value)
