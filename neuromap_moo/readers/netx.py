"""Networks that lava-dl exports as `.net` files (HDF5): input, flatten and dense layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from neuromap_moo.errors import InputError
from neuromap_moo.network import Layer, Network, Projection, Sparse
from neuromap_moo.readers.generate import lognormal_activity

MAXIMUM_NEURONS = 100_000_000  # per layer; beyond any chip, and a guard against absurd sizes in broken files


def read_net(
    path: str | Path,
    activity: float = 0.2,
    activity_sigma: float = 0.5,
    steps_per_inference: int = 1,
    seed: int = 0,
) -> Network:
    """Read a lava-dl `.net` file; zero weights are culled.

    The file holds no activity: every layer gets `activity` as its mean, spread as in `lognormal_activity`.
    """
    path = Path(path)
    rng = np.random.default_rng(seed)
    try:
        with h5py.File(path, "r") as file:
            if "layer" not in file:
                raise InputError(f"'{path}': expected a lava-dl .net file with a group 'layer', found {list(file)}")
            return _read_layers(file["layer"], path, activity, activity_sigma, steps_per_inference, rng)
    except InputError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(
            f"'{path}': expected a lava-dl .net file (HDF5), could not read it ({_first_line(error)})"
        ) from error


def weight_bits_of(weights: NDArray[np.float64]) -> int:
    """Bits that Lava's compiler gives integer weights: common powers of two leave the mantissa, 7 counts as 8.

    Weights of both signs keep one bit for the sign.
    """
    values = np.unique(np.abs(weights.astype(np.int64)))
    values = values[values > 0]
    if values.size == 0:
        return 1
    common = int(np.bitwise_or.reduce(values))
    exponent = (common & -common).bit_length() - 1
    high = int(max(weights.max(), 0)) >> exponent
    low = int(max(-weights.min(), 0)) >> exponent
    # Two's complement reaches one further below zero than above it.
    mixed = 1 + max(high.bit_length(), (low - 1).bit_length())
    bits = mixed if high and low else max(high, low).bit_length()
    return 8 if bits == 7 else bits


def _read_layers(
    group: Any, path: Path, activity: float, activity_sigma: float, steps: int, rng: np.random.Generator
) -> Network:
    layers: list[Layer] = []
    projections: list[Projection] = []

    def add_layer(name: str, size: int, kind: str) -> None:
        if not 1 <= size <= MAXIMUM_NEURONS:
            raise InputError(f"'{path}', layer '{name}': expected 1 to {MAXIMUM_NEURONS} neurons, got {size}")
        layers.append(Layer(name, size, kind, lognormal_activity(size, activity, activity_sigma, rng)))

    if not len(group):
        raise InputError(f"'{path}': expected at least one layer, the group 'layer' is empty")
    for i in range(len(group)):
        if str(i) not in group:
            raise InputError(f"'{path}': expected layers 0..{len(group) - 1}, layer {i} is missing")
        node = group[str(i)]
        kind = _text(node["type"][()])
        if kind == "input":
            if layers:
                raise InputError(f"'{path}', layer {i}: expected 'input' only as the first layer")
            add_layer("input", int(np.prod(node["shape"][()], dtype=np.int64)), "input")
        elif kind == "flatten":
            continue
        elif kind == "dense":
            weights = np.asarray(node["weight"][()], dtype=np.float64)
            if weights.ndim != 2 or 0 in weights.shape:
                raise InputError(f"'{path}', layer {i}: expected weights (n_out, n_in), got shape {weights.shape}")
            if not np.isfinite(weights).all() or (weights != np.rint(weights)).any() or np.abs(weights).max() > 2**31:
                raise InputError(f"'{path}', layer {i}: expected integer weights, found NaN, infinity or fractions")
            n_out, n_in = weights.shape
            if not layers:
                add_layer("input", n_in, "input")
            if layers[-1].size != n_in:
                raise InputError(
                    f"'{path}', layer {i}: expected {layers[-1].size} inputs as layer '{layers[-1].name}' has, "
                    f"its weights have {n_in}"
                )
            source = layers[-1].name
            neuron = _text(node["neuron/type"][()]).lower() if "neuron" in node else "linear"
            add_layer(f"dense_{i}", n_out, neuron)
            connectivity = Sparse.from_matrix(weights.T)
            bits = weight_bits_of(weights)
            if bits > 8:
                raise InputError(
                    f"'{path}', layer {i}: weights need {bits} bits, a synapse holds 8; quantise them again"
                )
            projections.append(Projection(source, f"dense_{i}", connectivity, bits))
        else:
            raise InputError(
                f"'{path}', layer {i}: layers of type '{kind}' cannot be read yet; "
                "expected input, flatten and dense layers (put others together in Python and save with nm.save_network)"
            )
    return Network(path.stem, tuple(layers), tuple(projections), steps)


def _text(value: Any) -> str:
    value = np.asarray(value).ravel()[0]
    return value.decode() if isinstance(value, bytes) else str(value)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
