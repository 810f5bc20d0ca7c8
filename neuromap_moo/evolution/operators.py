"""Variation operators of pymoo on genotypes, and the shares in which they are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.mutation import Mutation
from pymoo.core.repair import Repair
from pymoo.core.sampling import Sampling

from neuromap_moo.arrays import BoolArray, FloatArray, IntArray
from neuromap_moo.evolution.memetic import LocalSearch
from neuromap_moo.evolution.moves import MOVES, cross_blocks, cross_layers, mutate
from neuromap_moo.mapping.encoding import Genomes
from neuromap_moo.problem.problem import MappingProblem, baselines

#: Balanced partitions among the first mappings of a search.
N_BALANCED_SEEDS = 30

#: Share of a search's work that goes to annealing runs.
LOCAL_SHARE = 0.9


def operators(
    problem: MappingProblem, local_share: float = LOCAL_SHARE, first: IntArray | None = None
) -> dict[str, Any]:
    """Return fresh sampling, crossover, mutation, repair and eliminate_duplicates for a pymoo algorithm.

    The first population holds the genotypes `first`, the baselines, balanced partitions from fewest cores to all (in
    order and on random cores), and random genotypes.

    Parameters
    ----------
    problem
        the problem to be searched.
    local_share
        share of the work that goes to annealing runs, 0 to 0.99; 0 in effect in plain pymoo, which starts none.
    first
        (n, V) genotypes with which the first population begins.

    Returns
    -------
    keyword arguments of a pymoo algorithm.

    """
    encode = problem.encoding.encode
    balanced = [b.mapping for b in problem.balanced]
    spread = np.unique(np.linspace(0, len(balanced) - 1, N_BALANCED_SEEDS).round().astype(int))
    seeds = encode([*baselines(problem).values(), *(balanced[i] for i in spread)])
    if first is not None:
        seeds = np.concatenate([first, seeds])
    variation = Variation(local_share if problem.is_modelled else 0.0, seeds)
    return {
        "sampling": MappingSampling(seeds, encode(balanced)),
        "crossover": MappingCrossover(variation),
        "mutation": MappingMutation(variation),
        "repair": MappingRepair(),
        "eliminate_duplicates": MappingDuplicates(problem),
    }


#: Crossovers and mutations by name; see MappingCrossover and MappingMutation. What the memetic step makes is called
#: `anneal` and takes its share of the work apart.
CROSSOVERS = ("copy", "layer", "block")
PLACEMENT_MOVES = ("swap", "inversion", "scramble", "relieve")
MUTATIONS = (*MOVES, "anneal")
DRAWN = {"crossover": CROSSOVERS, "mutation": MOVES}
NOBODY = -1  # label of what no operator made


class MappingSampling(Sampling):
    """Initial genotypes: the given ones, then good partitions on random cores, then random genotypes.

    `seeds` (n, L + C) are taken as they are; `partitions` (p, L + C) give only their cores per layer, for half of the
    rest of the population.
    """

    def __init__(self, seeds: Genomes, partitions: Genomes) -> None:
        super().__init__()
        self.seeds = seeds
        self.partitions = partitions

    def _do(
        self, problem: MappingProblem, n_samples: int, *args: Any, random_state: Any = None, **kwargs: Any
    ) -> Genomes:
        seeds = self.seeds[:n_samples]
        drawn: Genomes = problem.encoding.random(n_samples - len(seeds), random_state)
        n_layers = problem.encoding.n_layers
        some = drawn[: len(drawn) // 2]
        some[:, :n_layers] = self.partitions[random_state.integers(len(self.partitions), size=len(some)), :n_layers]
        some[:, n_layers:] = random_state.permuted(some[:, n_layers:], axis=1)
        return np.concatenate([seeds, problem.encoding.repair_placement(drawn)])


class Variation:
    """What crossover and mutation of one search share: who made what lasts in the archive, and the memetic step.

    Operators are drawn in proportion to the members of the archive that each has made, plus one (the rule of the Borg
    MOEA, Hadka and Reed, Evolutionary Computation 21(2), 2013, equation 2). An operator that makes nothing lasting
    keeps a small share, and one whose mappings are driven out of the archive loses it again.
    """

    def __init__(self, local_share: float, pool: Genomes) -> None:
        self.local = LocalSearch(local_share, pool)
        self.made = {"crossover": np.zeros(len(CROSSOVERS)), "mutation": np.zeros(len(MUTATIONS))}

    def learn(self, archive_X: Genomes, archive_F: FloatArray, made_by: IntArray) -> None:
        """Take the archive after a generation: genotypes (n, V), minimised objectives (n, m) and labels (n, 2).

        Parameters
        ----------
        archive_X
            (n, V) genotypes.
        archive_F
            (n, m) minimised objectives.
        made_by
            (n, 2) labels: the crossover and the mutation that made each.

        """
        self.local.observe(archive_X, archive_F)
        for column, counts in enumerate(self.made.values()):
            labels = made_by[:, column]
            counts[:] = np.bincount(labels[labels >= 0], minlength=counts.size)

    def shares(self, kind: str, problem: MappingProblem) -> FloatArray:
        """Odds of the operators of one kind, crossover or mutation, as named in DRAWN.

        Moves that cannot change anything have none: a fixed partition leaves those of placement.
        """
        odds = self.made[kind][: len(DRAWN[kind])] + 1.0
        if kind == "mutation" and problem.encoding.has_fixed_partition:
            odds = odds * [move in PLACEMENT_MOVES for move in MOVES]
        return np.asarray(odds / odds.sum())


class MappingCrossover(Crossover):
    """Two parents, two children, by one of CROSSOVERS each.

    copy
        the parents as they are, left to mutation
    layer
        each layer takes its cores from one of the parents; cores on which both agree always stay, conflicts are
        filled from the other parent's cores for that layer, then from what is free
    block
        a neighbourhood of routers is filled as in one parent, the rest stays as in the other (a cohesive crossover
        after Drezner, INFORMS Journal on Computing 15(3), 2003, for the quadratic assignment problem)
    """

    def __init__(self, variation: Variation) -> None:
        super().__init__(2, 2, prob=1.0)
        self.variation = variation
        self._labels = np.empty(0, dtype=np.int64)

    def do(self, *args: Any, **kwargs: Any) -> Any:
        """Cross, and label each child with the operator that made it."""
        self._labels = np.empty(0, dtype=np.int64)
        children = super().do(*args, **kwargs)
        children.set("crossover", self._labels if self._labels.size else np.full(len(children), NOBODY))
        return children

    def _do(self, problem: MappingProblem, X: Genomes, *args: Any, random_state: Any = None, **kwargs: Any) -> Genomes:
        n = X.shape[1]
        kinds = random_state.choice(len(CROSSOVERS), size=n, p=self.variation.shares("crossover", problem))
        self._labels = np.tile(kinds, 2)
        children = np.array(X, dtype=np.int64)
        layer, block = np.flatnonzero(kinds == 1), np.flatnonzero(kinds == 2)
        if layer.size:
            children[:, layer] = cross_layers(problem.space, children[:, layer], random_state)
        if block.size:
            children[:, block] = cross_blocks(problem.space, children[:, block], random_state)
        return children


class MappingMutation(Mutation):
    """One of MUTATIONS on every genotype, and the memetic step: some rows are what annealing runs came to.

    swap, inversion, scramble
        exchange two cores (or move to a free one), reverse a segment of a layer's cores, shuffle one
    resize, shift
        give a layer cores or take some away, move cores from one layer to another
    relieve
        bring together two slices whose messages cross the busiest link
    rebalance
        give the slowest layer cores, or take some from another
    """

    def __init__(self, variation: Variation) -> None:
        super().__init__()
        self.variation = variation
        self._labels = np.empty(0, dtype=np.int64)

    def do(self, problem: MappingProblem, pop: Any, *args: Any, **kwargs: Any) -> Any:
        """Mutate, and label each genotype with the operator that made it."""
        mutated = super().do(problem, pop, *args, **kwargs)
        mutated.set("mutation", self._labels)
        annealed = self._labels == MUTATIONS.index("anneal")
        mutated[annealed].set("crossover", np.full(int(annealed.sum()), NOBODY))
        return mutated

    def _do(self, problem: MappingProblem, X: Genomes, *args: Any, random_state: Any = None, **kwargs: Any) -> Genomes:
        odds = self.variation.shares("mutation", problem)
        kinds = random_state.choice(len(odds), size=len(X), p=odds)
        mutated = mutate(problem.space, X, kinds, random_state)
        for row, genome in enumerate(self.variation.local.improve(problem, len(X), random_state)):
            mutated[row], kinds[row] = genome, MUTATIONS.index("anneal")
        self._labels = kinds
        return mutated


class MappingRepair(Repair):
    """Make whatever integers come in feasible (Encoding.repair)."""

    def _do(self, problem: MappingProblem, X: NDArray[Any], **kwargs: Any) -> Genomes:
        repaired: Genomes = problem.encoding.repair(X)
        return repaired


class MappingDuplicates(DuplicateElimination):
    """Genotypes that decode to the same mapping are duplicates."""

    def __init__(self, problem: MappingProblem) -> None:
        super().__init__()
        self.encoding = problem.encoding

    def _do(self, pop: Any, other: Any, is_duplicate: BoolArray) -> BoolArray:
        seen = set() if other is None else set(self.encoding.keys(other.get("X")))
        for i, key in enumerate(self.encoding.keys(pop.get("X"))):
            is_duplicate[i] = key in seen
            if other is None:
                seen.add(key)
        return is_duplicate
