"""Partition: how many cores each layer gets, what each slice then costs, and the core graph that results.

What a projection puts on its target depends only on the target's slice count, and what it sends only on the two slice
counts; both are kept once computed, so a partition seen in parts before costs table look-ups.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from neuromap_moo.arrays import BoolArray, FloatArray, IntArray
from neuromap_moo.errors import InputError
from neuromap_moo.network.connectivity import MOST_SLICES, row_words, slice_bounds
from neuromap_moo.network.counts import count_rows, different_rows
from neuromap_moo.network.network import Network
from neuromap_moo.partition.constraints import Constraints
from neuromap_moo.partition.core_graph import CoreGraph, CoreGraphs, LayerLoads, Sending, SliceCounts
from neuromap_moo.partition.message_blocks import assemble_graphs, message_block
from neuromap_moo.system.system import System

#: Bytes of tables and message blocks kept, looked at before each population; beyond it all are dropped and counted
#: anew. What one population needs comes on top.
CACHE_BYTES = 512 * 2**20

#: Partitions for which it is kept what each neuron sends where.
KEPT_SENDINGS = 32


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
        self._row_activities: dict[int, FloatArray] = {}
        self._layer_loads: dict[tuple[int, int], LayerLoads] = {}
        self._layer_extremes: dict[tuple[int, int], FloatArray] = {}
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

    def core_graphs(self, cores_per_layer: IntArray) -> CoreGraphs:
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
        edge_start, edge_source, edge_target, messages, sums = assemble_graphs(
            cores_per_layer, block_start, self._pool, self._pairs[:, 0].copy(), self._pairs[:, 1].copy()
        )
        # (g, L, 6): largest of the three loads, then their sums
        extremes = np.array([[self._extremes(i, int(k)) for i, k in enumerate(row)] for row in cores_per_layer])
        # Layer after layer, since numpy's order of summation depends on the shape and a mapping's metrics must not
        # depend on what it is evaluated with.
        summed = sum(extremes[:, i, 3:] for i in range(len(self.layer_names)))
        loads = np.concatenate([extremes[:, :, :3].max(axis=1), sums[:, :2], summed, sums[:, 2:]], axis=1)
        return CoreGraphs(edge_start, edge_source, edge_target, messages, loads)

    def most_edges(self, cores_per_layer: IntArray) -> IntArray:
        """(n,) most edges that the core graphs of n partitions (n, L) can have."""
        return np.asarray((cores_per_layer[:, self._pairs[:, 0]] * cores_per_layer[:, self._pairs[:, 1]]).sum(axis=1))

    @cached_property
    def activity(self) -> FloatArray:
        """(n,) activity of all neurons, as `sending` numbers them."""
        return np.concatenate([layer.activity for layer in self.network.layers])

    def sending(self, cores_per_layer: Sequence[int] | IntArray) -> Sending:
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

    def vendor_chunks(self, layer: int) -> list[IntArray]:
        """Words of synapse memory of each chunk of a layer, for one cut after the other that the vendor's rule tries.

        Start with one chunk; while one needs a > capacity words, multiply their number by ceil(a / capacity), in chunks
        of ceil(n / number), the last one short (recovered from public compile logs). The last cut is the one taken.
        """
        size, number = self.layer_sizes[layer], 1
        tried: list[IntArray] = []
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

    def vendor_slice_counts(self) -> tuple[IntArray, tuple[str, ...]]:
        """Cores per layer (L,) by the vendor's rule (`vendor_chunks`), and a note where it had to be bent.

        The mapping is cut in equal slices, whose largest is that of the rule's chunks; where a moved boundary makes it
        too large, the next count that fits is taken. Where constraints forbid a count, the nearest that they allow is.
        """
        counts, notes = [], []
        for i in range(len(self.layer_sizes)):
            k = self.vendor_chunks(i)[-1].size
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

    def _words(self, projection: int, target_bounds: IntArray) -> IntArray:
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
            per_step = count_rows(*rows, self._row_activity(projection, rows.start.size - 1), words_of, k_target)
            set_of_row, start, slices = different_rows(rows.start, rows.slices)
            self._counts[key] = SliceCounts(
                set_of_row, start, slices, per_step, p.connectivity.words(p.weight_bits, bounds, rows)
            )
            self._cached_bytes += sum(x.nbytes for x in self._counts[key])
        return self._counts[key]

    def _row_activity(self, projection: int, n_rows: int) -> FloatArray:
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
                block += message_block(
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

    def _extremes(self, layer: int, n_slices: int) -> FloatArray:
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

    def _find_fits(self, layer: int) -> BoolArray:
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


def rows_that_fit(fits: BoolArray, cores_per_layer: IntArray) -> BoolArray:
    """Tell which partitions (n, L) have a count that fits for every layer, and no more cores than there are.

    `fits` is (L, n_cores + 1).
    """
    n_cores = fits.shape[1] - 1
    within = (cores_per_layer >= 1) & (cores_per_layer <= n_cores)
    fit = fits[np.arange(len(fits)), np.where(within, cores_per_layer, 0)]
    return np.asarray((within & fit).all(axis=1) & (cores_per_layer.sum(axis=1) <= n_cores))


def _ranges(low: IntArray, high: IntArray) -> tuple[IntArray, IntArray]:
    """All numbers of the ranges low[i] to high[i] - 1, one range after the other, and the range of each."""
    sizes = high - low
    owner = np.repeat(np.arange(sizes.size), sizes)
    return np.arange(owner.size) - np.repeat(np.cumsum(sizes) - sizes, sizes) + low[owner], owner
