"""What becomes of the operators of an ONNX graph: functions of a walk and a node that return the node's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromap_moo.errors import InputError
from neuromap_moo.network.assembly import MAXIMUM_NEURONS, UNIT_BITS, Tensor
from neuromap_moo.readers.onnx.values import Host, Value, Values, Window, check_shape, check_size, onnx_map
from neuromap_moo.readers.onnx.walk import AFFINE, MOVES, Operator, Walk

#: Functions of one value.
FUNCTIONS = {
    "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Clip",
    "Softplus", "Softsign", "Erf", "Gelu", "FastGelu", "QuickGelu", "BiasGelu", "Exp", "Log", "Sqrt", "Pow", "Abs",
    "Ceil", "Floor", "Round", "Sign", "ThresholdedRelu", "Mish", "Sin", "Cos", "Reciprocal", "Not", "Shrink", "Swish",
    "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Mod",
}  # fmt: skip

#: Functions of several values of one tensor, whose sums are left out.
NORMALISATIONS = {
    "Softmax", "LogSoftmax", "Hardmax", "LRN", "LpNormalization", "MeanVarianceNormalization", "LayerNormalization",
    "InstanceNormalization", "GroupNormalization", "SimplifiedLayerNormalization", "RMSNormalization",
}  # fmt: skip

#: Functions of two or more tensors, place by place.
JOINS = {"Add", "Sub", "Mul", "Div", "Sum", "Max", "Min", "Mean", "And", "Or", "Xor", "SkipLayerNormalization"}

#: Joins that a neuron does by adding up what it receives.
SUMS = {"Add", "Sub", "Sum", "Mean", "SkipLayerNormalization"}

#: What the host does with the outputs.
HOST = {"ArgMax", "ArgMin", "TopK", "NonMaxSuppression", "NonZero", "Unique"}

POOLS = {"MaxPool", "AveragePool", "LpPool"}
GLOBAL_POOLS = {"GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"}


def _move(walk: Walk, node: Any, name: str, inputs: list[Any], attributes: dict[str, Any]) -> Sequence[Value]:
    """Run an operator that only moves values on the numbers of neurons."""
    if node.op_type == "Gather" and isinstance(inputs[0], np.ndarray):
        return [_look_up(walk, name, inputs[0], inputs[1])]
    which = MOVES[node.op_type]
    moved = [i for i in (range(len(inputs)) if which is None else which) if i < len(inputs)]
    arrays = list(inputs)
    version: dict[int, str] = {}
    for i in moved:
        if isinstance(inputs[i], Values):
            arrays[i], own = _compatible(walk, inputs[i], version)
            version |= own
        elif inputs[i] is not None:
            arrays[i] = np.zeros(inputs[i].shape, dtype=np.int64)
    if any(isinstance(x, Values) for x in arrays):
        raise InputError("which values it moves is decided by what neurons send, which is not known")
    if node.op_type == "Pad" and len(arrays) > 2 and arrays[2] is not None:
        arrays[2] = np.zeros((), dtype=np.int64)
    check_size(node.op_type, arrays)
    outputs = walk.run(node, arrays)
    return [Values(np.asarray(x, dtype=np.int64), {f: v for f, v in version.items() if v}) for x in outputs]


def _compatible(walk: Walk, value: Values, version: Mapping[int, str]) -> tuple[Tensor, dict[int, str]]:
    """Neurons of a value and their versions; it is read where it holds another version of a layer than `version`."""
    own = {first: value.version.get(first, "") for first in walk.layers(value)}
    if any(version.get(first, v) != v for first, v in own.items()):
        return walk.read(value), {}
    return value.ids, own


def _look_up(walk: Walk, name: str, table: NDArray[Any], index: Values) -> Values:
    walk.assembly.note("a table is looked up by the host: its rows come in as an input layer")
    shape = (*index.ids.shape, *table.shape[1:])
    ids = walk.layer(name, walk.node, prod(shape), "input", onnx_map(shape), set())
    return Values(ids.reshape(shape))


def _resize(walk: Walk, node: Any, name: str, inputs: list[Any], attributes: dict[str, Any]) -> Sequence[Value]:
    value = inputs[0]
    given = [x for x in inputs[1:] if isinstance(x, np.ndarray) and x.size]
    scales = attributes.get("scales")
    if not given and scales is None:
        raise InputError("its scales are no constants")
    shape = value.ids.shape
    last = np.asarray(scales) if scales is not None else given[-1]
    target = last if last.dtype.kind == "i" else np.floor(np.array(shape) * last)
    if len(target) != len(shape) or prod(int(n) for n in target) > MAXIMUM_NEURONS:
        raise InputError(f"expected a size for each of {len(shape)} axes, got {list(target)}")
    if attributes.get("mode", b"nearest") != b"nearest":
        walk.assembly.note("Resize by interpolation is taken as to the nearest value")
    ids = value.ids
    for axis, n in enumerate(target.astype(int).tolist()):
        ids = ids.take(np.arange(n) * shape[axis] // max(n, 1), axis=axis)
    return [Values(ids, value.version)]


def _leave(walk: Walk, node: Any, name: str, inputs: list[Any], attributes: dict[str, Any]) -> Sequence[Value]:
    walk.assembly.note(f"{node.op_type} is left to the host")
    return [Host()] * len(node.output)


def _scale(walk: Walk, node: Any, name: str, inputs: list[Any], attributes: dict[str, Any]) -> Sequence[Value]:
    return [_first(inputs), *[np.zeros(())] * (len(node.output) - 1)]


def _apply(walk: Walk, node: Any, name: str, inputs: list[Any], attributes: dict[str, Any]) -> Sequence[Value]:
    op = node.op_type
    if op in NORMALISATIONS:
        walk.assembly.note(f"{op} is taken as a function of each neuron; the sums it divides by are left out")
    return [walk.function(op, _first(inputs)), *[Host()] * (len(node.output) - 1)]


def _first(inputs: list[Any]) -> Values:
    """First input that comes from neurons."""
    return next(x for x in inputs if isinstance(x, Values))


def _combine(walk: Walk, node: Any, name: str, inputs: list[Any], attributes: dict[str, Any]) -> Sequence[Value]:
    return [_join(walk, name, node.op_type, inputs), *[Host()] * (len(node.output) - 1)]


def _join(walk: Walk, name: str, op: str, inputs: list[Any]) -> Values:
    """Put tensors together place by place."""
    shape = np.broadcast_shapes(*(x.ids.shape if isinstance(x, Values) else x.shape for x in inputs if x is not None))
    check_shape(shape)
    values = [Values(np.broadcast_to(x.ids, shape), x.version) for x in inputs if isinstance(x, Values)]
    if op == "SkipLayerNormalization":
        walk.assembly.note(f"{op} is taken as a sum and a function of each neuron; the sums it divides by are left out")
    if len(values) == 1:
        return values[0]
    merged = [x for x in values if (f := walk.whole(x.ids)) and walk.joined_to.get(walk.key[f]) is not None]
    if not merged and all(np.array_equal(values[0].ids, x.ids) for x in values[1:]):
        return walk.function(op, values[0])
    hosts = {walk.whole(x.ids) for x in merged}
    if op in SUMS and len(hosts) == 1 and _is_own_join(walk, hosts):
        return _joined_by_host(walk, values, hosts.pop(), merged[0].ids)
    return _joined_by_layer(walk, name, op, values, shape)


def _joined_by_host(walk: Walk, values: Sequence[Values], host: int, own: Tensor) -> Values:
    """Let the layer whose first neuron is `host` add up the other values too."""
    for x in values:
        if walk.whole(x.ids) != host:
            walk.assembly.connect_each(walk.read(x), own.ravel())
    _rename(walk, host)
    return Values(own)


def _joined_by_layer(walk: Walk, name: str, op: str, values: Sequence[Values], shape: tuple[int, ...]) -> Values:
    """Put values together by a layer of their own."""
    reading = [walk.read(x) for x in values]
    sources = set().union(*(walk.keys(x) for x in values))
    if op in SUMS:
        whole = [walk.whole(x.ids) for x in values]
        walk.joins[walk.node] = [
            (walk.key[f], bool(np.array_equal(x.ids.ravel(), np.arange(f, f + x.ids.size))))
            for f, x in zip(whole, values, strict=True)
            if f and not x.version.get(f, "")
        ]
        walk.sums.add(walk.node)
    target = walk.layer(name, walk.node, prod(shape), op.lower(), onnx_map(shape), sources)
    for ids in reading:
        walk.assembly.connect_each(ids.ravel(), target, UNIT_BITS if op in SUMS else 0)
    return Values(target.reshape(shape))


def _is_own_join(walk: Walk, hosts: set[int]) -> bool:
    """Tell whether the sum at hand is the one that its operands were to be merged in."""
    return walk.before is not None and all(walk.before.readers.get(walk.key[first]) == {walk.node} for first in hosts)


def _rename(walk: Walk, first: int) -> None:
    """Let a layer stand for the sum at hand, which it now makes itself."""
    walk.key[first] = walk.node
    walk.first_of_key[walk.node] = first
    kind = walk.kind_read(walk.node)
    if kind:
        walk.assembly.change_kind(first, kind)


def _weights(walk: Walk, node: Any, i: int, inputs: list[Any]) -> tuple[NDArray[Any], int]:
    """Return the constant input i and the bits of its numbers."""
    weights = inputs[i] if i < len(inputs) else None
    if not isinstance(weights, np.ndarray):
        raise InputError(f"its weights '{node.input[i]}' are no constants but come from neurons")
    if weights.dtype.kind == "f" and not np.isfinite(weights).all():
        raise InputError(f"its weights '{node.input[i]}' hold NaN or infinity")
    if weights.size == 0:
        raise InputError(f"its weights '{node.input[i]}' are empty, shape {weights.shape}")
    return weights, walk.bits.get(node.input[i], walk.weight_bits)


def _conv(walk: Walk, node: Any, name: str, inputs: list[Any], attributes: dict[str, Any]) -> Sequence[Value]:
    transposed = node.op_type == "ConvTranspose"
    weights, bits = _weights(walk, node, 3 if node.op_type == "QLinearConv" else 1, inputs)
    source, axes = _feature_map(walk, inputs[0])
    if weights.ndim != axes + 2:
        raise InputError(f"expected weights of {axes + 2} axes, got shape {weights.shape}")
    groups = int(attributes.get("group", 1))
    seen = weights.shape[0] if transposed else weights.shape[1] * groups
    if groups < 1 or seen != source.shape[0]:
        raise InputError(f"expected {source.shape[0]} input channels in {groups} groups, got weights {weights.shape}")
    channels = weights.shape[1] * groups if transposed else weights.shape[0]
    window = Window(source.shape[1:], weights.shape[2:], attributes, axes)
    shape = (channels, *(window.transposed() if transposed else window.output()))
    check_shape(shape)
    kind = "conv_transpose" if transposed else "conv"
    target = walk.neurons_for(name, prod(shape), kind, shape, walk.keys(inputs[0]))
    return [_windows(walk, source, target, shape, bits, window, groups, transposed)]


def _pool(walk: Walk, node: Any, name: str, inputs: list[Any], attributes: dict[str, Any]) -> Sequence[Value]:
    source, axes = _feature_map(walk, inputs[0])
    everywhere = node.op_type in GLOBAL_POOLS
    kernel = source.shape[3 - axes :] if everywhere else attributes["kernel_shape"]
    window = Window(source.shape[1:], kernel, {} if everywhere else attributes, axes)
    shape = (source.shape[0], *window.output())
    check_shape(shape)
    target = walk.layer(name, walk.node, prod(shape), "pool", shape, walk.keys(inputs[0]))
    value = _windows(walk, source, target, shape, UNIT_BITS, window, source.shape[0])
    return [value] + [Host()] * (len(node.output) - 1)


def _windows(
    walk: Walk,
    source: Tensor,
    target: Tensor,
    shape: Sequence[int],
    bits: int,
    window: Window,
    groups: int,
    transposed: bool = False,
) -> Values:
    walk.assembly.connect_convolution(
        source,
        target,
        bits,
        shape,
        kernel=window.kernel,
        stride=window.stride,
        padding=window.before,
        dilation=window.dilation,
        groups=groups,
        transposed=transposed,
    )
    return Values(target.reshape((1, shape[0], *shape[3 - window.axes :])))


def _feature_map(walk: Walk, value: Any) -> tuple[Tensor, int]:
    """(channels, height, width) of neurons, and how many axes in space the value has."""
    ids = walk.read(value)
    axes = ids.ndim - 2
    if axes not in (1, 2):
        raise InputError(f"expected a value in 1 or 2 dimensions of space, got shape {ids.shape}")
    if ids.shape[0] != 1:
        raise InputError(f"expected a batch of 1, got shape {ids.shape}; give input_shape with 1 as its first size")
    return ids[0].reshape(ids.shape[1], -1 if axes == 2 else 1, ids.shape[-1]), axes


def _matmul(walk: Walk, node: Any, name: str, inputs: list[Any], attributes: dict[str, Any]) -> Sequence[Value]:
    op = node.op_type
    left, right = (0, 3) if op == "QLinearMatMul" else (0, 1)
    a, b = inputs[left], inputs[right]
    if op == "Gemm":
        a, b = (_transposed(x) if attributes.get(key) else x for x, key in ((a, "transA"), (b, "transB")))
    if isinstance(a, Values) and isinstance(b, Values):
        return [_product(walk, name, a, b)]
    weights, bits = _weights(walk, node, right if isinstance(a, Values) else left, inputs)
    if op == "Gemm" and attributes.get("transB" if isinstance(a, Values) else "transA"):
        weights = weights.T
    if isinstance(a, Values):
        value = _weighted(walk, name, a, weights, bits)
    else:
        value = _transposed(_weighted(walk, name, _transposed(b), np.swapaxes(weights, -1, -2), bits))
    extra = inputs[2] if op == "Gemm" and len(inputs) > 2 else None
    return [_join(walk, f"{name}_sum", "Add", [value, extra]) if isinstance(extra, Values) else value]


def _weighted(walk: Walk, name: str, value: Values, weights: NDArray[Any], bits: int) -> Values:
    """Values (..., M, K) times weights (..., K, N)."""
    ids = walk.read(value)
    is_vector, column = ids.ndim == 1, weights.ndim == 1
    ids = ids[None] if is_vector else ids
    weights = weights[:, None] if column else weights
    if ids.shape[-1] != weights.shape[-2]:
        raise InputError(f"expected weights for {ids.shape[-1]} values, got shape {weights.shape}")
    if prod(weights.shape[:-2]) > 1:
        out = _weighted_each(walk, name, ids, weights, bits, walk.keys(value))
    else:
        out = _weighted_all(walk, name, ids, weights.reshape(weights.shape[-2:]), bits, walk.keys(value))
    out = out[..., 0] if column else out
    return Values(out[0] if is_vector else out)


def _weighted_each(walk: Walk, name: str, ids: Tensor, weights: NDArray[Any], bits: int, sources: set[str]) -> Tensor:
    """Return neurons (..., M, N) of products with a matrix (K, N) for each entry of the batch."""
    k, n = weights.shape[-2:]
    ids = np.broadcast_to(ids, (*np.broadcast_shapes(ids.shape[:-2], weights.shape[:-2]), *ids.shape[-2:]))
    lead, m = ids.shape[:-1], ids.shape[-2]
    batches = prod(lead[:-1])
    source = np.ascontiguousarray(ids.reshape(batches, m, k).transpose(0, 2, 1)).reshape(batches * k, 1, m)
    shape = (batches * n, 1, m)
    check_shape(shape)
    target = walk.neurons_for(name, prod(shape), "matmul", shape, sources)
    walk.assembly.connect_convolution(source, target, bits, shape, kernel=(1, 1), groups=batches)
    return target.reshape(batches, n, m).transpose(0, 2, 1).reshape(*lead, n)


def _weighted_all(walk: Walk, name: str, ids: Tensor, weights: NDArray[Any], bits: int, sources: set[str]) -> Tensor:
    """Return neurons (..., M, N) of products with one matrix (K, N)."""
    k, n = weights.shape
    lead = ids.shape[:-1]
    rows = ids.reshape(-1, k)
    if rows.shape[0] == 1 or bool((rows == rows[0]).all()):  # the same neurons, one time after the other
        target = walk.neurons_for(name, n, "gemm", None, sources)
        walk.assembly.connect_matrix(rows[0], target, bits, weights if weights.any() else None)
        return np.broadcast_to(target, (prod(lead), n)).reshape(*lead, n)
    m = rows.shape[0]
    shape = (n, 1, m)
    check_shape(shape)
    target = walk.neurons_for(name, prod(shape), "matmul", shape, sources)
    source = np.ascontiguousarray(rows.T).reshape(k, 1, m)
    walk.assembly.connect_convolution(source, target, bits, shape, kernel=(1, 1))
    return np.ascontiguousarray(target.reshape(n, m).T).reshape(*lead, n)


def _product(walk: Walk, name: str, a: Values, b: Values) -> Values:
    """Values (..., M, K) times values (..., K, N): traffic and operations, no weights."""
    left, right = walk.read(a), walk.read(b)
    left, right = (x[None] if x.ndim == 1 else x for x in (left, right))
    (m, k), n = left.shape[-2:], right.shape[-1]
    if right.shape[-2] != k:
        raise InputError(f"expected matrices that fit, got shapes {left.shape} and {right.shape}")
    lead = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    batches = prod(lead)
    check_shape((*lead, m, n))
    left = np.broadcast_to(left, (*lead, m, k)).reshape(batches, m, k)
    right = np.broadcast_to(right, (*lead, k, n)).reshape(batches, k, n)
    kind = walk.kind_read(walk.node) or "product"
    target = walk.assembly.multiply(name, left, right, kind)
    walk.enter(int(target.flat[0]), walk.node, target.size, walk.keys(a) | walk.keys(b))
    return Values(target.reshape(*lead, m, n))


def _reduce(walk: Walk, node: Any, name: str, inputs: list[Any], attributes: dict[str, Any]) -> Sequence[Value]:
    ids = walk.read(inputs[0])
    given = inputs[1] if len(inputs) > 1 and inputs[1] is not None else attributes.get("axes")
    if given is None:
        given = [] if attributes.get("noop_with_empty_axes") else list(range(ids.ndim))
    axes = sorted(int(a) % ids.ndim for a in np.ravel(given))
    if not axes:
        return [inputs[0]]
    kept = [a for a in range(ids.ndim) if a not in axes]
    shape = [ids.shape[a] for a in kept]
    n = prod(shape)
    source = np.ascontiguousarray(ids.transpose(*kept, *axes)).reshape(n, -1, 1)
    target = walk.layer(name, walk.node, n, node.op_type.lower(), (n, 1, 1), walk.keys(inputs[0]))
    walk.assembly.connect_convolution(source, target, UNIT_BITS, (n, 1, 1), kernel=(source.shape[1], 1), groups=n)
    out = target.reshape(shape)
    return [Values(np.expand_dims(out, axes) if attributes.get("keepdims", 1) else out)]


def _recurrent(walk: Walk, node: Any, name: str, inputs: list[Any], attributes: dict[str, Any]) -> Sequence[Value]:
    """LSTM, GRU and RNN: gates that read input and state, and a state of one neuron per unit."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[node.op_type]
    ids = walk.read(inputs[0])
    (w, bits), (r, r_bits) = _weights(walk, node, 1, inputs), _weights(walk, node, 2, inputs)
    batch_first = bool(attributes.get("layout", 0))
    ids = ids.transpose(1, 0, 2) if batch_first else ids
    if ids.ndim != 3 or w.ndim != 3 or ids.shape[1] != 1 or w.shape[2] != ids.shape[2]:
        raise InputError(f"expected values (steps, 1, features) and weights for them, got {ids.shape} and {w.shape}")
    steps = ids.shape[0]
    directions, units = w.shape[0], w.shape[1] // gates
    if r.shape != (directions, gates * units, units):
        raise InputError(f"expected recurrent weights {(directions, gates * units, units)}, got {r.shape}")
    sources = walk.keys(inputs[0])
    once = _one_by_one(walk, name, node.op_type, ids, sources) if steps > 1 else ids.ravel()
    states = []
    for d in range(directions):
        side = f"{name}_{d}" if directions > 1 else name
        key = f"{walk.node}/{d}"
        state = walk.layer(side, key, units, node.op_type.lower(), None, sources)
        gate = state if gates == 1 else _gates(walk, side, key, gates, state, sources)
        walk.assembly.connect_matrix(once, gate, bits, w[d].T if w[d].any() else None)
        walk.assembly.connect_matrix(state, gate, r_bits, r[d].T if r[d].any() else None)
        states.append(state)
    last = np.stack(states)[:, None]  # (directions, batch, units)
    every = np.broadcast_to(last, (steps, *last.shape))
    if batch_first:
        every, last = every.transpose(2, 0, 1, 3), last.transpose(1, 0, 2)
    return [Values(every), Values(last), Values(last)][: len(node.output)]


def _one_by_one(walk: Walk, name: str, op: str, ids: Tensor, sources: set[str]) -> Tensor:
    """Return neurons (features,) that the steps of a sequence (steps, 1, features) come in at, one after the other."""
    steps, _, n_in = ids.shape
    walk.assembly.note(
        f"{op} takes the steps of its sequence one after the other through one set of neurons; "
        "give steps_per_inference what one inference needs"
    )
    once = walk.layer(f"{name}_step", f"{walk.node}/step", n_in, "relay", (n_in, 1, 1), sources)
    sequence = np.ascontiguousarray(ids[:, 0].T).reshape(n_in, steps, 1)
    geometry = {"kernel": (steps, 1), "groups": n_in}
    walk.assembly.connect_convolution(sequence, once, UNIT_BITS, (n_in, 1, 1), **geometry)
    return once


def _gates(walk: Walk, side: str, key: str, gates: int, state: Tensor, sources: set[str]) -> Tensor:
    """Return the neurons of all gates (gates * units,), joined to the state (units,) that they make."""
    units = state.size
    gate = walk.layer(f"{side}_gates", f"{key}/gates", gates * units, "gate", None, sources)
    by_unit = np.ascontiguousarray(gate.reshape(gates, units).T).reshape(units, gates, 1)
    walk.assembly.connect_convolution(by_unit, state, 0, (units, 1, 1), kernel=(gates, 1), groups=units)
    return gate


def _transposed(value: Any) -> Any:
    if isinstance(value, Values):
        return Values(np.swapaxes(value.ids, -1, -2), value.version) if value.ids.ndim > 1 else value
    return value


#: What makes the outputs of a node, by operator.
OPERATORS: dict[str, Operator] = {
    **dict.fromkeys(MOVES, _move),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    **dict.fromkeys(AFFINE, _scale),
    **dict.fromkeys(JOINS, _combine),
    **dict.fromkeys(FUNCTIONS | NORMALISATIONS, _apply),
    **dict.fromkeys(HOST, _leave),
    **dict.fromkeys(("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv"), _conv),
    **dict.fromkeys(POOLS | GLOBAL_POOLS, _pool),
    **dict.fromkeys(("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul"), _matmul),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **dict.fromkeys(
        [f"Reduce{x}" for x in ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")],
        _reduce,
    ),
}
