"""Networks that lava-dl exports as `.net` files (HDF5)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from neuromap_moo.arrays import FloatArray, IntArray
from neuromap_moo.errors import InputError, first_line
from neuromap_moo.fixed_point.simulator import Geometry, Synapses
from neuromap_moo.network.activity import ActivitySpec
from neuromap_moo.network.assembly import UNIT_BITS, Assembly, Tensor, weight_bits_of
from neuromap_moo.network.network import Network
from neuromap_moo.processes.hdf5 import read_hdf5
from neuromap_moo.readers.input_shape import InputShape, given_shapes

#: Name of the layer that a network's input comes in at.
INPUT = "input"


def read_net(path: Path, spec: ActivitySpec, input_shape: InputShape = None) -> Network:
    """Read a lava-dl `.net` file; zero weights of dense layers are culled.

    Parameters
    ----------
    path
        Of the file.
    spec
        Activity, of which the file holds none.
    input_shape
        In place of the file's own; needed where the file begins with a convolution and has none.

    Raises
    ------
    InputError
        With the layer for what cannot be read.

    """
    return walk(path, input_shape).assembly.network(path.stem, spec)


class NetxLayers(NamedTuple):
    """What a file describes: the layers and their connections, and how they compute."""

    assembly: Assembly
    outputs: list[Tensor]  #: of each layer of the file, as it shapes them
    synapses: list[Synapses]
    neurons: list[tuple[Tensor, str, Any]]  #: of each layer: where it stands, and its group of the file


def walk(path: Path, input_shape: InputShape = None) -> NetxLayers:
    """Read a file's layers one by one."""
    file = read_hdf5(path, "a lava-dl .net file (HDF5)")
    if not isinstance(file.get("layer"), dict):
        raise InputError(f"'{path}': expected a lava-dl .net file with a group 'layer', found {list(file)}")
    try:
        return _walk_layers(file["layer"], path, given_shapes(f"'{path}'", input_shape, {INPUT: []}).get(INPUT))
    except InputError:
        raise
    except (KeyError, RuntimeError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise InputError(f"'{path}': expected a lava-dl .net file, could not read it ({first_line(error)})") from error


def _walk_layers(group: Any, path: Path, given: list[int] | None) -> NetxLayers:
    walked = NetxLayers(Assembly(f"'{path}'"), [], [], [])
    if not len(group):
        raise InputError(f"'{path}': expected at least one layer, the group 'layer' is empty")
    for i in range(len(group)):
        if str(i) not in group:
            raise InputError(f"'{path}': expected layers 0..{len(group) - 1}, layer {i} is missing")
        node = group[str(i)]
        where = f"'{path}', layer {i}"
        if not isinstance(node, dict) or "type" not in node:
            raise InputError(f"{where}: expected a lava-dl .net file, in which each layer has a 'type'")
        kind = text_of(node["type"])
        if kind == "input":
            if walked.outputs:
                raise InputError(f"{where}: expected 'input' only as the first layer")
            walked.outputs.append(_input(walked, where, node, node["shape"] if given is None else given))
            continue
        if kind not in LAYERS:
            raise InputError(
                f"{where}: layers of type '{kind}' cannot be read; expected one of input, {', '.join(LAYERS)}"
            )
        if not walked.outputs:
            walked.outputs.append(_missing_input(walked, where, node, kind, given))
        walked.outputs.append(LAYERS[kind](walked, where, node, i))
    return walked


def _input(walked: NetxLayers, where: str, node: Any, shape: IntArray | list[int]) -> Tensor:
    sizes = np.atleast_1d(shape).astype(np.int64)
    size = int(np.prod(sizes)) if (sizes > 0).all() and np.log10(sizes.astype(float)).sum() < 18 else 0
    if not size:
        raise InputError(f"{where}, shape: expected numbers of neurons, got {sizes.tolist()}")
    neurons = walked.assembly.layer(INPUT, size, "input", tuple(sizes) if len(sizes) == 3 else None)
    walked.neurons.append((neurons, where, node))
    return neurons.reshape(sizes) if len(sizes) == 3 else neurons


def _missing_input(walked: NetxLayers, where: str, node: Any, kind: str, given: list[int] | None) -> Tensor:
    """Make the input layer of a file that begins with its first layer of neurons."""
    if given is None and kind not in ("dense", "dense_rec"):
        raise InputError(
            f"{where}: expected an 'input' or 'dense' layer at first, got '{kind}'; give input_shape, its "
            "(channels, height, width)"
        )
    return _input(walked, where, {}, [_weights(node, where, 2).shape[1]] if given is None else given)


def _dense(walked: NetxLayers, where: str, node: Any, i: int) -> Tensor:
    weights, source = _weights(node, where, 2), walked.outputs[-1]
    n_out, n_in = weights.shape
    if source.size != n_in:
        raise InputError(f"{where}: expected {source.size} inputs as the layer before has, its weights have {n_in}")
    target = walked.assembly.layer(f"dense_{i}", n_out, _neuron(node))
    _connect(walked, where, source.ravel(), target, weights)
    walked.neurons.append((target, where, node))
    return target


def _dense_rec(walked: NetxLayers, where: str, node: Any, i: int) -> Tensor:
    target = _dense(walked, where, node, i)
    weights = _weights(node, where, 2, "weight_rec")
    if weights.shape != (target.size, target.size):
        raise InputError(f"{where}, weight_rec: expected shape {(target.size,) * 2}, got {weights.shape}")
    _connect(walked, where, target, target, weights)
    return target


def _connect(walked: NetxLayers, where: str, source: Tensor, target: Tensor, weights: FloatArray) -> None:
    walked.assembly.connect_matrix(source, target, _bits(weights, where), weights.T, keep_zeros=False)
    walked.synapses.append(Synapses(source, target, weights.astype(np.int64)))


def _conv(walked: NetxLayers, where: str, node: Any, i: int) -> Tensor:
    weights, source = _weights(node, where, 4), _map(where, walked.outputs[-1])
    groups = int(node["groups"]) if "groups" in node else 1
    if groups < 1 or weights.shape[1] * groups != source.shape[0]:
        raise InputError(
            f"{where}: expected {source.shape[0]} input channels as the map before has, "
            f"got {weights.shape[1]} in {groups} groups"
        )
    return _convolve(walked, where, node, i, "conv", source, weights, groups)


def _pool(walked: NetxLayers, where: str, node: Any, i: int) -> Tensor:
    """Pool each channel with weights of its own, or all of them with the same."""
    weights, source = _weights(node, where, 4), _map(where, walked.outputs[-1])
    channels = source.shape[0]
    if weights.shape[1] != 1 or weights.shape[0] not in (1, channels):
        raise InputError(f"{where}: expected weights (1 or {channels}, 1, height, width), got {weights.shape}")
    weights = np.broadcast_to(weights, (channels, *weights.shape[1:]))
    return _convolve(walked, where, node, i, "pool", source, weights, channels)


def _convolve(
    walked: NetxLayers,
    where: str,
    node: Any,
    i: int,
    kind: str,
    source: Tensor,
    weights: FloatArray,
    groups: int,
) -> Tensor:
    kernel = weights.shape[2:]
    stride, padding, dilation = (
        _pair(node, key, default) for key, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    sizes = zip(source.shape[1:], kernel, stride, padding, dilation, strict=True)
    shape = (len(weights), *((n + 2 * p - d * (k - 1) - 1) // max(s, 1) + 1 for n, k, s, p, d in sizes))
    given = tuple(int(n) for n in np.atleast_1d(node["shape"]))
    if len(given) != 3 or given != shape:
        raise InputError(f"{where}, shape: expected {shape} by its kernel, stride and padding, got {given}")
    geometry = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    target = walked.assembly.convolve(f"{kind}_{i}", source, _neuron(node), _bits(weights, where), shape, **geometry)
    moves = Geometry(stride, padding, dilation, groups)
    walked.synapses.append(Synapses(source, target.ravel(), weights.astype(np.int64), moves))
    walked.neurons.append((target.ravel(), where, node))
    return target


def _flatten(walked: NetxLayers, where: str, node: Any, i: int) -> Tensor:
    return walked.outputs[-1].ravel()


def _average(walked: NetxLayers, where: str, node: Any, i: int) -> Tensor:
    """Read groups of neighbouring neurons, each averaged by one neuron."""
    source, size = walked.outputs[-1].ravel(), int(np.prod(np.atleast_1d(node["shape"])))
    if size < 1 or source.size % size:
        raise InputError(f"{where}: expected a divisor of {source.size} neurons as its shape, got {size}")
    shape, kernel = (size, 1, 1), (source.size // size, 1)
    target = walked.assembly.layer(f"average_{i}", size, "average", shape)
    grouped = source.reshape(size, -1, 1)
    walked.assembly.connect_convolution(grouped, target, UNIT_BITS, shape, kernel=kernel, groups=size)
    weights = np.ones((size, 1, *kernel), dtype=np.int64)
    walked.synapses.append(Synapses(grouped, target, weights, Geometry(groups=size)))
    walked.neurons.append((target, where, {}))
    return target


def _concat(walked: NetxLayers, where: str, node: Any, i: int) -> Tensor:
    """Join the outputs of earlier layers of the file, along channels where they are maps."""
    chosen = [int(n) for n in np.atleast_1d(node["layers"])]
    if not chosen or any(not -i <= n < i for n in chosen):
        raise InputError(f"{where}, layers: expected numbers of layers before {i}, got {chosen}")
    parts = [walked.outputs[n] for n in chosen]
    if len({part.shape[1:] for part in parts}) > 1:
        raise InputError(f"{where}: expected maps of one size, got {[part.shape for part in parts]}")
    return np.concatenate(parts)


#: What each type of layer makes of the outputs before it.
LAYERS: dict[str, Callable[[NetxLayers, str, Any, int], Tensor]] = {
    "conv": _conv,
    "pool": _pool,
    "flatten": _flatten,
    "dense": _dense,
    "dense_rec": _dense_rec,
    "average": _average,
    "concat": _concat,
}


def _weights(node: Any, where: str, axes: int, key: str = "weight") -> FloatArray:
    if key not in node or isinstance(node[key], dict):
        raise InputError(f"{where}: expected real weights in '{key}', found {'a group' if key in node else 'none'}")
    weights = np.asarray(node[key], dtype=np.float64)
    if axes == 4 and weights.ndim == 5 and weights.shape[4] == 1:  # with the axis of time that lava-dl trains with
        weights = weights[..., 0]
    if weights.ndim != axes or 0 in weights.shape:
        shape = "(n_out, n_in)" if axes == 2 else "(n_out, n_in, height, width)"
        raise InputError(f"{where}: expected weights {shape}, got shape {weights.shape}")
    if not np.isfinite(weights).all() or (weights != np.rint(weights)).any() or np.abs(weights).max() > 2**31:
        raise InputError(f"{where}: expected integer weights, found NaN, infinity or fractions")
    return weights


def _bits(weights: FloatArray, where: str) -> int:
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
    return text_of(node["neuron"]["type"]).lower() if "neuron" in node else "linear"


def text_of(value: Any) -> str:
    """Return a text that is kept as an array."""
    return str(np.asarray(value).ravel()[0])
