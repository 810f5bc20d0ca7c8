"""Search algorithms by name, each a pymoo Algorithm that is asked for mappings and told their objectives."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import moocore
import numpy as np
from pymoo.algorithms.moo.age2 import AGEMOEA2
from pymoo.algorithms.moo.moead import ParallelMOEAD
from pymoo.algorithms.moo.nsga2 import NSGA2, RankAndCrowdingSurvival, binary_tournament
from pymoo.algorithms.moo.nsga3 import NSGA3, comp_by_cv_then_random
from pymoo.algorithms.moo.sms import SMSEMOA, cv_and_dom_tournament
from pymoo.algorithms.moo.spea2 import SPEA2, spea_binary_tournament
from pymoo.core.algorithm import Algorithm
from pymoo.core.population import Population
from pymoo.operators.selection.tournament import TournamentSelection
from pymoo.util.ref_dirs import get_reference_directions

from neuromap_moo.arrays import FloatArray
from neuromap_moo.errors import InputError, did_you_mean, finite_number, requires_extra, whole_number
from neuromap_moo.evolution.guided import GuidedSearch
from neuromap_moo.evolution.moves import MOVES, mutate
from neuromap_moo.evolution.multi_weight import MultiWeightAnnealing
from neuromap_moo.evolution.operators import LOCAL_SHARE, operators
from neuromap_moo.evolution.survivals import GeometrySurvival, HypervolumeSurvival, StrengthSurvival, bounds
from neuromap_moo.mapping.encoding import Genomes
from neuromap_moo.problem.problem import MappingProblem

LARGEST_OPTION = 100_000  # mappings or generations, beyond which nothing is gained and memory lost
LARGEST_PAIRWISE = 2_000  # mappings, where an algorithm compares all pairs of them in memory
PAIRWISE = ("agemoea2", "moead", "spea2")
MOVE_OPTIONS = ("snapshot_moves", "run_moves")
LARGEST_MOVES = 10**9
MOST_LOCAL = 0.99  # the rest makes and judges what the runs start from
LEAST = {"population": 2, "neighbours": 2, "run_moves": 0}  # of options whose least value is not 1


@dataclass(frozen=True)
class RandomOptions:
    """Options of random: mappings per generation."""

    population: int = 100


@dataclass(frozen=True)
class GeneticOptions:
    """Options of nsga2, nsga3, smsemoa, agemoea2 and spea2: mappings per generation, and the memetic step's share.

    `local_share` of the work (0 to MOST_LOCAL) goes to annealing runs on incremental moves.
    """

    population: int = 100
    local_share: float = LOCAL_SHARE


@dataclass(frozen=True)
class MOEADOptions(GeneticOptions):
    """Options of moead: also, among how many of the nearest directions parents mate and children replace."""

    neighbours: int = 20


@dataclass(frozen=True)
class ESOptions:
    """Options of the nested evolution strategy: both (1 + lambda), and how long the inner one runs."""

    partition_offspring: int = 8
    placement_offspring: int = 2
    placement_generations: int = 2


@dataclass(frozen=True)
class AnnealingOptions:
    """Options of multi-weight annealing: how many weights, moves between snapshots, and moves per run.

    `run_moves` 0 begins with short runs and doubles them.
    """

    weights: int = 12
    snapshot_moves: int = 5_000
    run_moves: int = 0


@dataclass(frozen=True)
class GuidedOptions:
    """Options of the search that measures what a model proposes.

    How many mappings are measured before the model is believed, how many at a time after that, and the evaluations by
    the model before each of these times.
    """

    initial: int = 30
    batch: int = 8
    model_evaluations: int = 400


class RandomSearch(Algorithm):
    """Random genotypes, generation after generation."""

    def __init__(self, population: int) -> None:
        super().__init__()
        self.population = population

    def _draw(self) -> Population:
        return Population.new("X", self.problem.encoding.random(self.population, self.random_state))

    def _initialize_infill(self) -> Population:
        return self._draw()

    def _infill(self) -> Population:
        return self._draw()

    def _advance(self, infills: Population | None = None, **kwargs: Any) -> None:
        self.pop = infills


class Decomposition(ParallelMOEAD):
    """MOEA/D of Zhang and Li, IEEE TEC 11(6), 2007, a generation at a time: pymoo's with its mating mended.

    pymoo 0.6.2 hands children to directions other than those whose neighbours are their parents. After the paper,
    objectives are scaled, by the spans of the non-dominated, and a child as good as a neighbour takes its place.
    Tchebycheff up to two objectives, penalty boundary intersection from three on.
    """

    ideal: FloatArray

    def _infill(self) -> Population:
        n, mating, rng = len(self.pop), self.mating, self.random_state
        self.indices = rng.permutation(n)
        near = self.neighbors[self.indices]
        n_parents, n_children = mating.crossover.n_parents, mating.crossover.n_offsprings
        parents = self.selection.do(self.problem, self.pop, n, n_parents, neighbors=near, random_state=rng)
        children = mating.crossover(self.problem, parents, random_state=rng)
        # One of each mating, where the first children of all come before the second ones. No other is mutated, so the
        # memetic step counts what is evaluated, and nothing that it finds is lost.
        children = children[rng.integers(n_children, size=n) * n + np.arange(n)]
        children = mating.mutation(self.problem, children, random_state=rng)
        return mating.repair(self.problem, children, random_state=rng)

    def _advance(self, infills: Any = None, **kwargs: Any) -> None:
        F = self.pop.get("F")
        _, self.span = bounds(F[moocore.is_nondominated(F, keep_weakly=True)])
        self.ideal = np.minimum(self.ideal, infills.get("F").min(axis=0))
        for k, child in zip(self.indices, infills, strict=False):  # the budget may have cut the children short
            self._replace(k, child)

    def _replace(self, k: int, off: Any) -> None:
        near = self.neighbors[k]
        old, new = (
            self.decomposition.do((F - self.ideal) / self.span, weights=self.ref_dirs[near], _type=matching)
            for F, matching in ((self.pop[near].get("F"), "one_to_one"), (off.F[None], "one_to_many"))
        )
        self.pop[near[new <= old]] = off


class NestedES(Algorithm):
    """The nested (1 + lambda) evolution strategy of arXiv 2602.04717, on the first objective alone.

    The outer strategy mutates the partition (each layer keeps its cores); every partition offspring then gets a few
    generations of an inner strategy that mutates only the placement (swap, inversion, scramble). Ties go to the
    offspring. It starts from the vendor's default; the paper's parameters are not public, these are ours.
    """

    PARTITION = tuple(MOVES.index(m) for m in ("resize", "shift"))
    PLACEMENT = tuple(MOVES.index(m) for m in ("swap", "inversion", "scramble"))

    def __init__(self, options: ESOptions) -> None:
        super().__init__()
        self.options = options
        self.outer: tuple[Genomes, float] | None = None  # parent of the partition strategy
        self.offspring: tuple[Genomes, float] | None = None  # best partition offspring of this outer generation
        self.inner: tuple[Genomes, float] | None = None  # parent of the running placement strategy
        self.inner_generation = 0
        self.partitions_tried = 0

    def _initialize_infill(self) -> Population:
        default = self.problem.named_baselines["vendor_default"].mapping
        return Population.new("X", self.problem.encoding.encode([default]))

    def _initialize_advance(self, infills: Population | None = None, **kwargs: Any) -> None:
        self.outer = self._best(infills)

    def _infill(self) -> Population:
        if self.inner is None:
            parent = self.outer[0]  # type: ignore[index]
            if not self.problem.encoding.has_fixed_partition:
                parent = self._mutate(parent[None], self.PARTITION)[0]
            children = np.tile(parent, (self.options.placement_offspring, 1))
            # The first child keeps the placement that the new partition inherits.
            children[1:] = self._mutate(children[1:], self.PLACEMENT)
        else:
            children = self._mutate(np.tile(self.inner[0], (self.options.placement_offspring, 1)), self.PLACEMENT)
        return Population.new("X", children)

    def _advance(self, infills: Population | None = None, **kwargs: Any) -> None:
        self.pop = infills
        best = self._best(infills)
        if self.inner is None or best[1] <= self.inner[1]:
            self.inner = best
        self.inner_generation += 1
        if self.inner_generation < self.options.placement_generations:
            return
        if self.offspring is None or self.inner[1] <= self.offspring[1]:
            self.offspring = self.inner
        self.inner, self.inner_generation = None, 0
        self.partitions_tried += 1
        if self.partitions_tried == self.options.partition_offspring:
            if self.offspring[1] <= self.outer[1]:  # type: ignore[index]
                self.outer = self.offspring
            self.offspring, self.partitions_tried = None, 0

    def _mutate(self, X: Genomes, moves: tuple[int, ...]) -> Genomes:
        return mutate(self.problem.space, X, self.random_state.choice(moves, size=len(X)), self.random_state)

    @staticmethod
    def _best(infills: Any) -> tuple[Genomes, float]:
        F = infills.get("F")[:, 0]
        i = int(F.argmin())
        return infills[i].X, float(F[i])


def reference_directions(n_objectives: int, most: int, option: str = "population") -> FloatArray:
    """Evenly spread directions (at most `most`, n_objectives) after Das and Dennis (1998); `option` says how many."""
    if n_objectives == 1:
        return np.ones((1, 1))
    if most < n_objectives:
        raise InputError(f"algorithm.{option}: expected at least {n_objectives}, one per objective, got {most}")
    n = 1
    while math.comb(n + n_objectives, n_objectives - 1) <= most:
        n += 1
    directions: FloatArray = get_reference_directions("das-dennis", n_objectives, n_partitions=n)
    return directions


# pymoo's default operators, survivals and selections are shared between all instances in a process, so each
# algorithm gets its own.
def _genetic(kind: type, tournament: Callable[..., Any], survival: type) -> Callable[..., Algorithm]:
    def make(problem: MappingProblem, options: GeneticOptions, first: Genomes | None = None) -> Algorithm:
        variation = operators(problem, options.local_share, first)
        selection = TournamentSelection(func_comp=tournament)
        algorithm = kind(pop_size=options.population, selection=selection, output=None, **variation)
        algorithm.survival = survival()  # not every class takes one
        return algorithm

    return make


_nsga2 = _genetic(NSGA2, binary_tournament, RankAndCrowdingSurvival)


def _nsga3(problem: MappingProblem, options: GeneticOptions) -> Algorithm:
    return NSGA3(
        ref_dirs=reference_directions(problem.n_obj, options.population),
        pop_size=options.population,
        selection=TournamentSelection(func_comp=comp_by_cv_then_random),
        output=None,
        **operators(problem, options.local_share),
    )


def _moead(problem: MappingProblem, options: MOEADOptions) -> Algorithm:
    if problem.n_obj == 1:
        # Any positive weight ranks one objective alike; different ones make neighbours of mappings, as in a row.
        directions = np.linspace(0.5, 1.0, options.population)[:, None]
    else:
        directions = reference_directions(problem.n_obj, options.population)
    variation = operators(problem, options.local_share)
    del variation["eliminate_duplicates"]  # every direction needs its child
    return Decomposition(directions, n_neighbors=options.neighbours, output=None, **variation)


def _random(problem: MappingProblem, options: RandomOptions) -> Algorithm:
    return RandomSearch(options.population)


def _es(problem: MappingProblem, options: ESOptions) -> Algorithm:
    return NestedES(options)


def _annealing(problem: MappingProblem, options: AnnealingOptions) -> Algorithm:
    directions = reference_directions(problem.n_obj, options.weights, "weights")
    return MultiWeightAnnealing(directions, options.snapshot_moves, options.run_moves or None)


def _guided(problem: MappingProblem, options: GuidedOptions) -> Algorithm:
    def on_model(model: MappingProblem, first: Genomes) -> Algorithm:
        return _nsga2(model, GeneticOptions(), first)

    return GuidedSearch(on_model, _nsga2(problem, GeneticOptions(local_share=0.0)).mating, **asdict(options))


ALGORITHMS: dict[str, tuple[type, Callable[[MappingProblem, Any], Algorithm]]] = {
    "nsga2": (GeneticOptions, _nsga2),
    "nsga3": (GeneticOptions, _nsga3),
    "smsemoa": (GeneticOptions, _genetic(SMSEMOA, cv_and_dom_tournament, HypervolumeSurvival)),
    "agemoea2": (GeneticOptions, _genetic(AGEMOEA2, binary_tournament, GeometrySurvival)),
    "moead": (MOEADOptions, _moead),
    "spea2": (GeneticOptions, _genetic(SPEA2, spea_binary_tournament, StrengthSurvival)),
    "random": (RandomOptions, _random),
    "es": (ESOptions, _es),
    "annealing": (AnnealingOptions, _annealing),
    "guided": (GuidedOptions, _guided),
}


def check_algorithm(name: str, options: Mapping[str, Any]) -> None:
    """Raise InputError for an unknown algorithm, one whose package is missing, an unknown option or a wrong value."""
    if name not in ALGORITHMS:
        raise InputError(f"algorithm: no '{name}'{did_you_mean(name, ALGORITHMS)}")
    if name == "guided":
        with requires_extra("algorithm 'guided'", "guided"):
            importlib.import_module("sklearn")
    known = [f.name for f in fields(ALGORITHMS[name][0])]
    for key, value in options.items():
        if key not in known:
            raise InputError(f"algorithm '{name}': unknown option '{key}'{did_you_mean(key, known)}")
        where = f"algorithm '{name}', {key}"
        if key == "local_share":
            finite_number(where, value, 0.0)
            largest: float = MOST_LOCAL
        else:
            whole_number(where, value, LEAST.get(key, 1))
            largest = LARGEST_MOVES if key in MOVE_OPTIONS else LARGEST_PAIRWISE if name in PAIRWISE else LARGEST_OPTION
        if value > largest:
            raise InputError(f"{where}: expected at most {largest}, got {value}")


def make_algorithm(name: str, problem: MappingProblem, options: Mapping[str, Any] | None = None) -> Algorithm:
    """Make a fresh algorithm by name; raises InputError for an unknown name or option."""
    options = options or {}
    check_algorithm(name, options)
    options_type, make = ALGORITHMS[name]
    return make(problem, options_type(**options))
