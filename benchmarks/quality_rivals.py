"""One run of one algorithm on one benchmark instance, for as many seconds as every other gets."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.crossover import Crossover
from pymoo.core.mutation import Mutation
from pymoo.core.problem import Problem
from pymoo.core.repair import Repair
from pymoo.core.sampling import Sampling
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.ox import OrderCrossover
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.inversion import InversionMutation
from pymoo.operators.mutation.pm import PM
from pymoo.operators.sampling.rnd import IntegerRandomSampling, PermutationRandomSampling
from scipy.optimize import quadratic_assignment

import neuromap_moo as nm
from neuromap_moo.arrays import FloatArray, IntArray
from neuromap_moo.evolution.algorithms import ALGORITHMS
from neuromap_moo.evolution.generation import non_dominated_rows
from neuromap_moo.files import whole_file
from neuromap_moo.mapping.mapping import Mapping, stack
from neuromap_moo.models.metrics import minimised
from neuromap_moo.partition.core_graph import CoreGraph

#: Rivals that are no algorithm of the package.
RIVALS = ("stock_nsga2", "annealing_single", "scipy_faq", "scipy_2opt")

#: Rivals that go for the ends of the front alone, and so have no say in hypervolume.
ENDS_ONLY = ("annealing_single", "scipy_faq", "scipy_2opt")

#: scipy's 2opt is a Python loop over all pairs that cannot be broken off: a minute from one start on 120 cores.
MOST_2OPT = 64

N_MARKS = 50
ROUND_MARKS = (0.5, 1.0, 2.0, 5.0, 6.0, 10.0, 15.0, 20.0, 30.0, 60.0)
STOCK_POPULATION = 100
WEIGHTS = 12


@dataclass(frozen=True)
class Record:
    """What one run found: minimised objectives (n, m) with their mappings, and how it got there.

    `history` has a row per mark: seconds, evaluations, hypervolume in units of the reference point, and the best of
    each objective (inf before the first evaluation) as they stood when these seconds were over.
    """

    facts: dict[str, Any]
    history: FloatArray
    F: FloatArray
    mappings: tuple[Mapping, ...]

    def at(self, seconds: float) -> FloatArray:
        """Row of the history at the last mark that is no later."""
        last = np.flatnonzero(self.history[:, 0] <= seconds + 1e-9)[-1]
        return np.asarray(self.history[last])


def marks(seconds: float) -> FloatArray:
    """Seconds at which the state of a run is written down."""
    fine = np.geomspace(seconds / 200, seconds, N_MARKS)
    return np.unique(np.concatenate([fine, [m for m in ROUND_MARKS if m < seconds]]))


class Recorder:
    """Takes the archive after each generation and keeps what it was at each mark."""

    def __init__(self, known: nm.Benchmark, seconds: float) -> None:
        self.known, self.marks = known, marks(seconds)
        self.rows: list[list[float]] = []
        self.evaluations, self.F = 0, np.empty((0, len(known.reference_point)))

    def see(self, elapsed: float, evaluations: int, F: FloatArray) -> None:
        """Note the state after `elapsed` seconds; marks that lie before it get the state before."""
        while len(self.rows) < len(self.marks) and self.marks[len(self.rows)] < elapsed:
            self._write()
        self.evaluations, self.F = evaluations, F

    def finish(self) -> FloatArray:
        """Return a row per mark, as `Record.history`."""
        while len(self.rows) < len(self.marks):
            self._write()
        return np.array(self.rows)

    def _write(self) -> None:
        found = len(self.F) > 0
        volume = self.known.hypervolume(self.F) if found else 0.0
        best = self.F.min(axis=0) if found else np.full(self.F.shape[1], np.inf)
        self.rows.append([self.marks[len(self.rows)], self.evaluations, volume, *best])


def applies(algorithm: str, known: nm.Benchmark) -> bool:
    """Tell whether an algorithm can be run on an instance."""
    if not algorithm.startswith("scipy"):
        return True
    fits = algorithm != "scipy_2opt" or known.problem.system.n_cores <= MOST_2OPT
    return fits and isinstance(known.problem.network, CoreGraph) and "message_hops" in known.problem.objectives


def run(name: str, algorithm: str, seed: int, seconds: float, folder: Path | None) -> Record:
    """Run an algorithm on an instance; what all mappings have in common is made before the clock starts."""
    known = nm.benchmark(name, folder)
    problem = known.problem
    started = time.perf_counter()
    problem.evaluate_mappings([b.mapping for b in problem.named_baselines.values()])
    problem.reference_point  # noqa: B018 (made and kept)
    setup = time.perf_counter() - started
    if algorithm == "stock_nsga2":
        facts, history, mappings = stock(known, seed, seconds)
    elif algorithm == "annealing":
        facts, history, mappings = annealing(known, seed, seconds)
    elif algorithm == "annealing_single":
        facts, history, mappings = annealing_single(known, seed, seconds)
    elif algorithm.startswith("scipy"):
        facts, history, mappings = assignment(known, algorithm.removeprefix("scipy_"), seed, seconds)
    else:
        facts, history, mappings = ours(known, algorithm, {}, seed, seconds)
    mappings = tuple(mappings)
    facts |= {"instance": name, "algorithm": algorithm, "seed": seed, "budget_s": seconds, "setup_s": setup}
    facts |= {"date": date.today().isoformat(), "version": nm.__version__}
    return Record(facts, history, objectives(known, mappings), mappings)


def objectives(known: nm.Benchmark, mappings: tuple[Mapping, ...]) -> FloatArray:
    return minimised(known.problem.evaluate_mappings(mappings), known.problem.objectives)


Outcome = tuple[dict[str, Any], FloatArray, tuple[Mapping, ...]]


def ours(known: nm.Benchmark, algorithm: str, options: dict[str, Any], seed: int, seconds: float) -> Outcome:
    """Run an algorithm of the package by name."""
    recorder = Recorder(known, seconds)
    found = nm.search(
        known.problem,
        algorithm,
        evaluations=None,
        seconds=seconds,
        seed=seed,
        options=options,
        on_generation=lambda state: recorder.see(state.seconds, state.evaluations, state.archive_F),
    )
    moves = int(found.history[-1][found.history_columns.index("moves")])
    facts = {"evaluations": found.evaluations, "moves": moves, "seconds": found.seconds}
    return facts, recorder.finish(), found.front.mappings


def moves_per_second(problem: nm.MappingProblem, seed: int, seconds: float) -> float:
    found = nm.search(problem, "annealing", evaluations=None, seconds=max(0.3, min(1.0, 0.1 * seconds)), seed=seed)
    return float(found.history[-1][found.history_columns.index("moves")] / found.seconds)


def annealing(known: nm.Benchmark, seed: int, seconds: float) -> Outcome:
    """Multi-weight annealing, the better of two: one long run per weight in all, and runs that double their length."""
    n_weights = 1 if known.problem.n_obj == 1 else WEIGHTS
    run_moves = max(1, int(0.95 * moves_per_second(known.problem, seed, seconds) * seconds / n_weights))
    outcomes = []
    for variant, moves in (("one pass", run_moves), ("doubling", 0)):
        facts, history, mappings = ours(known, "annealing", {"weights": WEIGHTS, "run_moves": moves}, seed, seconds)
        outcomes.append(({**facts, "variant": variant}, history, mappings))
    return max(outcomes, key=lambda outcome: known.hypervolume(objectives(known, tuple(outcome[2]))))


def annealing_single(known: nm.Benchmark, seed: int, seconds: float) -> Outcome:
    """Annealing on each objective alone, one run that takes all the seconds for each: the ends of the front."""
    evaluations = moves = 0
    mappings: list[Mapping] = []
    for objective in known.problem.objectives:
        problem = nm.MappingProblem(known.problem.network, known.problem.system, (objective,))
        run_moves = max(1, int(0.95 * moves_per_second(problem, seed, seconds) * seconds))
        options = {"run_moves": run_moves}
        found = nm.search(problem, "annealing", evaluations=None, seconds=seconds, seed=seed, options=options)
        evaluations += found.evaluations
        moves += int(found.history[-1][found.history_columns.index("moves")])
        mappings += found.front.mappings
    recorder = Recorder(known, seconds)
    recorder.see(0.0, evaluations, objectives(known, tuple(mappings)))
    facts = {"evaluations": evaluations, "moves": moves, "seconds": seconds}
    return facts, recorder.finish()[-1:], tuple(mappings)


class Archive:
    """All non-dominated finds of a rival that has no archive of its own: minimised objectives and genotypes."""

    def __init__(self, known: nm.Benchmark, seconds: float) -> None:
        self.known, self.recorder, self.evaluations = known, Recorder(known, seconds), 0
        self.F = np.empty((0, known.problem.n_obj))
        self.X = np.empty((0, known.problem.n_var), dtype=np.int64)
        self.started = time.perf_counter()

    def add(self, X: IntArray, F: FloatArray) -> None:
        self.evaluations += len(F)
        X, F = np.concatenate([self.X, X]), np.concatenate([self.F, F])
        keep = non_dominated_rows(F)
        self.X, self.F = X[keep], F[keep]
        self.recorder.see(self.elapsed, self.evaluations, self.F)

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.started

    def outcome(self) -> Outcome:
        facts = {"evaluations": self.evaluations, "moves": 0, "seconds": self.elapsed}
        return facts, self.recorder.finish(), tuple(self.known.problem.encoding.decode(self.X).unstack())


class StockProblem(Problem):
    """The variables as stock operators know them: extra cores per layer, where they are free, and a permutation."""

    def __init__(self, problem: nm.MappingProblem) -> None:
        self.problem, e = problem, problem.encoding
        upper = np.zeros(0) if e.has_fixed_partition else (e.maximum - e.minimum).astype(float)
        self.n_extra = upper.size
        self.extras = Problem(n_var=upper.size, xl=np.zeros(upper.size), xu=upper) if upper.size else None
        self.order = Problem(n_var=e.n_cores, xl=0, xu=e.n_cores - 1)
        bounds = np.concatenate([upper, np.full(e.n_cores, e.n_cores - 1)])
        super().__init__(n_var=bounds.size, n_obj=problem.n_obj, xl=np.zeros(bounds.size), xu=bounds, vtype=int)

    def genomes(self, X: np.ndarray) -> IntArray:
        """Genotypes of the package's encoding."""
        absent = self.problem.encoding.n_layers - self.n_extra
        return np.concatenate([np.zeros((len(X), absent), dtype=np.int64), X.astype(np.int64)], axis=1)

    def _evaluate(self, X: np.ndarray, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        out["F"] = self.problem.evaluate(self.genomes(X))


def _parts(problem: StockProblem, X: np.ndarray) -> Iterator[tuple[Problem, np.ndarray]]:
    if problem.extras is not None:
        yield problem.extras, X[..., : problem.n_extra].astype(float)
    yield problem.order, X[..., problem.n_extra :].astype(int)


class StockSampling(Sampling):
    def _do(self, problem: StockProblem, n_samples: int, *args: Any, **kwargs: Any) -> np.ndarray:
        parts = [PermutationRandomSampling()._do(problem.order, n_samples, **kwargs)]
        if problem.extras is not None:
            parts.insert(0, IntegerRandomSampling()._do(problem.extras, n_samples, **kwargs))
        return np.concatenate(parts, axis=1)


def _vary(problem: StockProblem, X: np.ndarray, order: Any, extras: Any, **kwargs: Any) -> np.ndarray:
    """Apply one stock operator to the permutations and one to the extra cores, and put the columns together."""
    parts = [np.rint((order if p is problem.order else extras)._do(p, own, **kwargs)) for p, own in _parts(problem, X)]
    return np.concatenate(parts, axis=-1).astype(np.int64)


class StockCrossover(Crossover):
    def __init__(self) -> None:
        super().__init__(2, 2)
        self.extras, self.order = SBX(prob=1.0, eta=3.0), OrderCrossover()

    def _do(self, problem: StockProblem, X: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
        return _vary(problem, X, self.order, self.extras, **kwargs)


class StockMutation(Mutation):
    def __init__(self) -> None:
        super().__init__()
        self.extras, self.order = PM(prob=1.0, eta=3.0), InversionMutation()

    def _do(self, problem: StockProblem, X: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
        return _vary(problem, X, self.order, self.extras, **kwargs)


class StockRepair(Repair):
    def _do(self, problem: StockProblem, X: np.ndarray, **kwargs: Any) -> np.ndarray:
        if problem.extras is None:
            return X
        return problem.problem.encoding.repair(X)


def stock(known: nm.Benchmark, seed: int, seconds: float) -> Outcome:
    """pymoo's NSGA-II with its own operators: OX and inversion on the permutation, integer SBX and PM on the rest."""
    problem = StockProblem(known.problem)
    algorithm = NSGA2(
        pop_size=STOCK_POPULATION,
        sampling=StockSampling(),
        crossover=StockCrossover(),
        mutation=StockMutation(),
        repair=StockRepair(),
    )
    algorithm.setup(problem, termination=NoTermination(), seed=seed)
    archive = Archive(known, seconds)
    while archive.elapsed < seconds:
        asked = algorithm.ask()
        if asked is None or len(asked) == 0:
            break
        algorithm.evaluator.eval(problem, asked)
        archive.add(problem.genomes(asked.get("X")), asked.get("F"))
        algorithm.tell(infills=asked)
    return archive.outcome()


def assignment(known: nm.Benchmark, method: str, seed: int, seconds: float) -> Outcome:
    """scipy's quadratic_assignment on messages times hops, from random starts until the seconds are over."""
    graph, system = known.problem.network, known.problem.system
    if not isinstance(graph, CoreGraph):
        raise TypeError(f"network: expected a CoreGraph, whose partition is fixed, got {type(graph).__name__}")
    router = system.router_of_core[system.usable_cores]
    hops = system.hops[np.ix_(router, router)].astype(float)
    flow = np.zeros_like(hops)
    np.add.at(flow, (graph.source, graph.target), graph.messages)
    rng = np.random.default_rng(seed)
    archive = Archive(known, seconds)
    while archive.elapsed < seconds:
        options: dict[str, Any] = {"rng": rng}
        if method == "faq":
            options["P0"] = "randomized"
        place = quadratic_assignment(flow, hops, method=method, options=options).col_ind
        X = known.problem.encoding.join(np.array(graph.cores_per_layer), place[: graph.n_slices])[None]
        archive.add(X, known.problem.evaluate(X))
    return archive.outcome()


def save(record: Record, path: Path) -> None:
    batch = stack(record.mappings)
    with whole_file(path) as temporary, open(temporary, "wb") as f:
        np.savez_compressed(
            f,
            facts=np.array(json.dumps(record.facts)),
            history=record.history,
            F=record.F,
            cores_per_layer=batch.cores_per_layer.astype(np.int16),
            core_of_slice=batch.core_of_slice.astype(np.int16),
        )


def load(path: Path) -> Record:
    with np.load(path) as data:
        facts = json.loads(str(data["facts"]))
        pairs = zip(data["cores_per_layer"], data["core_of_slice"], strict=True)
        mappings = tuple(Mapping(k, cores[cores >= 0]) for k, cores in pairs)
        return Record(facts, data["history"], data["F"], mappings)


def algorithms() -> list[str]:
    return sorted({*ALGORITHMS, *RIVALS})
