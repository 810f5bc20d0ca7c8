"""Multi-weight annealing as an algorithm in its own right: the rival that an evolutionary search has to beat."""

from __future__ import annotations

from typing import Any

import numpy as np
from pymoo.core.algorithm import Algorithm
from pymoo.core.population import Population

from neuromap_moo.annealing.run import AnnealingRun, advance, start_run
from neuromap_moo.annealing.space import Scalarisation
from neuromap_moo.arrays import FloatArray
from neuromap_moo.mapping.encoding import Genomes

HEAT = 0.1  # first temperature, see start_run
TIE_BREAK = 1e-3  # least weight of an objective
SNAPSHOTS = 10  # mappings evaluated per generation
FIRST_MOVES = 20_000


class MultiWeightAnnealing(Algorithm):
    """One annealing run after another, each on a weighted sum of the objectives; weights are spread evenly.

    Objectives count in units of their range over the baselines. The first run of each weight starts from the best
    baseline for it, the next from where the last one ended, with twice the moves. Every run's best is evaluated, and
    where it stands after every `snapshot_moves` moves.

    Parameters
    ----------
    weights
        (w, m) weights of the normalised objectives.
    snapshot_moves
        moves between two evaluations.
    run_moves
        moves of each run; None: FIRST_MOVES, doubled each time that all weights have had their turn.

    """

    def __init__(self, weights: FloatArray, snapshot_moves: int, run_moves: int | None) -> None:
        super().__init__()
        self.weights = np.maximum(weights, TIE_BREAK)
        self.snapshot_moves = snapshot_moves
        self.run_moves = run_moves
        self.moves = 0
        self.run: AnnealingRun | None = None
        self.n_runs = 0
        self.starts: list[Genomes] = []

    def _initialize_infill(self) -> Population:
        mappings = [b.mapping for b in self.problem.named_baselines.values()]
        return Population.new("X", self.problem.encoding.encode(mappings))

    def _initialize_advance(self, infills: Population | None = None, **kwargs: Any) -> None:
        F = infills.get("F")  # type: ignore[union-attr]
        span = np.ptp(F, axis=0)
        span[span == 0.0] = 1.0
        self.starts = [infills[int(i)].X for i in (F @ (self.weights / span).T).argmin(axis=0)]  # type: ignore[index]
        self.weights = self.weights / (span * np.abs(self.problem.reference_point))  # of objectives in their units

    def _infill(self) -> Population:
        problem, rng = self.problem, self.random_state
        X: list[Genomes] = []
        while len(X) < SNAPSHOTS:
            which = self.n_runs % len(self.weights)
            if self.run is None:
                total = self.run_moves or FIRST_MOVES * 2 ** (self.n_runs // len(self.weights))
                scalarisation = Scalarisation(tuple(self.weights[which].tolist()))
                self.run = start_run(problem.space, scalarisation, self.starts[which], total, HEAT, rng)
            made, _ = advance(problem.space, self.run, self.snapshot_moves, rng)
            self.moves += made
            if not self.run.ended:
                X.append(problem.encoding.join(self.run.cores_per_layer, self.run.place))
                continue
            self.starts[which] = problem.encoding.join(*self.run.best)
            X.append(self.starts[which])
            self.run = None
            self.n_runs += 1
        return Population.new("X", np.array(X))

    def _advance(self, infills: Population | None = None, **kwargs: Any) -> None:
        self.pop = infills
