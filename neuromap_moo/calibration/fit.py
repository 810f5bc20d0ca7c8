"""Fit the cost constants of a system to measured mappings.

A timestep takes the largest of constants times counts (max-affine, DESIGN 4.5), and the energy of an inference is a sum
of such products. So times are fitted by least squares of their logarithm, energies by linear least squares of the
relative error, both within bounds around the preset. A constant that the data do not need keeps the preset's value,
or the largest with which it does not show; those that only their sum is known of stay close to the preset's ratio.
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
from neuromap_moo.calibration.terms import (
    BOOTSTRAPS,
    FITTED,
    HELD_OUT_SHARE,
    PREDICTED,
    Fitted,
    constant_of,
    in_unit,
    interval_of,
    with_sources,
)
from neuromap_moo.calibration.times import TimeFit
from neuromap_moo.errors import InputError
from neuromap_moo.mapping.mapping import Mapping, stack
from neuromap_moo.models.analytic import AnalyticEvaluator
from neuromap_moo.models.evaluator import Evaluator
from neuromap_moo.partition.fixed import AnyPartitioner
from neuromap_moo.system.system import System

#: Fits to the analytic model, corrected for what another evaluator makes of it, until that changes no more.
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
        """Relative errors over held-out mappings by measured column: median and largest, now and with the preset."""
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
    """Fit the constants of `system` to measurements, one for each mapping; `source` is noted with the constants.

    `evaluator` makes what shall predict the measurements from a system; None is the analytic model. For another one,
    times are fitted again and again to what is measured, less what the evaluator makes of the analytic model's time.

    Raises InputError for fewer than MINIMUM mappings, or when all take the same time.
    """
    n = len(mappings)
    latency_s = np.array([m.latency_s for m in measurements])
    if n < MINIMUM or np.ptp(latency_s) == 0.0:
        between = f" of {latency_s.min():.4g} to {latency_s.max():.4g} s" if n else ""
        raise InputError(
            f"measurements: expected at least {MINIMUM} mappings that do not all take the same time, got {n}{between}; "
            "measure mappings of few to many cores"
        )
    counts = count(partitioner, system, mappings)
    weight = np.sqrt([float(m.repeats) for m in measurements])
    times = TimeFit(counts, system, latency_s, weight)
    energies = EnergyFit(counts, system, latency_s, np.array([m.energy_j for m in measurements]), weight)
    names, batch = (*times.names, *energies.names), stack(mappings)

    def predict(time: FloatArray, energy: FloatArray) -> dict[str, FloatArray]:
        values = [in_unit(system, name, x) for name, x in zip(names, (*time, *energy), strict=True)]
        now = system.with_costs({n: constant_of(system, n, value) for n, value in zip(names, values, strict=True)})
        made = AnalyticEvaluator(partitioner, now) if evaluator is None else evaluator(now)
        metrics = made.evaluate(batch)
        return {column: metrics[column] for column in PREDICTED}

    def fit_times(rows: IntArray) -> tuple[TimeFit, FloatArray]:
        part, found = times, times.preset
        for _ in range(ROUNDS):
            found, before = part.fit(rows, rng), part.beyond
            part = times.corrected(predict(found, energies.preset)["latency_s"] / times.latency_s(found))
            if np.abs(part.beyond - before).max() < SETTLED:
                break
        return part, found

    held_out = np.zeros(n, dtype=np.bool_)
    held_out[rng.permutation(n)[: round(HELD_OUT_SHARE * n)]] = True
    others, everything = np.flatnonzero(~held_out), np.arange(n)
    checked = predict(fit_times(others)[1], energies.fit(others))
    times, best = fit_times(everything)
    time, time_status = times.without_needless(best)
    energy, energy_status = energies.fit(everything), energies.status()
    samples = [rng.integers(n, size=n) for _ in range(BOOTSTRAPS)]
    time_range = interval_of([times.fit(rows, rng, start=best) for rows in samples])
    energy_range = interval_of([energies.fit(rows) for rows in samples])
    constants = []
    for part, values, (low, high), statuses in (
        (times, time, time_range, time_status),
        (energies, energy, energy_range, energy_status),
    ):
        for i, name in enumerate(part.names):
            before, now, *ends = (in_unit(system, name, x[i]) for x in (part.preset, values, low, high))
            ends = sorted(ends) if statuses[i] == FITTED else [math.nan, math.nan]
            constants.append(Fitted(name, before, now, ends[0], ends[1], statuses[i]))
    final = predict(time, energy)
    return Calibration(
        system=with_sources(system, constants, f"fitted to {n} mappings of {source}"),
        constants=tuple(constants),
        measurements=tuple(measurements),
        held_out=held_out,
        predicted={key: np.where(held_out, checked[key], final[key]) for key in final},
        preset=predict(times.preset, energies.preset),
    )


def fitted_system(
    partitioner: AnyPartitioner,
    system: System,
    mappings: Sequence[Mapping],
    measurements: Sequence[Measurement],
    rng: np.random.Generator,
) -> System:
    """Return the system with constants fitted to measurements by the analytic model, as `calibrate` without its checks.

    For fewer than MINIMUM mappings, or where all take the same time, it stays as it is.
    """
    latency_s = np.array([m.latency_s for m in measurements])
    if len(mappings) < MINIMUM or np.ptp(latency_s) == 0.0:
        return system
    counts = count(partitioner, system, mappings)
    weight = np.sqrt([float(m.repeats) for m in measurements])
    times = TimeFit(counts, system, latency_s, weight)
    energies = EnergyFit(counts, system, latency_s, np.array([m.energy_j for m in measurements]), weight)
    everything = np.arange(len(mappings))
    changed = {}
    for part, values in ((times, times.fit(everything, rng)), (energies, energies.fit(everything))):
        for name, value, free in zip(part.names, values, part.free, strict=True):
            if free:
                changed[name] = constant_of(system, name, in_unit(system, name, value), "fitted while searching")
    return system.with_costs(changed)
