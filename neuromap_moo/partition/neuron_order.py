"""Which neurons of a layer share a slice: neurons with common sources side by side.

A slice is a run of neurons, and a source neuron sends one message to every slice it has a synapse into. The order of a
layer's neurons therefore decides how many messages it receives, however it is cut. It is found by recursive bisection
of the hypergraph whose vertices are the layer's neurons and whose nets are the source neurons, weighted by activity:
halves begin from the second singular vectors (Dhillon, KDD 2001) and are refined by exchanges with the gains of
Fiduccia and Mattheyses (DAC 1982). Halves of halves stay together, so the order serves every number of slices. Both
halves get the same synaptic operations: neurons of many synapses share sources too, and side by side they would make
one core slow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array, vstack
from scipy.sparse.linalg import ArpackError, svds

from neuromap_moo.arrays import FloatArray, IntArray
from neuromap_moo.network.connectivity import Sparse, slice_bounds
from neuromap_moo.network.network import Layer, Network, with_orders
from neuromap_moo.system.system import System

#: Sets of so few neurons are not halved any more; rounds of exchanges at most; partners looked at for each neuron.
SMALLEST, ROUNDS, PARTNERS = 8, 12, 64

#: Matrices of so few rows or columns are decomposed whole; singular vectors that are looked at, beyond the first.
FEW, VECTORS = 16, 3

#: Share of the synaptic operations by which exchanges may make halves differ.
TOLERANCE = 0.005

#: Larger layers are left as they are.
MAXIMUM_NEURONS = 200_000


def with_shared_sources(network: Network, system: System, layers: Sequence[str] | None = None) -> Network:
    """Return the network with neurons that have common sources side by side, so that slices receive fewer messages.

    Only layers whose incoming synapses are all explicit are looked at, all of them or those named. A layer keeps its
    order unless the new one brings fewer messages for some number of slices and more for none, of all numbers that the
    system has cores for.
    """
    orders = {}
    for layer in network.layers:
        if layers is not None and layer.name not in layers:
            continue
        order = _order_of(network, layer, system)
        if order is not None:
            orders[layer.name] = order
    return with_orders(network, orders)


def _order_of(network: Network, layer: Layer, system: System) -> IntArray | None:
    """Return the order (size,) of a layer's neurons that brings fewer messages; None where none is found."""
    incoming = [p for p in network.projections if p.target == layer.name]
    explicit = [p.connectivity for p in incoming if isinstance(p.connectivity, Sparse)]
    if not explicit or len(explicit) < len(incoming) or layer.size > MAXIMUM_NEURONS:
        return None
    activity = np.concatenate([network.layers[network.layer_index[p.source]].activity for p in incoming])
    rows = [csr_array((np.ones(c.indices.size), c.indices, c.indptr), (c.n_source, c.n_target)) for c in explicit]
    nets = csr_array(vstack(rows))
    order = _bisected(nets, activity)
    before, after = (_messages(nets, activity, o, system) for o in (np.arange(layer.size), order))
    is_better = (after <= before * (1 + 1e-12)).all() and (after < before * (1 - 1e-12)).any()
    return order if is_better else None


def _messages(nets: csr_array, activity: FloatArray, order: IntArray, system: System) -> FloatArray:
    """Messages received per timestep for every number of slices from 1 on."""
    n = nets.shape[1]
    ordered = Sparse.from_matrix(nets[:, order])
    parts = (slice_bounds(n, k) for k in range(1, min(n, system.usable_cores.size) + 1))
    return np.array([np.diff(ordered.rows(bounds).start) @ activity for bounds in parts])


def _bisected(nets: csr_array, activity: FloatArray) -> IntArray:
    """Order (n,) of the vertices in which halves of halves share nets and have equal synaptic operations."""
    order = np.arange(nets.shape[1], dtype=np.int64)
    synops = np.asarray(nets.T @ activity)
    todo = [(0, order.size)]
    while todo:
        low, high = todo.pop()
        if high - low <= SMALLEST:
            continue
        own = order[low:high]
        columns = csr_array(nets[:, own])
        degree = np.diff(columns.indptr)
        used = (degree > 1) & (activity > 0)  # the others are never cut
        middle = (high - low + 1) // 2
        if used.any():
            part = csr_array(columns[used])
            part.sort_indices()
            by_vertex = csr_array(part.T)
            side = _halves(_seed(part, activity[used]), synops[own], middle)
            _exchange(
                part.indptr.astype(np.int64),
                part.indices.astype(np.int64),
                by_vertex.indptr.astype(np.int64),
                by_vertex.indices.astype(np.int64),
                activity[used],
                synops[own],
                side,
            )
            order[low:high] = own[np.argsort(side, kind="stable")]
        todo += [(low, low + middle), (low + middle, high)]
    return order


def _halves(x: FloatArray, load: FloatArray, middle: int) -> NDArray[np.int8]:
    """Sides (n,) by x, turned towards the load just as far as both sides then have about the same of it."""
    of_x = max(x.std(), 1e-300)
    of_load = load.std() if load.std() > 1e-9 * load.mean() else np.inf  # the rest is rounding

    def turned(angle: float) -> NDArray[np.int8]:
        side = np.ones(x.size, dtype=np.int8)
        key = np.cos(angle) * x / of_x + np.sin(angle) * load / of_load
        side[np.argsort(key, kind="stable")[:middle]] = 0
        return side

    def more_on_0(side: NDArray[np.int8]) -> float:
        return float(load @ (1 - 2 * side))

    low, high = -np.pi / 2, np.pi / 2  # heavy ones on side 0, on side 1
    best = turned(0.0)
    for _ in range(30):
        angle = (low + high) / 2
        side = turned(angle)
        best = min(best, side, key=lambda s: abs(more_on_0(s)))
        low, high = (angle, high) if more_on_0(side) > 0 else (low, angle)
    return best


def _seed(nets: csr_array, activity: FloatArray) -> FloatArray:
    """(n,) second right singular vector of the normalised incidence matrix; the given order where it has none.

    Sets that share no nets have the same singular value, and a vector may have the same entry for several of them: the
    next vectors, weighted by little, tell them apart.
    """
    n = nets.shape[1]
    weighted = diags_array(np.sqrt(activity)) @ nets
    rows, columns = (np.sqrt(np.maximum(np.abs(weighted).sum(axis=a), 1e-300)) for a in (1, 0))
    scaled = diags_array(1 / rows) @ weighted @ diags_array(1 / columns)
    if min(scaled.shape) < 2:
        return np.arange(n, dtype=np.float64)
    if min(scaled.shape) <= FEW:
        vectors = np.linalg.svd(scaled.toarray(), full_matrices=False)[2][: VECTORS + 1]
    else:
        start = np.ones(min(scaled.shape)) + 1e-3 * np.arange(min(scaled.shape))  # no chance involved
        try:
            _, values, found = svds(scaled, k=VECTORS + 1, v0=start / np.linalg.norm(start), maxiter=300)
        except ArpackError:
            return np.arange(n, dtype=np.float64)
        vectors = found[np.argsort(-values)]
    return np.asarray(1e-3 ** np.arange(len(vectors) - 1) @ vectors[1:] / columns)


@njit(cache=True, nogil=True)
def _exchange(
    net_start: IntArray,
    net_vertex: IntArray,
    vertex_start: IntArray,
    vertex_net: IntArray,
    weight: FloatArray,
    load: FloatArray,
    side: NDArray[np.int8],
) -> None:
    """Exchange vertices of two halves, in place, as long as the weight of the nets that reach both becomes less.

    The loads of the halves may differ by `TOLERANCE` of the whole, or as much as they do at first.
    """
    n, n_nets = side.size, net_start.size - 1
    count = np.zeros((n_nets, 2), dtype=np.int64)
    for e in range(n_nets):
        for i in range(net_start[e], net_start[e + 1]):
            count[e, side[net_vertex[i]]] += 1
    difference = 0.0
    for v in range(n):
        difference += load[v] if side[v] == 0 else -load[v]
    most = max(abs(difference), TOLERANCE * load.sum())
    gain = np.empty(n)
    for _ in range(ROUNDS):
        for v in range(n):
            gain[v] = _gain(v, vertex_start, vertex_net, weight, count, side)
        order = np.argsort(-gain)
        left = order[side[order] == 0]
        right = order[side[order] == 1]
        taken = np.zeros(right.size, dtype=np.bool_)
        swapped, first_free = 0, 0
        for a in left:
            while first_free < right.size and taken[first_free]:
                first_free += 1
            for j in range(first_free, min(first_free + PARTNERS, right.size)):
                b = right[j]
                if gain[a] + gain[b] <= 0.0:
                    break
                after = difference - 2.0 * (load[a] - load[b])
                if taken[j] or abs(after) > most:
                    continue
                # The gains were those before earlier exchanges: try, and take it back if it is none now.
                first = _gain(a, vertex_start, vertex_net, weight, count, side)
                _move(a, vertex_start, vertex_net, count, side)
                second = _gain(b, vertex_start, vertex_net, weight, count, side)
                if first + second > 1e-12:
                    _move(b, vertex_start, vertex_net, count, side)
                    difference = after
                    taken[j] = True
                    swapped += 1
                    break
                _move(a, vertex_start, vertex_net, count, side)
        if swapped == 0:
            return


@njit(cache=True, nogil=True)
def _gain(
    v: int,
    vertex_start: IntArray,
    vertex_net: IntArray,
    weight: FloatArray,
    count: IntArray,
    side: NDArray[np.int8],
) -> float:
    """Weight of cut nets that moving a vertex to the other side makes whole, less that of whole ones that it cuts."""
    own, other = side[v], 1 - side[v]
    found = 0.0
    for i in range(vertex_start[v], vertex_start[v + 1]):
        e = vertex_net[i]
        if count[e, own] == 1 and count[e, other] > 0:
            found += weight[e]
        elif count[e, other] == 0 and count[e, own] > 1:
            found -= weight[e]
    return found


@njit(cache=True, nogil=True)
def _move(
    v: int,
    vertex_start: IntArray,
    vertex_net: IntArray,
    count: IntArray,
    side: NDArray[np.int8],
) -> None:
    own = side[v]
    for i in range(vertex_start[v], vertex_start[v + 1]):
        e = vertex_net[i]
        count[e, own] -= 1
        count[e, 1 - own] += 1
    side[v] = 1 - own
