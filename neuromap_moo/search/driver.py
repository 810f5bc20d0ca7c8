"""The search loop: an exact budget, an archive of all non-dominated mappings seen, checkpoint and resume."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
import moocore
import numpy as np
from numpy.typing import NDArray
from pymoo.core.algorithm import Algorithm
from pymoo.core.termination import NoTermination

from neuromap_moo.errors import InputError, finite_number, whole_number
from neuromap_moo.evaluate import MAXIMISED, Measuring
from neuromap_moo.files import whole_file
from neuromap_moo.mapping import Mapping as CoreMapping
from neuromap_moo.search.algorithms import make_algorithm, variation_of
from neuromap_moo.search.encoding import Genomes
from neuromap_moo.search.local import Aim, advance, start_run
from neuromap_moo.search.measured import AGAIN_SHARE, confirm, known, settle
from neuromap_moo.search.operators import DRAWN, MOVES, NOBODY, cross_blocks, cross_layers, mutate
from neuromap_moo.search.problem import MappingProblem

CHECKPOINT_SCHEMA = 1
CHECKPOINT_SECONDS = 2.0

#: Objectives are compared at this many significant digits: mirrored placements differ by rounding alone, and must
#: neither dominate each other nor fill the front.
SIGNIFICANT_DIGITS = 12

#: What algorithms are told of a mapping that could not be measured, in units of the reference point.
FAILED = 10.0


@dataclass(frozen=True)
class Budget:
    """When a search ends: at this many evaluations, after this many seconds, or whichever comes first."""

    evaluations: int | None = 20_000
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.evaluations is not None:
            whole_number("budget.evaluations", self.evaluations, 1)
        if self.seconds is not None:
            finite_number("budget.seconds", self.seconds, unit="s", above=True)
        if self.evaluations is None and self.seconds is None:
            raise InputError("budget: expected evaluations or seconds, got null for both; set one of them")


@dataclass
class SearchState:
    """Everything a search needs to go on: what is written to the checkpoint.

    The archive holds genotypes (n, V), their minimised objectives (n, m) and which crossover and mutation made them
    (n, 2). `history` has one row per generation and the columns of SearchResult.history_columns.
    """

    algorithm: Algorithm
    archive_X: Genomes
    archive_F: NDArray[np.float64]
    archive_made_by: NDArray[np.int64]
    evaluations: int = 0
    seconds: float = 0.0
    history: list[tuple[float, ...]] = field(default_factory=list)
    kept: list[tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.float64]]] = field(default_factory=list)
    #: Where objectives are measured: all genotypes that could be, and what made them. Later attempts may change the
    #: front, which is then taken from these.
    measured_X: Genomes = field(default_factory=lambda: np.empty((0, 0), dtype=np.int64))
    measured_made_by: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 0), dtype=np.int64))
    ended: str = ""  #: why the search ended; empty while it has not


@dataclass(frozen=True)
class SearchResult:
    """What a search found; mappings are sorted by the first objective, then the next.

    `history` (generations, columns) has the columns of `history_columns`: evaluations, seconds, hypervolume, the best
    value of each objective, incremental moves made by local search, and the share of each operator.

    `evaluated` is None or, where they were asked for, all evaluated mappings: cores_per_layer (n, L), the cores of
    all slices one mapping after the other, and the objectives (n, m).
    """

    mappings: tuple[CoreMapping, ...]
    history: NDArray[np.float64]
    history_columns: tuple[str, ...]
    evaluations: int
    seconds: float
    ended: str
    evaluated: dict[str, NDArray[Any]] | None = None


def search_mappings(
    problem: MappingProblem,
    algorithm: str = "nsga2",
    options: Mapping[str, Any] | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    keep_evaluations: bool = False,
    on_generation: Callable[[SearchState], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> SearchResult:
    """Search a problem and return all non-dominated mappings seen.

    Parameters
    ----------
    checkpoint
        File written every few seconds. Where it exists, the search goes on from it and ends as if it had never been
        broken off; one of another search is refused. The caller removes it when the results are safe.
    should_stop
        Asked after each generation; True ends the search with what it has found, and a last checkpoint.

    """
    budget = budget or Budget()
    seed = whole_number("seed", seed)
    fingerprint = fingerprint_of(problem, algorithm, options, budget, seed, keep_evaluations)
    if checkpoint is not None and checkpoint.exists():
        state = load_checkpoint(checkpoint, fingerprint)
        state.algorithm.problem = problem
    else:
        state = SearchState(
            make_algorithm(algorithm, problem, options),
            np.empty((0, problem.n_var), dtype=np.int64),
            np.empty((0, problem.n_obj)),
            np.empty((0, len(DRAWN)), dtype=np.int64),
        )
        state.algorithm.setup(problem, termination=NoTermination(), seed=seed)
    measures = isinstance(problem.evaluator, Measuring)
    if isinstance(problem.evaluator, Measuring) and should_stop is not None:
        problem.evaluator.should_stop = should_stop
    _warm_up(problem)
    started = time.perf_counter() - state.seconds
    last_checkpoint = float("-inf")
    while not state.ended:
        whole = _advance(problem, state, budget, keep_evaluations)
        if not len(state.archive_F):
            raise KeyboardInterrupt  # stopped before anything was measured
        state.seconds = time.perf_counter() - started
        reached = (problem.hypervolume(state.archive_F), *_best(problem, state.archive_F))
        state.history.append((state.evaluations, state.seconds, *reached, *_extras(problem, state.algorithm).values()))
        if not whole:
            pass  # measurements were broken off; the last checkpoint stands, and asks for them again
        elif state.evaluations == budget.evaluations:
            state.ended = "evaluations"
        elif budget.seconds is not None and state.seconds >= budget.seconds:
            state.ended = "seconds"
        if on_generation is not None:
            on_generation(state)
        stop = not state.ended and should_stop is not None and should_stop()
        due = stop or state.ended or measures or time.perf_counter() - last_checkpoint > CHECKPOINT_SECONDS
        if checkpoint is not None and whole and due:
            save_checkpoint(checkpoint, state, fingerprint)
            last_checkpoint = time.perf_counter()
        if stop:
            break
    if state.ended and len(state.measured_X):
        confirm(problem, state.measured_X)
        _take_front(problem, state)
    return _result(problem, state, keep_evaluations)


def _warm_up(problem: MappingProblem) -> None:
    """Run every compiled operator once, so that a search's clock does not count compilation."""
    rng = np.random.default_rng(0)
    problem.normalised(np.ones((1, problem.n_obj)))
    parents = problem.encoding.random(8, rng).reshape(2, 4, -1)
    for cross in (cross_layers, cross_blocks):
        cross(problem, parents, rng)
    mutate(problem, problem.encoding.random(len(MOVES), rng), np.arange(len(MOVES)), rng)
    if problem.is_modelled:
        run = start_run(problem, Aim((1.0,) * problem.n_obj), parents[0, 0], 2, 0.1, rng)
        advance(problem, run, 2, rng)


def non_dominated_rows(F: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which rows of minimised objectives (n, m) are non-dominated; of equal rows only the first is."""
    keep: NDArray[np.bool_] = moocore.is_nondominated(round_significant(F), keep_weakly=False)
    return keep


def round_significant(F: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round to SIGNIFICANT_DIGITS."""
    with np.errstate(divide="ignore"):
        exponent = np.where(F == 0, 0.0, np.floor(np.log10(np.abs(F))))
    scale = 10.0 ** (SIGNIFICANT_DIGITS - 1 - exponent)
    return np.asarray(np.rint(F * scale) / scale)


def fingerprint_of(
    problem: MappingProblem,
    algorithm: str,
    options: Mapping[str, Any] | None,
    budget: Budget,
    seed: int,
    keep_evaluations: bool,
) -> str:
    """Digest of everything that decides what a search finds."""
    content = [
        problem.network.digest,
        problem.system.digest,
        problem.objectives,
        problem.evaluator.name,
        algorithm,
        sorted((options or {}).items()),
        (budget.evaluations, budget.seconds),
        seed,
        keep_evaluations,
        *([problem.constraints.digest] if problem.constraints else []),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def save_checkpoint(path: Path, state: SearchState, fingerprint: str) -> None:
    """Write a checkpoint, whole or not at all; the problem is left out and given back on resume."""
    problem, state.algorithm.problem = state.algorithm.problem, None
    try:
        with whole_file(path) as temporary:
            # Two pickles: the first alone tells whose checkpoint it is.
            temporary.write_bytes(cloudpickle.dumps((CHECKPOINT_SCHEMA, fingerprint)) + cloudpickle.dumps(state))
    finally:
        state.algorithm.problem = problem


def checkpoint_fingerprint(path: Path) -> str:
    """Return the fingerprint of the search that a checkpoint belongs to; "" where the file is no checkpoint."""
    try:
        with open(path, "rb") as f:
            schema, fingerprint = pickle.load(f)
    except Exception:  # a pickle can fail in any way
        return ""
    return str(fingerprint) if schema == CHECKPOINT_SCHEMA else ""


def load_checkpoint(path: Path, fingerprint: str) -> SearchState:
    """Read a checkpoint; raises InputError where it belongs to another search."""
    if checkpoint_fingerprint(path) != fingerprint:
        raise InputError(
            f"checkpoint '{path}': belongs to a different search (network, system, constraints, algorithm, budget or "
            "seed); give another path or remove it"
        )
    try:
        with open(path, "rb") as f:
            pickle.load(f)
            state: SearchState = pickle.load(f)
    except Exception as error:  # a pickle can fail in any way
        raise InputError(f"checkpoint '{path}': cannot be read ({type(error).__name__}); remove it") from error
    return state


def _advance(problem: MappingProblem, state: SearchState, budget: Budget, keep_evaluations: bool) -> bool:
    """Search for a generation; false where its measurements were broken off, and the algorithm was not told of it."""
    asked = state.algorithm.ask()
    if asked is None or len(asked) == 0:
        state.ended = "exhausted"  # no mapping can be made that is not in the population already
        return True
    if budget.evaluations is not None:
        asked = asked[: budget.evaluations - state.evaluations]
    state.algorithm.evaluator.eval(problem, asked)
    X, F = asked.get("X").astype(np.int64), asked.get("F")
    labels = np.array([[member.data.get(kind, NOBODY) for kind in DRAWN] for member in asked])
    state.evaluations += len(X)
    whole = True
    if isinstance(problem.evaluator, Measuring):
        F, whole = _take_measured(problem, state, X, labels, budget)
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
    problem: MappingProblem, state: SearchState, X: Genomes, labels: NDArray[np.int64], budget: Budget
) -> tuple[NDArray[np.float64], bool]:
    """Add measured genotypes, measure again where the front depends on it, and take the front anew.

    Returns minimised objectives (n, m), nan for mappings that could not be measured, and whether all was done.
    """
    if not len(state.measured_X):
        state.measured_X, state.measured_made_by = X[:0], labels[:0]
    worked = np.isfinite(known(problem, X)[0]).all(axis=1)
    state.measured_X = np.concatenate([state.measured_X, X[worked]])
    state.measured_made_by = np.concatenate([state.measured_made_by, labels[worked]])
    stopped = problem.evaluator.should_stop()  # type: ignore[attr-defined]
    if not stopped and worked.any():
        allowed = math.ceil(AGAIN_SHARE * len(X))
        if budget.evaluations is not None:
            allowed = min(allowed, budget.evaluations - state.evaluations)
        state.evaluations += settle(problem, state.measured_X, allowed)
        stopped = problem.evaluator.should_stop()  # type: ignore[attr-defined]
    if len(state.measured_X):
        _take_front(problem, state)
    population = state.algorithm.pop
    if not stopped and population is not None and len(population):
        population.set("F", _told(problem, known(problem, population.get("X").astype(np.int64))[0]))
    return known(problem, X)[0], not stopped


def _take_front(problem: MappingProblem, state: SearchState) -> None:
    """Take the archive from all that was measured."""
    F = known(problem, state.measured_X)[0]
    keep = non_dominated_rows(F)
    state.archive_F = F[keep]
    state.archive_X, state.archive_made_by = state.measured_X[keep], state.measured_made_by[keep]


def _told(problem: MappingProblem, F: NDArray[np.float64]) -> NDArray[np.float64]:
    """Objectives as an algorithm is told them: in units of the reference point, FAILED where there are none."""
    told = problem.normalised(F)
    told[~np.isfinite(told).all(axis=1)] = FAILED
    return told


def _best(problem: MappingProblem, F: NDArray[np.float64]) -> list[float]:
    signs = [-1.0 if name in MAXIMISED else 1.0 for name in problem.objectives]
    return list((F.min(axis=0) * signs).tolist())


def _extras(problem: MappingProblem, algorithm: Algorithm) -> dict[str, float]:
    """Columns of the history that tell what an algorithm did beside evaluations."""
    variation = variation_of(algorithm)
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
    mappings = problem.encoding.decode(state.archive_X[order]).unstack()
    evaluated = None
    if keep_evaluations:
        k, cores, F = (np.concatenate(parts) for parts in zip(*state.kept, strict=True))
        evaluated = {"cores_per_layer": k, "core_of_slice": cores, "objectives": F}
    columns = ("evaluations", "seconds", "hypervolume", *(f"best_{name}" for name in problem.objectives))
    columns += tuple(_extras(problem, state.algorithm))
    return SearchResult(
        tuple(mappings), np.array(state.history), columns, state.evaluations, state.seconds, state.ended, evaluated
    )
