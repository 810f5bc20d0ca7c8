"""Compiled counts of synapses, words and messages for given slice boundaries."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from neuromap_moo.arrays import FloatArray, IndexArray, IntArray  # FloatArray, IntArray


@njit(cache=True, nogil=True)
def count_rows(
    start: IntArray,
    slices: NDArray[np.uint16],
    synapses: IndexArray,
    activity: FloatArray,
    words_of: IntArray,
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
def words_of_rows(slices: NDArray[np.uint16], synapses: IndexArray, words_of: IntArray, n_slices: int) -> IntArray:
    """Return the synapse words that each slice stores for entries of rows that no neurons share, (n_slices,)."""
    words = np.zeros(n_slices, dtype=np.int64)
    for e in range(slices.size):
        words[slices[e]] += words_of[synapses[e]]
    return words


@njit(cache=True, nogil=True)
def rows_sparse(
    indptr: IntArray, indices: IndexArray, slice_of_target: IndexArray
) -> tuple[IntArray, NDArray[np.uint16], IndexArray]:
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
    column_start: IntArray, rows: IndexArray, n_source: int, window: int, words_of: IntArray
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
    outer_start: IntArray,
    outer: IntArray,
    middle_start: IntArray,
    middle: IntArray,
    run_start: IntArray,
    run_low: IntArray,
    run_high: IntArray,
    row_stride: IntArray,
    target_bounds: IntArray,
) -> tuple[IntArray, NDArray[np.uint16], IndexArray]:
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
def different_rows(start: IntArray, slices: NDArray[np.uint16]) -> tuple[IndexArray, IntArray, NDArray[np.uint16]]:
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
