"""Incremental moves: what a small change of a mapping does to every term of the model, computed from what moves.

A state holds the place of every slice (a position in `System.usable_cores`) and the load of every link. A move (two
slices exchange their places, a slice takes a free one, a run of slices exchanges or rotates its places, a layer is cut
anew) changes the routes of the moved slices alone. Links are kept in blocks that no interval of a route leaves: the
rows and columns of a mesh, each way, or runs of a graph's links. Messages go into a difference array, of which only
the touched blocks are summed: the cost of a move depends on the degree of what moves and on how far its routes reach,
not on the size of the system. Neighbour lists, costs, states and changes of partition are here, tables of the system
in `link_tables.py`, moves in `metropolis.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from neuromap_moo.annealing.link_tables import LinkTables, along_x, along_y
from neuromap_moo.arrays import BoolArray, FloatArray, IndexArray, IntArray


class Neighbours(NamedTuple):
    """Who talks to whom in one partition: the neighbours of slice s are `neighbour[start[s]:start[s + 1]]`."""

    start: IntArray  # (S + 1,)
    neighbour: IntArray
    sent: FloatArray  # messages to that neighbour
    received: FloatArray  # and from it
    both: FloatArray
    total: FloatArray  # (S,) sum of both
    row: IntArray  # (S,) row of LinkTables.allowed, the layers first


class State(NamedTuple):
    """One mapping under change."""

    place: IntArray  # (S,)
    x: IntArray  # (S,) of its router
    y: IntArray  # (S,)
    slice_at: IntArray  # (C,) -1 where free
    load: FloatArray  # (W,) messages per link
    block_time: FloatArray  # (blocks,) largest link time within each block
    block_load: FloatArray  # (blocks,) largest load
    chip_slices: IntArray  # (chips,)
    sums: FloatArray  # (SUMS,) see below
    difference: FloatArray  # (W,) zero between moves
    touched: BoolArray  # (blocks,) false between moves
    change: FloatArray  # (W,) of the loads in touched blocks, by the last move looked at


#: Entries of State.sums: the cost that a walk minimises, its part that is a sum over messages, and the largest link
#: time and load, which are kept up only where the cost looks at links.
COST, LINEAR, MESH_S, PEAK = range(4)
SUMS = 4


class MaxTermWeights(NamedTuple):
    """What of a cost follows from the largest link time and load; see Cost. Numbers alone: quick to hand on."""

    per_link: float
    per_peak: float
    rate: float
    compute_s: float
    local_link_s: float
    adds_barrier: bool


class Cost(NamedTuple):
    """What a walk minimises, any positive combination of the terms of docs/model.md:

    sum of (pair_x + pair_y) over messages + per_crossing * messages between chips + chip[chips used]
    + step[chips used] * step_s + per_link * t_link_s + per_peak * peak_link_messages - rate / step_s.

    `compute_s` is the partition's largest compute time, `local_link_s` its largest inject or eject link time. The
    largest of many loads says little of where to go: where `is_soft`, a walk judges moves by a norm over all links.
    """

    pair_x: FloatArray  # (X * X,) of one message, by the routers' places on the first axis
    pair_y: FloatArray  # (Y * Y,) and on the second
    per_crossing: float
    symmetric: bool  # are pair_x and pair_y
    looks_at_links: bool  # False: link loads are not kept up
    chip: FloatArray  # (chips + 1,)
    step: FloatArray  # (chips + 1,)
    max_terms: MaxTermWeights
    is_soft: bool


def make_neighbours(source: IndexArray, target: IndexArray, messages: FloatArray, row: IntArray) -> Neighbours:
    """Make the neighbour lists of one partition from its edges (E,) and the row of each slice (S,); O(edges).

    Parameters
    ----------
    source
        (E,) slice that sends, of each edge.
    target
        (E,) slice that receives.
    messages
        (E,) messages per timestep.
    row
        (S,) row of LinkTables.allowed of each slice.

    """
    start, neighbour, sent, received = _neighbours(source, target, messages, row.size)
    both = sent + received
    total: FloatArray = np.bincount(np.repeat(np.arange(row.size), np.diff(start)), both, row.size).astype(np.float64)
    return Neighbours(start, neighbour, sent, received, both, total, row.astype(np.int64))


def make_state(links: LinkTables, n_slices: int) -> State:
    """Make a state of `n_slices` that `put` fills."""
    n_slots, n_blocks = links.seconds.size, links.block_start.size - 1
    return State(
        np.empty(n_slices, dtype=np.int64),
        np.empty(n_slices, dtype=np.int64),
        np.empty(n_slices, dtype=np.int64),
        np.empty(links.router.size, dtype=np.int64),
        np.zeros(n_slots),
        np.zeros(n_blocks),
        np.zeros(n_blocks),
        np.zeros(links.barrier_s.size - 1, dtype=np.int64),
        np.zeros(SUMS),
        np.zeros(n_slots),
        np.zeros(n_blocks, dtype=np.bool_),
        np.zeros(n_slots),
    )


@njit(cache=True, nogil=True)
def _neighbours(
    source: IndexArray, target: IndexArray, messages: FloatArray, n_slices: int
) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
    count = np.zeros(n_slices + 1, dtype=np.int64)
    for e in range(source.size):
        if source[e] != target[e]:  # what a core sends itself takes no link
            count[source[e] + 1] += 1
            count[target[e] + 1] += 1
    first = np.cumsum(count)
    at = first.copy()
    edge = np.empty(first[-1], dtype=np.int64)
    for e in range(source.size):
        if source[e] != target[e]:
            for end in (source[e], target[e]):
                edge[at[end]] = e
                at[end] += 1
    start = np.zeros(n_slices + 1, dtype=np.int64)
    neighbour = np.empty(edge.size, dtype=np.int64)
    sent = np.zeros(edge.size)
    received = np.zeros(edge.size)
    slot = np.full(n_slices, -1, dtype=np.int64)
    n = 0
    for s in range(n_slices):
        for i in range(first[s], first[s + 1]):
            e = edge[i]
            other = target[e] if source[e] == s else source[e]
            if slot[other] < start[s]:  # not yet seen from s
                slot[other] = n
                neighbour[n] = other
                n += 1
            if source[e] == s:
                sent[slot[other]] += messages[e]
            else:
                received[slot[other]] += messages[e]
        start[s + 1] = n
    return start, neighbour[:n].copy(), sent[:n].copy(), received[:n].copy()


@njit(cache=True, nogil=True)
def put(links: LinkTables, neighbours: Neighbours, cost: Cost, state: State, place: IntArray) -> None:
    """Set a state to a placement (S,); O(edges + links).

    Parameters
    ----------
    links
        tables of the system.
    neighbours
        neighbour lists of the partition.
    cost
        what the placement is to cost.
    state
        filled; made by `make_state` for as many slices.
    place
        (S,) places of the slices.

    """
    _fill_places(links, state, place)
    state.load[:] = 0.0
    state.sums[:] = 0.0
    _relink(links, neighbours, cost, state, state, np.ones(links.stays.size, dtype=np.bool_), 1.0)
    _refresh_maxima(links, cost, state)


@njit(cache=True, nogil=True)
def resize_layers(
    links: LinkTables,
    old_neighbours: Neighbours,
    old_cost: Cost,
    old: State,
    neighbours: Neighbours,
    cost: Cost,
    new: State,
    place: IntArray,
    rows: BoolArray,
) -> None:
    """Set state `new` to another partition, from the state `old` of one that differs in some rows (layers) only.

    The places (S,) of all other rows' slices are those of `old`; their messages to each other keep their links. The
    state `old` stays as it is.

    Parameters
    ----------
    links
        tables of the system.
    old_neighbours
        neighbour lists of the old partition.
    old_cost
        cost of placements of the old partition.
    old
        state of the old partition.
    neighbours
        neighbour lists of the new partition.
    cost
        cost of placements of the new partition, with the same `looks_at_links`.
    new
        filled; made by `make_state` for the new number of slices.
    place
        (S,) places of the new slices.
    rows
        (rows,) those that differ.

    """
    new.load[:] = old.load
    new.sums[:] = old.sums
    _relink(links, old_neighbours, old_cost, old, new, rows, -1.0)
    _fill_places(links, new, place)
    _relink(links, neighbours, cost, new, new, rows, 1.0)
    _refresh_maxima(links, cost, new)


@njit(cache=True, nogil=True)
def _fill_places(links: LinkTables, state: State, place: IntArray) -> None:
    state.place[:] = place
    state.slice_at[:] = -1
    state.chip_slices[:] = 0
    for s in range(place.size):
        r = links.router[place[s]]
        state.slice_at[place[s]] = s
        state.x[s], state.y[s] = links.x[r], links.y[r]
        state.chip_slices[links.chip[r]] += 1


@njit(cache=True, nogil=True)
def _relink(
    links: LinkTables, neighbours: Neighbours, cost: Cost, placed: State, state: State, rows: BoolArray, sign: float
) -> None:
    """Add (sign 1) or take away (sign -1) the messages of some rows' slices, those to and from other rows included.

    They lie where `placed` has them, and go into the loads and sums of `state`.
    """
    start, neighbour, sent, received, row = (
        neighbours.start,
        neighbours.neighbour,
        neighbours.sent,
        neighbours.received,
        neighbours.row,
    )
    x, y, place, router, chip = placed.x, placed.y, placed.place, links.router, links.chip
    load, difference, block_start = state.load, state.difference, links.block_start
    pair_x, pair_y, per_crossing, looks_at_links = cost.pair_x, cost.pair_y, cost.per_crossing, cost.looks_at_links
    is_mesh, n_x, n_y = links.is_mesh, links.hops_x.shape[0], links.hops_y.shape[0]
    piece_start, piece_first, piece_stop = links.piece_start, links.piece_first, links.piece_stop
    linear = 0.0
    for s in range(place.size):
        if not rows[row[s]]:
            continue
        for e in range(start[s], start[s + 1]):
            n = neighbour[e]
            for way in range(1 if rows[row[n]] else 2):
                m = sign * (sent[e] if way == 0 else received[e])
                if m == 0.0:
                    continue
                a, b = (s, n) if way == 0 else (n, s)
                xa, ya, xb, yb = x[a], y[a], x[b], y[b]
                linear += m * (pair_x[xa * n_x + xb] + pair_y[ya * n_y + yb])
                if per_crossing != 0.0 and chip[router[place[a]]] != chip[router[place[b]]]:
                    linear += m * per_crossing
                if not looks_at_links:
                    continue
                if is_mesh:
                    _, first, stop = along_x(xa, xb, ya, n_x, n_y)
                    difference[first] += m
                    difference[stop] -= m
                    _, first, stop = along_y(ya, yb, xb, n_x, n_y)
                    difference[first] += m
                    difference[stop] -= m
                else:
                    for j in range(piece_start[xa * n_x + xb], piece_start[xa * n_x + xb + 1]):
                        difference[piece_first[j]] += m
                        difference[piece_stop[j]] -= m
    if looks_at_links:
        for block in range(block_start.size - 1):
            running = 0.0
            for slot in range(block_start[block], block_start[block + 1] - 1):
                running += difference[slot]
                load[slot] += running
        difference[:] = 0.0
    state.sums[LINEAR] += linear


@njit(cache=True, nogil=True)
def _refresh_maxima(links: LinkTables, cost: Cost, state: State) -> None:
    """Take the block maxima and the cost from loads and sums."""
    mesh_s, peak = 0.0, 0.0
    if cost.looks_at_links:
        for block in range(state.touched.size):
            time, most = 0.0, 0.0
            for slot in range(links.block_start[block], links.block_start[block + 1] - 1):
                most = max(most, state.load[slot])
                time = max(time, state.load[slot] * links.seconds[slot])
            state.block_time[block], state.block_load[block] = time, most
            mesh_s, peak = max(mesh_s, time), max(peak, most)
    chips = 0
    for n in state.chip_slices:
        chips += n > 0
    total = cost.chip[chips]
    if cost.looks_at_links:
        total += max_term_cost(cost.max_terms, cost.step[chips], links.barrier_s[chips], mesh_s, peak)
    state.sums[MESH_S], state.sums[PEAK] = mesh_s, peak
    state.sums[COST] = state.sums[LINEAR] + total


@njit(cache=True, nogil=True)
def max_term_cost(max_terms: MaxTermWeights, per_step: float, barrier_s: float, mesh_s: float, peak: float) -> float:
    """Part of a cost (see Cost) that follows from the largest link time and load.

    Parameters
    ----------
    max_terms
        weights, and the terms that no placement changes.
    per_step
        cost of a second of step time.
    barrier_s
        time of the barrier.
    mesh_s
        largest time of a link between routers, in s.
    peak
        largest load of one, in messages.

    """
    t_link = max(max_terms.local_link_s, mesh_s)
    busy = max(max_terms.compute_s, t_link)
    step = busy + barrier_s if max_terms.adds_barrier else max(busy, barrier_s)
    total = per_step * step + max_terms.per_link * t_link + max_terms.per_peak * peak
    return total - max_terms.rate / step if max_terms.rate > 0.0 else total
