"""Compiled message blocks between the slices of two layers, and core graphs put together from them."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from neuromap_moo.arrays import FloatArray, IndexArray, IntArray  # FloatArray, IntArray


@njit(cache=True, nogil=True)
def message_block(
    row_of_source: IndexArray,
    set_of_row: IndexArray,
    start: IntArray,
    slices: NDArray[np.uint16],
    activity: FloatArray,
    source_bounds: IntArray,
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
    cores_per_layer: IntArray,
    block_start: IntArray,
    pool: FloatArray,
    projection_source: IntArray,
    projection_target: IntArray,
) -> tuple[IntArray, IndexArray, IndexArray, FloatArray, FloatArray]:
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
