"""Incremental moves: what a small change of a mapping does to every term of the model, computed from what moves.

A state holds the place of every slice (a position in `System.usable_cores`) and the load of every link. A move (two
slices exchange their places, a slice takes a free one, a run of slices exchanges or rotates its places, a layer is cut
anew) changes the routes of the moved slices alone. Their messages go into a difference array over link numbers, of
which only the touched blocks are summed: the cost of a move depends on the degree of what moves and on how far its
routes reach, not on the size of the system. Here are the tables and states, and the cutting anew; `walk.py` moves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from neuromap_moo.system import System

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BLOCK = 64  # links that are summed, and have their maxima kept, together
NEAR = 9  # routers around a router, itself included, that count as near it


class Board(NamedTuple):
    """Where slices can sit and how messages travel; R routers, C places, n links padded to W, whole blocks of BLOCK."""

    router: IntArray  # (C,) router of each place
    first_place: IntArray  # (R + 1,) into places
    places: IntArray  # (C,) grouped by router
    near: IntArray  # (R, K) nearest routers that have places, itself first where it has some
    chip: IntArray  # (R,)
    route_start: NDArray[np.int32]  # (R * R + 1,) routes as in System.routes
    route_first: NDArray[np.int32]
    route_stop: NDArray[np.int32]
    two_intervals: NDArray[np.int32]  # (R * R, 4) the same where no route has more than two intervals, else (0, 4)
    n_links: int
    seconds: FloatArray  # (W,) link time of a message; 0 beyond n_links
    joules: FloatArray  # (W,) link energy of a message
    barrier_s: FloatArray  # (chips + 1,) by chips used
    pair_joules: FloatArray  # (R, R) link energy of a message from router to router
    pair_hops: FloatArray
    pair_crossing: FloatArray  # 1 where the chips differ
    allowed: NDArray[np.bool_]  # (rows, C) may a slice of that row sit there
    stays: NDArray[np.bool_]  # (rows,) a slice of that row must not leave its chip


class Graph(NamedTuple):
    """Who talks to whom in one partition: the neighbours of slice s are `neighbour[start[s]:start[s + 1]]`."""

    start: IntArray  # (S + 1,)
    neighbour: IntArray
    sent: FloatArray  # messages to that neighbour
    received: FloatArray  # and from it
    both: FloatArray
    row: IntArray  # (S,) row of Board.allowed, the layers first


class State(NamedTuple):
    """One mapping under change."""

    place: IntArray  # (S,)
    slice_at: IntArray  # (C,) -1 where free
    load: FloatArray  # (W,) messages per link
    block_time: FloatArray  # (W / BLOCK,) largest link time within each block
    block_load: FloatArray  # (W / BLOCK,) largest load
    chip_slices: IntArray  # (chips,)
    sums: FloatArray  # (SUMS,) see below
    difference: FloatArray  # (W,) zero between moves
    touched: NDArray[np.bool_]  # (W / BLOCK,) false between moves
    change: FloatArray  # (W,) of the loads in touched blocks, by the last move looked at


#: Entries of State.sums: the cost that a walk minimises and its linear part, the largest link time and load, and the
#: sums over routes of the metrics. The last five are kept up only where the cost looks at links.
COST, LINEAR, OVERLOAD, MESH_S, PEAK, JOULES, HOPS, CROSSING = range(8)
SUMS = 8


class Cost(NamedTuple):
    """What a walk minimises, any positive combination of the terms of DESIGN 4.5:

    sum of pair over messages + chip[chips used] + step[chips used] * step_s + per_link * t_link_s
    + per_peak * peak_link_messages - rate / step_s.

    `compute_s` is the partition's largest compute time, `local_link_s` its largest inject or eject link time. Floors
    of step_s and t_link_s, and one of the peak, say from where on less is worth nothing. A maximum alone gives no
    direction where several links are as busy as the busiest; overload, summed over all links above a cap, does.
    """

    pair: FloatArray  # (R, R) of one message
    symmetric: bool  # is pair
    looks_at_links: bool  # False: only pair and chip count, link loads are not kept up
    chip: FloatArray  # (chips + 1,)
    step: FloatArray  # (chips + 1,)
    per_link: float
    per_peak: float
    rate: float
    compute_s: float
    local_link_s: float
    floor_s: float
    floor_peak: float
    per_overload_s: float  # of every link, above cap_s
    per_overload_peak: float  # above cap_peak
    cap_s: float
    cap_peak: float
    adds_barrier: bool


def make_board(system: System, allowed: NDArray[np.bool_], stays: NDArray[np.bool_]) -> Board:
    """Table a system, and where the slices of each row may go, for moves; O(R^2)."""
    routes, links = system.routes, system.links
    n_routers, n_links = system.n_routers, links.source.size
    width = (n_links // BLOCK + 1) * BLOCK  # a stop may be n_links
    n_intervals = np.diff(routes.start)
    two = np.zeros((n_routers**2 if n_intervals.max(initial=0) <= 2 else 0, 4), dtype=np.int32)
    if len(two):
        for j in range(2):
            # An interval that is not there begins and ends where the first begins: it adds and takes the same.
            at = routes.start[:-1] + np.where(n_intervals > j, j, 0)
            some = n_intervals > 0
            two[some, 2 * j] = two[some, 2 * j + 1] = routes.first[at[some]]
            has = n_intervals > j
            two[has, 2 * j + 1] = routes.stop[at[has]]

    def along(per_link: FloatArray) -> FloatArray:
        total = np.concatenate([[0.0], np.cumsum(per_link)])
        parts = np.add.reduceat(
            np.append(total[routes.stop] - total[routes.first], 0.0), np.minimum(routes.start[:-1], routes.first.size)
        )
        return np.where(n_intervals > 0, parts, 0.0).reshape(n_routers, n_routers)

    seconds, joules = np.zeros((2, width))
    seconds[:n_links] = system.cost("message_bits") / system.per_link("bandwidth_bit_per_s")
    joules[:n_links] = system.per_link("e_link_j")
    pair_joules = along(joules[:n_links])
    if np.allclose(pair_joules, pair_joules.T, rtol=1e-9, atol=0.0):
        pair_joules = (
            pair_joules + pair_joules.T
        ) / 2  # differs by rounding alone; walks are quicker where it is equal
    router = system.router_of_core[system.usable_cores].astype(np.int64)
    hops = system.hops.astype(np.float64)
    has_places = np.bincount(router, minlength=n_routers) > 0
    away = np.where(has_places, hops + hops.T, np.inf)
    n_near = min(NEAR, int(has_places.sum()))
    chip = system.chip_of_router.astype(np.int64)
    barrier = system.barrier_s(np.maximum(np.arange(system.n_chips + 1.0), 1.0))
    return Board(
        router,
        np.concatenate([[0], np.cumsum(np.bincount(router, minlength=n_routers))]),
        np.argsort(router, kind="stable"),
        np.argsort(away, axis=1, kind="stable")[:, :n_near].astype(np.int64),
        chip,
        routes.start,
        routes.first,
        routes.stop,
        two,
        n_links,
        seconds,
        joules,
        barrier,
        pair_joules,
        hops,
        (chip[:, None] != chip).astype(np.float64),
        allowed,
        stays,
    )


def make_graph(source: NDArray[np.int32], target: NDArray[np.int32], messages: FloatArray, row: IntArray) -> Graph:
    """Make the neighbour lists of one partition from its edges (E,) and the row of each slice (S,); O(edges)."""
    start, neighbour, sent, received = _neighbours(source, target, messages, row.size)
    return Graph(start, neighbour, sent, received, sent + received, row.astype(np.int64))


def make_state(board: Board, n_slices: int) -> State:
    """Make a state of `n_slices` that `put` fills."""
    width = board.seconds.size
    return State(
        np.empty(n_slices, dtype=np.int64),
        np.empty(board.router.size, dtype=np.int64),
        np.zeros(width),
        np.zeros(width // BLOCK),
        np.zeros(width // BLOCK),
        np.zeros(board.barrier_s.size - 1, dtype=np.int64),
        np.zeros(SUMS),
        np.zeros(width),
        np.zeros(width // BLOCK, dtype=np.bool_),
        np.zeros(width),
    )


@njit(cache=True, nogil=True)
def _neighbours(
    source: NDArray[np.int32], target: NDArray[np.int32], messages: FloatArray, n_slices: int
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
def put(board: Board, graph: Graph, cost: Cost, state: State, place: IntArray) -> None:
    """Set a state to a placement (S,); O(edges + links)."""
    _seat(board, state, place)
    state.load[:] = 0.0
    state.sums[:] = 0.0
    _relink(board, graph, cost, state.place, state, np.ones(board.stays.size, dtype=np.bool_), 1.0)
    _settle(board, cost, state)


@njit(cache=True, nogil=True)
def recut(
    board: Board,
    old_graph: Graph,
    old_cost: Cost,
    old: State,
    graph: Graph,
    cost: Cost,
    new: State,
    place: IntArray,
    rows: NDArray[np.bool_],
) -> None:
    """Set state `new` to another partition, from the state `old` of one that differs in some rows (layers) only.

    The places (S,) of all other rows' slices are those of `old`; their messages to each other keep their links. The
    state `old` stays as it is.
    """
    new.load[:] = old.load
    new.sums[:] = old.sums
    _relink(board, old_graph, old_cost, old.place, new, rows, -1.0)
    _seat(board, new, place)
    _relink(board, graph, cost, new.place, new, rows, 1.0)
    _settle(board, cost, new)


@njit(cache=True, nogil=True)
def _seat(board: Board, state: State, place: IntArray) -> None:
    state.place[:] = place
    state.slice_at[:] = -1
    state.chip_slices[:] = 0
    for s in range(place.size):
        state.slice_at[place[s]] = s
        state.chip_slices[board.chip[board.router[place[s]]]] += 1


@njit(cache=True, nogil=True)
def _relink(
    board: Board, graph: Graph, cost: Cost, place: IntArray, state: State, rows: NDArray[np.bool_], sign: float
) -> None:
    """Add (sign 1) or take away (sign -1) the messages of some rows' slices, those to and from other rows included."""
    two, starts, firsts, stops = board.two_intervals, board.route_start, board.route_first, board.route_stop
    start, neighbour, sent, received, row = graph.start, graph.neighbour, graph.sent, graph.received, graph.row
    router, load, difference = board.router, state.load, state.difference
    pair, crossing, joules = cost.pair, board.pair_crossing, board.joules
    n_routers = board.chip.size
    linear, crossed, spent, hops, running = 0.0, 0.0, 0.0, 0.0, 0.0
    for s in range(place.size):
        if not rows[row[s]]:
            continue
        for e in range(start[s], start[s + 1]):
            n = neighbour[e]
            for way in range(1 if rows[row[n]] else 2):
                m = sign * (sent[e] if way == 0 else received[e])
                if m == 0.0:
                    continue
                a, b = router[place[s]], router[place[n]]
                if way == 1:
                    a, b = b, a
                p = a * n_routers + b
                linear += m * pair[a, b]
                crossed += m * crossing[a, b]
                if two.shape[0] > 0:
                    difference[two[p, 0]] += m
                    difference[two[p, 1]] -= m
                    difference[two[p, 2]] += m
                    difference[two[p, 3]] -= m
                else:
                    for j in range(starts[p], starts[p + 1]):
                        difference[firsts[j]] += m
                        difference[stops[j]] -= m
    for link in range(board.n_links):
        running += difference[link]
        load[link] += running
        spent += running * joules[link]
        hops += running
    difference[:] = 0.0
    state.sums[LINEAR] += linear
    state.sums[CROSSING] += crossed
    state.sums[JOULES] += spent
    state.sums[HOPS] += hops


@njit(cache=True, nogil=True)
def _settle(board: Board, cost: Cost, state: State) -> None:
    """Take the block maxima and the cost from loads and sums."""
    for block in range(state.touched.size):
        block_maxima(state.load, board.seconds, state.block_time, state.block_load, block)
    mesh_s, peak = state.block_time.max(), state.block_load.max()
    state.sums[MESH_S], state.sums[PEAK] = mesh_s, peak
    state.sums[OVERLOAD] = 0.0
    for link in range(board.n_links):
        load = state.load[link]
        state.sums[OVERLOAD] += cost.per_overload_s * max(0.0, load * board.seconds[link] - cost.cap_s)
        state.sums[OVERLOAD] += cost.per_overload_peak * max(0.0, load - cost.cap_peak)
    top = state.sums[OVERLOAD] + top_cost(cost, board.barrier_s, mesh_s, peak, chips_used(state.chip_slices))
    state.sums[COST] = state.sums[LINEAR] + top


@njit(cache=True, nogil=True)
def block_maxima(
    load: FloatArray, seconds: FloatArray, block_time: FloatArray, block_load: FloatArray, block: int
) -> None:
    """Take the largest link time and load within one block."""
    time = 0.0
    largest = 0.0
    for link in range(block * BLOCK, (block + 1) * BLOCK):
        largest = max(largest, load[link])
        time = max(time, load[link] * seconds[link])
    block_time[block] = time
    block_load[block] = largest


@njit(cache=True, nogil=True)
def chips_used(chip_slices: IntArray) -> int:
    """Count the chips that hold a slice."""
    used = 0
    for n in chip_slices:
        used += n > 0
    return used


@njit(cache=True, nogil=True)
def top_cost(cost: Cost, barrier_s: FloatArray, mesh_s: float, peak: float, chips: int) -> float:
    """Part of a cost that is no sum over messages."""
    total: float = cost.chip[chips]
    if not cost.looks_at_links:
        return total
    t_link = max(cost.local_link_s, mesh_s)
    busy = max(cost.compute_s, t_link)
    step = max(busy + barrier_s[chips] if cost.adds_barrier else max(busy, barrier_s[chips]), cost.floor_s)
    total += cost.step[chips] * step + cost.per_link * max(t_link, cost.floor_s)
    total += cost.per_peak * max(peak, cost.floor_peak)
    return total - cost.rate / step if cost.rate > 0.0 else total
