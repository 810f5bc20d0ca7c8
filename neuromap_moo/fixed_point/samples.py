"""Samples of spiking networks: arrays of spikes or values, timestep by timestep."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromap_moo.arrays import IntArray
from neuromap_moo.errors import InputError, whole_number

#: Timesteps of a sample that has none of its own, and samples that are drawn where none are given.
STEPS, RANDOM_SAMPLES = 32, 8

#: Share of the inputs that spike, or change, in a timestep of a random sample.
RANDOM_RATE = 0.2

#: Samples that are simulated side by side.
BATCH = 16


def spikes_of(
    where: str, shape: tuple[int, ...], samples: Mapping[str, NDArray[Any]] | None, steps: int | None, seed: int
) -> tuple[IntArray, int]:
    """Return spikes (n, timesteps, neurons) of the one input, and how many samples were given.

    Parameters
    ----------
    where
        Names the file in errors.
    shape
        Of the input.
    samples
        One array (n, timesteps, ...) or (n, ...): a spike is what is not 0; values from 0 to 1 in samples without
        timesteps are its chance in each. None: random ones.
    steps
        Timesteps of samples that have none; None: STEPS.
    seed
        Of what is drawn.

    Raises
    ------
    InputError
        For samples that do not fit the input.

    """
    n_steps, rng = _steps(steps), np.random.default_rng(seed)
    if samples is None:
        return (rng.random((RANDOM_SAMPLES, n_steps, prod(shape))) < RANDOM_RATE).astype(np.int64), 0
    given = _flat(where, shape, samples)
    if given.ndim == 2:
        given = np.repeat(given[:, None], n_steps, axis=1)
        if given.min() >= 0 and given.max() <= 1 and (given != np.rint(given)).any():
            given = rng.random(given.shape) < given
    return (given != 0).astype(np.int64), len(given)


def frames_of(
    where: str,
    shape: tuple[int, ...],
    samples: Mapping[str, NDArray[Any]] | None,
    steps: int | None,
    seed: int,
    one: int,
) -> tuple[IntArray, int]:
    """Return values (n, timesteps, neurons) of the one input as integers, and how many samples were given.

    Parameters
    ----------
    where, shape, samples, steps, seed
        As of `spikes_of`.
    one
        What 1.0 is in fixed point, where samples are fractions.

    """
    n_steps, rng = _steps(steps), np.random.default_rng(seed)
    if samples is None:
        values = rng.random((RANDOM_SAMPLES, n_steps, prod(shape)))
        changes = rng.random(values.shape) < RANDOM_RATE
        for t in range(1, n_steps):
            values[:, t] = np.where(changes[:, t], values[:, t], values[:, t - 1])
        return np.rint(values * one).astype(np.int64), 0
    given = _flat(where, shape, samples)
    if given.ndim == 2:
        given = np.repeat(given[:, None], n_steps, axis=1)
    if not np.issubdtype(given.dtype, np.integer):
        given = np.rint(given * one)
    return given.astype(np.int64), len(given)


def _steps(steps: int | None) -> int:
    return STEPS if steps is None else whole_number("steps", steps, 1)


def _flat(where: str, shape: tuple[int, ...], samples: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """(n, timesteps, neurons) or (n, neurons) of the one array."""
    if len(samples) != 1:
        raise InputError(f"samples: expected one array for the input of {where}, got {', '.join(samples)}")
    given, size = next(iter(samples.values())), prod(shape)
    of_map = given.shape[-len(shape) :] == shape
    leading = given.shape[: -len(shape)] if of_map else given.shape[:-1]
    if (not of_map and given.shape[-1:] != (size,)) or not 1 <= len(leading) <= 2 or 0 in given.shape:
        expected = ", ".join(map(str, shape))
        raise InputError(
            f"samples: expected an array (n, timesteps, {expected}) or (n, {expected}) for {where}, got {given.shape}"
        )
    if given.dtype.kind not in "buif" or not np.isfinite(given).all():
        raise InputError(f"samples: expected finite numbers for {where}, got {given.dtype}")
    return given.reshape(*leading, size)
