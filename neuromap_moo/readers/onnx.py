"""Networks from ONNX graphs.

The graph is walked once with arrays of neuron numbers (`assemble.Tensor`) in place of values. Operators that only move
values move the numbers, and are run by onnx's own reference evaluator; constant parts of the graph fold in the same
way; weighted operators make layers; functions of single values belong to the neurons that send them.

What a neuron sends may be read in more than one version (before and after an activation). The walk is made twice: the
first finds which versions are read by what follows, the second gives all versions but one a layer of their own.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx.checker
import onnx.inliner
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from neuromap_moo.errors import InputError, first_line
from neuromap_moo.network import Network
from neuromap_moo.readers.assemble import MAXIMUM_NEURONS, UNIT_BITS, Assembly, Tensor, all_different, map_shape

#: Operators that only move values, with the inputs that hold values (None: all).
MOVES: dict[str, tuple[int, ...] | None] = {
    "Reshape": (0,), "Flatten": (0,), "Transpose": (0,), "Squeeze": (0,), "Unsqueeze": (0,), "Slice": (0,),
    "Gather": (0,), "GatherND": (0,), "GatherElements": (0,), "Split": (0,), "Expand": (0,), "Tile": (0,),
    "DepthToSpace": (0,), "SpaceToDepth": (0,), "Trilu": (0,), "ReverseSequence": (0,), "Compress": (0,),
    "Concat": None, "Where": (1, 2), "ScatterND": (0, 2), "ScatterElements": (0, 2), "Pad": (0,),
}  # fmt: skip

#: Quantisers of QONNX.
QONNX = {"Quant", "IntQuant", "BipolarQuant", "Trunc", "FloatQuant"}

#: Operators that leave a value as it is, or scale and shift it, which the neuron or the next weights take over.
AFFINE = {
    "Identity", "Dropout", "Cast", "CastLike", "BatchNormalization", "Neg", "QuantizeLinear", "DequantizeLinear",
    "DynamicQuantizeLinear", *QONNX,
}  # fmt: skip

#: Operators whose outputs say which values quantisation leaves, and the input that stands for zero there, if not 0.
ZERO_POINT = {"QLinearConv": 7, "QLinearMatMul": 7, "QuantizeLinear": 2, "DequantizeLinear": None, "Quant": None}

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

LOOPS = {"Loop", "Scan", "SequenceMap"}
POOLS = {"MaxPool", "AveragePool", "LpPool"}
GLOBAL_POOLS = {"GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"}

#: What onnx and its parts raise for files that are none, or graphs that are broken.
READ_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError)


@dataclass(frozen=True)
class _Values:
    """A tensor of neurons; `version` tells by layer (its first neuron) which functions were applied since."""

    ids: Tensor
    version: Mapping[int, str] = field(default_factory=dict)


class Shown(NamedTuple):
    """Where a run of the graph shows what neurons send: the value's name, their numbers in its shape, what is none."""

    name: str
    neurons: Tensor
    zero: float


class Walked(NamedTuple):
    """What a graph makes."""

    assembly: Assembly
    outputs: dict[str, Tensor]  #: neurons that send the outputs, by name
    notes: tuple[str, ...]  #: what was left out
    shown: tuple[Shown, ...]  #: later ones say more than earlier ones of the same neurons


class _Host:
    """A value that leaves the chip."""


Value = NDArray[Any] | _Values | _Host


def read_onnx(
    path: str | Path,
    activity: float = 0.2,
    activity_sigma: float = 0.5,
    steps_per_inference: int = 1,
    seed: int = 0,
    input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    weight_bits: int = 8,
) -> Network:
    """Read an ONNX graph; see docs/networks.md for what becomes of each operator.

    `input_shape` replaces the shape of the input, or of each by its name; a batch axis of no fixed size is taken as 1.
    Weights whose width the graph does not tell are taken as quantised to `weight_bits`.
    The file holds no activity: every layer gets `activity` as its mean, spread as in `lognormal_activity`.
    """
    path = Path(path)
    where, model = f"'{path}'", load_model(path)
    walked = walk(where, model, input_shape, weight_bits)
    for text in walked.notes:
        warnings.warn(f"{where}: {text}", stacklevel=2)
    return walked.assembly.network(path.stem, activity, activity_sigma, steps_per_inference, seed)


def load_model(path: Path) -> Any:
    """Return the model of a file, its own functions put in where they are called."""
    try:
        model = onnx.load(str(path))
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except (DecodeError, onnx.checker.ValidationError, *READ_ERRORS) as error:
        raise InputError(f"'{path}': expected an ONNX file, could not read it ({first_line(error)})") from error
    if not model.graph.node:
        raise InputError(f"'{path}': expected an ONNX graph with at least one node, found none")
    return model


def walk(where: str, model: Any, input_shape: Any = None, weight_bits: int = 8) -> Walked:
    """Return the layers that a model makes, and which of its values they send."""
    try:
        first = _Walk(where, model, input_shape, weight_bits, None)
        first.graph()
        first.assembly = Assembly(where)  # its layers are not needed any more
        second = _Walk(where, model, input_shape, weight_bits, first)
        outputs = second.graph()
    except MemoryError as error:
        raise InputError(f"{where}: a value of the graph does not fit into memory ({error})") from error
    except RecursionError as error:
        raise InputError(f"{where}: subgraphs are nested too deeply") from error
    neurons = {name: value.ids for name, value in outputs.items() if isinstance(value, _Values)}
    return Walked(second.assembly, neurons, tuple(second.notes), tuple(second.shown))


class _Walk:
    """One walk through a graph; `before` is the first one when this is the second."""

    def __init__(self, where: str, model: Any, input_shape: Any, weight_bits: int, before: _Walk | None) -> None:
        self.where, self.model, self.before = where, model, before
        self.input_shape, self.weight_bits = input_shape, weight_bits
        self.opsets = {x.domain: x.version for x in model.opset_import}
        self.assembly = Assembly(where)
        self.notes: dict[str, None] = {}  # in order, each once
        self.bits: dict[str, int] = {}  # of constants whose width the graph tells
        # Layers go by the first neuron; a key says which node made one, the same in both walks.
        self.key: dict[int, str] = {}
        self.size: dict[int, int] = {}
        self.versions_read: dict[str, dict[str, None]] = {}  # by key
        self.readers: dict[str, set[str]] = {}  # by key: nodes that read the layer
        self.kind_of_version: dict[str, str] = {}
        self.sums: set[str] = set()  # keys of layers whose neurons add up what they receive
        self.sources: dict[str, set[str]] = {}  # by key
        self.joins: dict[str, list[tuple[str, bool]]] = {}  # by key of a sum: whole layers it adds, and if in order
        self.first_of_key: dict[str, int] = {}
        self.value_of: dict[str, str] = {}  # name of the value that a version makes
        self.shown: list[Shown] = []
        self.output_of: dict[str, Tensor] = {}  # by version, of those that get a layer of their own
        self.copies: dict[str, tuple[int, Tensor]] = {}  # by version
        self.joined_to = {} if before is None else before.partners()  # by key: the layer that takes its synapses too
        self.node = ""  # the key of the node at hand

    # ---------------------------------------------------------------------------------------------------- the graph

    def graph(self) -> dict[str, Value]:
        """Walk the whole graph; return its outputs."""
        graph = self.model.graph
        values: dict[str, Value] = {}
        for tensor in graph.initializer:
            values[tensor.name] = self._constant(tensor.name, tensor)
        for sparse in graph.sparse_initializer:
            values[sparse.values.name] = _dense_of_sparse(sparse)
        inputs = [given for given in graph.input if given.name not in values]
        unknown = set(self.input_shape or ()) - {x.name for x in inputs} if self._shapes_by_name else set()
        if unknown:
            raise InputError(
                f"{self.where}: input_shape names no input '{min(unknown)}'; the inputs are "
                f"{', '.join(x.name for x in inputs)}"
            )
        for given in inputs:
            values[given.name] = self._input(given, len(inputs))
        self._nodes(graph, values, "")
        for name in (x.name for x in graph.output):
            if name not in values:
                raise InputError(f"{self.where}: output '{name}' is made by no node")
        for name in (x.name for x in graph.output):
            value = values[name]
            if isinstance(value, _Values) and self.before is None:
                for first in self._layers(value):  # an output's function names its neurons, if nobody else reads them
                    versions = self.versions_read.setdefault(self.key[first], {})
                    if not versions:
                        versions[value.version.get(first, "")] = None
        return {x.name: values[x.name] for x in graph.output}

    @property
    def _shapes_by_name(self) -> bool:
        return isinstance(self.input_shape, Mapping)

    def _constant(self, name: str, tensor: Any) -> NDArray[Any]:
        try:
            array = numpy_helper.to_array(tensor)
        except READ_ERRORS as error:
            raise InputError(f"{self.where}: initializer '{name}' cannot be read ({first_line(error)})") from error
        if tensor.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4):
            self.bits[name] = 4
        return np.asarray(array)

    def _input(self, given: Any, n_inputs: int) -> _Values:
        kind = given.type.WhichOneof("value")
        if kind != "tensor_type":
            raise InputError(f"{self.where}: input '{given.name}' is no tensor but a {kind}, which cannot be mapped")
        dims = [d.dim_value if d.WhichOneof("value") == "dim_value" else 0 for d in given.type.tensor_type.shape.dim]
        shape: Any = None
        if self._shapes_by_name:
            shape = self.input_shape.get(given.name)
        elif self.input_shape is not None:
            if n_inputs > 1:
                raise InputError(
                    f"{self.where}: the graph has several inputs; give input_shape by name, "
                    f"e.g. {{{given.name}: {dims}}}"
                )
            shape = self.input_shape
        if shape is None:
            if len(dims) > 1 and dims[0] <= 0:
                dims[0] = 1
            shape = dims
        shape = [int(n) for n in shape]
        if min(shape, default=1) < 1:
            raise InputError(
                f"{self.where}: input '{given.name}' has shape {shape}, of no fixed size; give input_shape, "
                f"e.g. {[n if n > 0 else 1 for n in shape]}"
            )
        ids = self._layer(given.name, given.name, prod(shape), "input", _onnx_map(shape), set())
        self.shown.append(Shown(given.name, ids.reshape(shape), 0.0))
        return _Values(ids.reshape(shape))

    def _nodes(self, graph: Any, values: dict[str, Value], prefix: str) -> None:
        """Walk the nodes of a graph or subgraph that its outputs depend on."""
        needed = {x.name for x in graph.output}
        used = []
        for node in reversed(graph.node):
            if needed & set(node.output):
                used.append(node)
                needed |= set(node.input) | _outer_names(node)
        for number, node in enumerate(reversed(used)):
            name = node.name or (node.output[0] if node.output else "")
            self.node = f"{prefix}{number}:{name}"
            for key in node.input:
                if key and key not in values:
                    raise InputError(
                        f"{self.where}, node '{name}' ({node.op_type}): its input '{key}' is made by no node "
                        "before it; the graph has a cycle, or a node is missing"
                    )
            try:
                outputs = self._one(node, name, values)
            except InputError as error:
                if f"node '{name}'" in str(error):
                    raise
                raise InputError(
                    f"{self.where}, node '{name}' ({node.op_type}): {_inner(error, self.where)}"
                ) from error
            except READ_ERRORS as error:
                raise InputError(
                    f"{self.where}, node '{name}' ({node.op_type}): cannot be mapped ({first_line(error)})"
                ) from error
            for key, value in zip(node.output, outputs, strict=False):
                if key:
                    values[key] = value
                    if not prefix:  # a run does not show what is inside of subgraphs
                        self._show(node, key, value, values)

    def _one(self, node: Any, name: str, values: dict[str, Value]) -> Sequence[Value]:
        """Return the outputs of a node."""
        inputs = [values[key] if key else None for key in node.input]
        op, attributes = node.op_type, {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if any(isinstance(x, _Host) for x in inputs):
            return [_Host()] * len(node.output)
        of_neurons = [x for x in inputs if isinstance(x, _Values)]
        if op == "If":
            return self._if(node, inputs[0], attributes, values)
        if op in LOOPS and (of_neurons or any(isinstance(values.get(x), _Values) for x in _outer_names(node))):
            raise InputError("a loop over values that neurons send does not fold away and cannot be mapped")
        if not of_neurons:
            return self._fold(node, inputs)
        if op in ("Shape", "Size"):
            shape = np.array(of_neurons[0].ids.shape, dtype=np.int64)
            part = shape[attributes.get("start", 0) : attributes.get("end", shape.size)]
            return [part if op == "Shape" else np.array(shape.prod())]
        if op in HOST:
            self._note(f"{op} is left to the host")
            return [_Host()] * len(node.output)
        if op == "Gather" and isinstance(inputs[0], np.ndarray):
            return [self._look_up(name, inputs[0], of_neurons[0])]
        if op in MOVES:
            return self._move(node, inputs, MOVES[op])
        if op in ("Resize", "Upsample"):
            return [self._resize(inputs, attributes)]
        if op in AFFINE:
            return [of_neurons[0], *[np.zeros(())] * (len(node.output) - 1)]
        if op in JOINS:
            return [self._join(name, op, inputs)] + [_Host()] * (len(node.output) - 1)
        if op in FUNCTIONS or op in NORMALISATIONS:
            if op in NORMALISATIONS:
                self._note(f"{op} is taken as a function of each neuron; the sums it divides by are left out")
            return [self._function(op, of_neurons[0])] + [_Host()] * (len(node.output) - 1)
        method = OPERATORS.get(op)
        if method is None:
            raise InputError(f"operator {op} cannot be mapped")
        return method(self, node, name, inputs, attributes)

    def _fold(self, node: Any, inputs: list[Any]) -> list[Any]:
        """Run a node whose inputs are constants."""
        bits = max((self.bits[key] for key in node.input if key in self.bits), default=0)
        if node.op_type in ("Quant", "IntQuant") and len(inputs) > 3:
            bits = int(np.max(inputs[3]))
        if node.op_type == "BipolarQuant":
            bits = 1
        if bits:
            self.bits.update(dict.fromkeys(node.output, bits))
        if node.op_type in QONNX:  # weights as they are
            return [inputs[0]]
        if node.op_type == "ConstantOfShape":
            filled = [a.t for a in node.attribute if a.name == "value"]
            value = numpy_helper.to_array(filled[0]).ravel()[0] if filled else np.float32(0)
            return [np.broadcast_to(value, [int(n) for n in inputs[0]])]
        _check_size(node.op_type, inputs)
        return list(self._run(node, inputs))

    def _run(self, node: Any, inputs: list[Any]) -> Sequence[Any]:
        """Run a node by onnx's reference evaluator."""
        names = [key for key in node.input if key]
        feeds = dict(zip(names, [x for x in inputs if x is not None], strict=True))
        axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
        if axes is not None and node.op_type in ("Squeeze", "Unsqueeze"):  # before opset 13; the evaluator fails on it
            return [(np.squeeze if node.op_type == "Squeeze" else np.expand_dims)(inputs[0], tuple(axes))]
        if _outer_names(node):
            raise InputError("a subgraph that reads values from outside cannot be folded")
        return list(ReferenceEvaluator(node, opsets=self.opsets).run(None, feeds))

    def _if(self, node: Any, condition: Any, attributes: dict[str, Any], values: dict[str, Value]) -> list[Value]:
        if not isinstance(condition, np.ndarray):
            raise InputError("its condition is no constant, so which branch runs is not known")
        branch = attributes["then_branch" if condition.ravel()[0] else "else_branch"]
        inner = dict(values)
        for tensor in branch.initializer:
            inner[tensor.name] = self._constant(tensor.name, tensor)
        self._nodes(branch, inner, f"{self.node}/")
        return [inner[x.name] for x in branch.output]

    def _note(self, text: str) -> None:
        self.notes[text] = None

    # --------------------------------------------------------------------------------------------- layers and versions

    def _layer(
        self, name: str, key: str, size: int, kind: str, shape: Sequence[int] | None, sources: set[str]
    ) -> Tensor:
        """Add a layer; its kind is that of the one version read, if there is but one."""
        ids = self.assembly.layer(name, size, kind if kind == "input" else self._kind_read(key) or kind, shape)
        self._enter(int(ids[0]), key, size, sources)
        return ids

    def _enter(self, first: int, key: str, size: int, sources: set[str]) -> None:
        """Enter a layer that the assembly has got."""
        self.key[first], self.size[first] = key, size
        self.first_of_key.setdefault(key, first)
        self.sources[key] = sources

    def _kind_read(self, key: str) -> str:
        """Kind of the function that all readers of a layer see it through; empty where there is none."""
        versions = list(self.before.versions_read.get(key, ())) if self.before else []
        return self.before.kind_of_version[versions[0]] if self.before and len(versions) == 1 and versions[0] else ""

    def _layers(self, value: _Values) -> list[int]:
        """First neurons of the layers that a value comes from."""
        return self.assembly.layers_of(value.ids)

    def _read(self, value: Value | None) -> Tensor:
        """Neurons of a value that the node at hand reads; versions that no neuron sends get a layer here."""
        if not isinstance(value, _Values):
            raise InputError("expected a value that neurons send, got a constant")
        ids = value.ids
        for first in self._layers(value):
            key, version = self.key[first], value.version.get(first, "")
            self.versions_read.setdefault(key, {})[version] = None
            self.readers.setdefault(key, set()).add(self.node)
            if version and self._has_versions(first):
                if version not in self.copies:
                    self.copies[version] = self._copy(version)
                lowest, copies = self.copies[version]
                of_layer = (ids >= first) & (ids < first + self.size[first])
                ids = np.where(of_layer, copies[np.where(of_layer, ids - lowest, 0)], ids)
        return ids

    def _has_versions(self, first: int) -> bool:
        """Tell whether a layer is read in several versions, of which it sends the plain one."""
        return self.before is not None and len(self.before.versions_read.get(self.key[first], ())) > 1

    def _copy(self, version: str) -> tuple[int, Tensor]:
        """Add a layer that sends this version of other layers; return their lowest neuron and a table from there."""
        ids = self.output_of[version]
        there = ids > 0
        for first in self.assembly.layers_of(ids):
            if not self._has_versions(first):
                there &= (ids < first) | (ids >= first + self.size[first])
        own, shape = (ids, _onnx_map(ids.shape)) if there.all() else (ids[there], None)
        sources = {self.key[first] for first in self.assembly.layers_of(own)}
        name, kind = version.split(":", 1)[-1], self.kind_of_version[version]
        copy = self._layer(name, f"{version}>", own.size, kind, shape, sources)
        self.assembly.connect_each(own.ravel(), copy)
        lowest = int(own.min())
        table = np.zeros(int(own.max()) - lowest + 1, dtype=np.int64)
        table[own.ravel() - lowest] = copy
        if version in self.value_of:
            self.shown.append(
                Shown(self.value_of[version], np.where(there, table[np.where(there, ids - lowest, 0)], 0), 0)
            )
        return lowest, table

    def _function(self, op: str, value: _Values) -> _Values:
        self.kind_of_version[self.node] = op.lower()
        layers = self._layers(value)
        if any(self._has_versions(first) for first in layers):
            self.output_of[self.node] = value.ids
        return _Values(value.ids, dict.fromkeys(layers, self.node))

    def _show(self, node: Any, name: str, value: Value, values: Mapping[str, Value]) -> None:
        """Note that a run shows here what neurons send, if what they send is this version."""
        op = node.op_type
        if not isinstance(value, _Values) or op in MOVES or (op in AFFINE and op not in ZERO_POINT):
            return
        self.value_of.setdefault(self.node, name)
        if any(value.version.get(first) and self._has_versions(first) for first in self._layers(value)):
            return
        at = ZERO_POINT.get(op)
        point = values.get(node.input[at]) if at is not None and at < len(node.input) else None
        zero = float(point.ravel()[0]) if isinstance(point, np.ndarray) and point.size == 1 else 0.0
        self.shown.append(Shown(name, value.ids, zero))

    def _keys(self, value: Any) -> set[str]:
        return {self.key[first] for first in self._layers(value)} if isinstance(value, _Values) else set()

    def _whole(self, ids: Tensor) -> int:
        """First neuron of the one layer that these are all neurons of, each once; 0 if they are not."""
        first = int(ids.min()) if ids.size else 0
        if self.size.get(first) != ids.size or first == 0 or int(ids.max()) != first + ids.size - 1:
            return 0
        return first if all_different(ids) else 0

    def partners(self) -> dict[str, str]:
        """Layers, by key, that one sum alone reads and that can add up in another layer; and that layer."""
        partner: dict[str, str] = {}
        for key, operands in self.joins.items():
            alone = [
                (self.first_of_key[k], k, in_order)
                for k, in_order in operands
                if k in self.sums and self.readers.get(k) == {key} and set(self.versions_read[k]) == {""}
            ]
            if not alone:
                continue
            _, host, host_in_order = min(alone)
            partner[host] = host
            taken = set(self.sources[host])
            for _, k, in_order in sorted(alone)[1:]:
                if in_order and host_in_order and not taken & self.sources[k]:
                    partner[k] = host
                    taken |= self.sources[k]
        return partner

    def _neurons_for(self, name: str, size: int, kind: str, shape: Sequence[int] | None, sources: set[str]) -> Tensor:
        """Neurons of the layer that the node at hand makes, or of the one that its sum merges it with."""
        key = self.node
        self.sums.add(key)
        host = self.joined_to.get(key, key)
        if host != key:
            first = self.first_of_key[host]
            return np.arange(first, first + self.size[first])
        return self._layer(name, key, size, kind, shape, sources)

    # ------------------------------------------------------------------------------------------------------- operators

    def _move(self, node: Any, inputs: list[Any], which: tuple[int, ...] | None) -> list[Value]:
        """Run an operator that only moves values on the numbers of neurons."""
        moved = range(len(inputs)) if which is None else which
        version: dict[int, str] = {}
        arrays = list(inputs)
        for i in moved:
            x = inputs[i] if i < len(inputs) else None
            if isinstance(x, _Values):
                own = {first: x.version.get(first, "") for first in self._layers(x)}
                if any(version.get(first, v) != v for first, v in own.items()):
                    ids = self._read(x)
                    x, own = _Values(ids), {}
                version |= own
                arrays[i] = x.ids
            elif x is not None:
                arrays[i] = np.zeros(x.shape, dtype=np.int64)
        if any(isinstance(x, _Values) for x in arrays):
            raise InputError("which values it moves is decided by what neurons send, which is not known")
        if node.op_type == "Pad" and len(arrays) > 2 and arrays[2] is not None:
            arrays[2] = np.zeros((), dtype=np.int64)
        _check_size(node.op_type, arrays)
        outputs = self._run(node, arrays)
        return [_Values(np.asarray(x, dtype=np.int64), {f: v for f, v in version.items() if v}) for x in outputs]

    def _look_up(self, name: str, table: NDArray[Any], index: _Values) -> _Values:
        self._note("a table is looked up by the host: its rows come in as an input layer")
        shape = (*index.ids.shape, *table.shape[1:])
        ids = self._layer(name, self.node, prod(shape), "input", _onnx_map(shape), set())
        return _Values(ids.reshape(shape))

    def _resize(self, inputs: list[Any], attributes: dict[str, Any]) -> _Values:
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
            self._note("Resize by interpolation is taken as to the nearest value")
        ids = value.ids
        for axis, n in enumerate(target.astype(int).tolist()):
            ids = ids.take(np.arange(n) * shape[axis] // max(n, 1), axis=axis)
        return _Values(ids, value.version)

    def _join(self, name: str, op: str, inputs: list[Any]) -> _Values:
        """Put tensors together place by place."""
        shape = np.broadcast_shapes(
            *(x.ids.shape if isinstance(x, _Values) else x.shape for x in inputs if x is not None)
        )
        _check_shape(shape)
        values = [_Values(np.broadcast_to(x.ids, shape), x.version) for x in inputs if isinstance(x, _Values)]
        if op == "SkipLayerNormalization":
            self._note(f"{op} is taken as a sum and a function of each neuron; the sums it divides by are left out")
        merged = [x for x in values if (f := self._whole(x.ids)) and self.joined_to.get(self.key[f]) is not None]
        hosts = {self._whole(x.ids) for x in merged}
        if len(values) == 1:
            return values[0]
        if not merged and all(np.array_equal(values[0].ids, x.ids) for x in values[1:]):
            return self._function(op, values[0])
        if op in SUMS and len(hosts) == 1 and self._is_own_join(hosts):
            first = hosts.pop()
            own = merged[0].ids
            for x in values:
                if self._whole(x.ids) != first:
                    self.assembly.connect_each(self._read(x), own.ravel())
            self._rename(first)
            return _Values(own)
        reading = [self._read(x) for x in values]
        sources = set().union(*(self._keys(x) for x in values))
        if op in SUMS:
            whole = [self._whole(x.ids) for x in values]
            self.joins[self.node] = [
                (self.key[f], bool(np.array_equal(x.ids.ravel(), np.arange(f, f + x.ids.size))))
                for f, x in zip(whole, values, strict=True)
                if f and not x.version.get(f, "")
            ]
            self.sums.add(self.node)
        target = self._layer(name, self.node, prod(shape), op.lower(), _onnx_map(shape), sources)
        for ids in reading:
            self.assembly.connect_each(ids.ravel(), target, UNIT_BITS if op in SUMS else 0)
        return _Values(target.reshape(shape))

    def _is_own_join(self, hosts: set[int]) -> bool:
        """Tell whether the sum at hand is the one that its operands were to be merged in."""
        return self.before is not None and all(
            self.before.readers.get(self.key[first]) == {self.node} for first in hosts
        )

    def _rename(self, first: int) -> None:
        """Let a layer stand for the sum at hand, which it now makes itself."""
        self.key[first] = self.node
        self.first_of_key[self.node] = first
        kind = self._kind_read(self.node)
        if kind:
            self.assembly.change_kind(first, kind)

    def _weights(self, node: Any, i: int, inputs: list[Any]) -> tuple[NDArray[Any], int]:
        """Return the constant input i and the bits of its numbers."""
        weights = inputs[i] if i < len(inputs) else None
        if not isinstance(weights, np.ndarray):
            raise InputError(f"its weights '{node.input[i]}' are no constants but come from neurons")
        if weights.dtype.kind == "f" and not np.isfinite(weights).all():
            raise InputError(f"its weights '{node.input[i]}' hold NaN or infinity")
        if weights.size == 0:
            raise InputError(f"its weights '{node.input[i]}' are empty, shape {weights.shape}")
        return weights, self.bits.get(node.input[i], self.weight_bits)

    def _conv(self, node: Any, name: str, inputs: list[Any], attributes: dict[str, Any]) -> Sequence[Value]:
        transposed = node.op_type == "ConvTranspose"
        weights, bits = self._weights(node, 3 if node.op_type == "QLinearConv" else 1, inputs)
        source, axes = self._feature_map(inputs[0])
        if weights.ndim != axes + 2:
            raise InputError(f"expected weights of {axes + 2} axes, got shape {weights.shape}")
        groups = int(attributes.get("group", 1))
        seen = weights.shape[0] if transposed else weights.shape[1] * groups
        if groups < 1 or seen != source.shape[0]:
            raise InputError(
                f"expected {source.shape[0]} input channels in {groups} groups, got weights {weights.shape}"
            )
        channels = weights.shape[1] * groups if transposed else weights.shape[0]
        window = _Window(source.shape[1:], weights.shape[2:], attributes, axes)
        shape = (channels, *(window.transposed() if transposed else window.output()))
        _check_shape(shape)
        kind = "conv_transpose" if transposed else "conv"
        target = self._neurons_for(name, prod(shape), kind, shape, self._keys(inputs[0]))
        return [self._windows(source, target, shape, bits, window, groups, transposed)]

    def _pool(self, node: Any, name: str, inputs: list[Any], attributes: dict[str, Any]) -> Sequence[Value]:
        source, axes = self._feature_map(inputs[0])
        everywhere = node.op_type in GLOBAL_POOLS
        kernel = source.shape[3 - axes :] if everywhere else attributes["kernel_shape"]
        window = _Window(source.shape[1:], kernel, {} if everywhere else attributes, axes)
        shape = (source.shape[0], *window.output())
        _check_shape(shape)
        target = self._layer(name, self.node, prod(shape), "pool", shape, self._keys(inputs[0]))
        value = self._windows(source, target, shape, UNIT_BITS, window, source.shape[0])
        return [value] + [_Host()] * (len(node.output) - 1)

    def _windows(
        self,
        source: Tensor,
        target: Tensor,
        shape: Sequence[int],
        bits: int,
        window: _Window,
        groups: int,
        transposed: bool = False,
    ) -> _Values:
        self.assembly.connect_convolution(
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
        return _Values(target.reshape((1, shape[0], *shape[3 - window.axes :])))

    def _feature_map(self, value: Any) -> tuple[Tensor, int]:
        """(channels, height, width) of neurons, and how many axes in space the value has."""
        ids = self._read(value)
        axes = ids.ndim - 2
        if axes not in (1, 2):
            raise InputError(f"expected a value in 1 or 2 dimensions of space, got shape {ids.shape}")
        if ids.shape[0] != 1:
            raise InputError(f"expected a batch of 1, got shape {ids.shape}; give input_shape with 1 as its first size")
        return ids[0].reshape(ids.shape[1], -1 if axes == 2 else 1, ids.shape[-1]), axes

    def _matmul(self, node: Any, name: str, inputs: list[Any], attributes: dict[str, Any]) -> Sequence[Value]:
        op = node.op_type
        left, right = (0, 3) if op == "QLinearMatMul" else (0, 1)
        a, b = inputs[left], inputs[right]
        if op == "Gemm":
            a, b = (_transposed(x) if attributes.get(key) else x for x, key in ((a, "transA"), (b, "transB")))
        if isinstance(a, _Values) and isinstance(b, _Values):
            return [self._product(name, a, b)]
        weights, bits = self._weights(node, right if isinstance(a, _Values) else left, inputs)
        if op == "Gemm" and attributes.get("transB" if isinstance(a, _Values) else "transA"):
            weights = weights.T
        if isinstance(a, _Values):
            value = self._weighted(name, a, weights, bits)
        else:
            value = _transposed(self._weighted(name, _transposed(b), np.swapaxes(weights, -1, -2), bits))
        extra = inputs[2] if op == "Gemm" and len(inputs) > 2 else None
        return [self._join(f"{name}_sum", "Add", [value, extra]) if isinstance(extra, _Values) else value]

    def _weighted(self, name: str, value: _Values, weights: NDArray[Any], bits: int) -> _Values:
        """Values (..., M, K) times weights (..., K, N)."""
        ids = self._read(value)
        is_vector, column = ids.ndim == 1, weights.ndim == 1
        ids = ids[None] if is_vector else ids
        weights = weights[:, None] if column else weights
        if ids.shape[-1] != weights.shape[-2]:
            raise InputError(f"expected weights for {ids.shape[-1]} values, got shape {weights.shape}")
        k, n = weights.shape[-2:]
        batches = prod(weights.shape[:-2])
        lead: tuple[int, ...] = ids.shape[:-1]
        sources = self._keys(value)
        if batches > 1:  # a matrix for each entry of the batch
            ids = np.broadcast_to(ids, (*np.broadcast_shapes(ids.shape[:-2], weights.shape[:-2]), *ids.shape[-2:]))
            lead, m = ids.shape[:-1], ids.shape[-2]
            batches = prod(lead[:-1])
            source = np.ascontiguousarray(ids.reshape(batches, m, k).transpose(0, 2, 1)).reshape(batches * k, 1, m)
            shape = (batches * n, 1, m)
            _check_shape(shape)
            target = self._neurons_for(name, prod(shape), "matmul", shape, sources)
            self.assembly.connect_convolution(source, target, bits, shape, kernel=(1, 1), groups=batches)
            result: NDArray[Any] = target.reshape(batches, n, m).transpose(0, 2, 1)
        else:
            weights = weights.reshape(k, n)
            rows = ids.reshape(-1, k)
            once = rows.shape[0] == 1 or bool((rows == rows[0]).all())  # the same neurons, one time after the other
            m = 1 if once else rows.shape[0]
            if once:
                target = self._neurons_for(name, n, "gemm", None, sources)
                self.assembly.connect_matrix(rows[0], target, bits, weights if weights.any() else None)
                result = np.broadcast_to(target, (prod(lead), n))
            else:
                shape = (n, 1, m)
                _check_shape(shape)
                target = self._neurons_for(name, prod(shape), "matmul", shape, sources)
                source = np.ascontiguousarray(rows.T).reshape(k, 1, m)
                self.assembly.connect_convolution(source, target, bits, shape, kernel=(1, 1))
                result = np.ascontiguousarray(target.reshape(n, m).T)
        out: Tensor = np.asarray(result).reshape(*lead, n)
        out = out[..., 0] if column else out
        return _Values(out[0] if is_vector else out)

    def _product(self, name: str, a: _Values, b: _Values) -> _Values:
        """Values (..., M, K) times values (..., K, N): traffic and operations, no weights."""
        left, right = self._read(a), self._read(b)
        left, right = (x[None] if x.ndim == 1 else x for x in (left, right))
        (m, k), n = left.shape[-2:], right.shape[-1]
        if right.shape[-2] != k:
            raise InputError(f"expected matrices that fit, got shapes {left.shape} and {right.shape}")
        lead = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        batches = prod(lead)
        _check_shape((*lead, m, n))
        left = np.broadcast_to(left, (*lead, m, k)).reshape(batches, m, k)
        right = np.broadcast_to(right, (*lead, k, n)).reshape(batches, k, n)
        kind = self._kind_read(self.node) or "product"
        target = self.assembly.multiply(name, left, right, kind)
        self._enter(int(target.flat[0]), self.node, target.size, self._keys(a) | self._keys(b))
        return _Values(target.reshape(*lead, m, n))

    def _reduce(self, node: Any, name: str, inputs: list[Any], attributes: dict[str, Any]) -> Sequence[Value]:
        ids = self._read(inputs[0])
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
        target = self._layer(name, self.node, n, node.op_type.lower(), (n, 1, 1), self._keys(inputs[0]))
        self.assembly.connect_convolution(source, target, UNIT_BITS, (n, 1, 1), kernel=(source.shape[1], 1), groups=n)
        out = target.reshape(shape)
        return [_Values(np.expand_dims(out, axes) if attributes.get("keepdims", 1) else out)]

    def _recurrent(self, node: Any, name: str, inputs: list[Any], attributes: dict[str, Any]) -> Sequence[Value]:
        """LSTM, GRU and RNN: gates that read input and state, and a state of one neuron per unit."""
        gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[node.op_type]
        ids = self._read(inputs[0])
        (w, bits), (r, r_bits) = self._weights(node, 1, inputs), self._weights(node, 2, inputs)
        batch_first = bool(attributes.get("layout", 0))
        ids = ids.transpose(1, 0, 2) if batch_first else ids
        if ids.ndim != 3 or w.ndim != 3 or ids.shape[1] != 1 or w.shape[2] != ids.shape[2]:
            raise InputError(
                f"expected values (steps, 1, features) and weights for them, got {ids.shape} and {w.shape}"
            )
        steps, _, n_in = ids.shape
        directions, units = w.shape[0], w.shape[1] // gates
        if r.shape != (directions, gates * units, units):
            raise InputError(f"expected recurrent weights {(directions, gates * units, units)}, got {r.shape}")
        sources = self._keys(inputs[0])
        if steps > 1:
            self._note(
                f"{node.op_type} takes the steps of its sequence one after the other through one set of neurons; "
                "give steps_per_inference what one inference needs"
            )
            once = self._layer(f"{name}_step", f"{self.node}/step", n_in, "relay", (n_in, 1, 1), sources)
            self.assembly.connect_convolution(
                np.ascontiguousarray(ids[:, 0].T).reshape(n_in, steps, 1),
                once,
                UNIT_BITS,
                (n_in, 1, 1),
                kernel=(steps, 1),
                groups=n_in,
            )
        else:
            once = ids.ravel()
        states = []
        for d in range(directions):
            side = f"{name}_{d}" if directions > 1 else name
            key = f"{self.node}/{d}"
            state = self._layer(side, key, units, node.op_type.lower(), None, sources)
            gate = state
            if gates > 1:
                gate = self._layer(f"{side}_gates", f"{key}/gates", gates * units, "gate", None, sources)
                self.assembly.connect_convolution(
                    np.ascontiguousarray(gate.reshape(gates, units).T).reshape(units, gates, 1),
                    state,
                    0,
                    (units, 1, 1),
                    kernel=(gates, 1),
                    groups=units,
                )
            self.assembly.connect_matrix(once, gate, bits, w[d].T if w[d].any() else None)
            self.assembly.connect_matrix(state, gate, r_bits, r[d].T if r[d].any() else None)
            states.append(state)
        last = np.stack(states)[:, None]  # (directions, batch, units)
        every = np.broadcast_to(last, (steps, *last.shape))
        if batch_first:
            every, last = every.transpose(2, 0, 1, 3), last.transpose(1, 0, 2)
        return [_Values(every), _Values(last), _Values(last)][: len(node.output)]


class _Window:
    """Sizes of a convolution or pool, as (height, width)."""

    def __init__(self, size: Sequence[int], kernel: Sequence[int], attributes: dict[str, Any], axes: int) -> None:
        def pair(key: str, default: int) -> tuple[int, int]:
            given = [int(n) for n in attributes.get(key, [default] * axes)]
            if len(given) != axes:
                raise InputError(f"{key}: expected {axes} numbers, got {given}")
            return (default, given[0]) if axes == 1 else (given[0], given[1])

        self.size, self.axes = tuple(size), axes
        flat = [int(n) for n in kernel]
        if len(flat) != axes or min(flat) < 1:
            raise InputError(f"expected a kernel of {axes} sizes, got {flat}")
        self.kernel = (1, flat[0]) if axes == 1 else (flat[0], flat[1])
        self.stride, self.dilation, self.extra = pair("strides", 1), pair("dilations", 1), pair("output_padding", 0)
        if min(*self.stride, *self.dilation) < 1:
            raise InputError(f"expected strides and dilations >= 1, got {self.stride} and {self.dilation}")
        pads = [int(n) for n in attributes.get("pads", [0] * (2 * axes))]
        if len(pads) != 2 * axes:
            raise InputError(f"pads: expected {2 * axes} numbers, got {pads}")
        self.before = (0, pads[0]) if axes == 1 else (pads[0], pads[1])
        self.after = (0, pads[1]) if axes == 1 else (pads[2], pads[3])
        self.auto = attributes.get("auto_pad", b"NOTSET").decode()
        self.ceil = bool(attributes.get("ceil_mode", 0))
        self.given = attributes.get("output_shape")
        self.spans = tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))

    def output(self) -> tuple[int, int]:
        """Return the size of the output map, and settle the padding."""
        sizes, before = [], list(self.before)
        for a, (n, s, span) in enumerate(zip(self.size, self.stride, self.spans, strict=True)):
            if self.auto in ("SAME_UPPER", "SAME_LOWER"):
                size = -(-n // s)
                total = max(0, (size - 1) * s + span - n)
                before[a] = total // 2 if self.auto == "SAME_UPPER" else total - total // 2
            elif self.auto == "VALID":
                size, before[a] = (n - span) // s + 1, 0
            else:
                room = n + self.before[a] + self.after[a] - span
                size = (-(-room // s) if self.ceil else room // s) + 1
                if self.ceil and (size - 1) * s >= n + self.before[a]:
                    size -= 1  # a window that begins in the padding after the map is none
            sizes.append(size)
        self.before = (before[0], before[1])
        return sizes[0], sizes[1]

    def transposed(self) -> tuple[int, int]:
        """Return the size of a transposed convolution's output map, and settle the padding."""
        full = [
            s * (n - 1) + e + span for s, n, e, span in zip(self.stride, self.size, self.extra, self.spans, strict=True)
        ]
        if self.given is not None:
            wanted = [1] * (2 - len(self.given[-2:])) + [int(n) for n in self.given[-2:]]
        elif self.auto in ("SAME_UPPER", "SAME_LOWER"):
            wanted = [n * s for n, s in zip(self.size, self.stride, strict=True)]
        else:
            return (full[0] - self.before[0] - self.after[0], full[1] - self.before[1] - self.after[1])
        total = [f - w for f, w in zip(full, wanted, strict=True)]
        upper = self.auto == "SAME_UPPER"
        before = [t // 2 if upper else t - t // 2 for t in total]
        self.before = (before[0], before[1])
        return wanted[0], wanted[1]


OPERATORS: dict[str, Callable[[_Walk, Any, str, list[Any], dict[str, Any]], Sequence[Value]]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv"), _Walk._conv),
    **dict.fromkeys(POOLS | GLOBAL_POOLS, _Walk._pool),
    **dict.fromkeys(("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul"), _Walk._matmul),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _Walk._recurrent),
    **dict.fromkeys(
        [f"Reduce{x}" for x in ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")],
        _Walk._reduce,
    ),
}


def _transposed(value: Any) -> Any:
    if isinstance(value, _Values):
        return _Values(np.swapaxes(value.ids, -1, -2), value.version) if value.ids.ndim > 1 else value
    return value


def _onnx_map(shape: Sequence[int]) -> tuple[int, int, int] | None:
    """(channels, height, width) of a value of this shape with a batch axis, None where it has no axes in space."""
    sizes = [int(n) for n in shape]
    return map_shape([sizes[0] * sizes[1], *sizes[2:]]) if len(sizes) > 2 else None


def _check_shape(shape: Sequence[int]) -> None:
    if any(n < 1 for n in shape):
        raise InputError(f"expected at least one value, got shape {tuple(shape)}")
    if prod(int(n) for n in shape) > MAXIMUM_NEURONS:
        raise InputError(f"expected at most {MAXIMUM_NEURONS} values, got shape {tuple(int(n) for n in shape)}")


def _check_size(op: str, inputs: Sequence[Any]) -> None:
    """Refuse what would make more values than any network has, before it is made."""
    arrays = [x for x in inputs if isinstance(x, np.ndarray)]
    try:
        if op == "Expand":
            size = prod(np.broadcast_shapes(arrays[0].shape, tuple(int(n) for n in arrays[1])))
        elif op == "Tile":
            size = arrays[0].size * prod(int(n) for n in arrays[1].ravel())
        elif op == "Range":
            size = int(abs((float(arrays[1]) - float(arrays[0])) / float(arrays[2])))
        elif op == "OneHot":
            size = arrays[0].size * int(arrays[1].ravel()[0])
        elif op == "Pad" and len(arrays) > 1:
            size = prod(
                n + int(abs(p)) for n, p in zip(arrays[0].shape, np.reshape(arrays[1], (2, -1)).sum(0), strict=False)
            )
        else:
            return
    except (IndexError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise InputError(f"its sizes make no sense ({first_line(error)})") from error
    if size > MAXIMUM_NEURONS:
        raise InputError(f"expected at most {MAXIMUM_NEURONS} values, it would make {size}")


def _outer_names(node: Any) -> set[str]:
    """Names that the subgraphs of a node may read from outside."""
    names: set[str] = set()
    for a in node.attribute:
        graphs = [a.g] if a.type == onnx.AttributeProto.GRAPH else list(a.graphs)
        for graph in graphs:
            own = {x.name for x in itertools.chain(graph.input, graph.initializer)}
            for inner in graph.node:
                names |= {key for key in inner.input if key and key not in own} | _outer_names(inner)
                own |= set(inner.output)
            names |= {x.name for x in graph.output} - own
    return names


def _dense_of_sparse(sparse: Any) -> NDArray[Any]:
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    full = np.zeros(tuple(sparse.dims), dtype=values.dtype)
    if indices.ndim == 1:
        full.ravel()[indices] = values
    else:
        full[tuple(indices.T)] = values
    return full


def _inner(error: InputError, where: str) -> str:
    """Message of an error without the file's name, which the outer one gives."""
    return str(error).removeprefix(f"{where}, ").removeprefix(f"{where}: ")
