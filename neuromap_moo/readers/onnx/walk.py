"""The walk through an ONNX graph, with arrays of neuron numbers (`assemble.Tensor`) in place of values.

Constant parts of the graph fold, by onnx's own reference evaluator; what becomes of the other nodes is said by
functions that are handed in (`onnx_operators`). What a neuron sends may be read in more than one version (before and
after an activation). The walk is made twice: the first finds which versions are read by what follows, the second gives
all versions but one a layer of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from neuromap_moo.errors import InputError, first_line
from neuromap_moo.network.assembly import Assembly, Tensor, all_different
from neuromap_moo.readers.input_shape import InputShape, given_shapes
from neuromap_moo.readers.onnx.values import READ_ERRORS, Host, Value, Values, check_size, onnx_map

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

LOOPS = {"Loop", "Scan", "SequenceMap"}


class Shown(NamedTuple):
    """Where a run of the graph shows what neurons send: the value's name, their numbers in its shape, what is none."""

    name: str
    neurons: Tensor
    zero: float


class Walk:
    """One walk through a graph; `before` is the first one when this is the second.

    Outputs of nodes come from `operators`: functions of the walk, the node, its name, inputs and attributes.
    """

    def __init__(
        self,
        where: str,
        model: Any,
        input_shape: InputShape,
        weight_bits: int,
        operators: Mapping[str, Operator],
        before: Walk | None,
    ) -> None:
        self.where, self.model, self.operators, self.before = where, model, operators, before
        self.input_shape, self.weight_bits = input_shape, weight_bits
        self.opsets = {x.domain: x.version for x in model.opset_import}
        self.assembly = Assembly(where)
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
        shapes = given_shapes(self.where, self.input_shape, {x.name: _sizes_of(x) for x in inputs})
        for given in inputs:
            values[given.name] = self._input(given, shapes.get(given.name))
        self._nodes(graph, values, "")
        for name in (x.name for x in graph.output):
            if name not in values:
                raise InputError(f"{self.where}: output '{name}' is made by no node")
        outputs = {x.name: values[x.name] for x in graph.output}
        if self.before is None:
            self._read_outputs(outputs.values())
        return outputs

    def _read_outputs(self, outputs: Iterable[Value]) -> None:
        """Let the function of an output name its neurons, if nobody else reads them."""
        for value in outputs:
            if not isinstance(value, Values):
                continue
            for first in self.layers(value):
                versions = self.versions_read.setdefault(self.key[first], {})
                if not versions:
                    versions[value.version.get(first, "")] = None

    def _constant(self, name: str, tensor: Any) -> NDArray[Any]:
        try:
            array = numpy_helper.to_array(tensor)
        except READ_ERRORS as error:
            raise InputError(f"{self.where}: initializer '{name}' cannot be read ({first_line(error)})") from error
        if tensor.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4):
            self.bits[name] = 4
        return np.asarray(array)

    def _input(self, given: Any, shape: list[int] | None) -> Values:
        kind = given.type.WhichOneof("value")
        if kind != "tensor_type":
            raise InputError(f"{self.where}: input '{given.name}' is no tensor but a {kind}, which cannot be mapped")
        if shape is None:
            shape = _sizes_of(given)
            if len(shape) > 1 and shape[0] <= 0:
                shape[0] = 1
        if min(shape, default=1) < 1:
            raise InputError(
                f"{self.where}: input '{given.name}' has shape {shape}, of no fixed size; give input_shape, "
                f"e.g. {[n if n > 0 else 1 for n in shape]}"
            )
        ids = self.layer(given.name, given.name, prod(shape), "input", onnx_map(shape), set())
        self.shown.append(Shown(given.name, ids.reshape(shape), 0.0))
        return Values(ids.reshape(shape))

    def _nodes(self, graph: Any, values: dict[str, Value], prefix: str) -> None:
        """Walk the nodes of a graph or subgraph that its outputs depend on."""
        for number, node in enumerate(_used_nodes(graph)):
            name = node.name or (node.output[0] if node.output else "")
            self.node = f"{prefix}{number}:{name}"
            outputs = self._outputs(node, name, values)
            for key, value in zip(node.output, outputs, strict=False):
                if key:
                    values[key] = value
                    if not prefix:  # a run does not show what is inside of subgraphs
                        self._show(node, key, value, values)

    def _outputs(self, node: Any, name: str, values: dict[str, Value]) -> Sequence[Value]:
        """Return the outputs of a node; errors name it."""
        where = f"{self.where}, node '{name}' ({node.op_type})"
        for key in node.input:
            if key and key not in values:
                raise InputError(
                    f"{where}: its input '{key}' is made by no node before it; the graph has a cycle, or a node is "
                    "missing"
                )
        try:
            return self._one(node, name, values)
        except InputError as error:
            if f"node '{name}'" in str(error):
                raise
            raise InputError(f"{where}: {_inner(error, self.where)}") from error
        except READ_ERRORS as error:
            raise InputError(f"{where}: cannot be mapped ({first_line(error)})") from error

    def _one(self, node: Any, name: str, values: dict[str, Value]) -> Sequence[Value]:
        inputs = [values[key] if key else None for key in node.input]
        op, attributes = node.op_type, {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if any(isinstance(x, Host) for x in inputs):
            return [Host()] * len(node.output)
        of_neurons = [x for x in inputs if isinstance(x, Values)]
        if op == "If":
            return self._if(node, inputs[0], attributes, values)
        if op in LOOPS and (of_neurons or self._reads_neurons_inside(node, values)):
            raise InputError("a loop over values that neurons send does not fold away and cannot be mapped")
        if not of_neurons:
            return self._fold(node, inputs)
        if op in ("Shape", "Size"):
            return [_shape_or_size(op, of_neurons[0], attributes)]
        method = self.operators.get(op)
        if method is None:
            raise InputError(f"operator {op} cannot be mapped")
        return method(self, node, name, inputs, attributes)

    @staticmethod
    def _reads_neurons_inside(node: Any, values: dict[str, Value]) -> bool:
        return any(isinstance(values.get(x), Values) for x in _outer_names(node))

    def _fold(self, node: Any, inputs: list[Any]) -> list[Any]:
        """Run a node whose inputs are constants."""
        bits = self._bits_of(node, inputs)
        if bits:
            self.bits.update(dict.fromkeys(node.output, bits))
        if node.op_type in QONNX:  # weights as they are
            return [inputs[0]]
        if node.op_type == "ConstantOfShape":
            filled = [a.t for a in node.attribute if a.name == "value"]
            value = numpy_helper.to_array(filled[0]).ravel()[0] if filled else np.float32(0)
            return [np.broadcast_to(value, [int(n) for n in inputs[0]])]
        check_size(node.op_type, inputs)
        return list(self.run(node, inputs))

    def _bits_of(self, node: Any, inputs: list[Any]) -> int:
        """Bits that the graph gives what a node makes of constants, 0 where it gives none."""
        if node.op_type == "BipolarQuant":
            return 1
        if node.op_type in ("Quant", "IntQuant") and len(inputs) > 3:
            return int(np.max(inputs[3]))
        return max((self.bits[key] for key in node.input if key in self.bits), default=0)

    def run(self, node: Any, inputs: list[Any]) -> Sequence[Any]:
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

    # --------------------------------------------------------------------------------------------- layers and versions

    def layer(
        self, name: str, key: str, size: int, kind: str, shape: Sequence[int] | None, sources: set[str]
    ) -> Tensor:
        """Add a layer; its kind is that of the one version read, if there is but one."""
        ids = self.assembly.layer(name, size, kind if kind == "input" else self.kind_read(key) or kind, shape)
        self.enter(int(ids[0]), key, size, sources)
        return ids

    def enter(self, first: int, key: str, size: int, sources: set[str]) -> None:
        """Enter a layer that the assembly has got."""
        self.key[first], self.size[first] = key, size
        self.first_of_key.setdefault(key, first)
        self.sources[key] = sources

    def kind_read(self, key: str) -> str:
        """Kind of the function that all readers of a layer see it through; empty where there is none."""
        versions = list(self.before.versions_read.get(key, ())) if self.before else []
        return self.before.kind_of_version[versions[0]] if self.before and len(versions) == 1 and versions[0] else ""

    def layers(self, value: Values) -> list[int]:
        """First neurons of the layers that a value comes from."""
        return self.assembly.layers_of(value.ids)

    def read(self, value: Value | None) -> Tensor:
        """Neurons of a value that the node at hand reads; versions that no neuron sends get a layer here."""
        if not isinstance(value, Values):
            raise InputError("expected a value that neurons send, got a constant")
        ids = value.ids
        for first in self.layers(value):
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
        own, shape = (ids, onnx_map(ids.shape)) if there.all() else (ids[there], None)
        sources = {self.key[first] for first in self.assembly.layers_of(own)}
        name, kind = version.split(":", 1)[-1], self.kind_of_version[version]
        copy = self.layer(name, f"{version}>", own.size, kind, shape, sources)
        self.assembly.connect_each(own.ravel(), copy)
        lowest = int(own.min())
        table = np.zeros(int(own.max()) - lowest + 1, dtype=np.int64)
        table[own.ravel() - lowest] = copy
        if version in self.value_of:
            self.shown.append(
                Shown(self.value_of[version], np.where(there, table[np.where(there, ids - lowest, 0)], 0), 0)
            )
        return lowest, table

    def function(self, op: str, value: Values) -> Values:
        """Return the version of a value that a function makes."""
        self.kind_of_version[self.node] = op.lower()
        layers = self.layers(value)
        if any(self._has_versions(first) for first in layers):
            self.output_of[self.node] = value.ids
        return Values(value.ids, dict.fromkeys(layers, self.node))

    def _show(self, node: Any, name: str, value: Value, values: Mapping[str, Value]) -> None:
        """Note that a run shows here what neurons send, if what they send is this version."""
        op = node.op_type
        if not isinstance(value, Values) or op in MOVES or (op in AFFINE and op not in ZERO_POINT):
            return
        self.value_of.setdefault(self.node, name)
        if any(value.version.get(first) and self._has_versions(first) for first in self.layers(value)):
            return
        at = ZERO_POINT.get(op)
        point = values.get(node.input[at]) if at is not None and at < len(node.input) else None
        zero = float(point.ravel()[0]) if isinstance(point, np.ndarray) and point.size == 1 else 0.0
        self.shown.append(Shown(name, value.ids, zero))

    def keys(self, value: Any) -> set[str]:
        """Keys of the layers that a value comes from; none of a constant."""
        return {self.key[first] for first in self.layers(value)} if isinstance(value, Values) else set()

    def whole(self, ids: Tensor) -> int:
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

    def neurons_for(self, name: str, size: int, kind: str, shape: Sequence[int] | None, sources: set[str]) -> Tensor:
        """Return the neurons of the layer that the node at hand makes, or of the one that its sum merges it with."""
        key = self.node
        self.sums.add(key)
        host = self.joined_to.get(key, key)
        if host != key:
            first = self.first_of_key[host]
            return np.arange(first, first + self.size[first])
        return self.layer(name, key, size, kind, shape, sources)


def _used_nodes(graph: Any) -> list[Any]:
    """Nodes that the outputs of a graph depend on, in its order."""
    needed = {x.name for x in graph.output}
    used = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            used.append(node)
            needed |= set(node.input) | _outer_names(node)
    return used[::-1]


def _shape_or_size(op: str, value: Values, attributes: dict[str, Any]) -> NDArray[Any]:
    shape = np.array(value.ids.shape, dtype=np.int64)
    part = shape[attributes.get("start", 0) : attributes.get("end", shape.size)]
    return part if op == "Shape" else np.array(shape.prod())


def _sizes_of(given: Any) -> list[int]:
    """Sizes of an input as the graph has them, 0 for those that it leaves open."""
    return [int(d.dim_value) if d.WhichOneof("value") == "dim_value" else 0 for d in given.type.tensor_type.shape.dim]


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


#: What makes the outputs of a node.
Operator = Callable[[Walk, Any, str, list[Any], dict[str, Any]], Sequence[Value]]
