"""What the analytic model counts on each mapping: the regressors of a fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from neuromap_moo.arrays import FloatArray
from neuromap_moo.calibration.terms import EVENTS, TIMES
from neuromap_moo.mapping.mapping import Mapping
from neuromap_moo.models.analytic import link_loads
from neuromap_moo.partition.core_graph import LOADS
from neuromap_moo.partition.fixed import AnyPartitioner
from neuromap_moo.system.costs import LINK_CLASSES
from neuromap_moo.system.system import System
from neuromap_moo.system.topology import MESH_CLASSES


class Counts(NamedTuple):
    """What constants are multiplied with in one timestep of n mappings, (n,) each."""

    largest: dict[str, FloatArray]  # by time constant: of the slice or link that has most
    total: dict[str, FloatArray]  # by energy constant: of all slices or links
    chips: FloatArray  # in use
    cores: FloatArray
    steps_per_inference: int
    latency_steps: int


def count(partitioner: AnyPartitioner, system: System, mappings: Sequence[Mapping]) -> Counts:
    """Count what each of n mappings makes the slowest core, the busiest link and all of them do.

    Parameters
    ----------
    partitioner
        That of the problem the mappings belong to.
    system
        Its links and chips count, its constants do not.
    mappings
        n of them, at least one.

    """
    rows = [_counts_of(partitioner, system, mapping) for mapping in mappings]
    column = {key: np.array([row[key] for row in rows], dtype=np.float64) for key in rows[0]}
    steps = partitioner.steps_per_inference
    return Counts(
        largest={cost: column[cost] for cost in TIMES.values()}
        | {f"bandwidth_bit_per_s.{c}": column[f"largest.{c}"] for c in LINK_CLASSES},
        total={cost: column[cost] for cost in EVENTS.values()}
        | {f"e_link_j.{c}": column[f"total.{c}"] for c in LINK_CLASSES},
        chips=column["chips"],
        cores=column["cores"],
        steps_per_inference=steps,
        latency_steps=steps + partitioner.depth - 1,
    )


def _counts_of(partitioner: AnyPartitioner, system: System, mapping: Mapping) -> dict[str, float]:
    k = np.array(mapping.cores_per_layer)
    load = dict(zip(LOADS, partitioner.core_graphs(k[None]).loads[0].tolist(), strict=True))
    counts = {cost: load[name] for name, cost in (TIMES | EVENTS).items()}
    links = link_loads(partitioner, system, mapping)
    by_class = {c: links.between[system.links.link_class == i] for i, c in enumerate(MESH_CLASSES)}
    for c, messages in (by_class | {"inject": links.inject, "eject": links.eject}).items():
        counts[f"largest.{c}"], counts[f"total.{c}"] = messages.max(initial=0.0), messages.sum()
    cores = np.array(mapping.core_of_slice)
    counts["chips"] = np.unique(system.chip_of_router[system.router_of_core[cores]]).size
    counts["cores"] = cores.size
    return counts
