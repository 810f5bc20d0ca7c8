"""One generation of a search: an algorithm is asked, its mappings evaluated, an archive kept of all non-dominated."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import moocore
import numpy as np
from numpy.typing import NDArray
from pymoo.core.algorithm import Algorithm
from pymoo.core.termination import NoTermination

from neuromap_moo.arrays import BoolArray, FloatArray, IntArray
from neuromap_moo.errors import InputError
from neuromap_moo.evolution.operators import DRAWN, NOBODY, MappingMutation, Variation
from neuromap_moo.evolution.resampling import AGAIN_SHARE, estimated_objectives, resolve_ties
from neuromap_moo.mapping.encoding import Genomes
from neuromap_moo.models.evaluator import MeasuringEvaluator
from neuromap_moo.problem.problem import METRICS, MappingProblem

#: Objectives are compared at this many significant digits: mirrored placements differ by rounding alone, and must
#: neither dominate each other nor fill the front.
SIGNIFICANT_DIGITS = 12

#: What algorithms are told of a mapping that could not be measured, in units of the reference point.
FAILED = 10.0


@dataclass
class SearchState:
    """Everything a search needs to go on: what is written to the checkpoint.

    The archive holds genotypes (n, V), their minimised objectives (n, m), all their metrics as rows (n,), none of them
    where they are measured, and which crossover and mutation made them (n, 2). `history` has one row per generation and
    the columns of SearchResult.history_columns.
    """

    algorithm: Algorithm
    archive_X: Genomes
    archive_F: FloatArray
    archive_made_by: IntArray
    archive_metrics: NDArray[np.void] | None = None
    evaluations: int = 0
    seconds: float = 0.0
    history: list[tuple[float, ...]] = field(default_factory=list)
    kept: list[tuple[NDArray[np.int16], NDArray[np.int16], FloatArray]] = field(default_factory=list)
    #: Where objectives are measured: all genotypes that could be, and what made them. Later attempts may change the
    #: front, which is then taken from these.
    measured_X: Genomes = field(default_factory=lambda: np.empty((0, 0), dtype=np.int64))
    measured_made_by: IntArray = field(default_factory=lambda: np.empty((0, 0), dtype=np.int64))
    reference_point: FloatArray | None = None
    ended: str = ""  #: why the search ended; empty while it has not


def new_state(problem: MappingProblem, algorithm: Algorithm, seed: int) -> SearchState:
    """Return the state of a search that has not begun."""
    algorithm.setup(problem, termination=NoTermination(), seed=seed)
    return SearchState(
        algorithm,
        np.empty((0, problem.n_var), dtype=np.int64),
        np.empty((0, problem.n_obj)),
        np.empty((0, len(DRAWN)), dtype=np.int64),
    )


def search_generation(
    problem: MappingProblem, state: SearchState, most_evaluations: int | None = None, keep_evaluations: bool = False
) -> bool:
    """Search for a generation, up to `most_evaluations` of the whole search.

    Returns false where its measurements were broken off, and the algorithm was not told of it.
    """
    asked = state.algorithm.ask()
    if asked is None or len(asked) == 0:
        state.ended = "exhausted"  # no mapping can be made that is not in the population already
        return True
    if most_evaluations is not None:
        asked = asked[: most_evaluations - state.evaluations]
    state.algorithm.evaluator.eval(problem, asked)
    X, F = asked.get("X").astype(np.int64), asked.get("F")
    labels = np.array([[member.data.get(kind, NOBODY) for kind in DRAWN] for member in asked])
    state.evaluations += len(X)
    whole = True
    if problem.measuring is not None:
        F, whole = _take_measured(problem, problem.measuring, state, X, labels, most_evaluations)
    else:
        if not np.isfinite(F).all():
            raise InputError(
                f"objectives {list(problem.objectives)}: a mapping has {F[~np.isfinite(F).all(axis=1)][0]}; a search "
                "needs finite values (are all costs of the system zero?)"
            )
        all_F = np.concatenate([state.archive_F, F])
        keep = non_dominated_rows(all_F)
        state.archive_F = all_F[keep]
        state.archive_X = np.concatenate([state.archive_X, X])[keep]
        state.archive_made_by = np.concatenate([state.archive_made_by, labels])[keep]
        rows = asked.get(METRICS)
        all_rows = rows if state.archive_metrics is None else np.concatenate([state.archive_metrics, rows])
        state.archive_metrics = all_rows[keep]
    if keep_evaluations:
        batch = problem.encoding.decode(X)
        placed = batch.core_of_slice[batch.core_of_slice >= 0]
        state.kept.append((batch.cores_per_layer.astype(np.int16), placed.astype(np.int16), F))
    if not whole:
        return False
    variation = variation_of(state.algorithm)
    if variation is not None:
        variation.learn(state.archive_X, state.archive_F, state.archive_made_by)
    # Seconds and joules are tiny numbers, and pymoo's NSGA-III takes spans under 1e-6 for zero.
    asked.set("F", _told(problem, F))
    state.algorithm.tell(infills=asked)
    return True


def _take_measured(
    problem: MappingProblem,
    evaluator: MeasuringEvaluator,
    state: SearchState,
    X: Genomes,
    labels: IntArray,
    most_evaluations: int | None,
) -> tuple[FloatArray, bool]:
    """Add measured genotypes, measure again where the front depends on it, and take the front anew.

    Returns minimised objectives (n, m), nan for mappings that could not be measured, and whether all was done.
    """
    if not len(state.measured_X):
        state.measured_X, state.measured_made_by = X[:0], labels[:0]
    worked = np.isfinite(estimated_objectives(problem, X)[0]).all(axis=1)
    state.measured_X = np.concatenate([state.measured_X, X[worked]])
    state.measured_made_by = np.concatenate([state.measured_made_by, labels[worked]])
    stopped = evaluator.should_stop()
    if not stopped and worked.any():
        allowed = math.ceil(AGAIN_SHARE * len(X))
        if most_evaluations is not None:
            allowed = min(allowed, most_evaluations - state.evaluations)
        state.evaluations += resolve_ties(problem, state.measured_X, allowed)
        stopped = evaluator.should_stop()
    if len(state.measured_X):
        take_front(problem, state)
    population = state.algorithm.pop
    if not stopped and population is not None and len(population):
        population.set("F", _told(problem, estimated_objectives(problem, population.get("X").astype(np.int64))[0]))
    return estimated_objectives(problem, X)[0], not stopped


def take_front(problem: MappingProblem, state: SearchState) -> None:
    """Take the archive from all that was measured."""
    F = estimated_objectives(problem, state.measured_X)[0]
    keep = non_dominated_rows(F)
    state.archive_F = F[keep]
    state.archive_X, state.archive_made_by = state.measured_X[keep], state.measured_made_by[keep]


def _told(problem: MappingProblem, F: FloatArray) -> FloatArray:
    """Objectives as an algorithm is told them: in units of the reference point, FAILED where there are none."""
    told = problem.normalised(F)
    told[~np.isfinite(told).all(axis=1)] = FAILED
    return told


def non_dominated_rows(F: FloatArray) -> BoolArray:
    """Tell which rows of minimised objectives (n, m) are non-dominated; of equal rows only the first is."""
    keep: BoolArray = moocore.is_nondominated(round_significant(F), keep_weakly=False)
    return keep


def round_significant(F: FloatArray) -> FloatArray:
    """Round to SIGNIFICANT_DIGITS."""
    with np.errstate(divide="ignore"):
        exponent = np.where(F == 0, 0.0, np.floor(np.log10(np.abs(F))))
    scale = 10.0 ** (SIGNIFICANT_DIGITS - 1 - exponent)
    return np.asarray(np.rint(F * scale) / scale)


def variation_of(algorithm: Algorithm) -> Variation | None:
    """Return what the operators of an algorithm share; None for one that has operators of its own."""
    mutation = getattr(getattr(algorithm, "mating", None), "mutation", None)
    return mutation.variation if isinstance(mutation, MappingMutation) else None
