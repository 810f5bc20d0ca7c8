"""Fit the cost constants of a system to measured mappings.

A timestep takes the largest of constants times counts (max-affine, DESIGN 4.5), and the energy of an inference is a sum
of such products. So times are fitted by least squares of their logarithm, energies by linear least squares of the
relative error, both within bounds around the preset. A constant that the data do not need keeps the preset's value,
or the largest with which it does not show; those that only their sum is known of stay close to the preset's ratio.
"""

from __future__ import annotations

import copy
import csv
import math
import os
from collections.abc import Callable, Sequence
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, least_squares, lsq_linear
from scipy.stats import f as f_distribution

from neuromap_moo.errors import InputError, did_you_mean
from neuromap_moo.evaluate import Evaluator
from neuromap_moo.evaluate.analytic import AnalyticEvaluator, link_loads
from neuromap_moo.mapping import Mapping, stack
from neuromap_moo.partition import LOADS, AnyPartitioner
from neuromap_moo.system import BARRIER, LINK_CLASSES, Constant, System
from neuromap_moo.topology import MESH_CLASSES

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: A fitted constant is at most this many times larger or smaller than the preset's; what is 0 there stays 0.
BOUNDS_FACTOR = 1000.0

#: Random starts of the fit of times, up to this factor away from the preset, and the p-norms that stand for the maximum
#: on the way: under the maximum itself, a constant that binds nowhere at the start is never moved. Steps of each.
STARTS, START_SPREAD, NORMS, ITERATIONS = 12, 10.0, (4.0, 16.0, math.inf), 30

#: A time constant needs as many mappings in which it binds, and to better the fit at this level of an F-test.
MINIMUM_BINDING, SIGNIFICANCE = 3, 0.05

#: Energies are held to the preset as if it were known to this many times itself. A direction in which their standard
#: error is more than once the preset is one that the data say nothing about.
PRIOR = 3.0

#: Fits to the analytic model, corrected for what another evaluator makes of it, until that changes no more.
ROUNDS, SETTLED = 8, 0.005

BOOTSTRAPS, CONFIDENCE, HELD_OUT_SHARE = 200, 0.95, 0.25

MINIMUM = 8  # mappings

#: Time constants and energy constants by the load they go with (see partition.LOADS).
TIMES = {"dendops_max": "t_dendop_s", "synops_max": "t_synop_s", "synmem_reads_max": "t_synmem_s"}
EVENTS = {"dendops": "e_dendop_j", "synops": "e_synop_j", "synmem_reads": "e_synmem_j", "messages": "e_message_j"}
STATIC = ("p_chip_w", "p_core_w")

PREDICTED = ("latency_s", "energy_j")  #: metric columns that can be measured

#: What is said of a constant.
FITTED, NO_DATA, ZERO, TOO_LITTLE = "fitted", "no data", "zero, left so", "too small to tell"
SLACK, TOGETHER = "does not bind", "only together with"


class Measurement(NamedTuple):
    """Means over the repeats of one mapping; `energy_j` is nan where it was not measured."""

    mapping_id: str
    latency_s: float
    energy_j: float
    repeats: int


class Fitted(NamedTuple):
    """One constant in its unit, before and after, with its confidence interval (nan where there is none)."""

    name: str
    preset: float
    value: float
    low: float
    high: float
    status: str


@dataclass(frozen=True)
class Calibration:
    """A calibrated system, and what it was made from.

    Over the n mappings: `predicted` and `preset` have latency_s and energy_j by the calibrated constants and by those
    before. Where `held_out`, `predicted` comes from a fit to the other mappings alone; the constants come from all.
    """

    system: System
    constants: tuple[Fitted, ...]
    measurements: tuple[Measurement, ...]
    held_out: NDArray[np.bool_]
    predicted: MappingABC[str, FloatArray]
    preset: MappingABC[str, FloatArray]

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


def load_measurements(path: str | os.PathLike[str], known: MappingABC[str, Any]) -> list[Measurement]:
    """Read measured mappings from a CSV: mapping_id, latency_s, and if measured energy_j and repeats.

    Rows of the same mapping are taken together, weighted by their repeats. Raises InputError, with the line, for
    columns that are missing, ids that are not in `known`, and values that are no positive finite numbers.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:
            lines = list(csv.DictReader(f))
    except OSError as error:
        raise InputError(f"measurements '{path}': cannot be read ({error.strerror}); expected a CSV") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"measurements '{path}': expected a CSV, got something else ({error})") from error
    columns = list(lines[0]) if lines else []
    for column in ("mapping_id", "latency_s"):
        if column not in columns:
            raise InputError(
                f"measurements '{path}': expected the columns mapping_id, latency_s and perhaps energy_j, repeats; "
                f"'{column}' is missing in {columns}"
            )
    gathered: dict[str, list[tuple[int, float, float]]] = {}
    for number, line in enumerate(lines, 2):
        where = f"measurements '{path}', line {number}"
        name = str(line["mapping_id"])
        if name not in known:
            raise InputError(f"{where}: no mapping '{name}' among those of the run{did_you_mean(name, known)}")
        repeats = line.get("repeats") or "1"
        if not repeats.isdecimal() or int(repeats) < 1:
            raise InputError(f"{where}, repeats: expected a whole number of at least 1, got {repeats!r}")
        latency_s = _positive(line["latency_s"], f"{where}, latency_s")
        has_energy = (line.get("energy_j") or "nan").lower() != "nan"  # what a board does not measure is nan
        energy_j = _positive(line["energy_j"], f"{where}, energy_j") if has_energy else math.nan
        gathered.setdefault(name, []).append((int(repeats), latency_s, energy_j))
    measured = []
    for name, rows in gathered.items():
        weight, latency, energy = np.array(rows).T
        has = np.isfinite(energy)
        energy_j = float(np.average(energy[has], weights=weight[has])) if has.any() else math.nan
        measured.append(Measurement(name, float(np.average(latency, weights=weight)), energy_j, int(weight.sum())))
    return measured


def _positive(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not (value > 0.0 and math.isfinite(value)):
        raise InputError(f"{where}: expected a positive number, got {text!r}")
    return value


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
    counts = _count(partitioner, system, mappings)
    weight = np.sqrt([float(m.repeats) for m in measurements])
    times = _Times(counts, system, latency_s, weight)
    energies = _Energies(counts, system, latency_s, np.array([m.energy_j for m in measurements]), weight)
    names, batch = (*times.names, *energies.names), stack(mappings)

    def predict(time: FloatArray, energy: FloatArray) -> dict[str, FloatArray]:
        values = [_in_unit(system, name, x) for name, x in zip(names, (*time, *energy), strict=True)]
        now = system.with_costs({n: _constant(system, n, value) for n, value in zip(names, values, strict=True)})
        made = AnalyticEvaluator(partitioner, now) if evaluator is None else evaluator(now)
        metrics = made.evaluate(batch)
        return {column: metrics[column] for column in PREDICTED}

    def fit_times(rows: IntArray) -> tuple[_Times, FloatArray]:
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
    time_range = _interval([times.fit(rows, rng, start=best) for rows in samples])
    energy_range = _interval([energies.fit(rows) for rows in samples])
    constants = []
    for part, values, (low, high), statuses in (
        (times, time, time_range, time_status),
        (energies, energy, energy_range, energy_status),
    ):
        for i, name in enumerate(part.names):
            before, now, *ends = (_in_unit(system, name, x[i]) for x in (part.preset, values, low, high))
            ends = sorted(ends) if statuses[i] == FITTED else [math.nan, math.nan]
            constants.append(Fitted(name, before, now, ends[0], ends[1], statuses[i]))
    final = predict(time, energy)
    return Calibration(
        system=_with_sources(system, constants, f"fitted to {n} mappings of {source}"),
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
    counts = _count(partitioner, system, mappings)
    weight = np.sqrt([float(m.repeats) for m in measurements])
    times = _Times(counts, system, latency_s, weight)
    energies = _Energies(counts, system, latency_s, np.array([m.energy_j for m in measurements]), weight)
    everything = np.arange(len(mappings))
    changed = {}
    for part, values in ((times, times.fit(everything, rng)), (energies, energies.fit(everything))):
        for name, value, free in zip(part.names, values, part.free, strict=True):
            if free:
                changed[name] = _constant(system, name, _in_unit(system, name, value), "fitted while searching")
    return system.with_costs(changed)


class _Counts(NamedTuple):
    """What constants are multiplied with, (n,) each: of a timestep by load or link class."""

    largest: dict[str, FloatArray]  # by cost, of the slice or link that has most
    total: dict[str, FloatArray]
    chips: FloatArray
    cores: FloatArray
    steps_per_inference: int
    latency_steps: int


def _count(partitioner: AnyPartitioner, system: System, mappings: Sequence[Mapping]) -> _Counts:
    rows: list[dict[str, float]] = []
    for mapping in mappings:
        k = np.array(mapping.cores_per_layer)
        load = dict(zip(LOADS, partitioner.core_graphs(k[None]).loads[0].tolist(), strict=True))
        links = link_loads(partitioner, system, mapping)
        row = {cost: load[name] for name, cost in (TIMES | EVENTS).items()}
        for i, name in enumerate(MESH_CLASSES):
            of_class = links.between[system.links.link_class == i]
            row[f"largest.{name}"], row[f"total.{name}"] = of_class.max(initial=0.0), of_class.sum()
        for name, of_class in (("inject", links.inject), ("eject", links.eject)):
            row[f"largest.{name}"], row[f"total.{name}"] = of_class.max(), of_class.sum()
        cores = np.array(mapping.core_of_slice)
        row["chips"] = np.unique(system.chip_of_router[system.router_of_core[cores]]).size
        row["cores"] = cores.size
        rows.append(row)
    column = {key: np.array([row[key] for row in rows], dtype=np.float64) for key in rows[0]}
    steps = partitioner.steps_per_inference
    return _Counts(
        largest={cost: column[cost] for cost in TIMES.values()}
        | {f"bandwidth_bit_per_s.{c}": column[f"largest.{c}"] for c in LINK_CLASSES},
        total={cost: column[cost] for cost in EVENTS.values()}
        | {f"e_link_j.{c}": column[f"total.{c}"] for c in LINK_CLASSES},
        chips=column["chips"],
        cores=column["cores"],
        steps_per_inference=steps,
        latency_steps=steps + partitioner.depth - 1,
    )


class _Times:
    """The time constants as seconds per count (of a link: per message), and their fit."""

    def __init__(self, counts: _Counts, system: System, latency_s: FloatArray, weight: FloatArray) -> None:
        columns = dict(counts.largest)
        preset = {cost: _in_unit(system, cost, system.cost(cost)) for cost in columns}
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
        #: Logarithm of what another evaluator's time is of the analytic model's, by `corrected`.
        self.beyond = np.zeros(latency_s.size)
        #: Constants that a fit can move.
        self.free = (self.preset > 0.0) & (self.columns > 0.0).any(axis=0)

    @property
    def log_step(self) -> FloatArray:
        """Logarithm of the step times (n,) that the analytic model shall have."""
        return self.measured - self.beyond

    def corrected(self, ratio: FloatArray) -> _Times:
        """Return the same for an evaluator whose times are `ratio` (n,) of the analytic model's."""
        other = copy.copy(self)
        other.beyond = np.log(ratio)
        return other

    def latency_s(self, constants: FloatArray) -> FloatArray:
        """Latencies (n,) of the analytic model by constants (q,)."""
        return self.latency_steps * self.step_s(constants, np.arange(self.measured.size))

    def step_s(self, constants: FloatArray, rows: IntArray, norm: float = math.inf) -> FloatArray:
        """Step times by constants (q,)."""
        return np.asarray(self._parts(constants, rows, norm)[0])

    def fit(
        self,
        rows: IntArray,
        rng: np.random.Generator,
        start: FloatArray | None = None,
        free: NDArray[np.bool_] | None = None,
    ) -> FloatArray:
        """Return constants (q,) fitted to some mappings, from many starts or from one; those not free are as in it."""
        base = self.preset if start is None else start
        free = self.free if free is None else free
        centre, reach = np.log(self.preset[free]), math.log(BOUNDS_FACTOR)
        starts = [np.clip(np.log(base[free]), centre - reach, centre + reach)]
        if start is None:
            wide = math.log(START_SPREAD)
            starts += [centre + rng.uniform(-wide, wide, centre.size) for _ in range(STARTS)]
        best, least = base.copy(), math.inf
        for u in starts:
            found = base.copy()
            for norm in NORMS if start is None else NORMS[-1:]:
                solved = least_squares(
                    self._residual,
                    u,
                    self._slope,
                    bounds=(centre - reach - 1e-9, centre + reach + 1e-9),
                    max_nfev=ITERATIONS,
                    xtol=1e-6,
                    args=(base, free, rows, norm),
                )
                u = solved.x
            found[free] = np.exp(u)
            if (loss := self.loss(found, rows)) < least:
                best, least = found, loss
        # What does not bind is where a start put it.
        for j in np.flatnonzero(free & (self.binding(best, rows) == 0)):
            trial = best.copy()
            trial[j] = self.preset[j]
            if self.loss(trial, rows) <= least * (1.0 + 1e-9):
                best = trial
        return best

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
        everything = np.arange(self.log_step.size)
        free = self.free.copy()
        values = fitted.copy()
        status = [FITTED] * values.size
        while free.sum() > 1:
            limit = self.loss(values, everything) * self._tolerance(int(free.sum()))
            trials = []
            for j in np.flatnonzero(free).tolist():
                rest = free.copy()
                rest[j] = False
                start = values.copy()
                start[j] = 0.0
                without = self.fit(everything, np.random.default_rng(0), start, rest)
                trials.append((self.loss(without, everything), j, without))
            binding = self.binding(values, everything)
            rare = [trial for trial in trials if binding[trial[1]] < MINIMUM_BINDING]
            loss, j, without = min(rare or trials, key=lambda trial: trial[:2])
            if loss > limit and not rare:
                break
            free[j] = False
            moved = np.abs(np.log(np.maximum(without, 1e-300) / np.maximum(values, 1e-300)))
            moved[~free] = 0.0
            like = int(moved.argmax())
            status[j] = SLACK if moved[like] < math.log(1.1) else f"{SLACK}, or else {self.names[like]} does less"
            values = without
        for j in np.flatnonzero(self.free & ~free).tolist():
            values[j] = min(self.preset[j], self._largest(values, j, int(free.sum())))
        for j in np.flatnonzero(~self.free).tolist():
            status[j] = ZERO if self.preset[j] == 0.0 else NO_DATA
            values[j] = self.preset[j]
        return values, status

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

        low, high = (math.log(self.preset[j]) + way * math.log(BOUNDS_FACTOR) for way in (-1, 1))
        if excess(high) <= 0.0:
            return math.exp(high)
        return math.exp(brentq(excess, low, high, xtol=1e-3)) if excess(low) < 0.0 else math.exp(low)

    def _tolerance(self, n_free: int) -> float:
        """Return how many times the loss may grow when one of so many constants goes (F-test)."""
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

    def _residual(
        self, u: FloatArray, base: FloatArray, free: NDArray[np.bool_], rows: IntArray, norm: float
    ) -> FloatArray:
        step = self.step_s(self._moved(u, base, free), rows, norm)
        return np.asarray(self.weight[rows] * (np.log(step) - self.log_step[rows]))

    def _slope(
        self, u: FloatArray, base: FloatArray, free: NDArray[np.bool_], rows: IntArray, norm: float
    ) -> FloatArray:
        step, slope = self._parts(self._moved(u, base, free), rows, norm)
        return np.asarray(self.weight[rows, None] * slope[:, free] / step[:, None])

    @staticmethod
    def _moved(u: FloatArray, base: FloatArray, free: NDArray[np.bool_]) -> FloatArray:
        constants = base.copy()
        constants[free] = np.exp(u)
        return constants


class _Energies:
    """The energy constants in J or W, and their fit; static energy is charged for the measured latency."""

    def __init__(
        self, counts: _Counts, system: System, latency_s: FloatArray, energy_j: FloatArray, weight: FloatArray
    ) -> None:
        steps = counts.steps_per_inference
        seconds = steps / counts.latency_steps * latency_s
        self.names = (*STATIC, *counts.total)
        self.preset = np.array([system.cost(name) for name in self.names])
        events = steps * np.stack(list(counts.total.values()), axis=1)
        columns = np.column_stack([counts.chips * seconds, counts.cores * seconds, events])
        self.measured = np.isfinite(energy_j)
        self.free = (self.preset > 0.0) & (columns[self.measured] > 0.0).any(axis=0)
        with np.errstate(invalid="ignore"):
            self.relative = columns * self.preset / energy_j[:, None]  # of the preset's constants, by what was measured
        self.weight = weight

    def fit(self, rows: IntArray) -> FloatArray:
        """Return constants (p,) fitted to some mappings."""
        rows = rows[self.measured[rows]]
        if not (rows.size and self.free.any()):
            return self.preset.copy()
        A, b = self._system(rows)
        hold = self._noise(A, b) / PRIOR * np.eye(A.shape[1])
        solved = lsq_linear(
            np.vstack([A, hold]), np.concatenate([b, np.diag(hold)]), (1.0 / BOUNDS_FACTOR, BOUNDS_FACTOR)
        )
        constants = self.preset.copy()
        constants[self.free] *= solved.x
        return constants

    def status(self) -> list[str]:
        """Return what the data say of each constant."""
        status = [ZERO if preset == 0.0 else NO_DATA for preset in self.preset]
        if not (self.measured.any() and self.free.any()):
            return status
        free = np.flatnonzero(self.free)
        for i in free:
            status[i] = FITTED
        A, b = self._system(np.flatnonzero(self.measured))
        noise = self._noise(A, b)
        _, sizes, directions = np.linalg.svd(A, full_matrices=True)
        sizes = np.concatenate([sizes, np.zeros(len(directions) - sizes.size)])
        for direction in directions[sizes < noise]:
            group = free[np.abs(direction) > 0.3]
            for i in group:
                others = ", ".join(self.names[k] for k in group if k != i)
                status[i] = f"{TOGETHER} {others}" if others else TOO_LITTLE
        return status

    def _system(self, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return what the free constants, in units of the preset, have to solve: matrix (r, f) and right side (r,)."""
        weight, relative = self.weight[rows], self.relative[rows]
        return weight[:, None] * relative[:, self.free], weight * (1.0 - relative[:, ~self.free].sum(axis=1))

    @staticmethod
    def _noise(A: FloatArray, b: FloatArray) -> float:
        """Standard deviation of the residuals, and some for what the arithmetic loses."""
        solution = np.linalg.lstsq(A, b, rcond=None)[0]
        spare = max(A.shape[0] - A.shape[1], 1)
        return float(np.linalg.norm(A @ solution - b) / math.sqrt(spare) + 1e-9 * np.linalg.norm(A))


def _interval(drawn: list[FloatArray]) -> tuple[FloatArray, FloatArray]:
    tail = (1.0 - CONFIDENCE) / 2
    low, high = np.quantile(np.array(drawn), (tail, 1.0 - tail), axis=0)
    return low, high


def _in_unit(system: System, name: str, value: float) -> float:
    """Return a time per count in the unit of the constant, and the other way round: links have a bandwidth."""
    return float(system.cost("message_bits") / value if name.startswith("bandwidth") else value)


def _constant(system: System, name: str, value: float, source: str = "") -> Constant:
    """Return a cost with another value; a barrier between those that the system names is a new one."""
    unit = system.costs[name].unit if name in system.costs else "s"
    return Constant(value, unit, source, "derived")


def _with_sources(system: System, constants: Sequence[Fitted], source: str) -> System:
    """Return the system with what was fitted, and what is said of it."""
    changed = {}
    for c in constants:
        if c.status in (NO_DATA, ZERO) or c.value == c.preset:
            continue
        said = f"95 % interval {c.low:.4g} to {c.high:.4g}" if c.status == FITTED else c.status
        made = _constant(system, c.name, c.value, f"{source}; {said}")
        if c.status == FITTED and c.low <= c.value <= c.high:
            made = replace(made, low=c.low, high=c.high)
        changed[c.name] = made
    return replace(system.with_costs(changed), name=f"{system.name}_calibrated")
