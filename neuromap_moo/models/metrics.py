"""Metric columns, and how they follow from times, energies and counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromap_moo.arrays import FloatArray
from neuromap_moo.errors import InputError, did_you_mean

#: Metrics of n mappings by column name, each (n,): float64, int64 for `cores_used` and `chips_used`, str for
#: `bottleneck`.
Metrics = dict[str, NDArray[Any]]

#: Columns of front.csv in order, with their unit ("" for plain numbers, None for text). The five time terms and the
#: six energy terms carry plural names: `t_synops_s` is the time of all SynOps of the slowest core, while the cost
#: `t_synop_s` is the time of one.
COLUMNS: dict[str, str | None] = {
    "latency_s": "s",
    "energy_j": "J",
    "step_time_s": "s",
    "throughput_hz": "Hz",
    "t_dendops_s": "s",
    "t_synops_s": "s",
    "t_synmem_reads_s": "s",
    "t_link_s": "s",
    "t_barrier_s": "s",
    "bottleneck": None,
    "e_static_j": "J",
    "e_dendops_j": "J",
    "e_synops_j": "J",
    "e_synmem_reads_j": "J",
    "e_messages_j": "J",
    "e_links_j": "J",
    "messages": "",
    "message_hops": "",
    "peak_link_messages": "",
    "inter_chip_messages": "",
    "cores_used": "",
    "chips_used": "",
}

#: Time terms in the order of DESIGN 4.5; `bottleneck` is the name of the largest without t_ and _s.
TIME_TERMS = ("t_dendops_s", "t_synops_s", "t_synmem_reads_s", "t_link_s", "t_barrier_s")
BOTTLENECKS = tuple(name[2:-2] for name in TIME_TERMS)
ENERGY_TERMS = ("e_static_j", "e_dendops_j", "e_synops_j", "e_synmem_reads_j", "e_messages_j", "e_links_j")

MAXIMISED = frozenset({"throughput_hz"})  #: every other numeric column is better when smaller


#: Columns that a board can measure, by all columns that follow from one; and where half of their interval stands.
MEASURED = {"latency_s": "latency_s", "step_time_s": "latency_s", "throughput_hz": "latency_s", "energy_j": "energy_j"}
INTERVALS = {"latency_s": "latency_ci95_s", "energy_j": "energy_ci95_j"}


def check_objectives(objectives: Any) -> tuple[str, ...]:
    """Return the objectives as a tuple; raise InputError where one is no numeric column or stands there twice."""
    if not isinstance(objectives, (str, Sequence)):
        raise InputError(
            f"objectives: expected a list of metric columns such as [latency_s,energy_j], got {objectives!r}"
        )
    names = [objectives] if isinstance(objectives, str) else list(objectives)
    numeric = [c for c, unit in COLUMNS.items() if unit is not None]
    if not names:
        raise InputError("objectives: expected at least one metric column, got none; e.g. [latency_s,energy_j]")
    for name in names:
        if name not in numeric:
            raise InputError(f"objectives: '{name}' is no numeric metric column{did_you_mean(str(name), numeric)}")
    if len(set(names)) < len(names):
        raise InputError(f"objectives: expected different columns, got {names}")
    return tuple(names)


def with_derived_columns(
    latency_steps: int,
    steps_per_inference: int,
    step_time_s: FloatArray,
    terms_s: FloatArray,
    energies_j: FloatArray,
    counts: Metrics,
) -> Metrics:
    """Return all columns of n mappings from their parts (DESIGN 4.5).

    `step_time_s` (n,), `terms_s` (5, n) in the order of TIME_TERMS, `energies_j` (6, n) per inference in that of
    ENERGY_TERMS, and the columns from `messages` on; latency is `latency_steps` steps.
    """
    with np.errstate(divide="ignore"):
        throughput_hz = 1.0 / (steps_per_inference * step_time_s)
    return {
        "latency_s": latency_steps * step_time_s,
        "energy_j": sum(energies_j[1:], energies_j[0]),
        "step_time_s": step_time_s,
        "throughput_hz": throughput_hz,
        **dict(zip(TIME_TERMS, terms_s, strict=True)),
        "bottleneck": np.array(BOTTLENECKS)[terms_s.argmax(axis=0)],
        **dict(zip(ENERGY_TERMS, energies_j, strict=True)),
        **counts,
    }


def half_interval(metrics: Metrics, name: str) -> FloatArray:
    """Half of the 95 % interval of a column (n,), as far as an evaluator tells it; else 0."""
    column, interval = MEASURED.get(name), INTERVALS.get(MEASURED.get(name, ""))
    if column is None or interval not in metrics:
        return np.zeros(len(metrics[name]))
    return np.asarray(metrics[name] * metrics[interval] / metrics[column])


def minimised(metrics: Metrics, objectives: tuple[str, ...]) -> FloatArray:
    """Objective values (n, m) to be minimised; maximised columns change their sign."""
    columns = [-metrics[name] if name in MAXIMISED else metrics[name] for name in objectives]
    return np.stack(columns, axis=1).astype(np.float64)


def rows_of(metrics: Metrics) -> NDArray[np.void]:
    """Return the metrics of n mappings as a structured array (n,), one row per mapping; see `columns_of`."""
    rows = np.empty(len(metrics["latency_s"]), dtype=[(name, column.dtype) for name, column in metrics.items()])
    for name, column in metrics.items():
        rows[name] = column
    return rows


def columns_of(rows: NDArray[np.void]) -> Metrics:
    """Return rows (n,) as columns (n,) by name; the inverse of `rows_of`."""
    return {name: np.ascontiguousarray(rows[name]) for name in rows.dtype.names or ()}
