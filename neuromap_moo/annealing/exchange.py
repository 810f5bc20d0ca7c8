"""The parts of a walk: what one proposal is, and what it does to sums over messages and to link loads.

A call that hands over arrays costs more here than the work that it does, so the compiler writes these functions into
`metropolis.walk` (numba's `inline`). Even so every array handed over is counted, so none of them calls another in a
loop over messages: that doubled the time of a move. Numba does not see when this file changes: clear its cache then.

Arguments are fields of LinkTables, Neighbours, Cost and State, named as there. Slice w moves from place a, on a router
at (xa, ya), to place b at (xb, yb); slice o, which sits there, comes back the other way (-1: the place is free).
"""

from __future__ import annotations

from numba import njit

from neuromap_moo.annealing.link_tables import along_x, along_y
from neuromap_moo.arrays import BoolArray, FloatArray, IndexArray, IntArray

LONGEST_RUN = 8  # slices that one block move carries
BLOCK_SHARE = 0.01  # of the proposals; each costs as much as a dozen others
DIRECTED_SHARE = 0.5  # go next to a slice that the moved one talks to
NORM = 16  # p of the norm over links


@njit(cache=True, nogil=True)
def power(x: float) -> float:
    """Raise to the power NORM."""
    x *= x
    x *= x
    x *= x
    return x * x


@njit(inline="always")
def propose(
    u: FloatArray,
    n_places: int,
    start: IntArray,
    neighbour: IntArray,
    place: IntArray,
    router: IntArray,
    near: IntArray,
    first_place: IntArray,
    places: IntArray,
) -> tuple[int, int, int, int]:
    """Draw a proposal from uniform numbers (DRAWS,): length, s, other, b; see `walk`."""
    n = place.size
    length, s, other, b = 1, 0, -1, 0
    if u[1] < BLOCK_SHARE and n > 3:
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
            r = near[router[place[partner]], int(u[4] * near.shape[1])]
            b = places[first_place[r] + int(u[5] * (first_place[r + 1] - first_place[r]))]
        else:
            b = int(u[3] * n_places)
    return length, s, other, b


@njit(inline="always")
def is_allowed(row_w: int, row_o: int, a: int, b: int, leaves_chip: bool, allowed: BoolArray, stays: BoolArray) -> bool:
    """Tell whether a slice of row_w may go from place a to b, and one of row_o (-1: none) from b to a."""
    if not allowed[row_w, b] or (row_o >= 0 and not allowed[row_o, a]):
        return False
    return not (leaves_chip and (stays[row_w] or (row_o >= 0 and stays[row_o])))


@njit(inline="always")
def link_norm_sums(load: FloatArray, seconds: FloatArray, unit_s: float, unit: float) -> tuple[float, float]:
    """Sum the powers of all link times and of all loads, in the units given (1 / s and 1 / messages)."""
    sum_s, sum_peak = 0.0, 0.0
    for slot in range(load.size):
        sum_s += power(load[slot] * seconds[slot] * unit_s)
        sum_peak += power(load[slot] * unit)
    return sum_s, sum_peak


@njit(inline="always")
def change_both_ways(
    w: int,
    o: int,
    xa: int,
    ya: int,
    xb: int,
    yb: int,
    x: IntArray,
    y: IntArray,
    start: IntArray,
    neighbour: IntArray,
    sent: FloatArray,
    received: FloatArray,
    pair_x: FloatArray,
    pair_y: FloatArray,
    n_x: int,
    n_y: int,
) -> float:
    """Change of the sum over messages when w goes from a to b and o from b to a, where ways there and back differ."""
    linear = 0.0
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
    return linear


@njit(inline="always")
def add_chip_crossings(
    linear: float,
    per_crossing: float,
    w: int,
    o: int,
    ca: int,
    cb: int,
    start: IntArray,
    neighbour: IntArray,
    both: FloatArray,
    place: IntArray,
    router: IntArray,
    chip: IntArray,
) -> float:
    """Add to `linear` what messages between chips cost more when w goes from chip ca to cb and o from cb to ca."""
    for turn in range(2):
        v, z, c0, c1 = (w, o, ca, cb) if turn == 0 else (o, w, cb, ca)
        if v >= 0:
            for e in range(start[v], start[v + 1]):
                m = neighbour[e]
                if m != z:
                    c = chip[router[place[m]]]
                    linear += per_crossing * both[e] * ((c != c1) - (c != c0) + 0.0)
    return linear


@njit(inline="always")
def messages_over(
    slot: int,
    block: int,
    w: int,
    o: int,
    xa: int,
    ya: int,
    xb: int,
    yb: int,
    x: IntArray,
    y: IntArray,
    start: IntArray,
    neighbour: IntArray,
    sent: FloatArray,
    received: FloatArray,
    is_mesh: bool,
    n_x: int,
    n_y: int,
    block_start: IntArray,
    piece_start: IndexArray,
    piece_first: IndexArray,
    piece_stop: IndexArray,
) -> float:
    """Messages over the link `slot` of `block` that w, from (xa, ya), and o, from (xb, yb), send and receive."""
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
    return crossing


@njit(inline="always")
def reroute(
    w: int,
    o: int,
    xa: int,
    ya: int,
    xb: int,
    yb: int,
    x: IntArray,
    y: IntArray,
    start: IntArray,
    neighbour: IntArray,
    sent: FloatArray,
    received: FloatArray,
    is_mesh: bool,
    n_x: int,
    n_y: int,
    piece_start: IndexArray,
    piece_first: IndexArray,
    piece_stop: IndexArray,
    piece_block: IndexArray,
    difference: FloatArray,
    touched: BoolArray,
    dirty: IntArray,
) -> int:
    """Put into `difference` what links carry more when w goes from a to b and o from b to a.

    `dirty` takes the touched blocks; returns how many there are.
    """
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
    return n_dirty


@njit(inline="always")
def untouched_maxima(
    touched: BoolArray, block_time: FloatArray, block_load: FloatArray, time_block: int, load_block: int
) -> tuple[float, float, int, int]:
    """Largest link time and load of all untouched blocks, and where they are; the blocks given where there is none."""
    most_s, peak = 0.0, 0.0
    for block in range(touched.size):
        if not touched[block]:
            if block_time[block] > most_s:
                most_s, time_block = block_time[block], block
            if block_load[block] > peak:
                peak, load_block = block_load[block], block
    return most_s, peak, time_block, load_block


@njit(inline="always")
def sum_block(
    first: int,
    end: int,
    difference: FloatArray,
    change_of: FloatArray,
    load: FloatArray,
    seconds: FloatArray,
    is_soft: bool,
    unit_s: float,
    unit: float,
    sum_s: float,
    sum_peak: float,
) -> tuple[float, float, float, float]:
    """Turn the `difference` of one block, slots first..end, into `change_of`, and leave it zero.

    Returns the block's new largest link time and load and, where the cost is soft, the norms' sums brought up to date.
    """
    running, time, most = 0.0, 0.0, 0.0
    for slot in range(first, end):
        running += difference[slot]
        difference[slot] = 0.0
        change_of[slot] = running
        was = load[slot]
        loaded = was + running
        if is_soft:
            of_unit = seconds[slot] * unit_s
            sum_s += power(loaded * of_unit) - power(was * of_unit)
            sum_peak += power(loaded * unit) - power(was * unit)
        if loaded > most:
            most = loaded
        if loaded * seconds[slot] > time:
            time = loaded * seconds[slot]
    difference[end] = 0.0
    return time, most, sum_s, sum_peak


@njit(inline="always")
def add_loads(
    dirty: IntArray,
    n_dirty: int,
    dirty_time: FloatArray,
    dirty_load: FloatArray,
    block_time: FloatArray,
    block_load: FloatArray,
    block_start: IntArray,
    load: FloatArray,
    change_of: FloatArray,
) -> None:
    """Make the change of loads in the touched blocks that was looked at."""
    for k in range(n_dirty):
        block = dirty[k]
        block_time[block], block_load[block] = dirty_time[k], dirty_load[k]
        for slot in range(block_start[block], block_start[block + 1] - 1):
            load[slot] += change_of[slot]


@njit(inline="always")
def busiest_slots(
    time_block: int, load_block: int, block_start: IntArray, load: FloatArray, seconds: FloatArray
) -> tuple[int, int]:
    """Slots of the largest link time in one block and of the largest load in the other; the first of several."""
    time_slot, load_slot = block_start[time_block], block_start[load_block]
    for slot in range(block_start[time_block], block_start[time_block + 1] - 1):
        if load[slot] * seconds[slot] > load[time_slot] * seconds[time_slot]:
            time_slot = slot
    for slot in range(block_start[load_block], block_start[load_block + 1] - 1):
        if load[slot] > load[load_slot]:
            load_slot = slot
    return time_slot, load_slot
