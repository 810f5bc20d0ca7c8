"""Random walks over placements by incremental moves: the inner loop of all local search."""

from __future__ import annotations

import numpy as np
from numba import njit

from neuromap_moo.annealing.tables import (
    COST,
    LINEAR,
    MESH_S,
    PEAK,
    Cost,
    LinkTables,
    Neighbours,
    State,
    along_x,
    along_y,
    max_term_cost,
)
from neuromap_moo.arrays import FloatArray, IntArray

LONGEST_RUN = 8  # slices that one block move carries
BLOCK_SHARE = 0.01  # of the proposals; each costs as much as a dozen others
DIRECTED_SHARE = 0.5  # go next to a slice that the moved one talks to
NORM = 16  # p of the norm over links
DRAWS = 6  # random numbers of one proposal
REFILL = 4096 * DRAWS  # drawn at once, at most
NO_MOVES = np.empty((0, 2), dtype=np.int64)


@njit(cache=True, nogil=True)
def _refill(rng: np.random.Generator, draws: FloatArray) -> None:
    for i in range(draws.size):
        draws[i] = rng.random()


@njit(cache=True, nogil=True)
def _power(x: float) -> float:
    """Raise to the power NORM."""
    x *= x
    x *= x
    x *= x
    return x * x


@njit(cache=True, nogil=True)
def walk(
    rng: np.random.Generator,
    board: LinkTables,
    graph: Neighbours,
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
    start, neighbour, row, total_of = graph.start, graph.neighbour, graph.row, graph.total
    sent, received, both = graph.sent, graph.received, graph.both
    place, x, y, slice_at = state.place, state.x, state.y, state.slice_at
    load, change_of, difference = state.load, state.change, state.difference
    touched, block_time, block_load = state.touched, state.block_time, state.block_load
    chip_slices, sums = state.chip_slices, state.sums
    router, near, first_place, places, chip = board.router, board.near, board.first_place, board.places, board.chip
    router_x, router_y, is_mesh = board.x, board.y, board.is_mesh
    block_start, seconds = board.block_start, board.seconds
    piece_start, piece_first, piece_stop = board.piece_start, board.piece_first, board.piece_stop
    piece_block, barrier_s = board.piece_block, board.barrier_s
    allowed, stays, is_restricted = board.allowed, board.stays, board.is_restricted
    pair_x, pair_y, per_crossing, symmetric = cost.pair_x, cost.pair_y, cost.per_crossing, cost.symmetric
    looks_at_links, chip_cost, step_cost = cost.looks_at_links, cost.chip, cost.step
    top = cost.max_terms
    n_x, n_y, n_blocks = board.hops_x.shape[0], board.hops_y.shape[0], touched.size
    n, n_places, n_near = place.size, slice_at.size, near.shape[1]
    slowest_s = seconds.max()  # of one message on any link
    n_chips = 0
    for m in chip_slices:
        n_chips += m > 0
    mesh_s, peak, cost_now, linear_now = sums[MESH_S], sums[PEAK], sums[COST], sums[LINEAR]
    uses_time = step_cost.any() or top.per_link > 0.0 or top.rate > 0.0
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
        for slot in range(load.size):
            sum_s += _power(load[slot] * seconds[slot] * unit_s)
            sum_peak += _power(load[slot] * unit)
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
            possible = a != b
            if possible and is_restricted:
                possible = allowed[row[w], b] and (o < 0 or allowed[row[o], a])
                if possible and ca != cb:
                    possible = not (stays[row[w]] or (o >= 0 and stays[row[o]]))
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
                    for turn in range(2):
                        v, z, x0, y0, x1, y1 = (w, o, xa, ya, xb, yb) if turn == 0 else (o, w, xb, yb, xa, ya)
                        if v < 0:
                            continue
                        for e in range(start[v], start[v + 1]):
                            m = neighbour[e]
                            xm, ym = x[m], y[m]
                            xn, yn = xm, ym
                            if m == z:
                                if turn == 1:
                                    continue  # the messages between the two are counted in the first turn
                                xn, yn = x0, y0
                            linear += sent[e] * (pair_x[x1 * n_x + xn] - pair_x[x0 * n_x + xm])
                            linear += sent[e] * (pair_y[y1 * n_y + yn] - pair_y[y0 * n_y + ym])
                            linear += received[e] * (pair_x[xn * n_x + x1] - pair_x[xm * n_x + x0])
                            linear += received[e] * (pair_y[yn * n_y + y1] - pair_y[ym * n_y + y0])
                if per_crossing != 0.0 and ca != cb:
                    for turn in range(2):
                        v, z, c0, c1 = (w, o, ca, cb) if turn == 0 else (o, w, cb, ca)
                        if v >= 0:
                            for e in range(start[v], start[v + 1]):
                                m = neighbour[e]
                                if m != z:
                                    c = chip[router[place[m]]]
                                    linear += per_crossing * both[e] * ((c != c1) - (c != c0) + 0.0)
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
                        top, step_cost[chips], barrier_s[chips], mesh_s - least * slowest_s, max(peak - least, 0.0)
                    )
                possible = change <= step_limit
                if possible and looks_at_links and not is_soft and step_limit < np.inf:
                    change = max_term_cost(top, step_cost[chips], barrier_s[chips], mesh_s, peak) - rest
                    if change > step_limit:
                        # It has to take messages from the busiest links: those of the two slices that cross them.
                        relief_s, relief = 0.0, 0.0
                        for which in range(2):
                            slot, block = (time_slot, time_block) if which == 0 else (load_slot, load_block)
                            if not (uses_time if which == 0 else top.per_peak > 0.0):
                                continue
                            crosses_x, line, forward, at = False, 0, False, 0
                            if is_mesh:
                                at = slot - block_start[block]
                                crosses_x = block < 2 * n_y
                                line = block if crosses_x else block - 2 * n_y
                                width = n_y if crosses_x else n_x
                                forward = line < width
                                line %= width
                            crossing = 0.0
                            for turn in range(2):
                                v, x0, y0 = (w, xa, ya) if turn == 0 else (o, xb, yb)
                                if v < 0:
                                    continue
                                if not is_mesh:
                                    for e in range(start[v], start[v + 1]):
                                        xm = x[neighbour[e]]
                                        for j in range(piece_start[x0 * n_x + xm], piece_start[x0 * n_x + xm + 1]):
                                            if piece_first[j] <= slot < piece_stop[j]:
                                                crossing += sent[e]
                                        for j in range(piece_start[xm * n_x + x0], piece_start[xm * n_x + x0 + 1]):
                                            if piece_first[j] <= slot < piece_stop[j]:
                                                crossing += received[e]
                                    continue
                                # Routes go along the sender's row, then along the receiver's column.
                                sends = ((x0 if crosses_x else y0) <= at) == forward
                                if crosses_x and sends and y0 == line:
                                    for e in range(start[v], start[v + 1]):
                                        if (x[neighbour[e]] <= at) != forward:
                                            crossing += sent[e]
                                elif crosses_x and not sends:
                                    for e in range(start[v], start[v + 1]):
                                        if y[neighbour[e]] == line and (x[neighbour[e]] <= at) == forward:
                                            crossing += received[e]
                                elif not crosses_x and sends:
                                    for e in range(start[v], start[v + 1]):
                                        if x[neighbour[e]] == line and (y[neighbour[e]] <= at) != forward:
                                            crossing += sent[e]
                                elif not crosses_x and x0 == line:
                                    for e in range(start[v], start[v + 1]):
                                        if (y[neighbour[e]] <= at) == forward:
                                            crossing += received[e]
                            if which == 0:
                                relief_s = crossing * seconds[slot]
                            else:
                                relief = crossing
                        change = (
                            max_term_cost(top, step_cost[chips], barrier_s[chips], mesh_s - relief_s, peak - relief)
                            - rest
                        )
                        possible = change <= step_limit
                if possible and looks_at_links:
                    looked += 1
                    n_dirty = 0
                    for turn in range(2):
                        v, z, x0, y0, x1, y1 = (w, o, xa, ya, xb, yb) if turn == 0 else (o, w, xb, yb, xa, ya)
                        if v < 0:
                            continue
                        for e in range(start[v], start[v + 1]):
                            m = neighbour[e]
                            xm, ym = x[m], y[m]
                            xn, yn = xm, ym
                            if m == z:
                                if turn == 1:
                                    continue
                                xn, yn = x0, y0
                            for way in range(4):
                                if way == 0:
                                    fx, fy, tx, ty, messages = x0, y0, xm, ym, -sent[e]
                                elif way == 1:
                                    fx, fy, tx, ty, messages = x1, y1, xn, yn, sent[e]
                                elif way == 2:
                                    fx, fy, tx, ty, messages = xm, ym, x0, y0, -received[e]
                                else:
                                    fx, fy, tx, ty, messages = xn, yn, x1, y1, received[e]
                                if messages == 0.0:
                                    continue
                                if is_mesh:
                                    if fx != tx:
                                        block, first, stop = along_x(fx, tx, fy, n_x, n_y)
                                        difference[first] += messages
                                        difference[stop] -= messages
                                        if not touched[block]:
                                            touched[block] = True
                                            dirty[n_dirty] = block
                                            n_dirty += 1
                                    if fy != ty:
                                        block, first, stop = along_y(fy, ty, tx, n_x, n_y)
                                        difference[first] += messages
                                        difference[stop] -= messages
                                        if not touched[block]:
                                            touched[block] = True
                                            dirty[n_dirty] = block
                                            n_dirty += 1
                                else:
                                    for j in range(piece_start[fx * n_x + tx], piece_start[fx * n_x + tx + 1]):
                                        difference[piece_first[j]] += messages
                                        difference[piece_stop[j]] -= messages
                                        if not touched[piece_block[j]]:
                                            touched[piece_block[j]] = True
                                            dirty[n_dirty] = piece_block[j]
                                            n_dirty += 1
                    new_s, new_peak, new_time_block, new_load_block = mesh_s, peak, time_block, load_block
                    if n_dirty > 0 and (touched[time_block] or touched[load_block]):
                        new_s, new_peak = 0.0, 0.0
                        for block in range(n_blocks):
                            if not touched[block]:
                                if block_time[block] > new_s:
                                    new_s, new_time_block = block_time[block], block
                                if block_load[block] > new_peak:
                                    new_peak, new_load_block = block_load[block], block
                    new_sum_s, new_sum_peak = sum_s, sum_peak
                    if not is_soft:
                        change = max_term_cost(top, step_cost[chips], barrier_s[chips], new_s, new_peak) - rest
                        possible = change <= step_limit
                    for k in range(n_dirty):
                        block = dirty[k]
                        touched[block] = False
                        end = block_start[block + 1] - 1
                        if not possible:  # so much is known already
                            for slot in range(block_start[block], end + 1):
                                difference[slot] = 0.0
                            continue
                        running, time, most = 0.0, 0.0, 0.0
                        for slot in range(block_start[block], end):
                            running += difference[slot]
                            difference[slot] = 0.0
                            change_of[slot] = running
                            was = load[slot]
                            loaded = was + running
                            if is_soft:
                                of_unit = seconds[slot] * unit_s
                                new_sum_s += _power(loaded * of_unit) - _power(was * of_unit)
                                new_sum_peak += _power(loaded * unit) - _power(was * unit)
                            if loaded > most:
                                most = loaded
                            if loaded * seconds[slot] > time:
                                time = loaded * seconds[slot]
                        difference[end] = 0.0
                        dirty_time[k], dirty_load[k] = time, most
                        if time > new_s or most > new_peak:
                            if time > new_s:
                                new_s, new_time_block = time, block
                            if most > new_peak:
                                new_peak, new_load_block = most, block
                            if not is_soft:
                                change = max_term_cost(top, step_cost[chips], barrier_s[chips], new_s, new_peak) - rest
                                possible = change <= step_limit
                    if is_soft:
                        soft_s = norm_s * max(new_sum_s, 0.0) ** (1.0 / NORM)
                        soft_peak = norm_peak * max(new_sum_peak, 0.0) ** (1.0 / NORM)
                        change = max_term_cost(top, step_cost[chips], barrier_s[chips], soft_s, soft_peak) - rest
                        possible = change <= step_limit
                    if possible:
                        sum_s, sum_peak = new_sum_s, new_sum_peak
                        mesh_s, peak, time_block, load_block = new_s, new_peak, new_time_block, new_load_block
                        for k in range(n_dirty):
                            block = dirty[k]
                            block_time[block], block_load[block] = dirty_time[k], dirty_load[k]
                            for slot in range(block_start[block], block_start[block + 1] - 1):
                                load[slot] += change_of[slot]
                        time_slot, load_slot = block_start[time_block], block_start[load_block]
                        for slot in range(block_start[time_block], block_start[time_block + 1] - 1):
                            if load[slot] * seconds[slot] > load[time_slot] * seconds[time_slot]:
                                time_slot = slot
                        for slot in range(block_start[load_block], block_start[load_block + 1] - 1):
                            if load[slot] > load[load_slot]:
                                load_slot = slot
                if possible:
                    judged += change
                    linear_now += linear
                    new_cost = judged
                    if is_soft:
                        new_cost = linear_now + chip_cost[chips]
                        new_cost += max_term_cost(top, step_cost[chips], barrier_s[chips], mesh_s, peak)
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
