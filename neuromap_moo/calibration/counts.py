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
    """What constants are multiplied with, (n,) each: of a timestep by load or link class."""

    largest: dict[str, FloatArray]  # by cost, of the slice or link that has most
    total: dict[str, FloatArray]
    chips: FloatArray
    cores: FloatArray
    steps_per_inference: int
    latency_steps: int


def count(partitioner: AnyPartitioner, system: System, mappings: Sequence[Mapping]) -> Counts:
    """Count what each of n mappings makes the slowest core, the busiest link and all of them do; see `Counts`."""
    rows: list[dict[str, float]] = []
    for mapping in mappings:
        k = np.array(mapping.cores_per_layer)
        load = dict(zip(LOADS, partitioner.core_graphs(k[None]).loads[0].tolist(), strict=True))
        links = link_loads(partitioner, system, mapping)
        row = {cost: load[name] for name, cost in (TIMES | EVENTS).items()}
        for i, name in enumerate(MESH_CLASSES):
            of_class = links.between[system.links.link_class == i]
            row[f"largest.{name}"], row[f"total.{name}"] = of_class.max(initial=0.0), of_class.sum()
        for name, of_class in (("inject", links.inject), ("eject", links.eject)):
            row[f"largest.{name}"], row[f"total.{name}"] = of_class.max(), of_class.sum()
        cores = np.array(mapping.core_of_slice)
        row["chips"] = np.unique(system.chip_of_router[system.router_of_core[cores]]).size
        row["cores"] = cores.size
        rows.append(row)
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
