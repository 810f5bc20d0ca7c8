"""The memetic step: annealing runs between the generations of any evolutionary algorithm."""

from __future__ import annotations

import numpy as np

from neuromap_moo.annealing.run import AnnealingRun, advance, cost_of, start_run
from neuromap_moo.annealing.space import Scalarisation
from neuromap_moo.arrays import FloatArray, IntArray
from neuromap_moo.mapping.encoding import Genomes
from neuromap_moo.problem.problem import MappingProblem

#: Share of the work that goes to the ends of the front, one objective each; the rest goes between them.
END_SHARE = 0.6

#: A run towards an end lasts END_PART of all work so far, so runs grow with the search. Runs between the ends are
#: divided by the size of the front, at most MOST_RUNS; none is shorter than SHORTEST moves.
END_PART, MOST_RUNS, SHORTEST = 0.35, 20, 10_000

#: First temperatures (see start_run).
HEATS = (0.1, 0.05)

#: Through the second half of a run, when it is no longer hot, this many mappings that it meets are evaluated; they take
#: at most this share of a generation.
SNAPSHOTS, SNAPSHOT_SHARE = 10, 0.5

#: Weight of all other objectives in a run towards one end.
TIE_BREAK = 1e-3

#: Objectives count in units of the front's range, and of no less than this share of the reference point: on a front
#: that is nearly one point, ranges are chance.
NARROW = 0.05

#: Rough work of one evaluation, one move and one look at links, with what they grow by: per edge of the core graph,
#: per neighbour of a slice. Only ratios count, and only for how the budget is shared; measured on one machine
#: (benchmarks/evaluation.py), they are constants here so that a search depends on nothing but its seed.
EVALUATION_S, EVALUATION_EDGE_S = 130e-6, 20e-9
COSTING = 0.25  # of that work, for one more candidate for a start
MOVE_S, MOVE_NEIGHBOUR_S = 80e-9, 8e-9
LOOK_S, LOOK_NEIGHBOUR_S = 300e-9, 40e-9


class LocalSearch:
    """Annealing runs towards changing aims; `share` of a search's work goes to them.

    Runs start from the archive. Short ones may also start from the pool (p, V), first the initial mappings; the result
    of a run replaces the entry it started from. A run that is n times as long as the shortest starts from one of the
    best p / n, which is successive halving (Karnin, Koren and Somekh, ICML 2013) over partitions and placements.

    Part of a checkpoint, hence without the problem. `observe` hands it the archive after each generation; without one
    it does nothing.
    """

    def __init__(self, share: float, pool: Genomes) -> None:
        self.share = share
        self.pool = pool.copy()
        self.archive: tuple[Genomes, FloatArray] | None = None
        self.run: AnnealingRun | None = None
        self.target_objective = 0  # objective whose end the run goes to; m: between the ends
        self.pool_slot = -1  # place in the pool that the run's result takes, -1 for none
        self.tally = np.zeros((0, 3))  # (m + 1, 3) moves, looks at links and work by `target_objective`
        self.owed_s = 0.0  # of the share, by the rough work above

    @property
    def moves(self) -> int:
        """Incremental moves made so far."""
        return int(self.tally[:, 0].sum())

    def observe(self, X: Genomes, F: FloatArray) -> None:
        """Take the archive: genotypes (n, V) and minimised objectives (n, m)."""
        self.archive = X, F

    def improve(self, problem: MappingProblem, n_evaluations: int, rng: np.random.Generator) -> list[Genomes]:
        """Do the share of work that belongs to one generation.

        Parameters
        ----------
        problem
            the problem that is searched.
        n_evaluations
            of the generation; they set how much work is done.
        rng
            all random numbers come from it.

        Returns
        -------
        at most `n_evaluations` genotypes (V,) found meanwhile.

        """
        if self.archive is None or self.share == 0.0:
            return []
        if self.tally.size == 0:
            self.tally = np.zeros((problem.n_obj + 1, 3))
        results: list[Genomes] = []
        snapshots: list[Genomes] = []
        evaluation_s = self._evaluation_s(problem, self.archive[0][0])
        self.owed_s += n_evaluations * evaluation_s * self.share / (1.0 - self.share)
        while self.owed_s > 0.0 and len(results) < n_evaluations:
            if self.run is None:
                self.run = self._next_run(problem, *self.archive, rng)
            move_s, look_s = self._work(problem, self.run.cores_per_layer)
            n_moves = 1 + max(0, int(self.owed_s / (move_s + look_s)))
            if 2 * self.run.done >= self.run.total:
                n_moves = min(n_moves, 1 + self.run.total // (2 * SNAPSHOTS))
            made, looked = advance(problem.space, self.run, n_moves, rng)
            work_s = made * move_s + looked * look_s
            self.owed_s -= work_s
            self.tally[self.target_objective] += made, looked, work_s
            if self.run.ended:
                results.append(problem.encoding.join(*self.run.best))
                if self.pool_slot >= 0:
                    self.pool[self.pool_slot] = results[-1]
                self.run = None
            elif 2 * self.run.done > self.run.total:
                snapshots.append(problem.encoding.join(self.run.cores_per_layer, self.run.place))
        room = min(n_evaluations - len(results), int(SNAPSHOT_SHARE * n_evaluations))
        return results + snapshots[len(snapshots) - min(room, len(snapshots)) :]

    @classmethod
    def _evaluation_s(cls, problem: MappingProblem, genome: Genomes) -> float:
        """Work of the evaluation of a genotype (V,), and of making it."""
        edges, _ = cls._size(problem, problem.encoding.split(genome)[0])
        return EVALUATION_S + EVALUATION_EDGE_S * edges

    @classmethod
    def _work(cls, problem: MappingProblem, cores_per_layer: IntArray) -> tuple[float, float]:
        """Work of a move in a partition, and of a look at links."""
        _, degree = cls._size(problem, cores_per_layer)
        return MOVE_S + MOVE_NEIGHBOUR_S * degree, LOOK_S + LOOK_NEIGHBOUR_S * degree

    @staticmethod
    def _size(problem: MappingProblem, cores_per_layer: IntArray) -> tuple[float, float]:
        """Edges of the core graph of a partition, and neighbours per slice."""
        neighbours = problem.space.cache.partition_tables(cores_per_layer).neighbours
        return neighbours.neighbour.size / 2, neighbours.neighbour.size / neighbours.row.size

    def _next_run(self, problem: MappingProblem, X: Genomes, F: FloatArray, rng: np.random.Generator) -> AnnealingRun:
        """Begin where the archive is best for the next scalarisation."""
        m = F.shape[1]
        shares = np.append(np.full(m, END_SHARE / m), 1.0 - END_SHARE)
        self.target_objective = int(np.argmin(self.tally[:, 2] / shares)) if m > 1 else 0
        low, high = F.min(axis=0), F.max(axis=0)
        span = np.maximum(high - low, NARROW * np.abs(problem.reference_point))
        if self.target_objective < m:
            weights, part = np.eye(m)[self.target_objective], END_PART
        else:
            weights, part = rng.dirichlet(np.ones(m)), 1.0 / (1.0 / END_PART + min(len(F), MOST_RUNS))
        weights /= span
        best = X[int((F @ weights).argmin())]
        partition = problem.space.cache.partition_tables(problem.encoding.split(best)[0])
        if (
            self.target_objective < m
            and problem.space.cache.cost(partition, Scalarisation(tuple(weights.tolist()))).looks_at_links
        ):
            # Where links need not be looked at, a move is so much quicker that this is worth more than breaking ties.
            weights = np.maximum(weights, TIE_BREAK / span)
        scalarisation = Scalarisation(tuple(weights.tolist()), is_soft=True)
        move_s, look_s = self._work(problem, partition.cores_per_layer)
        moves, looks, _ = self.tally[self.target_objective]
        total = part * self.tally[:, 2].sum() / (move_s + look_s * (looks / moves if moves else 1.0))
        n_moves = max(SHORTEST, int(total))
        start = self._start(problem, scalarisation, best, n_moves, rng)
        return start_run(problem.space, scalarisation, start, n_moves, float(rng.choice(HEATS)), rng)

    def _start(
        self,
        problem: MappingProblem,
        scalarisation: Scalarisation,
        best: Genomes,
        n_moves: int,
        rng: np.random.Generator,
    ) -> Genomes:
        """Draw the genotype (V,) from which a run of `n_moves` starts; `best` is the archive's for it."""
        self.pool_slot = -1
        n = len(self.pool) * SHORTEST // n_moves
        if n <= 1:
            return best
        costs = [cost_of(problem.space, scalarisation, genome) for genome in (*self.pool, best)]
        self.owed_s -= len(costs) * self._evaluation_s(problem, best) * COSTING
        order = np.argsort(costs, kind="stable")
        chosen = int(rng.choice(order[:n]))
        self.pool_slot = chosen if chosen < len(self.pool) else int(order[order < len(self.pool)][-1])
        return best if chosen == len(self.pool) else self.pool[chosen].copy()
