"""Fit the cost constants of a system to measured mappings.

The latency of a mapping is a maximum, its energy a sum, of constants times counts (docs/model.md, "Time" and "Energy").
Latencies are fitted by least squares in their logarithm, energies by least squares of the relative error, all within
bounds around the preset. A constant that the data do not identify keeps its preset value, or, if that value would bind,
the largest that does not. Constants identified only by their sum keep the preset's ratio.
"""

from __future__ import annotations

import math
from collections import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from neuromap_moo.arrays import BoolArray, FloatArray, IntArray
from neuromap_moo.calibration.counts import count
from neuromap_moo.calibration.energies import EnergyFit
from neuromap_moo.calibration.measurements import MINIMUM, Measurement
from neuromap_moo.calibration.terms import FITTED, PREDICTED, Fitted, constant_of, in_unit, with_sources
from neuromap_moo.calibration.times import TimeFit
from neuromap_moo.errors import InputError
from neuromap_moo.mapping.mapping import Mapping, stack
from neuromap_moo.models.analytic import AnalyticEvaluator
from neuromap_moo.models.evaluator import Evaluator
from neuromap_moo.partition.fixed import AnyPartitioner
from neuromap_moo.system.system import System

BOOTSTRAPS, CONFIDENCE, HELD_OUT_SHARE = 200, 0.95, 0.25

#: Times are fitted to another evaluator in at most ROUNDS fits of the analytic model, until the logarithm of the ratio
#: of the two changes by less than SETTLED.
ROUNDS, SETTLED = 8, 0.005


@dataclass(frozen=True)
class Calibration:
    """A calibrated system, and what it was made from.

    Over the n mappings: `predicted` and `preset` have latency_s and energy_j by the calibrated constants and by those
    before. Where `held_out`, `predicted` comes from a fit to the other mappings alone; the constants come from all.
    """

    system: System
    constants: tuple[Fitted, ...]
    measurements: tuple[Measurement, ...]
    held_out: BoolArray
    predicted: abc.Mapping[str, FloatArray]
    preset: abc.Mapping[str, FloatArray]

    def unit_of(self, name: str) -> str:
        """Return the unit of one of the constants."""
        return self.system.costs[name].unit if name in self.system.costs else "s"

    @property
    def measured(self) -> dict[str, FloatArray]:
        """What was measured, by column, (n,) each; nan where it was not."""
        return {column: np.array([getattr(m, column) for m in self.measurements]) for column in PREDICTED}

    def errors(self) -> dict[str, dict[str, float]]:
        """Return the relative errors over held-out mappings by measured column.

        Keys of each: `median` and `largest`, and `median_before` and `largest_before` with the preset's constants.
        """
        errors: dict[str, dict[str, float]] = {}
        for column, measured in self.measured.items():
            rows = self.held_out & np.isfinite(measured)
            for by, end in ((self.predicted, ""), (self.preset, "_before")) if rows.any() else ():
                off = np.abs(by[column][rows] / measured[rows] - 1.0)
                errors.setdefault(column, {})[f"median{end}"] = float(np.median(off))
                errors[column][f"largest{end}"] = float(off.max())
        return errors


def calibrate(
    partitioner: AnyPartitioner,
    system: System,
    mappings: Sequence[Mapping],
    measurements: Sequence[Measurement],
    rng: np.random.Generator,
    source: str = "measurements",
    evaluator: Callable[[System], Evaluator] | None = None,
) -> Calibration:
    """Fit the constants of a system to measurements.

    Parameters
    ----------
    partitioner
        That of the problem the mappings belong to.
    system
        Has the preset's constants, from which the fit starts.
    mappings
        n different ones.
    measurements
        One for each mapping, in the same order.
    rng
        Draws the mappings held out, starting points and bootstrap samples.
    source
        Noted with the constants, e.g. the name of a file.
    evaluator
        Makes of a system what shall predict the measurements; None is the analytic model. For another one, times are
        fitted to the measurements divided by (the evaluator's time / the analytic model's time), again and again.

    Returns
    -------
    calibration
        The system with fitted constants, and how well it predicts.

    Raises
    ------
    InputError
        For fewer than MINIMUM mappings, or where all take the same time.

    """
    n = len(mappings)
    latency_s = np.array([m.latency_s for m in measurements])
    if not _is_enough(latency_s):
        between = f" of {latency_s.min():.4g} to {latency_s.max():.4g} s" if n else ""
        raise InputError(
            f"measurements: expected at least {MINIMUM} mappings that do not all take the same time, got {n}{between}; "
            "measure mappings of few to many cores"
        )
    calibrator = _Calibrator(partitioner, system, mappings, measurements, evaluator)
    held_out = np.zeros(n, dtype=np.bool_)
    held_out[rng.permutation(n)[: round(HELD_OUT_SHARE * n)]] = True
    checked = calibrator.predict(*calibrator.fit(np.flatnonzero(~held_out), rng)[1:])
    constants, final = calibrator.constants(rng)
    return Calibration(
        system=with_sources(system, constants, f"fitted to {n} mappings of {source}"),
        constants=tuple(constants),
        measurements=tuple(measurements),
        held_out=held_out,
        predicted={key: np.where(held_out, checked[key], final[key]) for key in final},
        preset=calibrator.predict(calibrator.times.preset, calibrator.energies.preset),
    )


def fitted_system(
    partitioner: AnyPartitioner,
    system: System,
    mappings: Sequence[Mapping],
    measurements: Sequence[Measurement],
    rng: np.random.Generator,
) -> System:
    """Return a system with constants fitted to measurements by the analytic model, without `calibrate`'s checks.

    It stays as it is for fewer than MINIMUM mappings, or where all take the same time.

    Parameters
    ----------
    partitioner, system, mappings, measurements
        As those of `calibrate`.
    rng
        Draws starting points.

    """
    if not _is_enough(np.array([m.latency_s for m in measurements])):
        return system
    times, energies = _fits_of(partitioner, system, mappings, measurements)
    everything = np.arange(len(mappings))
    changed = {}
    for part, values in ((times, times.fit(everything, rng)), (energies, energies.fit(everything))):
        for name, value, free in zip(part.names, values, part.free, strict=True):
            if free:
                changed[name] = constant_of(system, name, in_unit(system, name, value), "fitted while searching")
    return system.with_costs(changed)


def _is_enough(latency_s: FloatArray) -> bool:
    """Whether latencies (n,) tell anything of the constants."""
    return latency_s.size >= MINIMUM and bool(np.ptp(latency_s) != 0.0)


def _fits_of(
    partitioner: AnyPartitioner, system: System, mappings: Sequence[Mapping], measurements: Sequence[Measurement]
) -> tuple[TimeFit, EnergyFit]:
    """Return the fits of times and of energies to measurements; a mapping's weight is its number of repeats."""
    counts = count(partitioner, system, mappings)
    latency_s, energy_j = (np.array([getattr(m, column) for m in measurements]) for column in PREDICTED)
    weight = np.sqrt([float(m.repeats) for m in measurements])
    return TimeFit(counts, system, latency_s, weight), EnergyFit(counts, system, latency_s, energy_j, weight)


class _Calibrator:
    """Times and energies fitted together, with any evaluator to predict the measurements."""

    def __init__(
        self,
        partitioner: AnyPartitioner,
        system: System,
        mappings: Sequence[Mapping],
        measurements: Sequence[Measurement],
        evaluator: Callable[[System], Evaluator] | None,
    ) -> None:
        self.system = system
        self.evaluator = evaluator or (lambda system: AnalyticEvaluator(partitioner, system))
        self.batch = stack(mappings)
        self.everything = np.arange(len(mappings))
        self.times, self.energies = _fits_of(partitioner, system, mappings, measurements)

    def predict(self, times: FloatArray, energies: FloatArray) -> dict[str, FloatArray]:
        """Return the PREDICTED columns (n,) of all mappings by the evaluator, from time and energy constants."""
        changed = {}
        for part, values in ((self.times, times), (self.energies, energies)):
            for name, value in zip(part.names, values, strict=True):
                changed[name] = constant_of(self.system, name, in_unit(self.system, name, value))
        metrics = self.evaluator(self.system.with_costs(changed)).evaluate(self.batch)
        return {column: metrics[column] for column in PREDICTED}

    def fit(self, rows: IntArray, rng: np.random.Generator) -> tuple[TimeFit, FloatArray, FloatArray]:
        """Return constants of times (q,) and of energies (p,) fitted to some mappings.

        The first value is the fit of times as corrected for the evaluator.
        """
        fit, times = self.times, self.times.preset
        for _ in range(ROUNDS):
            times, before = fit.fit(rows, rng), fit.log_ratio
            predicted_s = self.predict(times, self.energies.preset)["latency_s"]
            fit = self.times.corrected(predicted_s / self.times.latency_s(times))
            if np.abs(fit.log_ratio - before).max() < SETTLED:
                break
        return fit, times, self.energies.fit(rows)

    def constants(self, rng: np.random.Generator) -> tuple[list[Fitted], dict[str, FloatArray]]:
        """Return all constants, fitted to all mappings, and what they predict."""
        time_fit, best, energies = self.fit(self.everything, rng)
        times, time_status = time_fit.without_needless(best)
        n = self.everything.size
        samples = [rng.integers(n, size=n) for _ in range(BOOTSTRAPS)]
        time_range = _interval_of([time_fit.fit(rows, rng, start=best) for rows in samples])
        energy_range = _interval_of([self.energies.fit(rows) for rows in samples])
        constants = [
            *self._told(time_fit, times, time_range, time_status),
            *self._told(self.energies, energies, energy_range, self.energies.status()),
        ]
        return constants, self.predict(times, energies)

    def _told(
        self,
        fit: TimeFit | EnergyFit,
        values: FloatArray,
        interval: tuple[FloatArray, FloatArray],
        statuses: Sequence[str],
    ) -> list[Fitted]:
        """Return constants in their units, with their intervals where the data gave them."""
        constants = []
        for i, (name, status) in enumerate(zip(fit.names, statuses, strict=True)):
            preset, value, *ends = (in_unit(self.system, name, x[i]) for x in (fit.preset, values, *interval))
            low, high = sorted(ends) if status == FITTED else (math.nan, math.nan)
            constants.append(Fitted(name, preset, value, low, high, status))
        return constants


def _interval_of(drawn: list[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Return the ends of the central interval at CONFIDENCE, (p,) each, of bootstrap draws (p,)."""
    tail = (1.0 - CONFIDENCE) / 2
    low, high = np.quantile(np.array(drawn), (tail, 1.0 - tail), axis=0)
    return low, high
