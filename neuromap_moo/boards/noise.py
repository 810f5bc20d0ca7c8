"""Estimates of mappings from measurements that scatter and drift: a value and its standard error.

Scatter is taken as relative and the same for all mappings of a network, so values are compared by their logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from neuromap_moo.arrays import FloatArray
from neuromap_moo.boards.store import DONE, Attempt

#: Efficiency of the median for normal values: var(mean of n) / var(median of n), large n.
MEDIAN_EFFICIENCY = 2.0 / math.pi

DRIFT_LEVEL = 0.001  #: of the chi-squared test that tells drift from scatter
SMOOTHED = 3  # measurements of the control that stand for the drift between them
CONFIDENCE_Z = 1.96  #: standard errors to either side that make an interval of 95 %

#: Scatter that is assumed while nothing was measured twice.
ASSUMED_SCATTER = 0.03


class Drift(NamedTuple):
    """How one board measured the control mapping over time, in one metric."""

    board: str
    metric: str
    at_s: FloatArray  # (k,), since 1970
    measured: FloatArray  # (k,), relative to the reference: 1 is no drift
    corrected: bool  # where it is more than scatter

    @property
    def last(self) -> float:
        """Where the board ended, relative to the reference."""
        return float(np.exp(_smooth(np.log(self.measured))[-1]))


class Estimate(NamedTuple):
    """What is known of one mapping in one metric."""

    value: float  # median of all values, corrected for drift
    relative_error: float  # standard error
    attempts: int


class Estimates(NamedTuple):
    """What all attempts together say."""

    of: dict[str, dict[str, Estimate]]  # by metric, by mapping
    within: dict[str, float]  # relative standard deviation between repeats of one attempt, by metric
    between: dict[str, float]  # and between attempts at one mapping, beyond that
    drifts: list[Drift]


def estimates(attempts: Sequence[Attempt], metrics: Sequence[str], control: str | None) -> Estimates:
    """Estimate every mapping from all attempts that are done.

    If a chi-squared test finds drift, a board's values are divided by (its control measurements around that time) /
    (mean control value of all boards).

    Parameters
    ----------
    attempts
        In any order; those that are not done are left out. Boards are told apart by `name_of`.
    metrics
        The metrics to estimate.
    control
        Key of the mapping that every board measures now and then; None for none.

    """
    of: dict[str, dict[str, Estimate]] = {}
    within, between, drifts = {}, {}, []
    for metric in metrics:
        rows = [a for a in attempts if a.status == DONE and a.metrics.get(metric)]
        logs = {a.id: np.log(a.metrics[metric]) for a in rows}
        within[metric] = _pooled([x for x in logs.values() if x.size > 1])
        found, variance = _drifts(metric, [a for a in rows if a.mapping == control], logs, within[metric])
        drifts += found
        shifts = _shifts(rows, control, found, variance)
        between[metric], of[metric] = _estimates_of(rows, logs, shifts, within[metric])
    return Estimates(of, within, between, drifts)


def _shifts(
    attempts: Sequence[Attempt], control: str | None, drifts: Sequence[Drift], variance: float
) -> dict[int, tuple[float, float]]:
    """Return how far the logarithms of attempts are off by drift, and the variance of that; by id, where they are."""
    by_board = {d.board: d for d in drifts if d.corrected}
    shifts = {}
    for a in attempts:
        if (d := by_board.get(name_of(a))) is not None:
            shifts[a.id] = _shift(d, a, a.mapping == control), variance / min(SMOOTHED, d.at_s.size)
    return shifts


def _estimates_of(
    attempts: Sequence[Attempt],
    logs: Mapping[int, FloatArray],
    shifts: Mapping[int, tuple[float, float]],
    within: float,
) -> tuple[float, dict[str, Estimate]]:
    """Return the scatter between attempts in one metric, and an estimate of each mapping."""
    grouped: dict[str, list[FloatArray]] = {}
    variances: dict[str, list[float]] = {}
    for a in attempts:
        by, variance = shifts.get(a.id, (0.0, 0.0))
        grouped.setdefault(a.mapping, []).append(logs[a.id] - by)
        variances.setdefault(a.mapping, []).append(variance)
    between = _between([g for g in grouped.values() if len(g) > 1], within)
    of = {key: _estimate(group, within, between, float(np.mean(variances[key]))) for key, group in grouped.items()}
    return between, of


def _pooled(groups: Sequence[FloatArray]) -> float:
    """Return the standard deviation about the groups' own means; ASSUMED_SCATTER where no group has two values."""
    freedom = sum(g.size - 1 for g in groups)
    if freedom == 0:
        return ASSUMED_SCATTER
    return math.sqrt(sum(float(((g - g.mean()) ** 2).sum()) for g in groups) / freedom)


def _between(groups: Sequence[Sequence[FloatArray]], within: float) -> float:
    """Return the standard deviation of attempts at one mapping beyond that of their medians by scatter within."""
    if not groups:
        return 0.0
    medians = [np.array([np.median(x) for x in group]) for group in groups]
    by_chance = np.mean([_median_variance(within, x.size) for group in groups for x in group])
    return math.sqrt(max(_pooled(medians) ** 2 - float(by_chance), 0.0))


def _median_variance(within: float, n: int) -> float:
    """Return the variance of the median of n values."""
    return within**2 / (n if n <= 2 else n * MEDIAN_EFFICIENCY)


def _estimate(group: Sequence[FloatArray], within: float, between: float, correction: float) -> Estimate:
    values = np.concatenate(group)
    variance = _median_variance(within, values.size) + between**2 / len(group) + correction
    return Estimate(float(np.exp(np.median(values))), math.sqrt(variance), len(group))


def name_of(attempt: Attempt) -> str:
    """Return what tells boards apart: their place in the list and what they call themselves."""
    return f"{attempt.board} ({attempt.device})"


def attempts_by_board(attempts: Iterable[Attempt]) -> dict[str, list[Attempt]]:
    """Return attempts by the `name_of` their board, in the order given."""
    by_board: dict[str, list[Attempt]] = {}
    for a in attempts:
        by_board.setdefault(name_of(a), []).append(a)
    return by_board


def _shift(drift: Drift, attempt: Attempt, is_control: bool) -> float:
    """Return how far the logarithm of a value is off, by the control measurements around it, itself left out."""
    at_s, off = drift.at_s, np.log(drift.measured)
    if is_control:
        others = at_s != attempt.started_s
        if not others.any():
            return 0.0
        at_s, off = at_s[others], off[others]
    return float(np.interp(attempt.started_s, at_s, _smooth(off)))


def _smooth(values: FloatArray) -> FloatArray:
    """Return moving means of SMOOTHED values."""
    half = SMOOTHED // 2
    return np.array([values[max(i - half, 0) : i + half + 1].mean() for i in range(values.size)])


def _drifts(
    metric: str, attempts: Sequence[Attempt], logs: Mapping[int, FloatArray], within: float
) -> tuple[list[Drift], float]:
    """Return the drift of each board by attempts at the control, and the variance of one of these."""
    if not attempts:
        return [], 0.0
    from scipy.stats import chi2  # takes long to import

    by_board = attempts_by_board(sorted(attempts, key=lambda a: a.started_s))
    medians = {board: np.array([np.median(logs[a.id]) for a in rows]) for board, rows in by_board.items()}
    reference = float(np.mean(np.concatenate(list(medians.values()))))
    chance = np.mean([_median_variance(within, logs[a.id].size) for a in attempts])
    # Differences of neighbours show the scatter of attempts and little of a slow drift (von Neumann 1941).
    steps = np.concatenate([np.diff(x) for x in medians.values()])
    variance = max(float(chance), float(np.mean(steps**2)) / 2.0 if steps.size >= SMOOTHED else 0.0)
    drifts = []
    for board, rows in by_board.items():
        off = medians[board] - reference
        # The reference is made of the same measurements: with one board that takes a degree of freedom.
        freedom = off.size - (len(by_board) == 1)
        limit = chi2.ppf(1.0 - DRIFT_LEVEL, freedom) * variance if freedom else math.inf
        drifting = bool((off**2).sum() > limit + 1e-18)
        drifts.append(Drift(board, metric, np.array([a.started_s for a in rows]), np.exp(off), drifting))
    return drifts, variance
