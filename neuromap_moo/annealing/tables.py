"""Incremental moves: what a small change of a mapping does to every term of the model, computed from what moves.

A state holds the place of every slice (a position in `System.usable_cores`) and the load of every link. A move (two
slices exchange their places, a slice takes a free one, a run of slices exchanges or rotates its places, a layer is cut
anew) changes the routes of the moved slices alone. Links are kept in blocks that no interval of a route leaves: the
rows and columns of a mesh, each way, or runs of a graph's links. Messages go into a difference array, of which only
the touched blocks are summed: the cost of a move depends on the degree of what moves and on how far its routes reach,
not on the size of the system. Here are the tables and states, and the cutting anew; `walk.py` moves.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numba import njit

from neuromap_moo.arrays import BoolArray, FloatArray, IndexArray, IntArray
from neuromap_moo.system.system import System
from neuromap_moo.system.topology import Mesh

Pieces: TypeAlias = tuple[IndexArray, IndexArray, IndexArray, IndexArray]

BLOCK = 64  # links per block, where a topology has no rows and columns
NEAR = 9  # routers around a router, itself included, that count as near it


class LinkTables(NamedTuple):
    """Where slices can sit and how messages travel; R routers, C places, W slots.

    A slot is a link, or the end of a block: block b has slots block_start[b] to block_start[b + 1] - 1, the last of
    which is no link. Routers lie on two axes. A mesh's are its columns and rows, and routes follow from them; any
    other topology has all its routers on the first, and routes are tabled as pieces, each within one block.
    """

    router: IntArray  # (C,) router of each place
    first_place: IntArray  # (R + 1,) into places
    places: IntArray  # (C,) grouped by router
    near: IntArray  # (R, K) nearest routers that have places, itself first where it has some
    chip: IntArray  # (R,)
    is_mesh: bool
    x: IntArray  # (R,) on the first axis, of X
    y: IntArray  # (R,) on the second, of Y
    piece_start: IndexArray  # (R * R + 1,) pieces of the route from router to router; (1,) on a mesh
    piece_first: IndexArray  # slots piece_first to piece_stop - 1
    piece_stop: IndexArray
    piece_block: IndexArray
    slot: IntArray  # (n_links,) slot of each link
    block_start: IntArray  # (blocks + 1,)
    seconds: FloatArray  # (W,) link time of a message; 0 where no link is
    barrier_s: FloatArray  # (chips + 1,) by chips used
    joules_x: FloatArray  # (X, X) link energy of a message from router to router is the sum over both axes
    joules_y: FloatArray  # (Y, Y)
    hops_x: FloatArray
    hops_y: FloatArray
    allowed: BoolArray  # (rows, C) may a slice of that row sit there
    stays: BoolArray  # (rows,) a slice of that row must not leave its chip
    is_restricted: bool  # by any of these two


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
    """What a walk minimises, any positive combination of the terms of DESIGN 4.5:

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


def make_link_tables(system: System, allowed: BoolArray, stays: BoolArray) -> LinkTables:
    """Table a system, and where the slices of each row may go, for moves; O(R^2)."""
    links, topology, n_routers = system.links, system.topology, system.n_routers
    n_links = links.source.size
    none = np.zeros(0, dtype=np.int32)
    pieces: Pieces = np.zeros(1, dtype=np.int32), none, none, none
    if isinstance(topology, Mesh):
        x, y = topology.router_xy.T.astype(np.int64)
        columns, rows = int(x.max()) + 1, int(y.max()) + 1
        widths = np.repeat([columns, rows], [2 * rows, 2 * columns])  # links of each block, and its end
    else:
        x, y = np.arange(n_routers), np.zeros(n_routers, dtype=np.int64)
        widths = np.minimum(BLOCK, n_links - np.arange(0, max(n_links, 1), BLOCK)) + 1
        pieces = _pieces(system)
    block_start = np.concatenate([[0], np.cumsum(widths)])
    slot = np.setdiff1d(np.arange(block_start[-1]), block_start[1:] - 1)
    seconds = np.zeros(block_start[-1])
    seconds[slot] = system.cost("message_bits") / system.per_link("bandwidth_bit_per_s")
    hops = system.hops.astype(np.float64)
    router = system.router_of_core[system.usable_cores].astype(np.int64)
    has_places = np.bincount(router, minlength=n_routers) > 0
    away = np.where(has_places, hops + hops.T, np.inf)
    n_near = min(NEAR, int(has_places.sum()))
    barrier = system.barrier_s(np.maximum(np.arange(system.n_chips + 1.0), 1.0))
    return LinkTables(
        router,
        np.concatenate([[0], np.cumsum(np.bincount(router, minlength=n_routers))]),
        np.argsort(router, kind="stable"),
        np.argsort(away, axis=1, kind="stable")[:, :n_near].astype(np.int64),
        system.chip_of_router.astype(np.int64),
        isinstance(topology, Mesh),
        x.copy(),
        y.copy(),
        *pieces,
        slot,
        block_start,
        seconds,
        barrier,
        *_by_axis(_energies(system), x, y),
        *_by_axis(hops, x, y),
        allowed,
        stays,
        bool(stays.any() or not allowed.all()),
    )


def _pieces(system: System) -> Pieces:
    """Cut the intervals of routes (see Routes) where blocks end: start, first and stop slots, and blocks."""
    start, first, stop = system.routes
    n = (stop - 1) // BLOCK - first // BLOCK + 1
    before = np.concatenate([[0], np.cumsum(n)])
    interval = np.repeat(np.arange(first.size), n)
    block = first[interval] // BLOCK + np.arange(before[-1]) - before[interval]
    low = np.maximum(first[interval], block * BLOCK) + block
    high = np.minimum(stop[interval], (block + 1) * BLOCK) + block
    return before[start].astype(np.int32), low.astype(np.int32), high.astype(np.int32), block.astype(np.int32)


def _energies(system: System) -> FloatArray:
    """Return the link energy of a message from router to router, (R, R)."""
    start, first, stop = system.routes
    total = np.concatenate([[0.0], np.cumsum(system.per_link("e_link_j"))])
    # Summed route by route: differences of one running sum over all routes would lose digits on large systems.
    along = np.append(total[stop] - total[first], 0.0)
    joules: FloatArray = np.add.reduceat(along, np.minimum(start[:-1], first.size))
    return np.reshape(np.where(np.diff(start) > 0, joules, 0.0), (system.n_routers, system.n_routers))


def _by_axis(table: FloatArray, x: IntArray, y: IntArray) -> tuple[FloatArray, FloatArray]:
    """Split what a message takes from router to router, (R, R), into one table for each axis, whose sum it is.

    On a mesh it is the same in every row, and in every column. What differs by rounding between there and back is
    made equal: walks are quicker so.
    """
    parts = []
    for along, across in ((x, y), (y, x)):
        own = np.flatnonzero(across == 0)
        own = own[np.argsort(along[own])]
        part = table[np.ix_(own, own)]
        if np.allclose(part, part.T, rtol=1e-9, atol=1e-9 * float(table.max(initial=0.0))):
            part = (part + part.T) / 2
        parts.append(part)
    return parts[0], parts[1]


def make_neighbours(source: IndexArray, target: IndexArray, messages: FloatArray, row: IntArray) -> Neighbours:
    """Make the neighbour lists of one partition from its edges (E,) and the row of each slice (S,); O(edges)."""
    start, neighbour, sent, received = _neighbours(source, target, messages, row.size)
    both = sent + received
    total: FloatArray = np.bincount(np.repeat(np.arange(row.size), np.diff(start)), both, row.size).astype(np.float64)
    return Neighbours(start, neighbour, sent, received, both, total, row.astype(np.int64))


def make_state(board: LinkTables, n_slices: int) -> State:
    """Make a state of `n_slices` that `put` fills."""
    n_slots, n_blocks = board.seconds.size, board.block_start.size - 1
    return State(
        np.empty(n_slices, dtype=np.int64),
        np.empty(n_slices, dtype=np.int64),
        np.empty(n_slices, dtype=np.int64),
        np.empty(board.router.size, dtype=np.int64),
        np.zeros(n_slots),
        np.zeros(n_blocks),
        np.zeros(n_blocks),
        np.zeros(board.barrier_s.size - 1, dtype=np.int64),
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
def put(board: LinkTables, graph: Neighbours, cost: Cost, state: State, place: IntArray) -> None:
    """Set a state to a placement (S,); O(edges + links)."""
    _fill_places(board, state, place)
    state.load[:] = 0.0
    state.sums[:] = 0.0
    _relink(board, graph, cost, state, state, np.ones(board.stays.size, dtype=np.bool_), 1.0)
    _refresh_maxima(board, cost, state)


@njit(cache=True, nogil=True)
def resize_layers(
    board: LinkTables,
    old_graph: Neighbours,
    old_cost: Cost,
    old: State,
    graph: Neighbours,
    cost: Cost,
    new: State,
    place: IntArray,
    rows: BoolArray,
) -> None:
    """Set state `new` to another partition, from the state `old` of one that differs in some rows (layers) only.

    The places (S,) of all other rows' slices are those of `old`; their messages to each other keep their links. The
    state `old` stays as it is.
    """
    new.load[:] = old.load
    new.sums[:] = old.sums
    _relink(board, old_graph, old_cost, old, new, rows, -1.0)
    _fill_places(board, new, place)
    _relink(board, graph, cost, new, new, rows, 1.0)
    _refresh_maxima(board, cost, new)


@njit(cache=True, nogil=True)
def _fill_places(board: LinkTables, state: State, place: IntArray) -> None:
    state.place[:] = place
    state.slice_at[:] = -1
    state.chip_slices[:] = 0
    for s in range(place.size):
        r = board.router[place[s]]
        state.slice_at[place[s]] = s
        state.x[s], state.y[s] = board.x[r], board.y[r]
        state.chip_slices[board.chip[r]] += 1


@njit(cache=True, nogil=True)
def _relink(
    board: LinkTables, graph: Neighbours, cost: Cost, placed: State, state: State, rows: BoolArray, sign: float
) -> None:
    """Add (sign 1) or take away (sign -1) the messages of some rows' slices, those to and from other rows included.

    They lie where `placed` has them, and go into the loads and sums of `state`.
    """
    start, neighbour, sent, received, row = graph.start, graph.neighbour, graph.sent, graph.received, graph.row
    x, y, place, router, chip = placed.x, placed.y, placed.place, board.router, board.chip
    load, difference, block_start = state.load, state.difference, board.block_start
    pair_x, pair_y, per_crossing, looks_at_links = cost.pair_x, cost.pair_y, cost.per_crossing, cost.looks_at_links
    is_mesh, n_x, n_y = board.is_mesh, board.hops_x.shape[0], board.hops_y.shape[0]
    piece_start, piece_first, piece_stop = board.piece_start, board.piece_first, board.piece_stop
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
def along_x(xa: int, xb: int, y: int, columns: int, rows: int) -> tuple[int, int, int]:
    """Block, first and stop slot of a mesh's links along row y from column xa to xb; east, then west."""
    block = y if xb >= xa else rows + y
    return block, block * columns + min(xa, xb), block * columns + max(xa, xb)


@njit(cache=True, nogil=True)
def along_y(ya: int, yb: int, x: int, columns: int, rows: int) -> tuple[int, int, int]:
    """Block, first and stop slot of a mesh's links along column x from row ya to yb; south, then north."""
    line = x if yb >= ya else columns + x
    first = 2 * rows * columns + line * rows
    return 2 * rows + line, first + min(ya, yb), first + max(ya, yb)


@njit(cache=True, nogil=True)
def _refresh_maxima(board: LinkTables, cost: Cost, state: State) -> None:
    """Take the block maxima and the cost from loads and sums."""
    mesh_s, peak = 0.0, 0.0
    if cost.looks_at_links:
        for block in range(state.touched.size):
            time, most = 0.0, 0.0
            for slot in range(board.block_start[block], board.block_start[block + 1] - 1):
                most = max(most, state.load[slot])
                time = max(time, state.load[slot] * board.seconds[slot])
            state.block_time[block], state.block_load[block] = time, most
            mesh_s, peak = max(mesh_s, time), max(peak, most)
    chips = 0
    for n in state.chip_slices:
        chips += n > 0
    top = cost.chip[chips]
    if cost.looks_at_links:
        top += max_term_cost(cost.max_terms, cost.step[chips], board.barrier_s[chips], mesh_s, peak)
    state.sums[MESH_S], state.sums[PEAK] = mesh_s, peak
    state.sums[COST] = state.sums[LINEAR] + top


@njit(cache=True, nogil=True)
def max_term_cost(top: MaxTermWeights, per_step: float, barrier_s: float, mesh_s: float, peak: float) -> float:
    """Part of a cost (see Cost) that follows from the largest link time and load."""
    t_link = max(top.local_link_s, mesh_s)
    busy = max(top.compute_s, t_link)
    step = busy + barrier_s if top.adds_barrier else max(busy, barrier_s)
    total = per_step * step + top.per_link * t_link + top.per_peak * peak
    return total - top.rate / step if top.rate > 0.0 else total
