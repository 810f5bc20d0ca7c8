"""Random walks over placements by incremental moves: the inner loop of all local search."""

from __future__ import annotations

import numpy as np
from numba import njit

from neuromap_moo.moves import (
    BLOCK,
    COST,
    CROSSING,
    HOPS,
    JOULES,
    LINEAR,
    MESH_S,
    OVERLOAD,
    PEAK,
    Board,
    Cost,
    FloatArray,
    Graph,
    IntArray,
    State,
    block_maxima,
    chips_used,
    top_cost,
)

LONGEST_RUN = 8  # slices that one block move carries
BLOCK_SHARE = 0.01  # of the proposals; each costs as much as a dozen others
DIRECTED_SHARE = 0.5  # go next to a slice that the moved one talks to
DRAWS = 6  # random numbers of one proposal
REFILL = 4096 * DRAWS  # drawn at once, at most
NO_MOVES = np.empty((0, 2), dtype=np.int64)


@njit(cache=True, nogil=True)
def _linear_change(
    start: IntArray,
    neighbour: IntArray,
    sent: FloatArray,
    received: FloatArray,
    router: IntArray,
    place: IntArray,
    table: FloatArray,
    s: int,
    o: int,
    ra: int,
    rb: int,
) -> float:
    """Change of a sum over messages when slice s goes from router ra to rb and slice o (or none, -1) the other way."""
    change = 0.0
    for turn in range(2):
        w, x, r0, r1 = (s, o, ra, rb) if turn == 0 else (o, s, rb, ra)
        if w >= 0:
            for e in range(start[w], start[w + 1]):
                n = neighbour[e]
                before = router[place[n]]
                if n != x or turn == 0:  # the messages between the two are counted in the first turn
                    after = r0 if n == x else before
                    change += sent[e] * (table[r1, after] - table[r0, before])
                    change += received[e] * (table[after, r1] - table[before, r0])
    return change


@njit(cache=True, nogil=True)
def _refill(rng: np.random.Generator, draws: FloatArray) -> None:
    for i in range(draws.size):
        draws[i] = rng.random()


@njit(cache=True, nogil=True)
def walk(
    rng: np.random.Generator,
    board: Board,
    graph: Graph,
    cost: Cost,
    state: State,
    n_moves: int,
    first_temperature: float,
    last_temperature: float,
    given: IntArray,
    best_place: IntArray,
) -> tuple[int, int, float]:
    """Make `n_moves` moves by the Metropolis rule at a temperature that falls geometrically.

    Half of the proposals bring a slice next to one that it talks to, one in a hundred moves a run of slices, the rest
    goes anywhere. What the links could gain at most is known before they are looked at, so most bad moves are turned
    down by their linear change alone.

    Parameters
    ----------
    given
        (m, 2) slices and places: moves to make instead of random ones, whatever they cost; (0, 2) for none.
    best_place
        (S,) filled with the cheapest placement met.

    Returns
    -------
    moves made (a block move counts each slice), those of them that had to look at links, the cost of `best_place`.

    """
    # Fields are read once: numba counts references whenever a tuple's field or a function's array argument is touched,
    # which in the inner loop would cost more than the work itself. Hence one long function, too.
    start, neighbour, row = graph.start, graph.neighbour, graph.row
    sent, received, both = graph.sent, graph.received, graph.both
    place, slice_at, load, change_of = state.place, state.slice_at, state.load, state.change
    difference, touched, block_time, block_load = state.difference, state.touched, state.block_time, state.block_load
    chip_slices, sums = state.chip_slices, state.sums
    router, near, first_place, places, chip = board.router, board.near, board.first_place, board.places, board.chip
    two = board.two_intervals
    route_start, route_first, route_stop = board.route_start, board.route_first, board.route_stop
    seconds, joules, barrier_s, crossing = board.seconds, board.joules, board.barrier_s, board.pair_crossing
    allowed, stays, pair = board.allowed, board.stays, cost.pair
    symmetric, looks_at_links = cost.symmetric, cost.looks_at_links
    has_two, n_blocks, n_routers = two.shape[0] > 0, touched.size, chip.size
    n, n_places, n_near = place.size, slice_at.size, near.shape[1]
    one_chip = chip_slices.size == 1
    has_caps = cost.per_overload_s > 0.0 or cost.per_overload_peak > 0.0
    per_s, per_peak, cap_s, cap_peak = cost.per_overload_s, cost.per_overload_peak, cost.cap_s, cost.cap_peak
    temperature = first_temperature
    cooling = (last_temperature / first_temperature) ** (1.0 / max(n_moves, 1))
    draws = np.empty(min(REFILL, n_moves * DRAWS))
    drawn = draws.size
    best = sums[COST]
    best_place[:] = place
    unsaved = False  # the present placement is the best, and written down only when it is left for a worse one
    dirty = np.empty(n_blocks, dtype=np.int64)
    done = 0
    looked = 0
    while done < n_moves:
        if drawn == draws.size:
            _refill(rng, draws)
            drawn = 0
        u = draws[drawn : drawn + DRAWS]
        drawn += DRAWS
        limit = -temperature * np.log(1.0 - u[0])
        # What is tried: slice s to place b; or a run of slices, one step at a time, that exchange their places with
        # those of another run (`other`) or, where the two overlap, rotate their own.
        length, s, other, b = 1, 0, -1, 0
        if given.shape[0] > 0:
            s, b, limit = given[done, 0], given[done, 1], np.inf
        elif u[1] < BLOCK_SHARE and n > 3:
            length = min(2 + int(u[2] * (LONGEST_RUN - 1)), n // 2)
            s = int(u[3] * (n - length + 1))
            other = int(u[4] * (n - length + 1))
            if abs(other - s) < length:
                other = s + 1
                length -= 1
        else:
            s = int(u[2] * n)
            degree = start[s + 1] - start[s]
            if degree > 0 and u[1] < BLOCK_SHARE + DIRECTED_SHARE:
                partner = neighbour[start[s] + int(u[3] * degree)]
                r = near[router[place[partner]], int(u[4] * n_near)]
                b = places[first_place[r] + int(u[5] * (first_place[r + 1] - first_place[r]))]
            else:
                b = int(u[3] * n_places)
        step_limit = limit if other < 0 else np.inf
        total = 0.0
        i = 0
        undoing = False
        while True:
            w = s + i
            if other >= 0:
                b = place[other + i]
            a = place[w]
            o = slice_at[b]
            ra, rb = router[a], router[b]
            ca, cb = chip[ra], chip[rb]
            possible = a != b and allowed[row[w], b] and (o < 0 or allowed[row[o], a])
            if possible and ca != cb:
                possible = not (stays[row[w]] or (o >= 0 and stays[row[o]]))
            change = 0.0
            if possible and ra != rb:
                linear = 0.0
                if symmetric:
                    for e in range(start[w], start[w + 1]):
                        m = neighbour[e]
                        if m != o:
                            r = router[place[m]]
                            linear += both[e] * (pair[rb, r] - pair[ra, r])
                    if o >= 0:
                        for e in range(start[o], start[o + 1]):
                            m = neighbour[e]
                            if m != w:
                                r = router[place[m]]
                                linear += both[e] * (pair[ra, r] - pair[rb, r])
                else:
                    linear = _linear_change(start, neighbour, sent, received, router, place, pair, w, o, ra, rb)
                chips = 1
                if not one_chip:
                    chips = chips_used(chip_slices)
                    if ca != cb and o < 0:
                        chips += (chip_slices[cb] == 0) - (chip_slices[ca] == 1)
                before_top = sums[COST] - sums[LINEAR]
                change = linear + top_cost(cost, barrier_s, 0.0, 0.0, chips) - before_top
                possible = change <= step_limit
                if possible and looks_at_links:
                    looked += 1
                    for turn in range(2):
                        v, x, r0, r1 = (w, o, ra, rb) if turn == 0 else (o, w, rb, ra)
                        if v < 0:
                            continue
                        for e in range(start[v], start[v + 1]):
                            m = neighbour[e]
                            before = router[place[m]]
                            after = before
                            if m == x:
                                if turn == 1:
                                    continue
                                after = r0
                            for way in range(4):
                                if way == 0:
                                    p, messages = r0 * n_routers + before, -sent[e]
                                elif way == 1:
                                    p, messages = r1 * n_routers + after, sent[e]
                                elif way == 2:
                                    p, messages = before * n_routers + r0, -received[e]
                                else:
                                    p, messages = after * n_routers + r1, received[e]
                                if messages == 0.0:
                                    continue
                                if has_two:
                                    f0, t0, f1, t1 = two[p, 0], two[p, 1], two[p, 2], two[p, 3]
                                    if f0 == t0:
                                        continue  # within one router
                                    difference[f0] += messages
                                    difference[t0] -= messages
                                    difference[f1] += messages
                                    difference[t1] -= messages
                                    for block in range(f0 // BLOCK, t0 // BLOCK + 1):
                                        touched[block] = True
                                    for block in range(f1 // BLOCK, t1 // BLOCK + 1):
                                        touched[block] = True
                                else:
                                    for j in range(route_start[p], route_start[p + 1]):
                                        difference[route_first[j]] += messages
                                        difference[route_stop[j]] -= messages
                                        for block in range(route_first[j] // BLOCK, route_stop[j] // BLOCK + 1):
                                            touched[block] = True
                    mesh_s = 0.0
                    peak = 0.0
                    running = 0.0
                    overload = 0.0
                    n_dirty = 0
                    for block in range(n_blocks):
                        if not touched[block]:
                            running = 0.0  # no route goes on from here: what is left is rounding
                            mesh_s = max(mesh_s, block_time[block])
                            peak = max(peak, block_load[block])
                            continue
                        touched[block] = False
                        dirty[n_dirty] = block
                        n_dirty += 1
                        for link in range(block * BLOCK, (block + 1) * BLOCK):
                            running += difference[link]
                            difference[link] = 0.0
                            change_of[link] = running
                            was = load[link]
                            loaded = was + running
                            time = loaded * seconds[link]
                            mesh_s = max(mesh_s, time)
                            peak = max(peak, loaded)
                            if has_caps:
                                overload += per_s * (max(0.0, time - cap_s) - max(0.0, was * seconds[link] - cap_s))
                                overload += per_peak * (max(0.0, loaded - cap_peak) - max(0.0, was - cap_peak))
                    change = linear + top_cost(cost, barrier_s, mesh_s, peak, chips) - before_top
                    change += sums[OVERLOAD] + overload
                    possible = change <= step_limit
                    if possible:
                        sums[MESH_S], sums[PEAK] = mesh_s, peak
                        sums[OVERLOAD] += overload
                        for i_dirty in range(n_dirty):
                            block = dirty[i_dirty]
                            for link in range(block * BLOCK, (block + 1) * BLOCK):
                                load[link] += change_of[link]
                                sums[JOULES] += change_of[link] * joules[link]
                                sums[HOPS] += change_of[link]
                            block_maxima(load, seconds, block_time, block_load, block)
                        if ca != cb:
                            sums[CROSSING] += _linear_change(
                                start, neighbour, sent, received, router, place, crossing, w, o, ra, rb
                            )
                if possible:
                    if unsaved and change > 0.0:
                        best_place[:] = place
                        unsaved = False
                    sums[COST] += change
                    sums[LINEAR] += linear
            if possible:
                place[w], slice_at[b], slice_at[a] = b, w, o
                if o >= 0:
                    place[o] = a
                elif ca != cb:
                    chip_slices[ca] -= 1
                    chip_slices[cb] += 1
                total += change
            done += 1
            temperature *= cooling
            if undoing:
                i -= 1
            elif possible and i + 1 < length:
                i += 1
            elif other < 0 or (possible and total <= limit):
                break
            else:  # a block move that cannot go on, or costs too much: back, step by step
                undoing = True
                i -= not possible
            if i < 0:
                break
        if sums[COST] < best - 1e-12 * abs(best):
            best = sums[COST]
            unsaved = True
    if unsaved:
        best_place[:] = place
    return done, looked, best
