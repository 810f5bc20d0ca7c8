"""Partition: how many cores each layer gets, what each slice then costs, and the core graph that results.

What a projection puts on its target depends only on the target's slice count, and what it sends only on the two slice
counts; both are kept once computed, so a partition seen in parts before costs table look-ups.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuromap_moo import kernels
from neuromap_moo.connectivity import MOST_SLICES, row_words, slice_bounds
from neuromap_moo.constraints import Constraints
from neuromap_moo.errors import InputError
from neuromap_moo.network import Network
from neuromap_moo.system import System

#: Bytes of tables and message blocks kept, looked at before each population; beyond it all are dropped and counted
#: anew. What one population needs comes on top.
CACHE_BYTES = 512 * 2**20

#: Partitions for which it is kept what each neuron sends where.
KEPT_SENDINGS = 32

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
    """The slices of one partition with their compute loads, and the messages between them, all per timestep.

    `dendops`, `synops` and `synmem_reads` are (S,), slices of layer 0 first; edge e goes from slice `source[e]` to
    slice `target[e]` with `messages[e]` messages, (E,) each.
    """

    layer_names: tuple[str, ...]
    cores_per_layer: tuple[int, ...]
    dendops: NDArray[np.float64]
    synops: NDArray[np.float64]
    synmem_reads: NDArray[np.float64]
    source: NDArray[np.int32]
    target: NDArray[np.int32]
    messages: NDArray[np.float64]
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
        carries its messages both ways; parallel edges add up.
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

    edge_start: NDArray[np.int64]
    source: NDArray[np.int32]
    target: NDArray[np.int32]
    messages: NDArray[np.float64]
    loads: NDArray[np.float64]


class Sending(NamedTuple):
    """What each neuron of one partition sends where: E entries, start[i] to start[i + 1] for neuron i of n.

    Neurons are numbered through all slices, those of layer 0 first.
    """

    first: NDArray[np.int64]  #: (S + 1,) neurons of each slice
    updates: NDArray[np.float64]  #: (S,) neuron updates of each slice per timestep
    updated: NDArray[np.float64]  #: (n,) updates of its slice up to and with its own
    start: NDArray[np.int64]  #: (n + 1,)
    dest: NDArray[np.int64]  #: (E,) slices
    words: NDArray[np.float64]  #: (E,) 64-bit words that a message makes the slice read
    synops: NDArray[np.float64]  #: (E,) synaptic operations of a message


class LayerLoads(NamedTuple):
    """What k slices of a layer hold and do per timestep, (k,) each, all incoming projections together.

    `received` are the messages that reach a slice. Each source neuron sends it one, however its own layer is cut.
    """

    dendops: NDArray[np.float64]
    synops: NDArray[np.float64]
    synmem_reads: NDArray[np.float64]
    words: NDArray[np.int64]
    received: NDArray[np.float64]


class SliceCounts(NamedTuple):
    """What one projection puts on each of the k slices of its target layer (DESIGN 4.3 and 4.4)."""

    set_of_row: NDArray[np.int32]  #: (R,) rows of the projection that reach the same slices are of one set
    start: NDArray[np.int64]  #: (Q + 1,) set q reaches slices[start[q]:start[q + 1]]
    slices: NDArray[np.uint16]  #: (E,)
    per_step: NDArray[np.float64]  #: (3, k) synops, 64-bit words read and messages received
    words: NDArray[np.int64]  #: (k,) 64-bit words stored


class Partitioner:
    """Cuts a network for the cores of a system; answers what every cores-per-layer vector costs.

    Attributes
    ----------
    minimum, maximum
        (L,) fewest and most cores of each layer. `fits[l][k]` says whether layer l in k slices fits its cores: a
        finer cut can fail where a coarser one fits, since the boundaries move. Counts that the constraints forbid
        do not fit either.

    """

    def __init__(self, network: Network, system: System, constraints: Constraints | None = None) -> None:
        self.network = network
        self.layer_names = network.layer_names
        self.layer_sizes = tuple(layer.size for layer in network.layers)
        self.steps_per_inference = network.steps_per_inference
        self.depth = network.depth
        self.topological_order = network.topological_order
        self.n_cores = system.usable_cores.size
        self._synapse_words = system.synapse_words
        self._neurons = system.neurons_per_core
        ends = [(network.layer_index[p.source], network.layer_index[p.target]) for p in network.projections]
        self._incoming = [[p for p, (_, target) in enumerate(ends) if target == i] for i in range(len(network.layers))]
        joined: dict[tuple[int, int], list[int]] = {}
        for p, pair in enumerate(ends):
            joined.setdefault(pair, []).append(p)
        self._joined = list(joined.values())  # projections of each pair of layers that any joins
        self._pairs = np.array(list(joined), dtype=np.int64).reshape(-1, 2)
        self._ends = ends
        self._counts: dict[tuple[int, int], SliceCounts] = {}
        self._row_activities: dict[int, NDArray[np.float64]] = {}
        self._layer_loads: dict[tuple[int, int], LayerLoads] = {}
        self._layer_extremes: dict[tuple[int, int], NDArray[np.float64]] = {}
        self._block_start: dict[tuple[int, int, int], int] = {}
        self._sendings: dict[tuple[int, ...], Sending] = {}
        self._pool = np.empty(2**16)
        self._pool_used = self._cached_bytes = 0
        self._fits_memory = np.array([self._find_fits(i) for i in range(len(self.layer_names))])
        self.fits = (constraints or Constraints()).limit(self._fits_memory, self.layer_names, self.layer_sizes, system)
        self.minimum = self.fits.argmax(axis=1)
        self.maximum = self.n_cores - self.fits[:, ::-1].argmax(axis=1)
        if self.minimum.sum() > self.n_cores:
            demand = sorted(zip(self.minimum, self.layer_names, strict=True), reverse=True)
            shown = ", ".join(f"'{name}' {k}" for k, name in demand[:4]) + (", ..." if len(demand) > 4 else "")
            raise InputError(
                f"network '{network.name}' needs at least {self.minimum.sum()} cores ({shown}), system "
                f"'{system.name}' has {self.n_cores} usable; take more chips or cores, or a sparser network"
            )

    def layer_loads(self, layer: int, n_slices: int) -> LayerLoads:
        """Loads, synapse memory and messages received of each of `n_slices` slices of a layer."""
        key = (layer, n_slices)
        if key not in self._layer_loads:
            dendops = np.diff(slice_bounds(self.layer_sizes[layer], n_slices)).astype(np.float64)
            synops, reads, words = np.zeros(n_slices), np.zeros(n_slices), np.zeros(n_slices, dtype=np.int64)
            received = np.zeros(n_slices)
            for p in self._incoming[layer]:
                counts = self._projection_counts(p, n_slices)
                synops += counts.per_step[0]
                reads += counts.per_step[1]
                received += counts.per_step[2]
                words += counts.words
            self._layer_loads[key] = LayerLoads(dendops, synops, reads, words, received)
            self._cached_bytes += 5 * dendops.nbytes
        return self._layer_loads[key]

    def core_graph(self, cores_per_layer: Sequence[int]) -> CoreGraph:
        """Core graph of one partition."""
        k = np.array([cores_per_layer], dtype=np.int64)
        graphs = self.core_graphs(k)
        loads = [self.layer_loads(i, int(n)) for i, n in enumerate(cores_per_layer)]
        return CoreGraph(
            layer_names=self.layer_names,
            cores_per_layer=tuple(int(n) for n in cores_per_layer),
            dendops=np.concatenate([x.dendops for x in loads]),
            synops=np.concatenate([x.synops for x in loads]),
            synmem_reads=np.concatenate([x.synmem_reads for x in loads]),
            source=graphs.source,
            target=graphs.target,
            messages=graphs.messages,
            steps_per_inference=self.steps_per_inference,
            depth=self.depth,
            name=self.network.name,
        )

    def core_graphs(self, cores_per_layer: NDArray[np.int64]) -> CoreGraphs:
        """Core graphs of several different partitions (g, L)."""
        cores_per_layer = np.ascontiguousarray(cores_per_layer, dtype=np.int64)
        if self._cached_bytes > CACHE_BYTES:
            self._counts.clear()
            self._layer_loads.clear()
            self._block_start.clear()
            self._pool = np.empty(2**16)
            self._cached_bytes = self._pool_used = 0
        block_start = np.empty((len(cores_per_layer), len(self._pairs)), dtype=np.int64)
        for j, (source, target) in enumerate(self._pairs):
            both = cores_per_layer[:, source] * (self.n_cores + 1) + cores_per_layer[:, target]
            counts, inverse = np.unique(both, return_inverse=True) if both.size > 1 else (both, np.zeros(1, dtype=int))
            starts = [self._block(j, *divmod(int(n), self.n_cores + 1)) for n in counts]
            block_start[:, j] = np.array(starts, dtype=np.int64)[inverse]
        edge_start, edge_source, edge_target, messages, sums = kernels.assemble_graphs(
            cores_per_layer, block_start, self._pool, self._pairs[:, 0].copy(), self._pairs[:, 1].copy()
        )
        # (g, L, 6): largest of the three loads, then their sums
        extremes = np.array([[self._extremes(i, int(k)) for i, k in enumerate(row)] for row in cores_per_layer])
        # Layer after layer, since numpy's order of summation depends on the shape and a mapping's metrics must not
        # depend on what it is evaluated with.
        summed = sum(extremes[:, i, 3:] for i in range(len(self.layer_names)))
        loads = np.concatenate([extremes[:, :, :3].max(axis=1), sums[:, :2], summed, sums[:, 2:]], axis=1)
        return CoreGraphs(edge_start, edge_source, edge_target, messages, loads)

    def most_edges(self, cores_per_layer: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) most edges that the core graphs of n partitions (n, L) can have."""
        return np.asarray((cores_per_layer[:, self._pairs[:, 0]] * cores_per_layer[:, self._pairs[:, 1]]).sum(axis=1))

    @cached_property
    def activity(self) -> NDArray[np.float64]:
        """(n,) activity of all neurons, as `sending` numbers them."""
        return np.concatenate([layer.activity for layer in self.network.layers])

    def sending(self, cores_per_layer: Sequence[int] | NDArray[np.int64]) -> Sending:
        """Return what each neuron sends where in one partition (L,)."""
        key = tuple(int(k) for k in cores_per_layer)
        if key not in self._sendings:
            if len(self._sendings) >= KEPT_SENDINGS:
                del self._sendings[next(iter(self._sendings))]
            self._sendings[key] = self._make_sending(key)
        return self._sendings[key]

    def _make_sending(self, cores_per_layer: tuple[int, ...]) -> Sending:
        bounds = [slice_bounds(size, k) for size, k in zip(self.layer_sizes, cores_per_layer, strict=True)]
        first_slice = np.concatenate([[0], np.cumsum(cores_per_layer)])
        first_neuron = np.concatenate([[0], np.cumsum(self.layer_sizes)])
        sender, dest, words, synops = ([np.zeros(0, dtype=np.int64)] for _ in range(4))
        for p, (source, target) in zip(self.network.projections, self._ends, strict=True):
            rows = p.connectivity.rows(bounds[target])
            row = p.connectivity.row_of_source
            entries, of_neuron = _ranges(rows.start[row], rows.start[row + 1])
            sender.append(first_neuron[source] + of_neuron)
            dest.append(first_slice[target] + rows.slices[entries].astype(np.int64))
            synapses = rows.synapses[entries].astype(np.int64)
            words.append(row_words(synapses, p.weight_bits))
            synops.append(synapses)
        senders = np.concatenate(sender)
        order = np.argsort(senders, kind="stable")  # in the order of the projections
        sizes = np.concatenate([np.diff(b) for b in bounds])
        first, n = np.concatenate([[0], np.cumsum(sizes)]), int(first_neuron[-1])
        return Sending(
            first=first,
            updates=sizes.astype(np.float64),
            updated=(np.arange(n) - np.repeat(first[:-1], sizes) + 1).astype(np.float64),
            start=np.concatenate([[0], np.cumsum(np.bincount(senders, minlength=n))]),
            dest=np.concatenate(dest)[order],
            words=np.concatenate(words)[order].astype(np.float64),
            synops=np.concatenate(synops)[order].astype(np.float64),
        )

    def vendor_cuts(self, layer: int) -> list[NDArray[np.int64]]:
        """Words of synapse memory of each chunk of a layer, for one cut after the other that the vendor's rule tries.

        Start with one chunk; while one needs a > capacity words, multiply their number by ceil(a / capacity), in chunks
        of ceil(n / number), the last one short (recovered from public compile logs). The last cut is the one taken.
        """
        size, number = self.layer_sizes[layer], 1
        tried: list[NDArray[np.int64]] = []
        while True:
            chunk = -(-size // number)
            bounds = np.append(np.arange(0, size, chunk), size)
            none = np.zeros(bounds.size - 1, dtype=np.int64)
            words = sum((self._words(p, bounds) for p in self._incoming[layer]), none)
            tried.append(words)
            factor = max(-(-int(words.max()) // self._synapse_words), -(-chunk // self._neurons))
            if factor <= 1 or chunk == 1:
                return tried
            number *= factor

    def vendor_slice_counts(self) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Cores per layer (L,) by the vendor's rule (`vendor_cuts`), and a note where it had to be bent.

        The mapping is cut in equal slices, whose largest is that of the rule's chunks; where a moved boundary makes it
        too large, the next count that fits is taken. Where constraints forbid a count, the nearest that they allow is.
        """
        counts, notes = [], []
        for i in range(len(self.layer_sizes)):
            k = self.vendor_cuts(i)[-1].size
            memory = self._fits_memory[i]
            if k <= self.n_cores and not memory[k]:
                fitting = np.flatnonzero(memory[k:])
                k = k + int(fitting[0]) if fitting.size else int(memory.argmax())
                notes.append(f"'{self.layer_names[i]}' moved to {k} slices, which fit when cut evenly")
            if (self.fits[i] != memory).any():
                allowed = np.flatnonzero(self.fits[i])
                nearest = int(allowed[np.abs(allowed - k).argmin()])
                if nearest != k:
                    notes.append(f"'{self.layer_names[i]}' moved from {k} to {nearest} slices by its constraints")
                k = nearest
            counts.append(k)
        if sum(counts) > self.n_cores:
            notes = [f"the vendor's rule asks for {sum(counts)} cores of {self.n_cores}; minimum partition taken"]
            return self.minimum.astype(np.int64), tuple(notes)
        return np.array(counts, dtype=np.int64), tuple(notes)

    def _words(self, projection: int, target_bounds: NDArray[np.int64]) -> NDArray[np.int64]:
        p = self.network.projections[projection]
        return p.connectivity.words(p.weight_bits, target_bounds)

    def _projection_counts(self, projection: int, k_target: int) -> SliceCounts:
        key = (projection, k_target)
        if key not in self._counts:
            p = self.network.projections[projection]
            bounds = slice_bounds(self.layer_sizes[self._ends[projection][1]], k_target)
            rows = p.connectivity.rows(bounds)
            largest = int(np.max(rows.synapses, initial=0))
            words_of = row_words(np.arange(largest + 1), p.weight_bits)
            per_step = kernels.count_rows(
                *rows, self._row_activity(projection, rows.start.size - 1), words_of, k_target
            )
            set_of_row, start, slices = kernels.different_rows(rows.start, rows.slices)
            self._counts[key] = SliceCounts(
                set_of_row, start, slices, per_step, p.connectivity.words(p.weight_bits, bounds, rows)
            )
            self._cached_bytes += sum(x.nbytes for x in self._counts[key])
        return self._counts[key]

    def _row_activity(self, projection: int, n_rows: int) -> NDArray[np.float64]:
        """(n_rows,) activity of all neurons of each row of a projection together."""
        if projection not in self._row_activities:
            row = self.network.projections[projection].connectivity.row_of_source
            activity = self.network.layers[self._ends[projection][0]].activity
            self._row_activities[projection] = np.bincount(row, activity, n_rows).astype(np.float64)
        return self._row_activities[projection]

    def _block(self, joined: int, k_source: int, k_target: int) -> int:
        """Return where in the pool the message block of a pair of layers begins; count it if it is not there."""
        key = (joined, k_source, k_target)
        if key not in self._block_start:
            source = self._pairs[joined, 0]
            bounds = slice_bounds(self.layer_sizes[source], k_source)
            block = np.zeros((k_source, k_target))
            for p in self._joined[joined]:
                counts = self._projection_counts(p, k_target)
                block += kernels.message_block(
                    self.network.projections[p].connectivity.row_of_source,
                    *counts[:3],
                    self.network.layers[source].activity,
                    bounds,
                    k_target,
                )
            end = self._pool_used + block.size
            if end > self._pool.size:
                self._pool = np.concatenate([self._pool, np.empty(max(self._pool.size, block.size))])
            self._pool[self._pool_used : end] = block.ravel()
            self._block_start[key] = self._pool_used
            self._pool_used = end
            self._cached_bytes += block.nbytes
        return self._block_start[key]

    def _extremes(self, layer: int, n_slices: int) -> NDArray[np.float64]:
        key = (layer, n_slices)
        if key not in self._layer_extremes:
            loads = np.array(self.layer_loads(layer, n_slices)[:3])
            self._layer_extremes[key] = np.concatenate([loads.max(axis=1), loads.sum(axis=1)])
        return self._layer_extremes[key]

    def _largest_words(self, layer: int, n_slices: int) -> int:
        bounds = slice_bounds(self.layer_sizes[layer], n_slices)
        none = np.zeros(n_slices, dtype=np.int64)
        return int(sum((self._words(p, bounds) for p in self._incoming[layer]), none).max())

    def _window_words(self, layer: int, window: int) -> int:
        parts = [self.network.projections[p] for p in self._incoming[layer]]
        return sum(p.connectivity.window_words(p.weight_bits, window) for p in parts)

    def _find_fits(self, layer: int) -> NDArray[np.bool_]:
        """(n_cores + 1,): does the layer fit in k slices.

        The search starts at a lower bound: cutting a row of synapses never saves words, so k >= words(1) / capacity.
        It ends where any window as wide as the largest slice fits, wherever it begins: each slice of a finer cut lies
        within such a window, so it fits as well.
        """
        size, name = self.layer_sizes[layer], self.layer_names[layer]
        fits = np.zeros(self.n_cores + 1, dtype=np.bool_)
        most = min(size, self.n_cores, MOST_SLICES)
        fewest = max(1, -(-size // self._neurons), -(-self._largest_words(layer, 1) // self._synapse_words))
        for k in range(fewest, most + 1):
            fits[k] = self._largest_words(layer, k) <= self._synapse_words
            if fits[k] and self._window_words(layer, -(-size // k)) <= self._synapse_words:
                fits[k : most + 1] = True
                break
        if not fits.any():
            if fewest > most and most == self.n_cores:
                raise InputError(
                    f"layer '{name}' ({size} neurons) needs at least {fewest} cores, the system has {most} usable; "
                    "take more chips or cores, or a sparser network"
                )
            needed = self._largest_words(layer, most)
            raise InputError(
                f"layer '{name}' ({size} neurons): even in {most} slices one needs {needed} synapse words, a core "
                f"holds {self._synapse_words}; lower the fan-in or weight_bits, or take more or larger cores"
            )
        return fits


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

    def core_graphs(self, cores_per_layer: NDArray[np.int64]) -> CoreGraphs:
        """Return the one core graph: there are no different partitions."""
        return self._graphs

    def most_edges(self, cores_per_layer: NDArray[np.int64]) -> NDArray[np.int64]:
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
    def activity(self) -> NDArray[np.float64]:
        """(n,) activity of all neurons, as `sending` numbers them."""
        return self._neurons[1]

    def sending(self, cores_per_layer: Sequence[int] | NDArray[np.int64]) -> Sending:
        """Take every edge of m messages as ceil(m) neurons of activity m / ceil(m), spread evenly over the updates.

        What a core does per timestep is shared out evenly over the messages that it receives.
        """
        return self._neurons[0]

    @cached_property
    def _neurons(self) -> tuple[Sending, NDArray[np.float64]]:
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

    def vendor_slice_counts(self) -> tuple[NDArray[np.int64], tuple[str, ...]]:
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


def rows_that_fit(fits: NDArray[np.bool_], cores_per_layer: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which partitions (n, L) have a count that fits for every layer, and no more cores than there are.

    `fits` is (L, n_cores + 1).
    """
    n_cores = fits.shape[1] - 1
    within = (cores_per_layer >= 1) & (cores_per_layer <= n_cores)
    fit = fits[np.arange(len(fits)), np.where(within, cores_per_layer, 0)]
    return np.asarray((within & fit).all(axis=1) & (cores_per_layer.sum(axis=1) <= n_cores))


def _ranges(low: NDArray[np.int64], high: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All numbers of the ranges low[i] to high[i] - 1, one range after the other, and the range of each."""
    sizes = high - low
    owner = np.repeat(np.arange(sizes.size), sizes)
    return np.arange(owner.size) - np.repeat(np.cumsum(sizes) - sizes, sizes) + low[owner], owner


def _amount(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number) or number < 0:
        raise InputError(f"{where}: expected a finite number >= 0, got {value!r}")
    return number
