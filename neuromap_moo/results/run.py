"""A run: front, baselines, history and provenance."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromap_moo.arrays import FloatArray
from neuromap_moo.evolution.budget import Budget
from neuromap_moo.evolution.driver import search_mappings
from neuromap_moo.evolution.generation import SearchState
from neuromap_moo.evolution.robust import robustness
from neuromap_moo.mapping.mapping import Mapping, MappingBatch
from neuromap_moo.models.metrics import MAXIMISED, minimised
from neuromap_moo.problem.problem import MappingProblem
from neuromap_moo.results.front import Front, reductions

ROBUSTNESS = "robustness"  # column of front.csv
ROBUST = 0.9


@dataclass(frozen=True)
class Run:
    """What one search found and how.

    Attributes
    ----------
    name, algorithm, seed
        Of the search.
    problem
        What was searched.
    front, baselines
        The non-dominated mappings, sorted by the first objective, and the mappings of constructive rules.
    history, history_columns
        (generations, columns): evaluations, seconds, hypervolume, the best value of each objective, incremental moves
        and the share of each operator.
    evaluations, seconds
        What the search took; seconds do not count compilation.
    ended
        Why it ended: evaluations, seconds or exhausted; empty where it was stopped.
    provenance
        Versions, command, configuration and machine, of a run of the command line.
    evaluated
        All evaluated mappings, where they were kept: `cores_per_layer` (n, L), `core_of_slice` of one mapping after the
        other, `objectives` (n, m).
    measurements
        What became of all attempts, of an evaluator that measures.

    """

    name: str
    problem: MappingProblem
    algorithm: str
    seed: int
    front: Front
    baselines: Front
    history: FloatArray
    history_columns: tuple[str, ...]
    evaluations: int
    seconds: float
    ended: str
    provenance: abc.Mapping[str, Any] = field(default_factory=dict)
    evaluated: abc.Mapping[str, NDArray[Any]] | None = None
    #: Of an evaluator that measures: what became of all attempts.
    measurements: abc.Mapping[str, Any] = field(default_factory=dict)

    def history_of(self, column: str) -> FloatArray:
        """One column of the history, (generations,)."""
        return np.asarray(self.history[:, self.history_columns.index(column)])

    @property
    def adapts_operators(self) -> bool:
        """True where the history has the shares of operators."""
        return any(name.startswith("share_") for name in self.history_columns)

    @property
    def reference_point(self) -> dict[str, float]:
        """Reference point of the hypervolume by objective."""
        return reference_point(self.problem)

    @property
    def hypervolume(self) -> float:
        """Hypervolume of the front with objectives in units of the reference point.

        With minimised objectives it is the share of the box between zero and the reference point that is dominated.
        """
        return hypervolume(self.problem, self.front)

    def summary(self) -> dict[str, Any]:
        """Return the content of summary.json."""
        return {
            "name": self.name,
            "seed": self.seed,
            "algorithm": self.algorithm,
            "objectives": list(self.problem.objectives),
            "evaluations": self.evaluations,
            "moves": int(self.history_of("moves")[-1]),
            "seconds": self.seconds,
            "ended": self.ended or "stopped",
            "mappings": len(self.front),
            "knee": self.front.ids[self.front.knee],
            **({} if ROBUSTNESS not in self.front.table else {"robust_mappings": robust_mappings(self.front)}),
            "reference_point": self.reference_point,
            "hypervolume": self.hypervolume,
            "best": reductions(self.front, self.baselines),
            **({"measurements": self.measurements} if self.measurements else {}),
        }


def search(
    problem: MappingProblem,
    algorithm: str = "nsga2",
    evaluations: int | None = 20_000,
    seconds: float | None = None,
    seed: int = 0,
    name: str = "search",
    options: abc.Mapping[str, Any] | None = None,
    keep_evaluations: bool = False,
    robustness_samples: int = 100,
    checkpoint: Path | None = None,
    on_generation: Callable[[SearchState], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Run:
    """Search the Pareto front of a problem; same seed and number of evaluations, same front.

    Parameters
    ----------
    problem
        What is mapped, where to, and by what it is judged.
    algorithm
        nsga2, nsga3, smsemoa, agemoea2, moead, spea2 (evolutionary, with annealing runs between generations), es
        (the nested evolution strategy of arXiv 2602.04717), annealing, guided (for evaluators that measure) or random.
    evaluations, seconds
        The search ends at whichever comes first; None is no limit.
    seed
        Of every random draw.
    name
        Of the run.
    options
        Of the algorithm, by name: `population` and `local_share` for the evolutionary ones, `neighbours` as well for
        moead; `partition_offspring`, `placement_offspring` and `placement_generations` for es; `weights`,
        `snapshot_moves` and `run_moves` for annealing; `initial`, `batch` and `model_evaluations` for guided;
        `population` for random. docs/algorithms.md explains them.
    keep_evaluations
        Keep every evaluated mapping in `Run.evaluated`.
    robustness_samples
        Draws of the system's constants within their brackets; the front gets a column `robustness`, the share of these
        systems on which a mapping stays non-dominated. 0: no such column.
    checkpoint
        File written every few seconds; where it exists, the search goes on from it. Remove it when you are done.
    on_generation, should_stop
        Called after each generation; a true value of `should_stop` ends the search with what it has found.

    Returns
    -------
    The run: its front, sorted by the first objective, the baselines, and the history of the search.

    Raises
    ------
    InputError
        For an unknown algorithm or option, numbers out of range, a checkpoint of another search, or objectives without
        a finite value.
    TypeError
        Where `problem` is no MappingProblem.

    Examples
    --------
    >>> import neuromap_moo as nm
    >>> network = nm.sparse_mlp([64, 96, 64], density=0.3, seed=0)
    >>> problem = nm.MappingProblem(network, nm.mesh_system(4, 4))
    >>> run = nm.search(problem, evaluations=200, seed=0)
    >>> bool(run.front.table["latency_s"][0] <= run.baselines.table["latency_s"].min())
    True

    """
    if not isinstance(problem, MappingProblem):
        raise TypeError(f"problem: expected a MappingProblem, got {type(problem).__name__}")
    result = search_mappings(
        problem,
        algorithm,
        options,
        Budget(evaluations, seconds),
        seed,
        checkpoint=checkpoint,
        keep_evaluations=keep_evaluations,
        on_generation=on_generation,
        should_stop=should_stop,
    )
    front = Front(numbered(len(result.mappings)), result.mappings, result.metrics, problem.objectives)
    return Run(
        name=name,
        problem=problem,
        algorithm=algorithm,
        seed=seed,
        front=with_robustness(problem, front, result.batch, robustness_samples, seed),
        baselines=baselines_of(problem),
        history=result.history,
        history_columns=result.history_columns,
        evaluations=result.evaluations,
        seconds=result.seconds,
        ended=result.ended,
        evaluated=result.evaluated,
        measurements={} if problem.measuring is None else problem.measuring.summary(),
    )


def front_of(problem: MappingProblem, mappings: tuple[Mapping, ...], ids: tuple[str, ...] = ()) -> Front:
    """Evaluate the mappings of a front for every column; without `ids` they are numbered in their order."""
    return Front(ids or numbered(len(mappings)), mappings, problem.evaluate_mappings(mappings), problem.objectives)


def numbered(n: int) -> tuple[str, ...]:
    """Return the ids of the n mappings of a front."""
    return tuple(f"m{i:03d}" for i in range(n))


def with_robustness(problem: MappingProblem, front: Front, batch: MappingBatch, n_samples: int, seed: int) -> Front:
    """Return the front, whose mappings are those of `batch`, with a column `robustness`; as it is without samples."""
    if n_samples == 0 or problem.measuring is not None:  # the model's constants then are not what is known
        return front
    share = robustness(problem, batch, n_samples, np.random.default_rng(seed))
    return replace(front, table={**front.table, ROBUSTNESS: share})


def robust_mappings(front: Front) -> int:
    """Count the mappings that stay non-dominated in ROBUST of the systems drawn, or more."""
    return int((front.table[ROBUSTNESS] >= ROBUST).sum())


def baselines_of(problem: MappingProblem) -> Front:
    """Evaluate the baselines for every column."""
    named = problem.named_baselines
    mappings = tuple(b.mapping for b in named.values())
    notes = tuple(b.note for b in named.values())
    measured = problem.measuring is not None  # perhaps with more attempts by now
    metrics = problem.evaluate_mappings(mappings) if measured else problem.baseline_metrics
    return Front(tuple(named), mappings, metrics, problem.objectives, notes)


def reference_point(problem: MappingProblem) -> dict[str, float]:
    """Reference point of the hypervolume by objective, as the objectives stand in tables."""
    point = zip(problem.objectives, problem.reference_point, strict=True)
    return {name: float(-value if name in MAXIMISED else value) for name, value in point}


def hypervolume(problem: MappingProblem, front: Front) -> float:
    """Hypervolume of a front, objectives in units of the problem's reference point."""
    return problem.hypervolume(minimised(front.table, problem.objectives))
