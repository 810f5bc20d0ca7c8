"""Annealing of mappings on incremental moves: placement and partition, towards any mix of the objectives.

The cost of a run is the weighted sum of the objectives by the analytic model's own terms with messages per core,
exactly. Where another model judges mappings (copies per route, the packet-level evaluator), results are proposals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuromap_moo.annealing import tables
from neuromap_moo.annealing.metropolis import NO_MOVES, walk
from neuromap_moo.annealing.space import Scalarisation, SearchSpace
from neuromap_moo.arrays import IntArray

#: Random exchanges that tell how much a move changes.
SAMPLES = 32

#: Placement moves between two proposals of another partition.
ROUND = 1000

#: Part of a run, the hotter one, through which moves are judged by norms over all links; then the busiest link counts.
SOFT_PART = 0.6

#: Last temperature of a run, as a share of the mean change by a random exchange.
COLD = 3e-4


@dataclass
class AnnealingRun:
    """An annealing run on its way: where it stands, and the best it has met.

    It can be broken off between two calls of `advance` and pickled.
    """

    scalarisation: Scalarisation
    cores_per_layer: IntArray  # (L,)
    place: IntArray  # (S,) positions in System.usable_cores
    total: int  # moves
    first_temperature: float
    last_temperature: float
    best: tuple[IntArray, IntArray]  # cores_per_layer and place
    best_cost: float
    done: int = 0

    @property
    def ended(self) -> bool:
        """True once all its moves are made."""
        return self.done >= self.total


def cost_of(space: SearchSpace, scalarisation: Scalarisation, genome: IntArray) -> float:
    """Return what a genotype costs under a scalarisation.

    Parameters
    ----------
    space
        encoding, system and tables of one problem.
    scalarisation
        weights of the objectives.
    genome
        (V,) genotype, feasible.

    """
    cache = space.cache
    k, place = space.encoding.split(genome)
    partition = cache.partition_tables(k)
    state = cache.borrow_state(place.size)
    tables.put(cache.links, partition.neighbours, cache.cost(partition, scalarisation), state, place)
    cache.give_back(state)
    return float(state.sums[tables.COST])


def start_run(
    space: SearchSpace,
    scalarisation: Scalarisation,
    genome: IntArray,
    total: int,
    heat: float,
    rng: np.random.Generator,
) -> AnnealingRun:
    """Begin a run of annealing moves at a genotype.

    Parameters
    ----------
    space
        encoding, system and tables of one problem.
    scalarisation
        what the run minimises.
    genome
        (V,) genotype to start from, feasible.
    total
        moves of the whole run.
    heat
        first temperature, as a share of the mean change of cost by a random exchange.
    rng
        all random numbers come from it.

    """
    cache = space.cache
    k, place = space.encoding.split(genome)
    partition = cache.partition_tables(k)
    cost = cache.cost(partition, scalarisation)
    state = cache.borrow_state(place.size)
    tables.put(cache.links, partition.neighbours, cost, state, place)
    start = float(state.sums[tables.COST])
    walked = np.empty_like(place)
    changes = np.empty(SAMPLES)
    exchanges = np.stack([rng.integers(place.size, size=SAMPLES), rng.integers(state.slice_at.size, size=SAMPLES)], 1)
    before = start
    for i in range(SAMPLES):
        walk(rng, cache.links, partition.neighbours, cost, state, 1, 1.0, 1.0, exchanges[i : i + 1], walked)
        changes[i] = abs(state.sums[tables.COST] - before)
        before = state.sums[tables.COST]
    cache.give_back(state)
    spread = float(changes.mean()) or 1.0
    return AnnealingRun(scalarisation, k, place, total, spread * heat, spread * COLD, (k, place), start)


def advance(space: SearchSpace, run: AnnealingRun, n_moves: int, rng: np.random.Generator) -> tuple[int, int]:
    """Make more moves of a run, or what is left of it.

    After every ROUND placement moves it proposes another partition, by the same Metropolis rule.

    Parameters
    ----------
    space
        encoding, system and tables of one problem.
    run
        changed in place.
    n_moves
        moves to make; a run of slices counts each, so there can be a few more.
    rng
        all random numbers come from it.

    Returns
    -------
    moves made, and those of them that looked at links.

    """
    cache, links = space.cache, space.cache.links
    partition = cache.partition_tables(run.cores_per_layer)
    cost = cache.cost(partition, run.scalarisation)
    state = cache.borrow_state(run.place.size)
    tables.put(links, partition.neighbours, cost, state, run.place)
    cooling = (run.last_temperature / run.first_temperature) ** (1.0 / run.total)
    fixed = space.encoding.has_fixed_partition
    in_rounds = not fixed or (run.scalarisation.is_soft and cost.looks_at_links)
    n_moves = min(n_moves, run.total - run.done)
    made = looked = 0
    walked = np.empty_like(run.place)
    while made < n_moves:
        n = min(n_moves - made, ROUND) if in_rounds else n_moves - made
        temperature = run.first_temperature * cooling ** (run.done + made)
        cost = cost._replace(is_soft=run.scalarisation.is_soft and run.done + made < SOFT_PART * run.total)
        done, seen, best = walk(
            rng, links, partition.neighbours, cost, state, n, temperature, temperature * cooling**n, NO_MOVES, walked
        )
        made += done
        looked += seen
        if best < run.best_cost:
            run.best, run.best_cost = (partition.cores_per_layer, walked.copy()), best
        proposal = None if fixed else propose_resize(space, partition.cores_per_layer, state.place, rng)
        if proposal is not None:
            k, place = proposal
            made += 1
            new_partition = cache.partition_tables(k)
            new_cost = cache.cost(new_partition, run.scalarisation)
            new = cache.borrow_state(place.size)
            changed = k != partition.cores_per_layer
            if cache.legality is not None:
                changed = cache.legality.rows_of_layers(changed)
            tables.resize_layers(
                links, partition.neighbours, cost, state, new_partition.neighbours, new_cost, new, place, changed
            )
            if new.sums[tables.COST] - state.sums[tables.COST] <= -temperature * np.log(1.0 - rng.random()):
                state, new, partition, cost = new, state, new_partition, new_cost
                walked = np.empty_like(place)
                if state.sums[tables.COST] < run.best_cost:
                    run.best, run.best_cost = (k, place), float(state.sums[tables.COST])
            cache.give_back(new)
    run.done += made
    run.cores_per_layer, run.place = partition.cores_per_layer, state.place.copy()
    cache.give_back(state)
    return made, looked


def propose_resize(
    space: SearchSpace, cores_per_layer: IntArray, place: IntArray, rng: np.random.Generator
) -> tuple[IntArray, IntArray] | None:
    """Take cores from one layer, give some to another, or both; all other slices stay where they are.

    The layer that gets cores is the slowest in half of the calls; new slices come near one of its own.

    Parameters
    ----------
    space
        encoding, system and tables of one problem.
    cores_per_layer
        (L,) of the mapping as it is.
    place
        (S,) of the mapping as it is.
    rng
        all random numbers come from it.

    Returns
    -------
    cores per layer (L,) and places (S,), or None where the layers drawn cannot change.

    """
    e, legality = space.encoding, space.cache.legality
    k = cores_per_layer.copy()
    before = np.split(place, np.cumsum(k)[:-1])
    parts = list(before)
    takes, gives = ((True, False), (False, True), (True, True))[rng.integers(3)]
    taker = giver = -1
    if takes:
        can_give = np.flatnonzero(k > e.minimum)
        if not can_give.size:
            return None
        giver = int(rng.choice(can_give))
        k[giver] = np.flatnonzero(e.fits[giver, : k[giver]])[-1]
        parts[giver] = parts[giver][np.sort(rng.permutation(parts[giver].size)[: k[giver]])]
    if gives:
        taker = space.cache.slowest_layer(k) if rng.random() < 0.5 else int(rng.integers(k.size))
        larger = np.flatnonzero(e.fits[taker, k[taker] + 1 :])
        if taker == giver or not larger.size:
            return None
        k[taker] += larger[0] + 1
        free = np.setdiff1d(np.arange(e.n_cores), np.concatenate(parts))
        if legality is not None:
            free = free[legality.open_to(taker, parts[taker])[free]]
        lacking = k[taker] - parts[taker].size
        if free.size < lacking:
            return None
        links = space.cache.links
        own = links.router[rng.choice(parts[taker])]
        away = space.system.hops[own, links.router[free]] + rng.random(free.size)
        parts[taker] = np.concatenate([parts[taker], free[np.argsort(away)[:lacking]]])
    proposed = k, np.concatenate(parts)
    if legality is None or legality.legal(*proposed):
        return proposed
    # A fixed slice has come to another number than its own.
    k, settled = legality.settled(*proposed)
    after = np.split(settled, np.cumsum(k)[:-1])
    others = np.flatnonzero(k == cores_per_layer)
    return (k, settled) if all(np.array_equal(before[i], after[i]) for i in others) else None
