"""Random walks over placements by incremental moves: the inner loop of all local search."""

from __future__ import annotations

import numpy as np
from numba import njit

from neuromap_moo.annealing.exchange import (
    NORM,
    add_chip_crossings,
    add_loads,
    busiest_slots,
    change_both_ways,
    is_allowed,
    link_norm_sums,
    messages_over,
    propose,
    reroute,
    sum_block,
    untouched_maxima,
)
from neuromap_moo.annealing.link_tables import LinkTables
from neuromap_moo.annealing.tables import (
    COST,
    LINEAR,
    MESH_S,
    PEAK,
    Cost,
    Neighbours,
    State,
    max_term_cost,
)
from neuromap_moo.arrays import FloatArray, IntArray

DRAWS = 6  # random numbers of one proposal
REFILL = 4096 * DRAWS  # drawn at once, at most
NO_MOVES = np.empty((0, 2), dtype=np.int64)


@njit(cache=True, nogil=True)
def _refill(rng: np.random.Generator, draws: FloatArray) -> None:
    for i in range(draws.size):
        draws[i] = rng.random()


@njit(cache=True, nogil=True)
def walk(
    rng: np.random.Generator,
    links: LinkTables,
    neighbours: Neighbours,
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
    down by the sums over their messages alone.

    Parameters
    ----------
    rng
        all random numbers come from it.
    links
        tables of the system.
    neighbours
        neighbour lists of the partition.
    cost
        what is minimised.
    state
        where slices are, filled by `put` with the same three; changed in place.
    n_moves
        moves to make; a run of slices counts each, so there can be a few more.
    first_temperature
        in units of the cost.
    last_temperature
        reached after `n_moves`.
    given
        (m, 2) slices and places: moves to make instead of random ones, whatever they cost; (0, 2) for none.
    best_place
        (S,) filled with the cheapest placement met.

    Returns
    -------
    moves made (a block move counts each slice), those of them that had to look at links, the cost of `best_place`.

    """
    # Fields are read once: numba counts references whenever a tuple's field or a function's array argument is touched,
    # which in the inner loop would cost more than the work itself. Hence one long function, too: what every proposal
    # needs stays here, what fewer do is in `exchange.py`.
    start, neighbour, row, total_of = neighbours.start, neighbours.neighbour, neighbours.row, neighbours.total
    sent, received, both = neighbours.sent, neighbours.received, neighbours.both
    place, x, y, slice_at = state.place, state.x, state.y, state.slice_at
    load, change_of, difference = state.load, state.change, state.difference
    touched, block_time, block_load = state.touched, state.block_time, state.block_load
    chip_slices, sums = state.chip_slices, state.sums
    router, near, first_place, places, chip = links.router, links.near, links.first_place, links.places, links.chip
    router_x, router_y, is_mesh = links.x, links.y, links.is_mesh
    block_start, seconds = links.block_start, links.seconds
    piece_start, piece_first, piece_stop = links.piece_start, links.piece_first, links.piece_stop
    piece_block, barrier_s = links.piece_block, links.barrier_s
    allowed, stays, is_restricted = links.allowed, links.stays, links.is_restricted
    pair_x, pair_y, per_crossing, symmetric = cost.pair_x, cost.pair_y, cost.per_crossing, cost.symmetric
    looks_at_links, chip_cost, step_cost = cost.looks_at_links, cost.chip, cost.step
    max_terms = cost.max_terms
    n_x, n_y, n_blocks = links.hops_x.shape[0], links.hops_y.shape[0], touched.size
    n_places = slice_at.size
    slowest_s = seconds.max()  # of one message on any link
    n_chips = 0
    for m in chip_slices:
        n_chips += m > 0
    mesh_s, peak, cost_now, linear_now = sums[MESH_S], sums[PEAK], sums[COST], sums[LINEAR]
    uses_time = step_cost.any() or max_terms.per_link > 0.0 or max_terms.rate > 0.0
    time_block, load_block, time_slot, load_slot = 0, 0, 0, 0  # where these are
    if looks_at_links and n_blocks > 0:
        time_block, load_block = int(block_time.argmax()), int(block_load.argmax())
        time_slot, load_slot = int((load * seconds).argmax()), int(load.argmax())
    temperature = first_temperature
    cooling = (last_temperature / first_temperature) ** (1.0 / max(n_moves, 1))
    draws = np.empty(min(REFILL, n_moves * DRAWS))
    drawn = draws.size
    # Where the cost is soft, moves are judged by norms of link times and loads that at first agree with the largest.
    is_soft = looks_at_links and cost.is_soft and mesh_s > 0.0
    judged = cost_now
    sum_s, sum_peak, norm_s, norm_peak, unit_s, unit = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    if is_soft:
        unit_s, unit = 1.0 / mesh_s, 1.0 / peak
        sum_s, sum_peak = link_norm_sums(load, seconds, unit_s, unit)
        norm_s, norm_peak = mesh_s / sum_s ** (1.0 / NORM), peak / sum_peak ** (1.0 / NORM)
    new_sum_s, new_sum_peak = sum_s, sum_peak
    best = cost_now
    best_place[:] = place
    unsaved = False  # the present placement is the best, and written down only when it is left for a worse one
    dirty = np.empty(n_blocks, dtype=np.int64)
    dirty_time = np.empty(n_blocks)
    dirty_load = np.empty(n_blocks)
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
        else:
            length, s, other, b = propose(u, n_places, start, neighbour, place, router, near, first_place, places)
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
            possible = a != b
            if possible and is_restricted:
                possible = is_allowed(row[w], -1 if o < 0 else row[o], a, b, ca != cb, allowed, stays)
            change = 0.0
            if possible and ra != rb:
                xa, ya, xb, yb = x[w], y[w], router_x[rb], router_y[rb]
                linear = 0.0
                if symmetric:
                    xa_row, ya_row, xb_row, yb_row = xa * n_x, ya * n_y, xb * n_x, yb * n_y
                    for e in range(start[w], start[w + 1]):
                        m = neighbour[e]
                        if m != o:  # the messages between the two go as far as before
                            xm, ym = x[m], y[m]
                            further = (
                                pair_x[xb_row + xm] - pair_x[xa_row + xm] + pair_y[yb_row + ym] - pair_y[ya_row + ym]
                            )
                            linear += both[e] * further
                    if o >= 0:
                        for e in range(start[o], start[o + 1]):
                            m = neighbour[e]
                            if m != w:
                                xm, ym = x[m], y[m]
                                further = (
                                    pair_x[xa_row + xm]
                                    - pair_x[xb_row + xm]
                                    + pair_y[ya_row + ym]
                                    - pair_y[yb_row + ym]
                                )
                                linear += both[e] * further
                else:
                    linear = change_both_ways(
                        w, o, xa, ya, xb, yb, x, y, start, neighbour, sent, received, pair_x, pair_y, n_x, n_y
                    )
                if per_crossing != 0.0 and ca != cb:
                    linear = add_chip_crossings(
                        linear, per_crossing, w, o, ca, cb, start, neighbour, both, place, router, chip
                    )
                chips = n_chips
                if ca != cb and o < 0:
                    chips += (chip_slices[cb] == 0) - (chip_slices[ca] == 1)
                rest = judged - linear_now - linear - chip_cost[chips]
                change = -rest
                if looks_at_links:
                    # No link loses more messages than the two slices send and receive.
                    least = np.inf if is_soft else total_of[w]
                    if o >= 0:
                        least += total_of[o]
                    change += max_term_cost(
                        max_terms,
                        step_cost[chips],
                        barrier_s[chips],
                        mesh_s - least * slowest_s,
                        max(peak - least, 0.0),
                    )
                possible = change <= step_limit
                if possible and looks_at_links and not is_soft and step_limit < np.inf:
                    change = max_term_cost(max_terms, step_cost[chips], barrier_s[chips], mesh_s, peak) - rest
                    if change > step_limit:
                        # It has to take messages from the busiest links: those of the two slices that cross them.
                        relief_s, relief = 0.0, 0.0
                        for which in range(2):
                            slot, block = (time_slot, time_block) if which == 0 else (load_slot, load_block)
                            if not (uses_time if which == 0 else max_terms.per_peak > 0.0):
                                continue
                            crossing = messages_over(
                                slot, block, w, o, xa, ya, xb, yb, x, y, start, neighbour, sent, received, is_mesh,
                                n_x, n_y, block_start, piece_start, piece_first, piece_stop,
                            )  # fmt: skip
                            if which == 0:
                                relief_s = crossing * seconds[slot]
                            else:
                                relief = crossing
                        change = (
                            max_term_cost(
                                max_terms, step_cost[chips], barrier_s[chips], mesh_s - relief_s, peak - relief
                            )
                            - rest
                        )
                        possible = change <= step_limit
                if possible and looks_at_links:
                    looked += 1
                    n_dirty = reroute(
                        w, o, xa, ya, xb, yb, x, y, start, neighbour, sent, received, is_mesh, n_x, n_y,
                        piece_start, piece_first, piece_stop, piece_block, difference, touched, dirty,
                    )  # fmt: skip
                    new_s, new_peak, new_time_block, new_load_block = mesh_s, peak, time_block, load_block
                    if n_dirty > 0 and (touched[time_block] or touched[load_block]):
                        new_s, new_peak, new_time_block, new_load_block = untouched_maxima(
                            touched, block_time, block_load, time_block, load_block
                        )
                    new_sum_s, new_sum_peak = sum_s, sum_peak
                    if not is_soft:
                        change = max_term_cost(max_terms, step_cost[chips], barrier_s[chips], new_s, new_peak) - rest
                        possible = change <= step_limit
                    for k in range(n_dirty):
                        block = dirty[k]
                        touched[block] = False
                        end = block_start[block + 1] - 1
                        if not possible:  # so much is known already
                            for slot in range(block_start[block], end + 1):
                                difference[slot] = 0.0
                            continue
                        time, most, new_sum_s, new_sum_peak = sum_block(
                            block_start[block], end, difference, change_of, load, seconds, is_soft, unit_s, unit,
                            new_sum_s, new_sum_peak,
                        )  # fmt: skip
                        dirty_time[k], dirty_load[k] = time, most
                        if time > new_s or most > new_peak:
                            if time > new_s:
                                new_s, new_time_block = time, block
                            if most > new_peak:
                                new_peak, new_load_block = most, block
                            if not is_soft:
                                change = (
                                    max_term_cost(max_terms, step_cost[chips], barrier_s[chips], new_s, new_peak) - rest
                                )
                                possible = change <= step_limit
                    if is_soft:
                        soft_s = norm_s * max(new_sum_s, 0.0) ** (1.0 / NORM)
                        soft_peak = norm_peak * max(new_sum_peak, 0.0) ** (1.0 / NORM)
                        change = max_term_cost(max_terms, step_cost[chips], barrier_s[chips], soft_s, soft_peak) - rest
                        possible = change <= step_limit
                    if possible:
                        sum_s, sum_peak = new_sum_s, new_sum_peak
                        mesh_s, peak, time_block, load_block = new_s, new_peak, new_time_block, new_load_block
                        add_loads(
                            dirty, n_dirty, dirty_time, dirty_load, block_time, block_load, block_start, load, change_of
                        )
                        time_slot, load_slot = busiest_slots(time_block, load_block, block_start, load, seconds)
                if possible:
                    judged += change
                    linear_now += linear
                    new_cost = judged
                    if is_soft:
                        new_cost = linear_now + chip_cost[chips]
                        new_cost += max_term_cost(max_terms, step_cost[chips], barrier_s[chips], mesh_s, peak)
                    if unsaved and new_cost > cost_now:
                        best_place[:] = place
                        best = cost_now  # a run of exchanges may have gone lower before its end
                        unsaved = False
                    cost_now = new_cost
                    n_chips = chips
                    x[w], y[w] = xb, yb
                    if o >= 0:
                        x[o], y[o] = xa, ya
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
        if cost_now < best - 1e-12 * abs(best):
            best = cost_now
            unsaved = True
    if unsaved:
        best_place[:] = place
    sums[COST], sums[LINEAR], sums[MESH_S], sums[PEAK] = cost_now, linear_now, mesh_s, peak
    return done, looked, best
