"""Search with few measurements: a model fitted to them proposes mappings, the board decides.

Between measurements an evolutionary search runs on the analytic model with constants fitted to the measurements.
Gaussian processes correct what the model still gets wrong. Of the mappings found, those are measured whose optimistic
prediction, better than the mean by OPTIMISM standard errors, adds most hypervolume (SMS-EGO: Ponweiser, Wagner,
Biermann and Vincze, PPSN X, 2008). They are chosen one after the other, each as if those before had been measured as
predicted (Kriging believer: Ginsbourger, Le Riche and Carraro, 2010). While predictions rank the measurements badly,
the model is left aside and parents are varied as in NSGA-II.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import moocore
import numpy as np
from pymoo.core.algorithm import Algorithm
from pymoo.core.population import Population
from pymoo.operators.survival.rank_and_crowding import RankAndCrowding
from threadpoolctl import threadpool_limits

from neuromap_moo.arrays import FloatArray
from neuromap_moo.calibration.fit import fitted_system
from neuromap_moo.calibration.measurements import Measurement
from neuromap_moo.evolution.generation import FAILED, SearchState, new_state, non_dominated_rows, search_generation
from neuromap_moo.evolution.varied import varied_mappings
from neuromap_moo.mapping.encoding import Genomes
from neuromap_moo.models.metrics import MAXIMISED, MEASURED, Metrics, minimised
from neuromap_moo.problem.problem import MappingProblem

#: The constants are fitted again when there are this many times more measurements.
REFIT = 1.25

#: Standard deviations by which an uncertain mapping is taken to be better than predicted.
OPTIMISM = 2.0

#: Predictions made before the last WINDOW measurements have to rank them at least this well (Spearman, mean over the
#: measured objectives), or the model is left aside; judged from FEWEST predictions on.
WINDOW, FEWEST, TRUSTED = 40, 15, 0.4

#: The model takes the largest of its times, while on a chip those near a tie delay each other. So it is also searched
#: with neuron updates and links that are slower, by factors up to SLACK that are drawn anew with each fit: VARIANTS
#: models in all. The corrections tell which of the mappings found are good.
VARIANTS, SLACK = 4, 2.0

CHILDREN, MOST_CANDIDATES = 200, 1500
MOST_KNOWN = 300  # of the last measurements, that corrections are learnt from
PARENTS = 100  # of what is varied without the model

#: What the model says of a mapping that may tell where it is wrong: shares of these times in the timestep, and
#: logarithms of these columns. Fewer predicted better than more, and one length scale better than one for each.
SHARES = ("t_dendops_s", "t_synops_s", "t_link_s")
FEATURES = ("step_time_s", "message_hops", "cores_used")


class GuidedSearch(Algorithm):
    """The search as a pymoo algorithm: asked for mappings to be measured, told their objectives.

    Parameters
    ----------
    on_model
        Makes the algorithm that searches a modelled problem, from genotypes (n, V) to begin with.
    mating
        pymoo's mating, which makes mappings where the model is not trusted.
    initial
        Mappings that are measured first: the baselines, and varied ones up to this number.
    batch
        Mappings that are measured in every further generation.
    model_evaluations
        Evaluations of the model by each of its searches in a generation.

    """

    def __init__(
        self,
        on_model: Callable[[MappingProblem, Genomes], Algorithm],
        mating: Any,
        initial: int,
        batch: int,
        model_evaluations: int,
    ) -> None:
        super().__init__()
        self.on_model, self.mating = on_model, mating
        self.initial, self.batch, self.model_evaluations = initial, batch, model_evaluations
        self.seen: set[Any] = set()  # keys of what was asked for
        self.moves = 0  # of local search on the model
        self.tournament_type = "comp_by_dom_and_crowding"  # which the mating of NSGA-II asks for
        self.predicted = np.empty((0, 0))  # minimised objectives (n, m) of what was measured, by the model beforehand
        self.expected = np.empty((0, 0))  # of what was asked for last
        self.system: Any = None  # with fitted constants
        self.fitted_to = 0  # measurements
        self.states: list[SearchState] = []  # of the searches on the model and its variants
        self.slacks = np.empty((0, 2))  # of the variants: how much slower updates and links are
        self.model: MappingProblem | None = None
        self.kernels: dict[str, Any] = {}  # fitted ones, by column

    def __getstate__(self) -> dict[str, Any]:
        """Leave the model out of checkpoints; it is made again from the constants."""
        bare = [copy.copy(state) for state in self.states]
        for state in bare:
            state.algorithm = copy.copy(state.algorithm)
            state.algorithm.problem = None
        return {**self.__dict__, "model": None, "states": bare}

    @property
    def columns(self) -> dict[str, float]:
        """Columns of the history: `model_rank_correlation` (`rank_correlation`), `model_trusted` (1 or 0)."""
        return {"model_rank_correlation": self.rank_correlation(), "model_trusted": float(self.is_trusted)}

    @property
    def is_trusted(self) -> bool:
        """Whether the model may propose."""
        return not self.rank_correlation() < TRUSTED

    def rank_correlation(self) -> float:
        """Spearman correlation of predictions made beforehand with the last WINDOW measurements, -1 to 1.

        It is the mean over the measured objectives; nan while there are fewer than FEWEST predictions, or where no
        measured objective varies.
        """
        from scipy.stats import spearmanr

        F, P = self._measured()[1][-WINDOW:], self.predicted[-WINDOW:]
        good = np.isfinite(F + P).all(axis=1)
        if good.sum() < FEWEST:
            return float("nan")
        ranked = [
            float(spearmanr(f, p)[0]) if np.ptp(p) else 0.0
            for name, f, p in zip(self.problem.objectives, F[good].T, P[good].T, strict=True)
            if name in MEASURED and np.ptp(f)
        ]
        return float(np.mean(ranked)) if ranked else float("nan")

    def _initialize_infill(self) -> Population:
        problem: MappingProblem = self.problem
        self.system, self.predicted = problem.system, np.empty((0, problem.n_obj))
        baselines = [b.mapping for b in problem.named_baselines.values()]
        n_varied = max(self.initial - len(set(baselines)), 0)
        varied = varied_mappings(self._modelled(), n_varied, self.random_state) if n_varied else {}
        return self._ask(problem.encoding.encode(list(dict.fromkeys([*baselines, *varied.values()]))))

    def _initialize_advance(self, infills: Any = None, **kwargs: Any) -> None:
        self.pop = infills
        self.predicted = np.full_like(self.expected, np.nan)[: len(infills)]  # by constants fitted to nothing

    def _infill(self) -> Population:
        chosen = np.empty((0, self.problem.n_var), dtype=np.int64)
        if len(self.pop) >= REFIT * self.fitted_to:
            self._refit()
        if self.is_trusted and len(candidates := self._search()):
            chosen = self._choose(candidates)
        if len(chosen) < self.batch:
            chosen = np.concatenate([chosen, self._varied(self.batch - len(chosen))])
        return self._ask(chosen)

    def _advance(self, infills: Any = None, **kwargs: Any) -> None:
        self.pop = Population.merge(self.pop, infills)
        self.predicted = np.concatenate([self.predicted, self.expected[: len(infills)]])

    def _ask(self, X: Genomes) -> Population:
        self.seen.update(self.problem.encoding.keys(X))
        predicted = self._modelled().evaluator.evaluate(self.problem.encoding.decode(X))
        self.expected = minimised(predicted, self.problem.objectives)
        return Population.new("X", X)

    def _modelled(self) -> MappingProblem:
        """Return the problem on the model."""
        if self.model is None:
            self.model = self.problem.modelled(self.system)
            for slack, state in zip(self.slacks, self.states, strict=True):
                state.algorithm.problem = self._with_slack(*slack)
        return self.model

    def _with_slack(self, updates: float, links: float) -> MappingProblem:
        """Return the problem on the model with neuron updates and links that are slower by factors."""
        cost = self.system.cost
        slower = {name: cost(name) / links for name in self.system.costs if name.startswith("bandwidth")}
        variant: MappingProblem = self.problem.modelled(
            self.system.with_costs({**slower, "t_dendop_s": cost("t_dendop_s") * updates})
        )
        return variant

    def _measured(self) -> tuple[Genomes, FloatArray]:
        """Return what was measured, in the order it was asked for: genotypes (n, V) and minimised objectives (n, m).

        Objectives are nan where a mapping could not be measured.
        """
        if not len(self.pop):  # stopped before the first were
            return np.zeros((0, self.problem.n_var), dtype=np.int64), np.zeros((0, self.problem.n_obj))
        r, told = self.problem.reference_point, self.pop.get("F").astype(np.float64)
        F = r + (told - 1.0) * np.abs(r)
        F[(told >= FAILED).all(axis=1)] = np.nan
        return self.pop.get("X").astype(np.int64), F

    def _refit(self) -> None:
        """Fit the constants to what was measured, and begin the search on the model anew with the best of it."""
        X, F = self._measured()
        good = np.isfinite(F).all(axis=1)
        columns = self._columns(F[good])
        if "latency_s" in columns:
            joules = columns.get("energy_j", np.full(good.sum(), np.nan))
            measurements = [
                Measurement(str(i), *values, 1)
                for i, values in enumerate(zip(columns["latency_s"].tolist(), joules.tolist(), strict=True))
            ]
            mappings = self.problem.encoding.decode(X[good]).unstack()
            partitioner, preset = self.problem.partitioner, self.problem.system
            self.system = fitted_system(partitioner, preset, mappings, measurements, self.random_state)
        self.model, self.fitted_to, self.kernels = None, len(X), {}
        first = X[good][non_dominated_rows(F[good])]
        before, self.states = self.states, []
        self.slacks = SLACK ** self.random_state.random((VARIANTS, 2))
        self.slacks[0] = 1.0
        for i, slack in enumerate(self.slacks):
            model = self._with_slack(*slack)
            seeds = np.concatenate([first, before[i].archive_X]) if before else first
            seed = int(self.random_state.integers(2**31))
            self.states.append(new_state(model, self.on_model(model, seeds), seed))

    def _columns(self, F: FloatArray) -> dict[str, FloatArray]:
        """Return the measured columns (n,) behind minimised objectives (n, m)."""
        steps = self.problem.partitioner.steps_per_inference
        latency_steps = steps + self.problem.partitioner.depth - 1
        columns = {}
        for name, values in zip(self.problem.objectives, F.T, strict=True):
            if name == "throughput_hz":
                columns["latency_s"] = latency_steps * -1.0 / (steps * values)
            elif name == "step_time_s":
                columns["latency_s"] = latency_steps * values
            elif name in MEASURED:
                columns[name] = values
        return columns

    def _search(self) -> Genomes:
        """Search on the model for a while; return what it found, with children of what was measured, (c, V)."""
        self._modelled()
        found = [self._varied(CHILDREN)]
        for state in self.states:
            local = state.algorithm.mating.mutation.variation.local
            until, before = state.evaluations + self.model_evaluations, local.moves
            while not state.ended and state.evaluations < until:
                search_generation(state.algorithm.problem, state, until)
            self.moves += local.moves - before
            found += [state.archive_X, state.algorithm.pop.get("X").astype(np.int64)]
        X = np.concatenate(found)
        new = {key: i for i, key in enumerate(self.problem.encoding.keys(X)) if key not in self.seen}
        X = X[sorted(new.values())]
        if len(X) > MOST_CANDIDATES:
            X = X[np.sort(self.random_state.choice(len(X), MOST_CANDIDATES, replace=False))]
        return X

    def _choose(self, candidates: Genomes) -> Genomes:
        """Return up to a batch of candidates (c, V) that promise most, in the order they were chosen."""
        problem, model = self.problem, self._modelled()
        X, F = self._measured()
        good = np.isfinite(F).all(axis=1)
        X, F = X[good], F[good]
        front = problem.normalised(F)
        front = front[non_dominated_rows(front)]
        X, F = X[-MOST_KNOWN:], F[-MOST_KNOWN:]
        known, new = (model.evaluator.evaluate(problem.encoding.decode(rows)) for rows in (X, candidates))
        corrections = self._corrections(known, new, self._columns(F))
        means = {column: c.mean for column, c in corrections.items()}
        expected = problem.normalised(self._corrected(new, means))
        left, chosen = np.ones(len(candidates), dtype=np.bool_), list[int]()
        while left.any() and len(chosen) < self.batch:
            errors = {column: c.error for column, c in corrections.items()}
            optimistic = {column: mean - OPTIMISM * errors[column] for column, mean in means.items()}
            gain = _gains(problem.normalised(self._corrected(new, optimistic)), front)
            doubt = np.sum([np.zeros(len(candidates)), *errors.values()], axis=0)
            # Where nothing promises to move the front, what is known least.
            best = int(np.lexsort((-doubt, -gain, ~left))[0])
            chosen.append(best)
            left[best] = False
            front = np.concatenate([front, expected[best : best + 1]])
            front = front[non_dominated_rows(front)]
            for c in corrections.values():
                c.believe(best)
        return candidates[chosen]

    def _corrections(self, known: Metrics, new: Metrics, columns: dict[str, FloatArray]) -> dict[str, Correction]:
        made = {}
        for column, measured in columns.items():
            residual = np.log(measured / known[column])
            made[column] = Correction(known, new, residual, self.kernels.get(column))
            self.kernels[column] = made[column].kernel
        return made

    def _corrected(self, metrics: Metrics, by: dict[str, FloatArray]) -> FloatArray:
        """Minimised objectives of mappings whose measured columns are exp(by) of the model's."""
        factor = {column: np.exp(value) for column, value in by.items()}
        corrected = dict(metrics)
        for name, column in MEASURED.items():
            if column in factor:
                corrected[name] = metrics[name] * factor[column] ** (-1.0 if name in MAXIMISED else 1.0)
        return minimised(corrected, self.problem.objectives)

    def _varied(self, n: int) -> Genomes:
        """Vary parents from what was measured, as NSGA-II does."""
        rng = self.random_state
        parents = RankAndCrowding().do(self.problem, self.pop, n_survive=min(len(self.pop), PARENTS), random_state=rng)
        children = self.mating.do(self.problem, parents, n, algorithm=self, random_state=rng)
        return children.get("X").astype(np.int64) if len(children) else np.empty((0, self.problem.n_var), np.int64)


class Correction:
    """A Gaussian process of log(measured / modelled) in one column: `mean` and `error` (c,) of new mappings.

    Parameters
    ----------
    known
        Modelled metrics of k mappings that were measured.
    new
        Modelled metrics of c mappings.
    residual
        log(measured / modelled) of the known ones, (k,).
    kernel
        A fitted kernel to use; None to fit one.

    """

    def __init__(self, known: Metrics, new: Metrics, residual: FloatArray, kernel: Any = None) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        A, B = _features(known), _features(new)
        middle, spread = A.mean(axis=0), A.std(axis=0)
        spread[spread < 1e-9] = 1.0
        # A feature far beyond all measured values is taken as at their edge.
        known_features, new_features = (np.clip((x - middle) / spread, -5.0, 5.0) for x in (A, B))
        offset = float(np.median(residual))
        first = ConstantKernel(0.01, (1e-6, 1.0)) * RBF(3.0, (0.3, 100.0)) + WhiteKernel(1e-3, (1e-8, 0.1))
        process = GaussianProcessRegressor(
            first if kernel is None else kernel, alpha=1e-10, optimizer="fmin_l_bfgs_b" if kernel is None else None
        )
        # Several threads would add up in another order, and on so little only get in each other's way.
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore", ConvergenceWarning)  # at a bound
            process.fit(known_features, residual - offset)
            mean, self._covariance = process.predict(new_features, return_cov=True)
        self.kernel = process.kernel_
        self.mean = mean + offset
        self._noise = self.kernel.k2.noise_level
        # What is measured scatters about the mean by this; the error is that of the mean.
        self._covariance[np.diag_indices(len(mean))] -= self._noise

    @property
    def error(self) -> FloatArray:
        """Standard errors (c,) of the means."""
        return np.sqrt(np.maximum(np.diag(self._covariance), 0.0))

    def believe(self, i: int) -> None:
        """Condition on new mapping `i` as if measured as predicted: means stay, errors around it shrink."""
        column = self._covariance[:, i].copy()
        self._covariance -= np.outer(column, column) / (column[i] + self._noise)


def _features(metrics: Metrics) -> FloatArray:
    """Return the features (n, f) of mappings from their modelled metrics: see SHARES and FEATURES."""
    shares = [metrics[name] / metrics["step_time_s"] for name in SHARES]
    return np.stack([*shares, *(np.log(np.maximum(metrics[name], 1e-300)) for name in FEATURES)], axis=1)


def _gains(points: FloatArray, front: FloatArray) -> FloatArray:
    """Return the hypervolume (c,) that each point (c, m) alone adds to a front (n, m), up to (1, ..., 1)."""
    reference = np.ones(front.shape[1])
    before = moocore.hypervolume(front, ref=reference)
    gains = np.zeros(len(points))
    dominated = np.any((front[None] <= points[:, None]).all(axis=2), axis=1)
    for i in np.flatnonzero(~dominated & (points < 1.0).all(axis=1)):
        gains[i] = moocore.hypervolume(np.concatenate([front, points[i : i + 1]]), ref=reference) - before
    return gains
