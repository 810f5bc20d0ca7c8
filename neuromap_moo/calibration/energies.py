"""Fit of the energy constants."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import lsq_linear

from neuromap_moo.arrays import FloatArray, IntArray
from neuromap_moo.calibration.counts import Counts
from neuromap_moo.calibration.terms import BOUNDS_FACTOR, FITTED, NO_DATA, NOT_IDENTIFIABLE, STATIC, TOGETHER, ZERO
from neuromap_moo.system.system import System

#: Energies are held to the preset as if it were known to this many times itself. A direction in which their standard
#: error is more than once the preset is one that the data say nothing about.
PRIOR = 3.0

#: A constant has a part in such a direction where its component of the unit vector is larger than this.
PART = 0.3


class EnergyFit:
    """The energy constants in J or W, and their fit; static energy is charged for the measured latency.

    Parameters
    ----------
    counts
        What the constants are multiplied with, of n mappings.
    system
        Has the preset's constants.
    latency_s
        Measured, (n,).
    energy_j
        Measured per inference, (n,), nan where it was not.
    weight
        Of each mapping's residual, (n,).

    """

    def __init__(
        self, counts: Counts, system: System, latency_s: FloatArray, energy_j: FloatArray, weight: FloatArray
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
        """Return constants (p,) fitted to some mappings; the preset's where none of these has an energy."""
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
        for i in np.flatnonzero(self.free):  # none where no energy was measured
            status[i] = FITTED
        for group in self._not_identified():
            for i in group:
                others = ", ".join(self.names[k] for k in group if k != i)
                status[i] = f"{TOGETHER} {others}" if others else NOT_IDENTIFIABLE
        return status

    def _not_identified(self) -> list[IntArray]:
        """Return the constants of each direction that is lost in the noise."""
        if not self.free.any():
            return []
        A, b = self._system(np.flatnonzero(self.measured))
        _, sizes, directions = np.linalg.svd(A, full_matrices=True)
        sizes = np.concatenate([sizes, np.zeros(len(directions) - sizes.size)])
        free = np.flatnonzero(self.free)
        return [free[np.abs(direction) > PART] for direction in directions[sizes < self._noise(A, b)]]

    def _system(self, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return the equations of the free constants in units of the preset: matrix (r, f) and right side (r,)."""
        weight, relative = self.weight[rows], self.relative[rows]
        return weight[:, None] * relative[:, self.free], weight * (1.0 - relative[:, ~self.free].sum(axis=1))

    @staticmethod
    def _noise(A: FloatArray, b: FloatArray) -> float:
        """Return the standard deviation of the residuals, and a little more for rounding."""
        solution = np.linalg.lstsq(A, b, rcond=None)[0]
        spare = max(A.shape[0] - A.shape[1], 1)
        return float(np.linalg.norm(A @ solution - b) / math.sqrt(spare) + 1e-9 * np.linalg.norm(A))
