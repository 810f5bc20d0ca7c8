"""Moves on genotypes, compiled over whole populations; every draw comes from the Generator handed in."""

from __future__ import annotations

import numpy as np
from numba import njit

from neuromap_moo.annealing.link_tables import LinkTables, along_x, along_y
from neuromap_moo.annealing.run import propose_resize
from neuromap_moo.annealing.space import SearchSpace
from neuromap_moo.annealing.tables import Cost, Neighbours, State, put
from neuromap_moo.arrays import BoolArray, FloatArray, IntArray
from neuromap_moo.mapping.encoding import Genomes, limit_counts, repartition

COMPILED_MOVES = ("swap", "inversion", "scramble", "resize", "shift")
MOVES = (*COMPILED_MOVES, "relieve", "rebalance")

BLOCK_SHARES = (0.1, 0.5)  # of all cores, that a block crossover fills
LONGEST_SEGMENT = 8
REPEAT = 0.3  # chance of one more move after each
STEP_SPREAD = 0.3  # of the logarithm of a layer's new size over its old one


def mutate(space: SearchSpace, X: Genomes, kinds: IntArray, rng: np.random.Generator) -> Genomes:
    """Return mutated copies of genotypes (n, L + C) by the moves `kinds` (n,), indices into MOVES.

    Parameters
    ----------
    space
        encoding, system and tables of one problem.
    X
        (n, L + C) genotypes, left as they are.
    kinds
        (n,) move of each, an index into MOVES.
    rng
        all random numbers come from it.

    Returns
    -------
    mutated copies (n, L + C), feasible.

    """
    encoding = space.encoding
    n_moves = np.where(kinds < len(COMPILED_MOVES), rng.geometric(1 - REPEAT, size=len(X)), 0)
    total = int(n_moves.sum())
    mutated = np.array(X, dtype=np.int64)
    apply_moves(
        mutated,
        n_moves,
        np.repeat(kinds, n_moves),
        rng.random((total, 4)),
        np.exp(np.abs(rng.normal(0.0, STEP_SPREAD, total))),
        rng.random((total, LONGEST_SEGMENT)),
        encoding.minimum,
        encoding.maximum,
        encoding.fits,
    )
    for row in np.flatnonzero(kinds >= len(COMPILED_MOVES)):
        k, place = encoding.split(mutated[row])
        if MOVES[kinds[row]] == "relieve":
            place = relieve(space, k, place, rng)
        else:
            k, place = propose_resize(space, k, place, rng) or (k, place)
        mutated[row] = encoding.join(k, place)
    settled: Genomes = encoding.repair_placement(mutated)
    return settled


def cross_layers(space: SearchSpace, parents: Genomes, rng: np.random.Generator) -> Genomes:
    """Cross parents (2, n, V) layer by layer; see MappingCrossover.

    Parameters
    ----------
    space
        encoding, system and tables of one problem.
    parents
        (2, n, V) genotypes.
    rng
        all random numbers come from it.

    Returns
    -------
    children (2, n, V), feasible.

    """
    e, n = space.encoding, parents.shape[1]
    take = rng.random((n, e.n_layers)) < 0.5
    order = rng.permuted(np.tile(np.arange(e.n_layers), (n, 1)), axis=1)
    free = rng.permuted(np.tile(np.arange(e.n_cores), (n, 1)), axis=1)
    sides = (False, True)
    return np.stack(
        [e.repair_placement(cross(parents, take == side, order, free, e.minimum, e.fits)) for side in sides]
    )


def cross_blocks(space: SearchSpace, parents: Genomes, rng: np.random.Generator) -> Genomes:
    """Cross parents (2, n, V) by neighbourhoods of routers; see MappingCrossover.

    Parameters
    ----------
    space
        encoding, system and tables of one problem.
    parents
        (2, n, V) genotypes.
    rng
        all random numbers come from it.

    Returns
    -------
    children (2, n, V), feasible.

    """
    e, links, n = space.encoding, space.cache.links, parents.shape[1]
    children = parents.copy()
    shares = rng.uniform(*BLOCK_SHARES, size=(n,))
    sizes = np.maximum(1, (shares * e.n_cores).astype(int))
    for i, centre in enumerate(rng.integers(e.n_cores, size=(n,)).tolist()):
        away = space.system.hops[links.router[centre], links.router] + rng.random(e.n_cores)
        block = np.argsort(away)[: sizes[i]]
        fill_block(children[0, i], parents[1, i], block, e.minimum)
        fill_block(children[1, i], parents[0, i], block, e.minimum)
    for side in children:
        e.repair_placement(side)
    return children


def relieve(space: SearchSpace, cores_per_layer: IntArray, place: IntArray, rng: np.random.Generator) -> IntArray:
    """Return places (S,) where one end of a message over the busiest link has come near the other end.

    Parameters
    ----------
    space
        encoding, system and tables of one problem.
    cores_per_layer
        (L,) of the mapping.
    place
        (S,) of the mapping, left as it is.
    rng
        all random numbers come from it.

    """
    cache = space.cache
    partition = cache.partition_tables(cores_per_layer)
    state = cache.borrow_state(place.size)
    s, b = busiest_pair(cache.links, partition.neighbours, cache.unpriced(partition), state, place, rng.random(4))
    if s >= 0:
        place = place.copy()
        other = np.flatnonzero(place == b)
        place[other], place[s] = place[s], b
    cache.give_back(state)
    return place


@njit(cache=True, nogil=True)
def cross(
    parents: IntArray,
    from_first: BoolArray,
    layer_order: IntArray,
    free_order: IntArray,
    minimum: IntArray,
    fits: BoolArray,
) -> IntArray:
    """Cross parents (2, n, L + C) to n children; `from_first` (n, L) says which parent gives each layer.

    Layers claim their cores in `layer_order` (n, L); `free_order` (n, C) is the order in which free cores fill gaps.

    Parameters
    ----------
    parents
        (2, n, L + C) genotypes.
    from_first
        (n, L) the first parent gives that layer, else the second.
    layer_order
        (n, L) order in which layers claim their cores.
    free_order
        (n, C) order in which free cores fill gaps.
    minimum
        (L,) fewest cores of each layer.
    fits
        (L, C + 1) which numbers of cores fit.

    Returns
    -------
    children (n, L + C).

    """
    n, width = parents.shape[1], parents.shape[2]
    n_layers = minimum.size
    n_cores = width - n_layers
    children = np.empty((n, width), dtype=np.int64)
    k = np.empty((2, n_layers), dtype=np.int64)
    start = np.empty((2, n_layers), dtype=np.int64)
    taken = np.empty(n_cores, dtype=np.bool_)
    for i in range(n):
        for p in range(2):
            at = n_layers
            for layer in range(n_layers):
                k[p, layer] = minimum[layer] + parents[p, i, layer]
                start[p, layer] = at
                at += k[p, layer]
        child = children[i]
        counts = np.empty(n_layers, dtype=np.int64)
        for layer in range(n_layers):
            counts[layer] = k[0 if from_first[i, layer] else 1, layer]
        limit_counts(counts, minimum, fits)
        child[:n_layers] = counts - minimum
        order = child[n_layers:]
        order[:] = -1
        taken[:] = False
        # First what the chosen parent says, then what the other one says, then anything free.
        for turn in range(2):
            for layer in layer_order[i]:
                p = 0 if from_first[i, layer] == (turn == 0) else 1
                first = counts[:layer].sum()
                given = 0
                for j in range(counts[layer]):
                    if order[first + j] >= 0:
                        continue
                    if turn == 0:
                        if j < k[p, layer]:
                            core = parents[p, i, start[p, layer] + j]
                            if not taken[core]:
                                order[first + j] = core
                                taken[core] = True
                    else:
                        while given < k[p, layer] and taken[parents[p, i, start[p, layer] + given]]:
                            given += 1
                        if given < k[p, layer]:
                            core = parents[p, i, start[p, layer] + given]
                            order[first + j] = core
                            taken[core] = True
        at = 0
        for j in range(n_cores):
            if order[j] < 0:
                while taken[free_order[i, at]]:
                    at += 1
                order[j] = free_order[i, at]
                at += 1
    return children


@njit(cache=True, nogil=True)
def apply_moves(
    X: IntArray,
    n_moves: IntArray,
    moves: IntArray,
    draws: FloatArray,
    factors: FloatArray,
    sort_keys: FloatArray,
    minimum: IntArray,
    maximum: IntArray,
    fits: BoolArray,
) -> None:
    """Apply `n_moves[i]` of the moves (indices into MOVES) to row i, in place.

    `draws` (m, 4) and `sort_keys` (m, longest segment) are uniform in [0, 1); `factors` (m,) >= 1 are how much a
    layer grows or shrinks.

    Parameters
    ----------
    X
        (n, L + C) genotypes, changed in place.
    n_moves
        (n,) moves of each; m in all.
    moves
        (m,) indices into MOVES, COMPILED_MOVES alone.
    draws
        (m, 4) uniform in [0, 1).
    factors
        (m,) at least 1, by which a layer grows or shrinks.
    sort_keys
        (m, longest segment) uniform in [0, 1).
    minimum
        (L,) fewest cores of each layer.
    maximum
        (L,) most cores of each layer.
    fits
        (L, C + 1) which numbers of cores fit.

    """
    n_layers = minimum.size
    n_cores = X.shape[1] - n_layers
    at = 0
    for row in range(X.shape[0]):
        order = X[row, n_layers:]
        old = minimum + X[row, :n_layers]
        for _ in range(n_moves[row]):
            move = moves[at]
            u = draws[at]
            used = old.sum()
            if move == 0:
                i = int(u[0] * used)
                j = int(u[1] * n_cores)
                order[i], order[j] = order[j], order[i]
            elif move <= 2:
                length = min(2 + int(u[1] * (sort_keys.shape[1] - 1)), n_cores)
                first = min(int(u[0] * used), n_cores - length)
                segment = order[first : first + length].copy()
                if move == 1:
                    order[first : first + length] = segment[::-1]
                else:
                    order[first : first + length] = segment[np.argsort(sort_keys[at, :length])]
            else:
                new = old.copy()
                layer = int(u[0] * n_layers)
                if move == 4 and used > minimum.sum():
                    while old[layer] == minimum[layer]:  # only a layer with a surplus can give
                        layer = (layer + 1) % n_layers
                grown = max(old[layer] + 1, round(old[layer] * factors[at]))
                shrunk = min(old[layer] - 1, round(old[layer] / factors[at]))
                if move == 3:
                    new[layer] = grown if u[1] < 0.5 or old[layer] == minimum[layer] else shrunk
                else:
                    # Shift: what one layer gives up another one gets.
                    other = (layer + 1 + int(u[2] * (n_layers - 1))) % n_layers
                    given = min(old[layer] - shrunk, old[layer] - minimum[layer])
                    new[layer] -= given
                    new[other] += given
                for i in range(n_layers):
                    new[i] = min(max(new[i], minimum[i]), maximum[i])
                limit_counts(new, minimum, fits)
                repartition(order, old, new)
                old = new
            at += 1
        X[row, :n_layers] = old - minimum


@njit(cache=True, nogil=True)
def fill_block(child: IntArray, parent: IntArray, block: IntArray, minimum: IntArray) -> None:
    """Fill the places of `block` in a child as they are in a parent, by exchanges; the child keeps its partition.

    A slice is the same in both where layer and number are; what the parent has and the child has not is left out.

    Parameters
    ----------
    child
        (L + C,) genotype, changed in place.
    parent
        (L + C,) genotype to copy from.
    block
        places to fill.
    minimum
        (L,) fewest cores of each layer.

    """
    n_layers = minimum.size
    child_order, parent_order = child[n_layers:], parent[n_layers:]
    n_cores = child_order.size
    # Position in the child's order of what the parent has at each place, -1 for nothing.
    wanted = np.full(n_cores, -1, dtype=np.int64)
    at_child, at_parent = 0, 0
    for layer in range(n_layers):
        of_child, of_parent = minimum[layer] + child[layer], minimum[layer] + parent[layer]
        for j in range(min(of_child, of_parent)):
            wanted[parent_order[at_parent + j]] = at_child + j
        at_child += of_child
        at_parent += of_parent
    position = np.empty(n_cores, dtype=np.int64)
    for i in range(n_cores):
        position[child_order[i]] = i
    for place in block:
        i = wanted[place]
        j = position[place]
        if i >= 0 and i != j:
            other = child_order[i]
            child_order[i], child_order[j] = place, other
            position[place], position[other] = i, j


@njit(cache=True, nogil=True)
def passes_link(links: LinkTables, state: State, sender: int, receiver: int, slot: int) -> bool:
    """Tell whether messages of one slice to another take a link.

    Parameters
    ----------
    links
        tables of the system.
    state
        where slices are.
    sender
        slice.
    receiver
        slice.
    slot
        of the link.

    """
    xa, ya, xb, yb = state.x[sender], state.y[sender], state.x[receiver], state.y[receiver]
    n_x, n_y = links.hops_x.shape[0], links.hops_y.shape[0]
    if links.is_mesh:
        _, first, stop = along_x(xa, xb, ya, n_x, n_y)
        _, then, end = along_y(ya, yb, xb, n_x, n_y)
        return bool(first <= slot < stop or then <= slot < end)
    for j in range(links.piece_start[xa * n_x + xb], links.piece_start[xa * n_x + xb + 1]):
        if links.piece_first[j] <= slot < links.piece_stop[j]:
            return True
    return False


@njit(cache=True, nogil=True)
def busiest_pair(
    links: LinkTables, neighbours: Neighbours, cost: Cost, state: State, place: IntArray, draws: FloatArray
) -> tuple[int, int]:
    """Draw a message over the busiest link, by its weight, one of its ends, and a place near the other end.

    Returns slice and place, or (-1, -1) where no link is used. `draws` (4,) are uniform in [0, 1).

    Parameters
    ----------
    links
        tables of the system.
    neighbours
        neighbour lists of the partition.
    cost
        that looks at links.
    state
        scratch, filled with the placement.
    place
        (S,) places of the slices.
    draws
        (4,) uniform in [0, 1).

    Returns
    -------
    slice and place, or (-1, -1) where no link is used.

    """
    put(links, neighbours, cost, state, place)
    busiest = int((state.load * links.seconds).argmax())
    if state.load[busiest] <= 0.0:
        return -1, -1
    left = draws[0] * state.load[busiest]
    sender, receiver = -1, -1
    for s in range(place.size):
        for e in range(neighbours.start[s], neighbours.start[s + 1]):
            if (
                neighbours.sent[e] > 0.0
                and left >= 0.0
                and passes_link(links, state, s, neighbours.neighbour[e], busiest)
            ):
                left -= neighbours.sent[e]
                sender, receiver = s, neighbours.neighbour[e]
    moved, kept = (sender, receiver) if draws[1] < 0.5 else (receiver, sender)
    near = links.near[links.router[place[kept]]]
    r = near[int(draws[2] * near.size)]
    first = links.first_place[r]
    return moved, links.places[first + int(draws[3] * (links.first_place[r + 1] - first))]
