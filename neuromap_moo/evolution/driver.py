"""The search loop: an exact budget, an archive of all non-dominated mappings seen, checkpoint and resume."""

from __future__ import annotations

import time
from collections import abc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.core.algorithm import Algorithm

from neuromap_moo.annealing.run import advance, start_run
from neuromap_moo.annealing.space import Scalarisation
from neuromap_moo.arrays import FloatArray
from neuromap_moo.errors import whole_number
from neuromap_moo.evolution.algorithms import make_algorithm
from neuromap_moo.evolution.budget import Budget
from neuromap_moo.evolution.checkpoint import fingerprint_of, load_checkpoint, save_checkpoint
from neuromap_moo.evolution.generation import SearchState, new_state, search_generation, take_front, variation_of
from neuromap_moo.evolution.guided import GuidedSearch
from neuromap_moo.evolution.moves import MOVES, cross_blocks, cross_layers, mutate
from neuromap_moo.evolution.operators import DRAWN
from neuromap_moo.evolution.resampling import confirm
from neuromap_moo.mapping.mapping import Mapping, MappingBatch
from neuromap_moo.models.metrics import MAXIMISED, Metrics, columns_of
from neuromap_moo.problem.problem import NOTHING_YET, MappingProblem

CHECKPOINT_SECONDS = 2.0


@dataclass(frozen=True)
class SearchResult:
    """What a search found: n mappings, sorted by the first objective, then the next, and their metrics (n,) each.

    `history` (generations, columns) has the columns of `history_columns`: evaluations, seconds, hypervolume, the best
    value of each objective, incremental moves made by local search, and the share of each operator.

    `evaluated` is None or, where they were asked for, all evaluated mappings: cores_per_layer (n, L), the cores of
    all slices one mapping after the other, and the objectives (n, m).
    """

    mappings: tuple[Mapping, ...]
    batch: MappingBatch  #: the same mappings as arrays
    metrics: Metrics
    history: FloatArray
    history_columns: tuple[str, ...]
    evaluations: int
    seconds: float
    ended: str
    evaluated: dict[str, NDArray[Any]] | None = None


def search_mappings(
    problem: MappingProblem,
    algorithm: str = "nsga2",
    options: abc.Mapping[str, Any] | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    keep_evaluations: bool = False,
    on_generation: Callable[[SearchState], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> SearchResult:
    """Search a problem and return all non-dominated mappings seen; see `nm.search`.

    Parameters
    ----------
    problem, algorithm, options, seed, keep_evaluations, on_generation
        As for `nm.search`.
    budget
        When the search ends; None is the default budget.
    checkpoint
        File written every few seconds. Where it exists, the search goes on from it and ends as if it had never been
        broken off; one of another search is refused. The caller removes it when the results are safe.
    should_stop
        Asked after each generation; True ends the search with what it has found, and a last checkpoint.

    """
    budget = budget or Budget()
    seed = whole_number("seed", seed)
    fingerprint = fingerprint_of(problem, algorithm, options, budget, seed, keep_evaluations)
    writer = _CheckpointWriter(checkpoint, fingerprint, problem.measuring is not None)
    if checkpoint is not None and checkpoint.exists():
        state = _resumed(problem, checkpoint, fingerprint)
    else:
        state = new_state(problem, make_algorithm(algorithm, problem, options), seed)
        if problem.measuring is not None:
            writer.write(state, is_due=True)  # the first generation may be broken off
    if problem.measuring is not None and should_stop is not None:
        problem.measuring.should_stop = should_stop
    warm_up(problem)
    _ = problem.reference_point  # boards measure the baselines before the clock starts
    started = time.perf_counter() - state.seconds
    while not state.ended:
        is_whole = search_generation(problem, state, budget.evaluations, keep_evaluations)
        state.seconds = time.perf_counter() - started
        _record(problem, state)
        if is_whole:
            state.ended = budget.reached(state.evaluations, state.seconds) or state.ended  # perhaps it is exhausted
        if on_generation is not None:
            on_generation(state)
        is_stopped = not state.ended and should_stop is not None and should_stop()
        if is_whole:  # else measurements were broken off; the last checkpoint stands, and asks for them again
            writer.write(state, is_due=is_stopped or bool(state.ended))
        if is_stopped:
            break
    if state.ended and len(state.measured_X):
        if not confirm(problem, state.measured_X):
            state.ended = ""  # the checkpoint has it as ended, and goes on with confirming
        take_front(problem, state)
        state.seconds = time.perf_counter() - started
    return _result(problem, state, keep_evaluations)


@dataclass
class _CheckpointWriter:
    """Writes the checkpoints of one search: every CHECKPOINT_SECONDS, with `is_eager` at every opportunity."""

    path: Path | None
    fingerprint: str
    is_eager: bool
    last: float = float("-inf")  # time of the last one

    def write(self, state: SearchState, is_due: bool) -> None:
        """Write a checkpoint where one is wanted and it is time for it."""
        is_due = is_due or self.is_eager or time.perf_counter() - self.last > CHECKPOINT_SECONDS
        if self.path is not None and is_due:
            save_checkpoint(self.path, state, self.fingerprint)
            self.last = time.perf_counter()


def _resumed(problem: MappingProblem, checkpoint: Path, fingerprint: str) -> SearchState:
    state = load_checkpoint(checkpoint, fingerprint)
    state.algorithm.problem = problem
    if state.reference_point is not None:  # that of measured baselines moves with every further attempt
        problem.reference_point = state.reference_point
    return state


def _record(problem: MappingProblem, state: SearchState) -> None:
    """Add a row to the history after a generation."""
    if not len(state.archive_F):
        raise KeyboardInterrupt(NOTHING_YET)
    state.reference_point = problem.reference_point
    reached = (problem.hypervolume(state.archive_F), *_best(problem, state.archive_F))
    state.history.append((state.evaluations, state.seconds, *reached, *_extras(problem, state.algorithm).values()))


def warm_up(problem: MappingProblem) -> None:
    """Run all that is compiled once, so that a search's clock does not count compilation; nothing is measured."""
    rng = np.random.default_rng(0)
    if problem.measuring is None:
        _ = problem.reference_point  # with the baselines and the evaluator's kernels
    parents = problem.encoding.random(8, rng).reshape(2, 4, -1)
    for cross in (cross_layers, cross_blocks):
        cross(problem.space, parents, rng)
    mutate(problem.space, problem.encoding.random(len(MOVES), rng), np.arange(len(MOVES)), rng)
    if problem.is_modelled:
        run = start_run(problem.space, Scalarisation((1.0,) * problem.n_obj), parents[0, 0], 2, 0.1, rng)
        advance(problem.space, run, 2, rng)


def _best(problem: MappingProblem, F: FloatArray) -> list[float]:
    signs = [-1.0 if name in MAXIMISED else 1.0 for name in problem.objectives]
    return list((F.min(axis=0) * signs).tolist())


def _extras(problem: MappingProblem, algorithm: Algorithm) -> dict[str, float]:
    """Columns of the history that tell what an algorithm did beside evaluations."""
    variation = variation_of(algorithm)
    if isinstance(algorithm, GuidedSearch):
        return {"moves": algorithm.moves, **algorithm.columns}
    if variation is None:
        return {"moves": getattr(algorithm, "moves", 0)}
    shares = {
        f"share_{name}": share
        for kind, names in DRAWN.items()
        for name, share in zip(names, variation.shares(kind, problem), strict=True)
    }
    return {"moves": variation.local.moves, **shares}


def _result(problem: MappingProblem, state: SearchState, keep_evaluations: bool) -> SearchResult:
    order = np.lexsort(state.archive_F.T[::-1])
    batch = problem.encoding.decode(state.archive_X[order])
    if state.archive_metrics is not None:
        metrics = columns_of(state.archive_metrics[order])
    else:
        metrics = problem.evaluator.evaluate(batch)  # as estimated by now
    evaluated = None
    if keep_evaluations:
        k, cores, F = (np.concatenate(parts) for parts in zip(*state.kept, strict=True))
        evaluated = {"cores_per_layer": k, "core_of_slice": cores, "objectives": F}
    columns = ("evaluations", "seconds", "hypervolume", *(f"best_{name}" for name in problem.objectives))
    columns += tuple(_extras(problem, state.algorithm))
    return SearchResult(
        mappings=tuple(batch.unstack()),
        batch=batch,
        metrics=metrics,
        history=np.array(state.history),
        history_columns=columns,
        evaluations=state.evaluations,
        seconds=state.seconds,
        ended=state.ended,
        evaluated=evaluated,
    )
