"""Fit of the energy constants."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import lsq_linear

from neuromap_moo.arrays import FloatArray, IntArray
from neuromap_moo.calibration.counts import Counts
from neuromap_moo.calibration.terms import (
    BOUNDS_FACTOR,
    FITTED,
    NO_DATA,
    NOT_IDENTIFIABLE,
    PRIOR,
    STATIC,
    TOGETHER,
    ZERO,
)
from neuromap_moo.system.system import System


class EnergyFit:
    """The energy constants in J or W, and their fit; static energy is charged for the measured latency."""

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
                status[i] = f"{TOGETHER} {others}" if others else NOT_IDENTIFIABLE
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
