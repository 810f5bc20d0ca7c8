"""A partition that is given: a core graph in the place of a network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from neuromap_moo.arrays import FloatArray, IntArray
from neuromap_moo.errors import InputError
from neuromap_moo.network.network import Network
from neuromap_moo.partition.constraints import Constraints
from neuromap_moo.partition.core_graph import CoreGraph, CoreGraphs, LayerLoads, Sending
from neuromap_moo.partition.partitioner import Partitioner
from neuromap_moo.system.system import System


class FixedPartitioner:
    """The one partition of a given core graph, behind the interface of `Partitioner`."""

    def __init__(self, graph: CoreGraph, system: System, constraints: Constraints | None = None) -> None:
        self.graph = graph
        self.layer_names = graph.layer_names
        self.layer_sizes = graph.cores_per_layer
        self.steps_per_inference = graph.steps_per_inference
        self.depth = graph.depth
        self.topological_order = graph.topological_order
        self.n_cores = system.usable_cores.size
        if system.copies == "per_route":
            raise InputError(
                f"system '{system.name}', copies: per_route needs to know what each neuron sends, and core graph "
                f"'{graph.name}' does not say; set copies: per_core, or give a network"
            )
        if graph.n_slices > self.n_cores:
            raise InputError(
                f"core graph '{graph.name}' has {graph.n_slices} slices, system '{system.name}' has {self.n_cores} "
                "usable cores; take a larger system"
            )
        self.minimum = self.maximum = np.array(graph.cores_per_layer)
        fits = np.arange(self.n_cores + 1) == self.minimum[:, None]
        self.fits = (constraints or Constraints()).limit(fits, self.layer_names, None, system)
        loads = np.array([graph.dendops, graph.synops, graph.synmem_reads])
        sent = np.bincount(graph.source, graph.messages, graph.n_slices)
        self._received = np.bincount(graph.target, graph.messages, graph.n_slices).astype(np.float64)
        row = [*loads.max(axis=1), sent.max(), self._received.max(), *loads.sum(axis=1), graph.messages.sum()]
        self._graphs = CoreGraphs(
            np.array([0, graph.source.size]), graph.source, graph.target, graph.messages, np.array([row])
        )

    def core_graph(self, cores_per_layer: Sequence[int]) -> CoreGraph:
        """Return the core graph."""
        return self.graph

    def core_graphs(self, cores_per_layer: IntArray) -> CoreGraphs:
        """Return the one core graph: there are no different partitions."""
        return self._graphs

    def most_edges(self, cores_per_layer: IntArray) -> IntArray:
        """(n,) edges of the one core graph, for each of n partitions; it is not put together anew for each."""
        return np.zeros(len(cores_per_layer), dtype=np.int64)

    def layer_loads(self, layer: int, n_slices: int) -> LayerLoads:
        """Loads of the slices of a layer; a core graph knows no synapse memory."""
        first = sum(self.graph.cores_per_layer[:layer])
        own = slice(first, first + n_slices)
        none = np.zeros(n_slices, dtype=np.int64)
        graph = self.graph
        return LayerLoads(graph.dendops[own], graph.synops[own], graph.synmem_reads[own], none, self._received[own])

    @property
    def activity(self) -> FloatArray:
        """(n,) activity of all neurons, as `sending` numbers them."""
        return self._neurons[1]

    def sending(self, cores_per_layer: Sequence[int] | IntArray) -> Sending:
        """Take every edge of m messages as ceil(m) neurons of activity m / ceil(m), spread evenly over the updates.

        What a core does per timestep is shared out evenly over the messages that it receives.
        """
        return self._neurons[0]

    @cached_property
    def _neurons(self) -> tuple[Sending, FloatArray]:
        graph = self.graph
        of_edge = np.ceil(graph.messages).astype(np.int64)
        edge = np.repeat(np.arange(of_edge.size), of_edge)
        nth = np.arange(edge.size) - np.repeat(np.cumsum(of_edge) - of_edge, of_edge)
        when = (nth + 0.5) / of_edge[edge]
        order = np.lexsort((edge, when, graph.source[edge]))
        edge, source = edge[order], graph.source[edge][order]
        dest = graph.target[edge].astype(np.int64)
        sending = Sending(
            first=np.concatenate([[0], np.cumsum(np.bincount(source, minlength=graph.n_slices))]),
            updates=graph.dendops,
            updated=when[order] * graph.dendops[source],
            start=np.arange(edge.size + 1),
            dest=dest,
            words=graph.synmem_reads[dest] / self._received[dest],
            synops=graph.synops[dest] / self._received[dest],
        )
        return sending, graph.messages[edge] / of_edge[edge]

    def vendor_slice_counts(self) -> tuple[IntArray, tuple[str, ...]]:
        """Return the fixed partition; there is nothing to cut."""
        return self.minimum, ()


AnyPartitioner = Partitioner | FixedPartitioner


def partitioner_for(
    network: Network | CoreGraph, system: System, constraints: Constraints | None = None
) -> AnyPartitioner:
    """Return what cuts this network (or takes this core graph as it is) for this system."""
    if isinstance(network, CoreGraph):
        return FixedPartitioner(network, system, constraints)
    return Partitioner(network, system, constraints)
