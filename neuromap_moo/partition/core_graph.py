"""Core graphs: the slices of one partition with their loads, and the messages between them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuromap_moo.arrays import FloatArray, IndexArray, IntArray
from neuromap_moo.errors import InputError

#: Columns of CoreGraphs.loads.
LOADS = (
    "dendops_max",
    "synops_max",
    "synmem_reads_max",
    "sent_max",
    "received_max",
    "dendops",
    "synops",
    "synmem_reads",
    "messages",
)


@dataclass(frozen=True, eq=False)
class CoreGraph:
    """The S slices of one partition with their loads, and the E edges between them; compared by content digest.

    Parameters
    ----------
    layer_names
        Of the layers that the slices belong to.
    cores_per_layer
        Slices of each layer; slices are numbered through all layers, those of layer 0 first.
    dendops, synops, synmem_reads
        (S,) neuron updates, synaptic operations and 64-bit words read, of each slice per timestep.
    source, target
        (E,) slices of each edge.
    messages
        (E,) messages of each edge per timestep.
    steps_per_inference
        Timesteps of input that one inference needs.
    depth
        Projections on the longest path.
    name
        For people; it does not count when core graphs are compared.

    Raises
    ------
    InputError
        For arrays that do not fit, and numbers that are negative or not finite.

    """

    layer_names: tuple[str, ...]
    cores_per_layer: tuple[int, ...]
    dendops: FloatArray
    synops: FloatArray
    synmem_reads: FloatArray
    source: IndexArray
    target: IndexArray
    messages: FloatArray
    steps_per_inference: int = 1
    depth: int = 1
    name: str = "core_graph"

    def __post_init__(self) -> None:
        """Check shapes and values, and freeze the arrays."""
        n = sum(self.cores_per_layer)
        if len(self.layer_names) != len(self.cores_per_layer) or n < 1:
            raise InputError(f"core graph: expected one core count for each of {len(self.layer_names)} layers")
        for key, size in (("dendops", n), ("synops", n), ("synmem_reads", n), ("messages", self.source.size)):
            array = np.array(getattr(self, key), dtype=np.float64)
            if array.shape != (size,) or not np.isfinite(array).all() or (array < 0).any():
                raise InputError(f"core graph, {key}: expected {size} finite numbers >= 0, got shape {array.shape}")
            object.__setattr__(self, key, array)
        for key in ("source", "target"):
            array = np.array(getattr(self, key), dtype=np.int32)
            if array.shape != self.messages.shape or not ((array >= 0) & (array < n)).all():
                raise InputError(f"core graph, {key}: expected {self.messages.size} slices in 0..{n - 1}")
            object.__setattr__(self, key, array)
        for key in ("dendops", "synops", "synmem_reads", "source", "target", "messages"):
            getattr(self, key).setflags(write=False)

    @classmethod
    def from_networkx(cls, graph: Any, name: str = "core_graph") -> CoreGraph:
        """Take a networkx graph as a fixed partition: each node is a layer of one slice, in node order.

        Node attributes dendops, synops and synmem_reads default to 0; every edge needs `messages`. An undirected edge
        carries its messages both ways; parallel edges add up. Raises InputError for an empty graph and for attributes
        that are no finite numbers >= 0.

        Examples
        --------
        >>> import networkx as nx
        >>> ring = nx.cycle_graph(4)
        >>> nx.set_edge_attributes(ring, 1.0, "messages")
        >>> float(CoreGraph.from_networkx(ring).messages.sum())
        8.0

        """
        if graph.number_of_nodes() == 0:
            raise InputError("core graph: expected at least one node, got an empty graph")
        nodes = list(graph.nodes)
        index = {node: i for i, node in enumerate(nodes)}
        loads = {key: np.zeros(len(nodes)) for key in ("dendops", "synops", "synmem_reads")}
        for key, values in loads.items():
            for node, value in graph.nodes(data=key, default=0.0):
                values[index[node]] = _amount(value, f"core graph, node {node!r}, {key}")
        between: dict[tuple[int, int], float] = {}
        for a, b, value in graph.to_directed().edges(data="messages"):
            pair = (index[a], index[b])
            between[pair] = between.get(pair, 0.0) + _amount(value, f"core graph, edge {a!r} -> {b!r}, messages")
        edges = [(a, b, m) for (a, b), m in between.items() if m > 0]
        return cls(
            layer_names=tuple(str(node) for node in nodes),
            cores_per_layer=(1,) * len(nodes),
            dendops=loads["dendops"],
            synops=loads["synops"],
            synmem_reads=loads["synmem_reads"],
            source=np.array([a for a, _, _ in edges], dtype=np.int32),
            target=np.array([b for _, b, _ in edges], dtype=np.int32),
            messages=np.array([m for _, _, m in edges], dtype=np.float64),
            name=name,
        )

    @property
    def n_slices(self) -> int:
        """Slices, which is the number of cores the graph occupies."""
        return len(self.dendops)

    @property
    def topological_order(self) -> tuple[int, ...]:
        """Layer indices in the order given."""
        return tuple(range(len(self.layer_names)))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the content (names do not count)."""
        h = hashlib.sha256(repr((self.cores_per_layer, self.steps_per_inference, self.depth)).encode())
        for array in (self.dendops, self.synops, self.synmem_reads, self.source, self.target, self.messages):
            h.update(np.ascontiguousarray(array).tobytes())
        return h.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CoreGraph) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


class CoreGraphs(NamedTuple):
    """Several core graphs as one set of arrays, for the evaluators.

    Edges of graph g are edge_start[g] to edge_start[g + 1]; `loads` (g, len(LOADS)) holds what no placement changes:
    the largest and the summed load per core, and the messages in all.
    """

    edge_start: IntArray
    source: IndexArray
    target: IndexArray
    messages: FloatArray
    loads: FloatArray


class Sending(NamedTuple):
    """What each neuron of one partition sends where: E entries, start[i] to start[i + 1] for neuron i of n.

    Neurons are numbered through all slices, those of layer 0 first.
    """

    first: IntArray  #: (S + 1,) neurons of each slice
    updates: FloatArray  #: (S,) neuron updates of each slice per timestep
    updated: FloatArray  #: (n,) updates of its slice up to and with its own
    start: IntArray  #: (n + 1,)
    dest: IntArray  #: (E,) slices
    words: FloatArray  #: (E,) 64-bit words that a message makes the slice read
    synops: FloatArray  #: (E,) synaptic operations of a message


class LayerLoads(NamedTuple):
    """What k slices of a layer hold and do per timestep, (k,) each, all incoming projections together.

    `received` are the messages that reach a slice. Each source neuron sends it one, however its own layer is cut.
    """

    dendops: FloatArray
    synops: FloatArray
    synmem_reads: FloatArray
    words: IntArray
    received: FloatArray


class SliceCounts(NamedTuple):
    """What one projection puts on each of the k slices of its target layer (docs/model.md, Counts per timestep)."""

    set_of_row: IndexArray  #: (R,) rows of the projection that reach the same slices are of one set
    start: IntArray  #: (Q + 1,) set q reaches slices[start[q]:start[q + 1]]
    slices: NDArray[np.uint16]  #: (E,)
    per_step: FloatArray  #: (3, k) synops, 64-bit words read and messages received
    words: IntArray  #: (k,) 64-bit words stored


def _amount(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number) or number < 0:
        raise InputError(f"{where}: expected a finite number >= 0, got {value!r}")
    return number
