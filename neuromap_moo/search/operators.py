"""Variation operators on genotypes, compiled over whole populations; every draw comes from the Generator handed in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.mutation import Mutation
from pymoo.core.repair import Repair
from pymoo.core.sampling import Sampling

from neuromap_moo.search.encoding import Genomes, limit_counts, repartition

#: Moves of the mutation, in the order of its shares: exchange two cores (or move to a free one), reverse a segment,
#: shuffle a segment, resize a layer, shift cores from one layer to another.
MOVES = ("swap", "inversion", "scramble", "resize", "shift")
SHARES = (0.45, 0.05, 0.05, 0.25, 0.20)
LONGEST_SEGMENT = 8
REPEAT = 0.3  # chance of one more move after each
STEP_SPREAD = 0.3  # of the logarithm of a layer's new size over its old one


class MappingSampling(Sampling):
    """Initial genotypes: the given ones, then good partitions on random cores, then random genotypes.

    `seeds` (n, L + C) are taken as they are; `partitions` (p, L + C) give only their cores per layer, for half of the
    rest of the population.
    """

    def __init__(self, seeds: Genomes, partitions: Genomes) -> None:
        super().__init__()
        self.seeds = seeds
        self.partitions = partitions

    def _do(self, problem: Any, n_samples: int, *args: Any, random_state: Any = None, **kwargs: Any) -> Genomes:
        seeds = self.seeds[:n_samples]
        drawn: Genomes = problem.encoding.random(n_samples - len(seeds), random_state)
        n_layers = problem.encoding.n_layers
        some = drawn[: len(drawn) // 2]
        some[:, :n_layers] = self.partitions[random_state.integers(len(self.partitions), size=len(some)), :n_layers]
        some[:, n_layers:] = random_state.permuted(some[:, n_layers:], axis=1)
        return np.concatenate([seeds, drawn])


class LayerCrossover(Crossover):
    """Each layer takes its cores from one of two parents; conflicts are filled from what is free.

    Cores on which both parents agree always stay. A slice that loses its core to another layer takes one that the
    other parent gave to its layer, or else a random free one.
    """

    def __init__(self, prob: float = 0.9) -> None:
        super().__init__(2, 2, prob=prob)

    def _do(self, problem: Any, X: Genomes, *args: Any, random_state: Any = None, **kwargs: Any) -> Genomes:
        e = problem.encoding
        take = random_state.random((X.shape[1], e.n_layers)) < 0.5
        order = random_state.permuted(np.tile(np.arange(e.n_layers), (X.shape[1], 1)), axis=1)
        free = random_state.permuted(np.tile(np.arange(e.n_cores), (X.shape[1], 1)), axis=1)
        parents = np.ascontiguousarray(X, dtype=np.int64)
        return np.stack([cross(parents, take == side, order, free, e.minimum, e.fits) for side in (False, True)])


class MappingMutation(Mutation):
    """A few small moves of placement or partition (see MOVES) on every genotype."""

    def _do(self, problem: Any, X: Genomes, *args: Any, random_state: Any = None, **kwargs: Any) -> Genomes:
        return mutate(problem.encoding, X, np.array(SHARES), random_state)


class MappingRepair(Repair):
    """Make whatever integers come in feasible (Encoding.repair)."""

    def _do(self, problem: Any, X: NDArray[Any], **kwargs: Any) -> Genomes:
        repaired: Genomes = problem.encoding.repair(X)
        return repaired


class MappingDuplicates(DuplicateElimination):
    """Genotypes that decode to the same mapping are duplicates."""

    def __init__(self, problem: Any) -> None:
        super().__init__()
        self.encoding = problem.encoding

    def _do(self, pop: Any, other: Any, is_duplicate: NDArray[np.bool_]) -> NDArray[np.bool_]:
        seen = set() if other is None else set(self.encoding.keys(other.get("X")))
        for i, key in enumerate(self.encoding.keys(pop.get("X"))):
            is_duplicate[i] = key in seen
            if other is None:
                seen.add(key)
        return is_duplicate


def mutate(encoding: Any, X: Genomes, shares: NDArray[np.float64], rng: np.random.Generator) -> Genomes:
    """Return mutated copies of genotypes (n, L + C); `shares` are the odds of MOVES."""
    shares = shares.copy()
    if encoding.has_fixed_partition:
        shares[[MOVES.index("resize"), MOVES.index("shift")]] = 0.0
    n_moves = rng.geometric(1 - REPEAT, size=len(X))
    total = int(n_moves.sum())
    moves = rng.choice(len(MOVES), size=total, p=shares / shares.sum())
    mutated = np.array(X, dtype=np.int64)
    apply_moves(
        mutated,
        n_moves,
        moves,
        rng.random((total, 4)),
        np.exp(np.abs(rng.normal(0.0, STEP_SPREAD, total))),
        rng.random((total, LONGEST_SEGMENT)),
        encoding.minimum,
        encoding.maximum,
        encoding.fits,
    )
    return mutated


@njit(cache=True, nogil=True)
def cross(
    parents: NDArray[np.int64],
    from_first: NDArray[np.bool_],
    layer_order: NDArray[np.int64],
    free_order: NDArray[np.int64],
    minimum: NDArray[np.int64],
    fits: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Cross parents (2, n, L + C) to n children; `from_first` (n, L) says which parent gives each layer.

    Layers claim their cores in `layer_order` (n, L); `free_order` (n, C) is the order in which free cores fill gaps.
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
    X: NDArray[np.int64],
    n_moves: NDArray[np.int64],
    moves: NDArray[np.int64],
    draws: NDArray[np.float64],
    factors: NDArray[np.float64],
    sort_keys: NDArray[np.float64],
    minimum: NDArray[np.int64],
    maximum: NDArray[np.int64],
    fits: NDArray[np.bool_],
) -> None:
    """Apply `n_moves[i]` of the moves (indices into MOVES) to row i, in place.

    `draws` (m, 4) and `sort_keys` (m, longest segment) are uniform in [0, 1); `factors` (m,) >= 1 are how much a
    layer grows or shrinks.
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
