"""Placement of a core graph by eigenvectors of its Laplacian and of the mesh's."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits

from neuromap_moo.arrays import FloatArray, IndexArray, IntArray
from neuromap_moo.heuristics.curves import compact_cores, curve_through
from neuromap_moo.partition.core_graph import CoreGraph
from neuromap_moo.system.system import System

#: `spectral` works on full matrices, in about 2 s with so many slices; with more it is left out.
MAXIMUM_SPECTRAL_SLICES = 1024

#: Eigenvectors of the core graph that `spectral` takes its two axes from, and assignments that it tries at most; with
#: S slices about ASSIGNMENT_WORK / S^2 of them, at least one, since an assignment of 1024 slices takes 0.5 s.
N_EIGENVECTORS, N_ASSIGNMENTS, ASSIGNMENT_WORK = 4, 8, 3 * 2**20

#: Tiny extra weights between consecutive slices (as a share of the mean messages between two slices) and per step of
#: core id (in hops). They only break ties between equal eigenvectors, so that rounding does not choose.
SLICE_TIE, CORE_TIE = 1e-3, 1e-6


def spectral_cores(graph: CoreGraph, system: System) -> IndexArray:
    """Cores (S,) of the slices of a core graph, such that slices with much to tell each other lie together.

    The slices get places on two axes: eigenvectors of the Laplacian of the messages, both ways added up, to the lowest
    eigenvalues but the first (Hall, "An r-dimensional quadratic placement algorithm", Management Science 17(3), 1970).
    The cores get places by classical scaling of the hops between them (Torgerson, "Multidimensional scaling",
    Psychometrika 17(4), 1952), so that any topology will do. On each axis ranks take the place of coordinates, which
    spreads the slices as evenly as the cores, and a linear assignment matches the two by squared distance. Several
    pairs of the first eigenvectors, as they are, turned and mirrored, are tried; the fewest message hops win.

    Fewer slices than usable cores take a compact set of them. Slices between which no messages pass, even by way of
    others, are placed apart: each connected part on the next stretch of a curve over that set, the largest first.
    """
    n = graph.n_slices
    messages = coo_array((graph.messages, (graph.source, graph.target)), shape=(n, n)).toarray()
    np.fill_diagonal(messages, 0.0)
    _, part = connected_components(messages > 0, directed=False)
    size = np.bincount(part)[part]
    slices = np.lexsort((np.arange(n), part, -size))
    linked = int((size > 1).sum())
    compact = compact_cores(system, n)
    curve = curve_through(system)
    cores = np.concatenate([curve[np.isin(curve, compact[:linked])], compact[linked:]])
    placed = np.empty(n, dtype=np.int32)
    placed[slices] = cores  # where it stays for slices on their own
    first = 0
    while first < linked:
        stop = first + int(size[slices[first]])
        own = slices[first:stop]
        placed[own] = cores[first:stop][_match(messages[np.ix_(own, own)], system, cores[first:stop])]
        first = stop
    return placed


def _match(messages: FloatArray, system: System, cores: IndexArray) -> IntArray:
    """Indices (S,) of the cores of S slices, whose core graph `messages` (S, S) is connected, among S cores."""
    n = len(cores)
    router = system.router_of_core[cores]
    hops = system.hops[np.ix_(router, router)]
    near = -0.5 * (hops + hops.T + CORE_TIE * np.abs(np.subtract.outer(cores, cores))) ** 2
    near += near.mean() - near.mean(axis=0) - near.mean(axis=1)[:, None]
    spread, axes = eigenvectors(near, n - 2, n - 1)
    scale = np.round(np.sqrt(np.maximum(spread[::-1], 0.0) / spread[1]), 6)  # equal distances stay equal
    places = _spread_ranks(axes[:, ::-1], 4) * scale

    both_ways = messages + messages.T
    tie = np.diag(SLICE_TIE * both_ways[both_ways > 0].mean() * np.linspace(1, 2, n - 1), 1)  # no two alike
    both_ways += tie + tie.T
    _, modes = eigenvectors(np.diag(both_ways.sum(axis=0)) - both_ways, 1, min(N_EIGENVECTORS, n - 1))
    modes = np.hstack([modes, np.zeros((n, max(0, 3 - n)))])  # two slices have one axis, the other is flat
    drafts = [
        _spread_ranks(axes, 6) * scale
        for pair in itertools.combinations(range(modes.shape[1]), 2)
        for turned in (modes[:, pair], _turned(modes[:, pair]))
        for axes in (turned, turned[:, ::-1])
    ]
    source, target = np.nonzero(messages)
    sent = messages[source, target]
    length = np.array([(sent * np.abs(draft[source] - draft[target]).sum(axis=1)).sum() for draft in drafts])
    shortest_first = np.argsort(np.round(length / length.max(), 9), kind="stable")  # rounding must not choose
    flips = _different_flips(places)
    tries = [drafts[i] * flip for i in shortest_first for flip in flips]
    best, fewest = np.arange(n), np.inf
    for draft in tries[: max(1, min(N_ASSIGNMENTS, ASSIGNMENT_WORK // n**2))]:
        _, to = linear_sum_assignment(((draft[:, None] - places) ** 2).sum(axis=2))
        message_hops = (sent * hops[to[source], to[target]]).sum()
        if message_hops < fewest * (1 - 1e-9):
            best, fewest = to, message_hops
    return best


def _spread_ranks(axes: FloatArray, digits: int) -> FloatArray:
    """Ranks on each of the axes (n, 2), from -1/2 to 1/2; what is equal to so many digits shares the mean rank."""
    n = len(axes)
    ranks = np.empty((n, 2))
    for i, axis in enumerate(axes.T):
        _, which, count = np.unique(np.round(axis / (np.abs(axis).max() or 1.0), digits), False, True, True)
        ranks[:, i] = ((np.cumsum(count) - count / 2) / n - 0.5)[which]
    return ranks


def eigenvectors(matrix: FloatArray, first: int, last: int) -> tuple[FloatArray, FloatArray]:
    """Return some eigenvalues of a symmetric matrix, ascending, and their vectors.

    The largest entry of each vector is positive. LAPACK runs on one thread: several would wait for each other at every
    step, which takes 300 times as long (0.45 s with n = 250) while something else runs on one of two cores.

    Parameters
    ----------
    matrix
        (n, n), symmetric.
    first
        index of the lowest eigenvalue asked for, in ascending order.
    last
        index of the highest.

    Returns
    -------
    eigenvalues (m,) and vectors (n, m), m = last - first + 1.

    """
    size = np.abs(matrix).max()
    with threadpool_limits(1):
        values, vectors = eigh(matrix / size, subset_by_index=(first, last))
    rows = np.ascontiguousarray(vectors.T)
    largest = np.round(np.abs(rows) / np.abs(rows).max(axis=1)[:, None], 6).argmax(axis=1)  # of several the first
    signed = rows * np.sign(rows[range(len(rows)), largest])[:, None]
    return values * size, np.asarray(signed.T, dtype=np.float64)


def _turned(axes: FloatArray) -> FloatArray:
    """Places (n, 2) turned until they fill a square along its sides: to the least sum of fourth powers.

    Eigenvectors to nearly the same eigenvalue, as square meshes have, come at any angle.
    """
    plane = axes[:, 0] + 1j * axes[:, 1]
    plane = plane * np.exp(1j * (np.pi - np.angle((plane**4).sum())) / 4)
    return np.stack([plane.real, plane.imag], axis=1)


def _different_flips(places: FloatArray) -> list[tuple[int, ...]]:
    """Signs of the two axes that do not just mirror the places (n, 2) onto each other."""
    different: dict[bytes, tuple[int, ...]] = {}
    for flip in itertools.product((1, -1), repeat=2):
        mirrored = np.round(places * flip, 6) + 0.0  # no -0.0
        different.setdefault(mirrored[np.lexsort(mirrored.T)].tobytes(), flip)
    return list(different.values())
