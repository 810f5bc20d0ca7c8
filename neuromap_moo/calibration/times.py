"""Fit of the time constants."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq, least_squares

from neuromap_moo.arrays import BoolArray, FloatArray, IntArray
from neuromap_moo.calibration.counts import Counts
from neuromap_moo.calibration.terms import BOUNDS_FACTOR, FITTED, NO_DATA, SLACK, ZERO, in_unit
from neuromap_moo.system.costs import BARRIER
from neuromap_moo.system.system import System

#: Random starts of the fit of times, up to this factor away from the preset, and the p-norms that stand for the maximum
#: on the way: under the maximum itself, a constant that binds nowhere at the start is never moved. Steps of each.
STARTS, START_SPREAD, NORMS, ITERATIONS = 12, 10.0, (4.0, 16.0, math.inf), 30

#: A time constant needs as many mappings in which it binds, and to better the fit at this level of an F-test.
MINIMUM_BINDING, SIGNIFICANCE = 3, 0.05


class TimeFit:
    """The time constants as seconds per count (of a link: per message), and their fit.

    Parameters
    ----------
    counts
        What the constants are multiplied with, of n mappings.
    system
        Has the preset's constants.
    latency_s
        Measured, (n,).
    weight
        Of each mapping's residual, (n,).

    """

    def __init__(self, counts: Counts, system: System, latency_s: FloatArray, weight: FloatArray) -> None:
        columns = dict(counts.largest)
        preset = {cost: in_unit(system, cost, system.cost(cost)) for cost in columns}
        self.n_events = len(columns)
        for n_chips in np.unique(counts.chips):
            name = f"{BARRIER}.chips_{n_chips:.0f}"
            columns[name] = (counts.chips == n_chips).astype(np.float64)
            preset[name] = float(system.barrier_s(np.array([n_chips]))[0])
        self.names = tuple(columns)
        self.preset = np.array([preset[name] for name in self.names])
        self.columns = np.stack(list(columns.values()), axis=1)
        self.adds_barrier = system.combine == "max_plus_barrier"
        self.latency_steps = counts.latency_steps
        self.measured = np.log(latency_s / counts.latency_steps)
        self.weight = weight
        #: log(evaluator's time / analytic model's time), see `corrected`.
        self.log_ratio = np.zeros(latency_s.size)
        #: Constants that a fit can move.
        self.free = (self.preset > 0.0) & (self.columns > 0.0).any(axis=0)

    @property
    def log_step(self) -> FloatArray:
        """Logarithm of the step times (n,) that the analytic model has to give."""
        return self.measured - self.log_ratio

    def corrected(self, ratio: FloatArray) -> TimeFit:
        """Return the same for an evaluator whose times are `ratio` (n,) of the analytic model's."""
        other = copy.copy(self)
        other.log_ratio = np.log(ratio)
        return other

    def latency_s(self, constants: FloatArray) -> FloatArray:
        """Latencies (n,) of the analytic model by constants (q,)."""
        return self.latency_steps * self.step_s(constants, np.arange(self.measured.size))

    def step_s(self, constants: FloatArray, rows: IntArray, norm: float = math.inf) -> FloatArray:
        """Return the step times (r,) of some mappings.

        Parameters
        ----------
        constants
            In seconds per count, (q,).
        rows
            The mappings, (r,).
        norm
            The p of the p-norm that stands for the maximum; infinite for the maximum itself.

        """
        return np.asarray(self._parts(constants, rows, norm)[0])

    def fit(
        self,
        rows: IntArray,
        rng: np.random.Generator,
        start: FloatArray | None = None,
        free: BoolArray | None = None,
    ) -> FloatArray:
        """Return constants (q,) fitted to some mappings.

        Parameters
        ----------
        rows
            The mappings.
        rng
            Draws starting points.
        start
            The one starting point (q,); None for the preset and STARTS random ones.
        free
            Which constants may change (q,); the others stay as in `start`. None for all that can.

        """
        base = self.preset if start is None else start
        free = self.free if free is None else free
        best, least = base.copy(), math.inf
        for logs in self._starts(base, free, rng, several=start is None):
            found = self._descended(logs, base, free, rows, NORMS if start is None else NORMS[-1:])
            if (loss := self.loss(found, rows)) < least:
                best, least = found, loss
        # What does not bind is where a start put it.
        for j in np.flatnonzero(free & (self.binding(best, rows) == 0)):
            trial = best.copy()
            trial[j] = self.preset[j]
            if self.loss(trial, rows) <= least * (1.0 + 1e-9):
                best = trial
        return best

    def _starts(self, base: FloatArray, free: BoolArray, rng: np.random.Generator, several: bool) -> list[FloatArray]:
        """Return logarithms of the free constants to start from: those of `base`, and random ones."""
        centre, reach = np.log(self.preset[free]), math.log(BOUNDS_FACTOR)
        wide = math.log(START_SPREAD)
        drawn = [centre + rng.uniform(-wide, wide, centre.size) for _ in range(STARTS if several else 0)]
        return [np.clip(np.log(base[free]), centre - reach, centre + reach), *drawn]

    def _descended(
        self, logs: FloatArray, base: FloatArray, free: BoolArray, rows: IntArray, norms: Sequence[float]
    ) -> FloatArray:
        """Return constants (q,) after least squares from one start, through one p-norm after another."""
        centre, reach = np.log(self.preset[free]), math.log(BOUNDS_FACTOR)
        bounds = centre - reach - 1e-9, centre + reach + 1e-9
        for norm in norms:
            logs = least_squares(
                self._residual,
                logs,
                self._slope,
                bounds=bounds,
                max_nfev=ITERATIONS,
                xtol=1e-6,
                args=(base, free, rows, norm),
            ).x
        return self._moved(logs, base, free)

    def binding(self, constants: FloatArray, rows: IntArray) -> IntArray:
        """Count the mappings in which each constant (q,) decides."""
        return np.asarray((self._parts(constants, rows, math.inf)[1] > 0.0).sum(axis=0))

    def loss(self, constants: FloatArray, rows: IntArray) -> float:
        """Weighted sum of the squared residuals of the logarithm."""
        residual = np.log(self.step_s(constants, rows)) - self.log_step[rows]
        return float(((self.weight[rows] * residual) ** 2).sum())

    def without_needless(self, fitted: FloatArray) -> tuple[FloatArray, list[str]]:
        """Take out what the data do not need, one constant after another; return all constants and their status.

        One is needless when it binds in hardly any mapping, or the rest, fitted anew, predict as well by an F-test. It
        then has the preset's value, or the largest with which the rest still predict as well.
        """
        free, values = self.free.copy(), fitted.copy()
        status = [FITTED] * values.size
        while free.sum() > 1 and (needless := self._needless(values, free)) is not None:
            j, without = needless
            free[j] = False
            status[j] = self._slack_status(values, without, free)
            values = without
        for j in np.flatnonzero(self.free & ~free).tolist():
            values[j] = min(self.preset[j], self._largest(values, j, int(free.sum())))
        for j in np.flatnonzero(~self.free).tolist():
            status[j] = ZERO if self.preset[j] == 0.0 else NO_DATA
            values[j] = self.preset[j]
        return values, status

    def _needless(self, values: FloatArray, free: BoolArray) -> tuple[int, FloatArray] | None:
        """Return the constant that is missed least, and the others fitted without it; None if all are needed."""
        everything = np.arange(self.log_step.size)
        limit = self.loss(values, everything) * self._tolerance(int(free.sum()))
        trials = []
        for j in np.flatnonzero(free).tolist():
            rest, start = free.copy(), values.copy()
            rest[j], start[j] = False, 0.0
            without = self.fit(everything, np.random.default_rng(0), start, rest)
            trials.append((self.loss(without, everything), j, without))
        binding = self.binding(values, everything)
        rare = [trial for trial in trials if binding[trial[1]] < MINIMUM_BINDING]
        loss, j, without = min(rare or trials, key=lambda trial: trial[:2])
        return (j, without) if rare or loss <= limit else None

    def _slack_status(self, values: FloatArray, without: FloatArray, free: BoolArray) -> str:
        """Say which of the free constants changed most where another was taken out, if one did."""
        moved = np.abs(np.log(np.maximum(without, 1e-300) / np.maximum(values, 1e-300)))
        moved[~free] = 0.0
        like = int(moved.argmax())
        return SLACK if moved[like] < math.log(1.1) else f"{SLACK}, or else {self.names[like]} does less"

    def _largest(self, values: FloatArray, j: int, n_free: int) -> float:
        """Largest value of a constant with which the others predict as well as without it."""
        everything = np.arange(self.log_step.size)
        trial = values.copy()
        trial[j] = 0.0
        # Noise hides what binds nowhere but in a residual: the least of these counts too.
        limit = self.loss(trial, everything) * self._tolerance(n_free) + 1e-12

        def excess(u: float) -> float:
            trial[j] = math.exp(u)
            return self.loss(trial, everything) - limit

        low, high = (math.log(self.preset[j]) + sign * math.log(BOUNDS_FACTOR) for sign in (-1, 1))
        if excess(high) <= 0.0:
            return math.exp(high)
        return math.exp(brentq(excess, low, high, xtol=1e-3)) if excess(low) < 0.0 else math.exp(low)

    def _tolerance(self, n_free: int) -> float:
        """Return how many times the loss may grow when one of so many constants goes (F-test)."""
        from scipy.stats import f as f_distribution  # takes long to import

        rest = max(self.log_step.size - n_free, 1)
        return 1.0 + float(f_distribution.ppf(1.0 - SIGNIFICANCE, 1, rest)) / rest

    def _parts(self, constants: FloatArray, rows: IntArray, norm: float) -> tuple[FloatArray, FloatArray]:
        """Return step times (r,) and their derivatives by the logarithms of the constants (r, q)."""
        each = self.columns[rows] * constants
        n_max = self.n_events if self.adds_barrier else each.shape[1]
        largest = each[:, :n_max].max(axis=1, keepdims=True)
        if math.isinf(norm):
            step = largest[:, 0]
            slope = np.zeros_like(each)
            slope[np.arange(rows.size), each[:, :n_max].argmax(axis=1)] = step
        else:
            share = np.divide(each[:, :n_max], largest, out=np.zeros_like(each[:, :n_max]), where=largest > 0.0) ** norm
            total = share.sum(axis=1, keepdims=True)
            step = np.where(total > 0.0, largest * total ** (1.0 / norm), 0.0)[:, 0]
            slope = np.zeros_like(each)
            slope[:, :n_max] = step[:, None] * share / np.maximum(total, 1e-300)
        if self.adds_barrier:
            step = step + each[:, n_max:].sum(axis=1)
            slope[:, n_max:] = each[:, n_max:]
        return np.maximum(step, 1e-300), slope

    def _residual(self, u: FloatArray, base: FloatArray, free: BoolArray, rows: IntArray, norm: float) -> FloatArray:
        step = self.step_s(self._moved(u, base, free), rows, norm)
        return np.asarray(self.weight[rows] * (np.log(step) - self.log_step[rows]))

    def _slope(self, u: FloatArray, base: FloatArray, free: BoolArray, rows: IntArray, norm: float) -> FloatArray:
        step, slope = self._parts(self._moved(u, base, free), rows, norm)
        return np.asarray(self.weight[rows, None] * slope[:, free] / step[:, None])

    @staticmethod
    def _moved(u: FloatArray, base: FloatArray, free: BoolArray) -> FloatArray:
        constants = base.copy()
        constants[free] = np.exp(u)
        return constants
