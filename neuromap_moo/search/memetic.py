"""The memetic step: annealing runs between the generations of any evolutionary algorithm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neuromap_moo.search.encoding import Genomes
from neuromap_moo.search.local import Aim, AnnealingRun, advance, start_run

if TYPE_CHECKING:
    from neuromap_moo.search.problem import MappingProblem

FloatArray = NDArray[np.float64]

#: Share of the moves that go to the ends of the front, one objective each; the rest goes between them.
END_SHARE = 0.4

#: A run towards an end is this part of all moves made so far, so runs grow as a search goes on, and a search of any
#: length has some that are long for it. Between the ends, runs are shorter by the size of the front, counted up to
#: MOST_RUNS; none is shorter than SHORTEST.
END_PART, MOST_RUNS, SHORTEST = 1 / 12, 80, 10_000

#: First temperatures (see start_run).
HEATS = (0.2, 0.1, 0.05)

#: How many runs between the ends are held by the times of a mapping of the archive, and how hard.
BOUNDED_SHARE, BOUND_WEIGHT = 0.5, 5.0

#: Weight of all other objectives in a run towards one end.
TIE_BREAK = 1e-3

#: Objectives that the slowest link holds back.
TIMES = ("latency_s", "step_time_s", "throughput_hz", "t_link_s")
PEAK = "peak_link_messages"

#: Rough work of one evaluation, one move and one look at links, with what they grow by: per edge of the core graph,
#: per neighbour of a slice. Only ratios count, and only for how the budget is shared; measured on one machine
#: (benchmarks/evaluation.py), they are constants here so that a search depends on nothing but its seed.
EVALUATION_S, EVALUATION_EDGE_S = 40e-6, 8e-9
MOVE_S, MOVE_NEIGHBOUR_S = 50e-9, 4e-9
LOOK_S, LOOK_NEIGHBOUR_S = 300e-9, 45e-9


class LocalSearch:
    """Annealing runs towards changing aims, started from the archive; `share` of a search's work goes to them.

    Part of a checkpoint, hence without the problem. `observe` hands it the archive after each generation; without one
    it does nothing.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.moves = 0
        self.archive: tuple[Genomes, FloatArray] | None = None
        self.run: AnnealingRun | None = None
        self.towards = 0  # objective whose end the run goes to; m: between the ends
        self.spent = np.zeros(0)  # (m + 1,) moves by `towards`
        self.owed_s = 0.0  # of the share, by the rough work above

    def observe(self, X: Genomes, F: FloatArray) -> None:
        """Take the archive: genotypes (n, V) and minimised objectives (n, m)."""
        self.archive = X, F

    def improve(self, problem: MappingProblem, n_evaluations: int, rng: np.random.Generator) -> list[Genomes]:
        """Work for as long as `n_evaluations` evaluations allow; return the genotypes that finished runs came to."""
        if self.archive is None or self.share == 0.0:
            return []
        if self.spent.size == 0:
            self.spent = np.zeros(problem.n_obj + 1)
        found = []
        edges, _ = self._size(problem, problem.encoding.split(self.archive[0][0])[0])
        self.owed_s += n_evaluations * (EVALUATION_S + EVALUATION_EDGE_S * edges) * self.share / (1.0 - self.share)
        while self.owed_s > 0.0:
            if self.run is None:
                self.run = self._next_run(problem, *self.archive, rng)
            _, degree = self._size(problem, self.run.cores_per_layer)
            move_s, look_s = MOVE_S + MOVE_NEIGHBOUR_S * degree, LOOK_S + LOOK_NEIGHBOUR_S * degree
            made, looked = advance(problem, self.run, 1 + int(self.owed_s / (move_s + look_s)), rng)
            self.owed_s -= made * move_s + looked * look_s
            self.moves += made
            self.spent[self.towards] += made
            if self.run.ended:
                found.append(problem.encoding.join(*self.run.best))
                self.run = None
        return found

    @staticmethod
    def _size(problem: MappingProblem, cores_per_layer: NDArray[np.int64]) -> tuple[float, float]:
        """Edges of the core graph of a partition, and neighbours per slice."""
        graph = problem.workbench.cut(cores_per_layer).graph
        return graph.neighbour.size / 2, graph.neighbour.size / graph.row.size

    def _next_run(self, problem: MappingProblem, X: Genomes, F: FloatArray, rng: np.random.Generator) -> AnnealingRun:
        """Begin where the archive is best for the next aim."""
        m = F.shape[1]
        shares = np.append(np.full(m, END_SHARE / m), 1.0 - END_SHARE)
        self.towards = int(np.argmin(self.spent / shares)) if m > 1 else 0
        low, high = F.min(axis=0), F.max(axis=0)
        span = np.where(high > low, high - low, np.abs(problem.reference_point))
        floors = np.full(m, -np.inf)
        bounded = [i for i, name in enumerate(problem.objectives) if name in (*TIMES, PEAK)]
        if self.towards < m:
            weights = np.full(m, TIE_BREAK)
            weights[self.towards] = 1.0
            part = END_PART
        else:
            # Along a weighted sum, or: no slower than a mapping of the archive, and better in the rest.
            weights = rng.dirichlet(np.ones(m))
            if bounded and rng.random() < BOUNDED_SHARE:
                floors[bounded] = F[rng.integers(len(F)), bounded]
                weights[bounded] = BOUND_WEIGHT
            part = 1.0 / (1.0 / END_PART + min(len(F), MOST_RUNS))
        weights /= span
        start = X[int((np.maximum(F, floors) @ weights).argmin())]
        floor_s = floor_peak = 0.0
        for i in bounded:
            if np.isfinite(floors[i]) and problem.objectives[i] == PEAK:
                floor_peak = float(floors[i])
            elif np.isfinite(floors[i]):
                floor_s = max(floor_s, problem.step_time_s(i, float(floors[i])))
        aim = Aim(tuple(weights.tolist()), floor_s, floor_peak)
        return start_run(problem, aim, start, max(SHORTEST, int(part * self.moves)), float(rng.choice(HEATS)), rng)
