"""Networks that lava-dl exports as `.net` files (HDF5)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromap_moo.errors import InputError, first_line
from neuromap_moo.network import Network
from neuromap_moo.readers.assemble import UNIT_BITS, Assembly, Tensor
from neuromap_moo.readers.hdf5 import read_hdf5


def read_net(
    path: str | Path,
    activity: float = 0.2,
    activity_sigma: float = 0.5,
    steps_per_inference: int = 1,
    seed: int = 0,
) -> Network:
    """Read a lava-dl `.net` file; zero weights of dense layers are culled.

    The file holds no activity: every layer gets `activity` as its mean, spread as in `lognormal_activity`.
    """
    path = Path(path)
    file = read_hdf5(path, "a lava-dl .net file (HDF5)")
    if not isinstance(file.get("layer"), dict):
        raise InputError(f"'{path}': expected a lava-dl .net file with a group 'layer', found {list(file)}")
    try:
        return _read_layers(file["layer"], path, activity, activity_sigma, steps_per_inference, seed)
    except InputError:
        raise
    except (KeyError, RuntimeError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise InputError(f"'{path}': expected a lava-dl .net file, could not read it ({first_line(error)})") from error


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


def _read_layers(group: Any, path: Path, activity: float, activity_sigma: float, steps: int, seed: int) -> Network:
    assembly = Assembly(f"'{path}'")
    outputs: list[Tensor] = []  # of each layer of the file, as it shapes them
    if not len(group):
        raise InputError(f"'{path}': expected at least one layer, the group 'layer' is empty")
    for i in range(len(group)):
        if str(i) not in group:
            raise InputError(f"'{path}': expected layers 0..{len(group) - 1}, layer {i} is missing")
        node = group[str(i)]
        where = f"'{path}', layer {i}"
        if not isinstance(node, dict) or "type" not in node:
            raise InputError(f"{where}: expected a lava-dl .net file, in which each layer has a 'type'")
        kind = _text(node["type"])
        if kind == "input":
            if outputs:
                raise InputError(f"{where}: expected 'input' only as the first layer")
            outputs.append(_input(assembly, where, node["shape"]))
            continue
        if kind not in LAYERS:
            raise InputError(
                f"{where}: layers of type '{kind}' cannot be read; expected one of input, {', '.join(LAYERS)}"
            )
        if not outputs:
            outputs.append(_missing_input(assembly, where, node, kind))
        outputs.append(LAYERS[kind](assembly, where, node, i, outputs))
    return assembly.network(path.stem, activity, activity_sigma, steps, seed)


def _input(assembly: Assembly, where: str, shape: NDArray[np.int64]) -> Tensor:
    sizes = np.atleast_1d(shape).astype(np.int64)
    size = int(np.prod(sizes)) if (sizes > 0).all() and np.log10(sizes.astype(float)).sum() < 18 else 0
    if len(sizes) == 3 and size:
        return assembly.layer("input", size, "input", tuple(sizes)).reshape(sizes)
    if not size:
        raise InputError(f"{where}, shape: expected numbers of neurons, got {sizes.tolist()}")
    return assembly.layer("input", size, "input")


def _missing_input(assembly: Assembly, where: str, node: Any, kind: str) -> Tensor:
    """Make the input layer of a file that begins with its first layer of neurons."""
    if kind not in ("dense", "dense_rec"):
        raise InputError(f"{where}: expected an 'input' or 'dense' layer at first, got '{kind}'")
    return assembly.layer("input", _weights(node, where, 2).shape[1], "input")


def _dense(assembly: Assembly, where: str, node: Any, i: int, outputs: list[Tensor]) -> Tensor:
    weights, source = _weights(node, where, 2), outputs[-1]
    n_out, n_in = weights.shape
    if source.size != n_in:
        raise InputError(f"{where}: expected {source.size} inputs as the layer before has, its weights have {n_in}")
    target = assembly.layer(f"dense_{i}", n_out, _neuron(node))
    assembly.connect_matrix(source.ravel(), target, _bits(weights, where), weights.T, keep_zeros=False)
    return target


def _dense_rec(assembly: Assembly, where: str, node: Any, i: int, outputs: list[Tensor]) -> Tensor:
    target = _dense(assembly, where, node, i, outputs)
    weights = _weights(node, where, 2, "weight_rec")
    if weights.shape != (target.size, target.size):
        raise InputError(f"{where}, weight_rec: expected shape {(target.size,) * 2}, got {weights.shape}")
    assembly.connect_matrix(target, target, _bits(weights, where), weights.T, keep_zeros=False)
    return target


def _conv(assembly: Assembly, where: str, node: Any, i: int, outputs: list[Tensor]) -> Tensor:
    weights, source = _weights(node, where, 4), _map(where, outputs[-1])
    groups = int(node["groups"]) if "groups" in node else 1
    if groups < 1 or weights.shape[1] * groups != source.shape[0]:
        raise InputError(
            f"{where}: expected {source.shape[0]} input channels as the map before has, "
            f"got {weights.shape[1]} in {groups} groups"
        )
    return _convolve(assembly, where, node, i, "conv", source, weights, weights.shape[0], groups)


def _pool(assembly: Assembly, where: str, node: Any, i: int, outputs: list[Tensor]) -> Tensor:
    weights, source = _weights(node, where, 4), _map(where, outputs[-1])
    return _convolve(assembly, where, node, i, "pool", source, weights, source.shape[0], source.shape[0])


def _convolve(
    assembly: Assembly,
    where: str,
    node: Any,
    i: int,
    kind: str,
    source: Tensor,
    weights: NDArray[np.float64],
    channels: int,
    groups: int,
) -> Tensor:
    kernel = weights.shape[2:]
    stride, padding, dilation = (
        _pair(node, key, default) for key, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    sizes = zip(source.shape[1:], kernel, stride, padding, dilation, strict=True)
    shape = (channels, *((n + 2 * p - d * (k - 1) - 1) // max(s, 1) + 1 for n, k, s, p, d in sizes))
    given = tuple(int(n) for n in np.atleast_1d(node["shape"]))
    if len(given) != 3 or given != shape:
        raise InputError(f"{where}, shape: expected {shape} by its kernel, stride and padding, got {given}")
    geometry = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return assembly.convolve(f"{kind}_{i}", source, _neuron(node), _bits(weights, where), shape, **geometry)


def _flatten(assembly: Assembly, where: str, node: Any, i: int, outputs: list[Tensor]) -> Tensor:
    return outputs[-1].ravel()


def _average(assembly: Assembly, where: str, node: Any, i: int, outputs: list[Tensor]) -> Tensor:
    """Read groups of neighbouring neurons, each averaged by one neuron."""
    source, size = outputs[-1].ravel(), int(np.prod(np.atleast_1d(node["shape"])))
    if size < 1 or source.size % size:
        raise InputError(f"{where}: expected a divisor of {source.size} neurons as its shape, got {size}")
    shape, kernel = (size, 1, 1), (source.size // size, 1)
    target = assembly.layer(f"average_{i}", size, "average", shape)
    geometry = {"kernel": kernel, "groups": size}
    assembly.connect_convolution(source.reshape(size, -1, 1), target, UNIT_BITS, shape, **geometry)
    return target


def _concat(assembly: Assembly, where: str, node: Any, i: int, outputs: list[Tensor]) -> Tensor:
    """Join the outputs of earlier layers of the file, along channels where they are maps."""
    chosen = [int(n) for n in np.atleast_1d(node["layers"])]
    if not chosen or any(not -i <= n < i for n in chosen):
        raise InputError(f"{where}, layers: expected numbers of layers before {i}, got {chosen}")
    parts = [outputs[n] for n in chosen]
    if len({part.shape[1:] for part in parts}) > 1:
        raise InputError(f"{where}: expected maps of one size, got {[part.shape for part in parts]}")
    return np.concatenate(parts)


#: What each type of layer makes of the outputs before it.
LAYERS: dict[str, Callable[[Assembly, str, Any, int, list[Tensor]], Tensor]] = {
    "conv": _conv,
    "pool": _pool,
    "flatten": _flatten,
    "dense": _dense,
    "dense_rec": _dense_rec,
    "average": _average,
    "concat": _concat,
}


def _weights(node: Any, where: str, axes: int, key: str = "weight") -> NDArray[np.float64]:
    if key not in node or isinstance(node[key], dict):
        raise InputError(f"{where}: expected real weights in '{key}', found {'a group' if key in node else 'none'}")
    weights = np.asarray(node[key], dtype=np.float64)
    if weights.ndim != axes or 0 in weights.shape:
        shape = "(n_out, n_in)" if axes == 2 else "(n_out, n_in, height, width)"
        raise InputError(f"{where}: expected weights {shape}, got shape {weights.shape}")
    if not np.isfinite(weights).all() or (weights != np.rint(weights)).any() or np.abs(weights).max() > 2**31:
        raise InputError(f"{where}: expected integer weights, found NaN, infinity or fractions")
    return weights


def _bits(weights: NDArray[np.float64], where: str) -> int:
    bits = weight_bits_of(weights)
    if bits > 8:
        raise InputError(f"{where}: weights need {bits} bits, a synapse holds 8; quantise them again")
    return bits


def _map(where: str, source: Tensor) -> Tensor:
    if source.ndim != 3:
        raise InputError(f"{where}: expected a map (channels, height, width) before it, got shape {source.shape}")
    return source


def _pair(node: Any, key: str, default: int) -> tuple[int, int]:
    values = np.atleast_1d(node[key]) if key in node else np.array([default])
    values = np.resize(values, 2)
    return int(values[0]), int(values[1])


def _neuron(node: Any) -> str:
    return _text(node["neuron"]["type"]).lower() if "neuron" in node else "linear"


def _text(value: Any) -> str:
    return str(np.asarray(value).ravel()[0])
