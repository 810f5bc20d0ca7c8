"""Metric columns, and how they follow from times, energies and counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuromap_moo.arrays import FloatArray, IntArray
from neuromap_moo.errors import InputError, did_you_mean
from neuromap_moo.system.system import System

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

#: Time terms in the order of docs/model.md, "Time"; `bottleneck` is the name of the largest without t_ and _s.
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


class StepLoads(NamedTuple):
    """What n mappings make a system do in one timestep: all that their metrics follow from.

    Every field is (n,), in the units of docs/model.md, "Counts per timestep". A model that simulates s timesteps gives
    the totals, from `dendops` to `links_j`, and `busy_s` step by step, (n, s).
    """

    dendops_max: FloatArray  #: of the fullest core, as the two that follow
    synops_max: FloatArray
    synmem_reads_max: FloatArray
    t_link_s: FloatArray  #: of the busiest link
    dendops: FloatArray  #: of all cores, as the three that follow
    synops: FloatArray
    synmem_reads: FloatArray
    messages: FloatArray
    links_j: FloatArray  #: energy of all messages over all links
    message_hops: FloatArray
    peak_link_messages: FloatArray
    inter_chip_messages: FloatArray
    cores_used: IntArray
    chips_used: IntArray
    busy_s: FloatArray | None = None  #: simulated, up to the barrier; None: the largest of the time terms
    dendops_j: FloatArray | None = None  #: simulated; None: the cost of so many
    synops_j: FloatArray | None = None


def join_loads(parts: Sequence[StepLoads]) -> StepLoads:
    """Put the mappings of several parts together, all from one model: a field is None in each of them or in none."""
    fields = zip(*parts, strict=True)
    return StepLoads(*(None if field[0] is None else np.concatenate(field) for field in fields))  # type: ignore[arg-type]


def time_terms(loads: StepLoads, system: System) -> FloatArray:
    """Time terms (5, n) of a timestep in s, in the order of TIME_TERMS."""
    cost = system.cost
    return np.stack(
        [
            loads.dendops_max * cost("t_dendop_s"),
            loads.synops_max * cost("t_synop_s"),
            loads.synmem_reads_max * cost("t_synmem_s"),
            loads.t_link_s,
            system.barrier_s(loads.chips_used.astype(np.float64)),
        ]
    )


def step_times(loads: StepLoads, system: System, terms_s: FloatArray) -> FloatArray:
    """Length of a timestep in s, (n,), or (n, s) where it is simulated step by step; `terms_s` as by `time_terms`.

    Parameters
    ----------
    loads
        what the mappings make the system do.
    system
        whose rule combines work and barrier.
    terms_s
        (5, n) as by `time_terms`.

    """
    busy_s = terms_s[:-1].max(axis=0) if loads.busy_s is None else loads.busy_s
    return system.with_barrier(busy_s, terms_s[-1] if busy_s.ndim == 1 else terms_s[-1][:, None])


def energy_terms(loads: StepLoads, system: System, steps_per_inference: int, step_s: FloatArray) -> FloatArray:
    """Energy terms of an inference in J, in the order of ENERGY_TERMS: (6, n), or (6, n, s) step by step.

    `step_s` as by `step_times`.

    Parameters
    ----------
    loads
        what the mappings make the system do.
    system
        whose costs count.
    steps_per_inference
        timesteps of input that one inference takes.
    step_s
        (n,) or (n, s) as by `step_times`.

    """
    cost = system.cost
    static_w = cost("p_chip_w") * loads.chips_used + cost("p_core_w") * loads.cores_used
    return steps_per_inference * np.stack(
        [
            (static_w if step_s.ndim == 1 else static_w[:, None]) * step_s,
            cost("e_dendop_j") * loads.dendops if loads.dendops_j is None else loads.dendops_j,
            cost("e_synop_j") * loads.synops if loads.synops_j is None else loads.synops_j,
            cost("e_synmem_j") * loads.synmem_reads,
            cost("e_message_j") * loads.messages,
            loads.links_j,
        ]
    )


def metrics_of(loads: StepLoads, system: System, steps_per_inference: int, depth: int) -> Metrics:
    """Put all metric columns of n mappings together (docs/model.md, "Time" and "Energy").

    Parameters
    ----------
    loads
        what the mappings make the system do; where a model simulated several timesteps, columns are their means.
    system
        whose costs count.
    steps_per_inference
        timesteps of input that one inference takes.
    depth
        projections on the longest path; the latency is `steps_per_inference + depth - 1` timesteps.

    Returns
    -------
    every column of COLUMNS, (n,) each.

    """
    terms_s = time_terms(loads, system)
    step_s = step_times(loads, system, terms_s)
    energies_j = energy_terms(loads, system, steps_per_inference, step_s)
    messages = loads.messages
    if step_s.ndim == 2:
        step_s, energies_j, messages = step_s.mean(axis=1), energies_j.mean(axis=2), messages.mean(axis=1)
    with np.errstate(divide="ignore"):
        throughput_hz = 1.0 / (steps_per_inference * step_s)
    return {
        "latency_s": (steps_per_inference + depth - 1) * step_s,
        "energy_j": sum(energies_j[1:], energies_j[0]),
        "step_time_s": step_s,
        "throughput_hz": throughput_hz,
        **dict(zip(TIME_TERMS, terms_s, strict=True)),
        "bottleneck": np.array(BOTTLENECKS)[terms_s.argmax(axis=0)],
        **dict(zip(ENERGY_TERMS, energies_j, strict=True)),
        "messages": messages,
        "message_hops": loads.message_hops,
        "peak_link_messages": loads.peak_link_messages,
        "inter_chip_messages": loads.inter_chip_messages,
        "cores_used": loads.cores_used,
        "chips_used": loads.chips_used,
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
