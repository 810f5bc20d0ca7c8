"""Analytic evaluator: the max-affine runtime model of arXiv 2601.10035 with an additive energy model (docs/model.md).

Whole populations at once: what no placement changes comes with the core graphs, the rest from one compiled pass over
the edges.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from neuromap_moo.arrays import FloatArray, IndexArray, IntArray
from neuromap_moo.mapping.mapping import Mapping, MappingBatch
from neuromap_moo.models.metrics import Metrics, StepLoads, join_loads, metrics_of
from neuromap_moo.models.traffic import link_messages, traffic, tree_loads
from neuromap_moo.partition.core_graph import LOADS
from neuromap_moo.partition.fixed import AnyPartitioner
from neuromap_moo.system.system import System

#: Edges of core graphs that are put together at a time; more mappings are evaluated part by part.
MOST_EDGES = 2**23


class AnalyticEvaluator:
    """Metrics of mappings in closed form; `oracles/analytic.py` has the same in plain Python."""

    name = "analytic"

    def __init__(self, partitioner: AnyPartitioner, system: System) -> None:
        self.partitioner = partitioner
        self.system = system
        self._seconds_per_message = system.cost("message_bits") / system.per_link("bandwidth_bit_per_s")
        self._joules_per_message = system.per_link("e_link_j")

    def evaluate(self, mappings: MappingBatch) -> Metrics:
        """Return every metric column for n mappings, (n,) each."""
        partitioner = self.partitioner
        return metrics_of(self.loads(mappings), self.system, partitioner.steps_per_inference, partitioner.depth)

    def loads(self, mappings: MappingBatch) -> StepLoads:
        """Return what n mappings make the system do in one timestep."""
        edges = self.partitioner.most_edges(mappings.cores_per_layer)
        if edges.sum() < MOST_EDGES:
            return self._loads(mappings)
        part = np.cumsum(edges) // MOST_EDGES
        parts = [self._loads(MappingBatch(*(array[part == i] for array in mappings))) for i in np.unique(part).tolist()]
        return join_loads(parts)

    def _loads(self, mappings: MappingBatch) -> StepLoads:
        system, cost = self.system, self.system.cost
        partitions, graph = _different_rows(mappings.cores_per_layer)
        graphs = self.partitioner.core_graphs(partitions)
        load = dict(zip(LOADS, graphs.loads[graph].T, strict=True))
        router = np.where(mappings.core_of_slice >= 0, system.router_of_core[mappings.core_of_slice], np.int32(-1))
        routes = system.routes
        t_mesh, e_mesh, hops, peak, inter_chip, chips = traffic(
            graph,
            graphs.edge_start,
            graphs.source,
            graphs.target,
            graphs.messages,
            router.astype(np.int32),
            system.chip_of_router,
            system.n_chips,
            routes.start,
            routes.first,
            routes.stop,
            self._seconds_per_message,
            self._joules_per_message,
        ).T
        sent, sent_max = load["messages"], load["sent_max"]
        if system.copies == "per_route":
            t_mesh, e_mesh, hops, peak, sent, sent_max = self._shared_routes(mappings)
        bits = cost("message_bits")
        t_inject = sent_max * bits / cost("bandwidth_bit_per_s.inject")
        t_eject = load["received_max"] * bits / cost("bandwidth_bit_per_s.eject")
        return StepLoads(
            dendops_max=load["dendops_max"],
            synops_max=load["synops_max"],
            synmem_reads_max=load["synmem_reads_max"],
            t_link_s=np.maximum(t_mesh, np.maximum(t_inject, t_eject)),
            dendops=load["dendops"],
            synops=load["synops"],
            synmem_reads=load["synmem_reads"],
            messages=load["messages"],
            links_j=e_mesh + cost("e_link_j.inject") * sent + cost("e_link_j.eject") * load["messages"],
            message_hops=hops,
            peak_link_messages=peak,
            inter_chip_messages=inter_chip,
            cores_used=mappings.cores_per_layer.sum(axis=1),
            chips_used=chips.astype(np.int64),
        )

    def _shared_routes(self, mappings: MappingBatch) -> FloatArray:
        """Return link time, link energy, hops, largest load, messages sent in all and by one slice at most, (6, n).

        One copy of a neuron's message per link of the tree that its routes share.
        """
        rows = []
        for k, cores in zip(*mappings, strict=True):
            loads, sent = _shared_loads(self.partitioner, self.system, k, cores[cores >= 0])
            time, energy = (loads * per for per in (self._seconds_per_message, self._joules_per_message))
            peak = loads.max(initial=0.0)
            rows.append((time.max(initial=0.0), energy.sum(), loads.sum(), peak, sent.sum(), sent.max()))
        return np.array(rows).T


def _shared_loads(
    partitioner: AnyPartitioner, system: System, cores_per_layer: IntArray, cores: IndexArray
) -> tuple[FloatArray, FloatArray]:
    """Messages on each link between routers, and sent by each slice, where routes of a neuron share copies."""
    sending = partitioner.sending(cores_per_layer)
    router = system.router_of_core[cores]
    parts = sending.first, sending.start, sending.dest, partitioner.activity
    loads, sent = tree_loads(*parts, router, system.next_link, system.links.target)
    return loads, sent


def _different_rows(rows: IntArray) -> tuple[IntArray, IntArray]:
    """Return the different rows and which of them each row is; quick where all are the same."""
    if (rows == rows[0]).all():
        return rows[:1], np.zeros(len(rows), dtype=np.int64)
    different, which = np.unique(rows, axis=0, return_inverse=True)
    return different, which.ravel().astype(np.int64)


class LinkLoads(NamedTuple):
    """Messages per timestep on every link of one mapping."""

    between: FloatArray  # routers, (n_links,), in the order of System.links
    inject: FloatArray  # of each slice, (S,)
    eject: FloatArray


def link_loads(partitioner: AnyPartitioner, system: System, mapping: Mapping) -> LinkLoads:
    """Count the messages on every link.

    Parameters
    ----------
    partitioner
        cuts layers into slices, for the same system.
    system
        where mappings go.
    mapping
        a legal mapping.

    """
    graph = partitioner.core_graph(mapping.cores_per_layer)
    inject, eject = (
        np.asarray(np.bincount(ends, graph.messages, graph.n_slices), dtype=np.float64)
        for ends in (graph.source, graph.target)
    )
    cores = np.array(mapping.core_of_slice)
    if system.copies == "per_route":
        return LinkLoads(*_shared_loads(partitioner, system, np.array(mapping.cores_per_layer), cores), eject)
    difference = np.zeros(system.links.source.size + 1)
    link_messages(
        *(graph.source, graph.target, graph.messages, system.router_of_core[cores]),
        *(system.n_routers, *system.routes, difference),
    )
    loads = np.cumsum(difference)[:-1]
    # A running sum leaves rounding noise on links that carry nothing.
    between = np.where(loads > 1e-12 * np.abs(difference).sum(), loads, 0.0)
    return LinkLoads(between, inject, eject)
