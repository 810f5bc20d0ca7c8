"""Compiled loops on plain arrays: synapse counts, message blocks, core graphs and link loads.

Everything here is a pure function of its arrays, knows nothing of the project's classes and draws no random
number. `evaluate/reference.py` computes the same quantities in plain Python and shares no code with this module.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int32]
BoolArray = NDArray[np.bool_]


@njit(cache=True, nogil=True)
def count_rows(
    start: NDArray[np.int64],
    slices: NDArray[np.uint16],
    synapses: IntArray,
    activity: FloatArray,
    words_of: NDArray[np.int64],
    n_slices: int,
) -> FloatArray:
    """Return synops, synapse words read and messages received of each slice, (3, n_slices), all per timestep.

    Row r reaches slices[start[r]:start[r + 1]] with so many `synapses`; the neurons of a row send `activity` (R,)
    together. `words_of` (s + 1,) is the size of a row of up to s synapses.
    """
    counts = np.zeros((3, n_slices))
    for r in range(start.size - 1):
        a = activity[r]
        for e in range(start[r], start[r + 1]):
            c = slices[e]
            counts[0, c] += a * synapses[e]
            counts[1, c] += a * words_of[synapses[e]]
            counts[2, c] += a
    return counts


@njit(cache=True, nogil=True)
def words_of_rows(
    slices: NDArray[np.uint16], synapses: IntArray, words_of: NDArray[np.int64], n_slices: int
) -> NDArray[np.int64]:
    """Return the synapse words that each slice stores for entries of rows that no neurons share, (n_slices,)."""
    words = np.zeros(n_slices, dtype=np.int64)
    for e in range(slices.size):
        words[slices[e]] += words_of[synapses[e]]
    return words


@njit(cache=True, nogil=True)
def rows_sparse(
    indptr: NDArray[np.int64], indices: IntArray, slice_of_target: IntArray
) -> tuple[NDArray[np.int64], NDArray[np.uint16], IntArray]:
    """Return which slices each source neuron reaches, and with how many synapses; O(synapses).

    Neuron i reaches slices[start[i]:start[i + 1]], ascending. Returns start (n_source + 1,), slices and synapses (E,).
    """
    n_source = indptr.size - 1
    start = np.zeros(n_source + 1, dtype=np.int64)
    slices = np.empty(indices.size, dtype=np.uint16)  # as many as there can be
    synapses = np.empty(indices.size, dtype=np.int32)
    e = 0
    for i in range(n_source):
        at = indptr[i]
        end = indptr[i + 1]
        while at < end:
            c = slice_of_target[indices[at]]
            first = at
            at += 1
            while at < end and slice_of_target[indices[at]] == c:
                at += 1
            slices[e] = c
            synapses[e] = at - first
            e += 1
        start[i + 1] = e
    return start, slices[:e].copy(), synapses[:e].copy()


@njit(cache=True, nogil=True)
def largest_window_words(
    column_start: NDArray[np.int64], rows: IntArray, n_source: int, window: int, words_of: NDArray[np.int64]
) -> int:
    """Most words that any `window` neighbouring target neurons take, wherever they begin; O(synapses).

    The connectivity comes by columns: column j's source neurons are rows[column_start[j]:column_start[j + 1]].
    `words_of` (window + 1,) is the size of a row with that many synapses.
    """
    synapses = np.zeros(n_source, dtype=np.int64)
    words = 0
    largest = 0
    for j in range(column_start.size - 1):
        for e in range(column_start[j], column_start[j + 1]):
            before = synapses[rows[e]]
            words += words_of[before + 1] - words_of[before]
            synapses[rows[e]] = before + 1
        largest = max(largest, words)
        out = j - window + 1
        if out >= 0:
            for e in range(column_start[out], column_start[out + 1]):
                before = synapses[rows[e]]
                words += words_of[before - 1] - words_of[before]
                synapses[rows[e]] = before - 1
    return largest


@njit(cache=True, nogil=True)
def rows_product(
    outer_start: NDArray[np.int64],
    outer: NDArray[np.int64],
    middle_start: NDArray[np.int64],
    middle: NDArray[np.int64],
    run_start: NDArray[np.int64],
    run_low: NDArray[np.int64],
    run_high: NDArray[np.int64],
    row_stride: NDArray[np.int64],
    target_bounds: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.uint16], IntArray]:
    """Return which slices each row reaches, and with how many synapses, where rows are products of three axes.

    Row a * row_stride[0] + b * row_stride[1] + c * row_stride[2] reaches all targets o + m + i, where o is one of
    outer[outer_start[a]:outer_start[a + 1]], m one of `middle` likewise, and i lies in a run, low <= i < high.
    Targets ascend in this order, so one pass over the slices between `target_bounds` finds them all. Returns start
    (R + 2,) with an empty row at the end, slices and synapses (E,).
    """
    n_outer, n_middle, n_inner = outer_start.size - 1, middle_start.size - 1, run_start.size - 1
    n_rows = n_outer * n_middle * n_inner
    start = np.zeros(n_rows + 2, dtype=np.int64)
    slices = np.empty(0, dtype=np.uint16)
    synapses = np.empty(0, dtype=np.int32)
    for filling in range(2):
        if filling:
            for r in range(n_rows + 1):
                start[r + 1] += start[r]
            slices = np.empty(start[-1], dtype=np.uint16)
            synapses = np.zeros(start[-1], dtype=np.int32)
        for a in range(n_outer):
            for b in range(n_middle):
                for c in range(n_inner):
                    r = a * row_stride[0] + b * row_stride[1] + c * row_stride[2]
                    e = start[r] - 1
                    n = 0
                    last = -1
                    at = 0  # slice
                    for x in range(outer_start[a], outer_start[a + 1]):
                        for y in range(middle_start[b], middle_start[b + 1]):
                            for z in range(run_start[c], run_start[c + 1]):
                                low = outer[x] + middle[y] + run_low[z]
                                high = outer[x] + middle[y] + run_high[z]
                                while low < high:
                                    if target_bounds[at + 1] <= low:  # halve what is left, as slices may be many
                                        at = np.searchsorted(target_bounds, low, side="right") - 1
                                    end = min(high, target_bounds[at + 1])
                                    if at != last:
                                        last = at
                                        n += 1
                                        e += 1
                                        if filling:
                                            slices[e] = at
                                    if filling:
                                        synapses[e] += end - low
                                    low = end
                    if not filling:
                        start[r + 1] = n
    return start, slices, synapses


@njit(cache=True, nogil=True)
def different_rows(
    start: NDArray[np.int64], slices: NDArray[np.uint16]
) -> tuple[IntArray, NDArray[np.int64], NDArray[np.uint16]]:
    """Put rows that reach the same slices together; O(entries).

    Row r reaches slices[start[r]:start[r + 1]]. Returns the set of each row (R,), and the sets in the same form as the
    rows: (Q + 1,) and the slices. Rows are found by a hash and compared, so no two that differ share a set.
    """
    n_rows = start.size - 1
    size = 16
    while size < 2 * n_rows:
        size *= 2
    table = np.full(size, -1, dtype=np.int32)
    set_of_row = np.empty(n_rows, dtype=np.int32)
    first = np.empty(n_rows, dtype=np.int64)  # row that begins each set
    n_sets = 0
    n_entries = 0
    for r in range(n_rows):
        h = np.uint64(14695981039346656037)
        for e in range(start[r], start[r + 1]):
            h = (h ^ np.uint64(slices[e])) * np.uint64(1099511628211)
        at = np.int64((h ^ (h >> np.uint64(32))) & np.uint64(size - 1))
        length = start[r + 1] - start[r]
        while True:
            q = table[at]
            if q < 0:
                table[at] = n_sets
                set_of_row[r] = n_sets
                first[n_sets] = r
                n_sets += 1
                n_entries += length
                break
            other = start[first[q]]
            same = start[first[q] + 1] - other == length
            i = 0
            while same and i < length:
                same = slices[other + i] == slices[start[r] + i]
                i += 1
            if same:
                set_of_row[r] = q
                break
            at = (at + 1) & (size - 1)
    set_start = np.zeros(n_sets + 1, dtype=np.int64)
    set_slices = np.empty(n_entries, dtype=np.uint16)
    for q in range(n_sets):
        r = first[q]
        set_start[q + 1] = set_start[q] + start[r + 1] - start[r]
        set_slices[set_start[q] : set_start[q + 1]] = slices[start[r] : start[r + 1]]
    return set_of_row, set_start, set_slices


@njit(cache=True, nogil=True)
def message_block(
    row_of_source: IntArray,
    set_of_row: IntArray,
    start: NDArray[np.int64],
    slices: NDArray[np.uint16],
    activity: FloatArray,
    source_bounds: NDArray[np.int64],
    k_target: int,
) -> FloatArray:
    """Messages from each slice of the source layer to each slice of the target layer, (k_source, k_target).

    A neuron's row is of a set (`different_rows`); set q reaches slices[start[q]:start[q + 1]]. What the neurons of a
    slice send is summed up by set first.
    """
    k_source = source_bounds.size - 1
    block = np.zeros((k_source, k_target))
    sent = np.zeros(start.size - 1)
    seen = np.full(start.size - 1, -1, dtype=np.int64)
    met = np.empty(start.size - 1, dtype=np.int64)
    for b in range(k_source):
        n_met = 0
        for i in range(source_bounds[b], source_bounds[b + 1]):
            q = set_of_row[row_of_source[i]]
            if seen[q] != b:
                seen[q] = b
                met[n_met] = q
                n_met += 1
                sent[q] = 0.0
            sent[q] += activity[i]
        for m in range(n_met):
            q = met[m]
            for e in range(start[q], start[q + 1]):
                block[b, slices[e]] += sent[q]
    return block


@njit(cache=True, nogil=True)
def assemble_graphs(
    cores_per_layer: NDArray[np.int64],
    block_start: NDArray[np.int64],
    pool: FloatArray,
    projection_source: NDArray[np.int64],
    projection_target: NDArray[np.int64],
) -> tuple[NDArray[np.int64], IntArray, IntArray, FloatArray, FloatArray]:
    """Put the cached blocks of several partitions together as edge lists.

    `cores_per_layer` is (g, L); `block_start` (g, P) says where in `pool` the block of each projection begins.
    Returns edge_start (g + 1,), source (E,), target (E,), messages (E,) and sums (g, 3): the most messages
    that one slice sends, the most that one receives, and the total. Pairs that exchange nothing have no edge.
    """
    n_graphs, n_layers = cores_per_layer.shape
    n_projections = projection_source.size
    upper = 0
    for g in range(n_graphs):
        for p in range(n_projections):
            upper += cores_per_layer[g, projection_source[p]] * cores_per_layer[g, projection_target[p]]
    edge_start = np.zeros(n_graphs + 1, dtype=np.int64)
    source = np.empty(upper, dtype=np.int32)
    target = np.empty(upper, dtype=np.int32)
    messages = np.empty(upper)
    sums = np.zeros((n_graphs, 3))
    first = np.zeros(n_layers + 1, dtype=np.int64)
    e = 0
    for g in range(n_graphs):
        for layer in range(n_layers):
            first[layer + 1] = first[layer] + cores_per_layer[g, layer]
        sent = np.zeros(first[n_layers])
        received = np.zeros(first[n_layers])
        for p in range(n_projections):
            s = projection_source[p]
            t = projection_target[p]
            at = block_start[g, p]
            for b in range(first[s], first[s + 1]):
                for c in range(first[t], first[t + 1]):
                    m = pool[at]
                    at += 1
                    if m > 0.0:
                        source[e] = b
                        target[e] = c
                        messages[e] = m
                        sent[b] += m
                        received[c] += m
                        e += 1
        edge_start[g + 1] = e
        sums[g, 0] = sent.max()
        sums[g, 1] = received.max()
        sums[g, 2] = sent.sum()
    return edge_start, source[:e].copy(), target[:e].copy(), messages[:e].copy(), sums


@njit(cache=True, nogil=True)
def link_messages(
    source: IntArray,
    target: IntArray,
    messages: FloatArray,
    router_of_slice: IntArray,
    n_routers: int,
    route_start: IntArray,
    route_first: IntArray,
    route_stop: IntArray,
    difference: FloatArray,
) -> None:
    """Add the messages of one placement to `difference` (n_links + 1,), whose running sum is the load of each link.

    A route is a few intervals of consecutive link numbers (two on a mesh: along x, then along y), so an edge costs
    the same however many hops it makes.
    """
    for e in range(source.size):
        m = messages[e]
        pair = router_of_slice[source[e]] * n_routers + router_of_slice[target[e]]
        for j in range(route_start[pair], route_start[pair + 1]):
            difference[route_first[j]] += m
            difference[route_stop[j]] -= m


@njit(cache=True, nogil=True)
def traffic(
    graph_of_placement: NDArray[np.int64],
    edge_start: NDArray[np.int64],
    source: IntArray,
    target: IntArray,
    messages: FloatArray,
    router_of_slice: IntArray,
    chip_of_router: IntArray,
    n_chips: int,
    route_start: IntArray,
    route_first: IntArray,
    route_stop: IntArray,
    seconds_per_message: FloatArray,
    joules_per_message: FloatArray,
) -> FloatArray:
    """Route the messages of n placements over the links between routers; O(edges + links) each.

    `router_of_slice` is (n, S), negative beyond a placement's slices. Returns (n, 6): the largest link time in s,
    link energy in J, message hops, the largest link load in messages, messages between chips, chips used.
    """
    n = graph_of_placement.size
    n_links = seconds_per_message.size
    n_routers = chip_of_router.size
    out = np.zeros((n, 6))
    difference = np.empty(n_links + 1)
    chip_used = np.empty(n_chips, dtype=np.bool_)
    for i in range(n):
        g = graph_of_placement[i]
        first, stop = edge_start[g], edge_start[g + 1]
        router = router_of_slice[i]
        difference[:] = 0.0
        link_messages(
            source[first:stop],
            target[first:stop],
            messages[first:stop],
            router,
            n_routers,
            route_start,
            route_first,
            route_stop,
            difference,
        )
        running = 0.0
        for link in range(n_links):
            running += difference[link]
            out[i, 0] = max(out[i, 0], running * seconds_per_message[link])
            out[i, 1] += running * joules_per_message[link]
            out[i, 2] += running
            out[i, 3] = max(out[i, 3], running)
        if n_chips == 1:
            out[i, 5] = 1.0
            continue
        for e in range(first, stop):
            if chip_of_router[router[source[e]]] != chip_of_router[router[target[e]]]:
                out[i, 4] += messages[e]
        chip_used[:] = False
        for s in range(router.size):
            if router[s] >= 0:
                chip_used[chip_of_router[router[s]]] = True
        out[i, 5] = chip_used.sum()
    return out


@njit(cache=True, nogil=True)
def tree_loads(
    first: NDArray[np.int64],
    start: NDArray[np.int64],
    dest: NDArray[np.int64],
    activity: FloatArray,
    router: IntArray,
    next_link: IntArray,
    link_target: IntArray,
) -> tuple[FloatArray, FloatArray]:
    """Messages on each link (n_links,) and sent by each slice (S,), where the routes of a neuron share copies.

    Neuron i, in slice b for first[b] <= i < first[b + 1], sends to the slices dest[start[i]:start[i + 1]]: one message
    over each link that a route to any of them takes. O(destinations * hops).
    """
    loads, sent = np.zeros(link_target.size), np.zeros(first.size - 1)
    last = np.full(link_target.size, -1)  # neuron counted last on each link
    for b in range(sent.size):
        for i in range(first[b], first[b + 1]):
            if activity[i] > 0.0 and start[i + 1] > start[i]:
                sent[b] += activity[i]
                for e in range(start[i], start[i + 1]):
                    here, there = router[b], router[dest[e]]
                    while here != there:
                        link = next_link[here, there]
                        if last[link] != i:
                            last[link] = i
                            loads[link] += activity[i]
                        here = link_target[link]
    return loads, sent


@njit(cache=True, nogil=True)
def tridiagonalise(matrix: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Bring a symmetric matrix (n, n) to tridiagonal form by Householder reflections, in place; O(n^3).

    Returns its diagonal (n,), what stands beside that (n - 1,), and the factors (n,) of the reflections, whose vectors
    row k of `matrix` holds right of its diagonal.
    """
    n = len(matrix)
    diagonal = np.empty(n)
    beside = np.zeros(n - 1)
    factor = np.zeros(n)
    p = np.empty(n)
    for k in range(n - 1):
        v = matrix[k]
        diagonal[k] = v[k]
        square = 0.0
        for j in range(k + 1, n):
            square += v[j] * v[j]
        if square == 0.0:
            continue
        beside[k] = -np.copysign(np.sqrt(square), v[k + 1])  # the sign that cancels no digits below
        factor[k] = 1.0 / (square - beside[k] * v[k + 1])
        v[k + 1] -= beside[k]
        p[k + 1 :] = 0.0
        for i in range(k + 1, n):
            for j in range(k + 1, n):
                p[j] += factor[k] * v[i] * matrix[i, j]
        along = 0.0
        for j in range(k + 1, n):
            along += 0.5 * factor[k] * p[j] * v[j]
        for j in range(k + 1, n):
            p[j] -= along * v[j]
        for i in range(k + 1, n):
            for j in range(k + 1, n):
                matrix[i, j] -= v[i] * p[j] + p[i] * v[j]
    diagonal[n - 1] = matrix[n - 1, n - 1]
    return diagonal, beside, factor


@njit(cache=True, nogil=True)
def reflect(matrix: FloatArray, factor: FloatArray, vectors: FloatArray) -> None:
    """Undo the reflections of `tridiagonalise` on `vectors` (m, n) of the tridiagonal form, in place."""
    n = len(matrix)
    for k in range(n - 2, -1, -1):
        for x in vectors:
            along = 0.0
            for j in range(k + 1, n):
                along += factor[k] * matrix[k, j] * x[j]
            for j in range(k + 1, n):
                x[j] -= along * matrix[k, j]
