"""Networks from TVM relax modules: translated to ONNX graphs, which `onnx.walk` reads.

Nothing of TVM is imported to read a module; objects of it are known by the names of their classes. Shapes come from the
module's own types, so they must be fixed. Functions that a module calls, such as composites, are put in where they are
called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from neuromap_moo.errors import InputError, first_line, requires_extra
from neuromap_moo.network.activity import ActivitySpec
from neuromap_moo.network.network import Network
from neuromap_moo.readers.onnx.reader import walk

#: Opset of the graphs that are made; attributes below are those of its operators.
OPSET = 17

#: Operators of relax that have an operator of ONNX with the same inputs and no attributes that matter.
SAME = {
    "nn.relu": "Relu", "nn.relu6": "Clip", "nn.gelu": "Gelu", "nn.gelu_tanh": "Gelu", "nn.silu": "Swish",
    "nn.leakyrelu": "LeakyRelu", "nn.prelu": "PRelu", "nn.selu": "Selu", "nn.softplus": "Softplus",
    "sigmoid": "Sigmoid", "tanh": "Tanh", "erf": "Erf", "exp": "Exp", "log": "Log", "sqrt": "Sqrt",
    "rsqrt": "Sqrt", "abs": "Abs", "negative": "Neg", "clip": "Clip", "floor": "Floor", "ceil": "Ceil",
    "round": "Round", "sign": "Sign", "sin": "Sin", "cos": "Cos", "square": "Abs", "logical_not": "Not",
    "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "maximum": "Max", "minimum": "Min",
    "power": "Pow", "floor_divide": "Div", "matmul": "MatMul", "equal": "Equal", "less": "Less",
    "greater": "Greater", "where": "Where", "astype": "Identity", "quantize": "Identity",
    "dequantize": "Identity", "nn.softmax": "Softmax", "nn.log_softmax": "LogSoftmax",
    "nn.layer_norm": "LayerNormalization", "nn.group_norm": "GroupNormalization",
    "nn.rms_norm": "RMSNormalization", "nn.instance_norm": "InstanceNormalization", "nn.batch_norm": "Identity",
    "nn.dropout": "Identity", "stop_lift_params": "Identity", "memory.view": "Identity",
}  # fmt: skip

#: Of these only the first input counts: the others scale and shift it.
ALONE = ("Identity", "LayerNormalization", "GroupNormalization", "RMSNormalization", "InstanceNormalization", "Clip")

REDUCTIONS = {"sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin", "prod": "ReduceProd"}

#: Weighted operators, by what their composites are called.
WEIGHTED = {"conv1d": "nn.conv1d", "conv2d": "nn.conv2d", "conv2d_transpose": "nn.conv2d_transpose", "dense": "matmul"}

#: Layouts that are read, by attribute.
LAYOUTS = {"data_layout": ("NCHW", "NCW"), "kernel_layout": ("OIHW", "OIW", "IOHW", "IOW"), "layout": ("NCHW", "NCW")}


def from_relax(module: Any, function: str, name: str, spec: ActivitySpec, weight_bits: int) -> Network:
    """Read a function of a TVM relax module as ONNX graphs are read; see `readers.files.from_relax`."""
    where = f"relax module '{name}'"
    return walk(where, to_onnx(module, function, where), None, weight_bits).assembly.network(name, spec)


def partition_relax(module: Any) -> Any:
    """Return the relax module with what makes one layer fused: composites `loihi.conv2d`, `loihi.dense` and the like.

    Each holds a weighted operator with the bias and the activation behind it. Raises InputError where TVM (the extra
    `tvm`) is not installed.
    """
    with requires_extra("partition_relax", "tvm"):
        from tvm import relax
        from tvm.relax.dpl import is_op, wildcard
    patterns = []
    for label, op in WEIGHTED.items():
        plain = is_op(f"relax.{op}")(wildcard(), wildcard())
        biased = is_op("relax.add")(plain, wildcard())
        for made, ending in ((biased, "_bias"), (plain, "")):
            for activation in ("relu", "gelu", "silu"):
                patterns.append((f"loihi.{label}{ending}_{activation}", is_op(f"relax.nn.{activation}")(made)))
        patterns += [(f"loihi.{label}_bias", biased), (f"loihi.{label}", plain)]
    return relax.transform.FuseOpsByPattern(patterns, annotate_codegen=False)(module)


def to_onnx(module: Any, function: str = "main", where: str = "relax module") -> Any:
    """Return an ONNX model of a function; its weights are constants of the module."""
    try:
        main = module[function]
    except Exception as error:  # whatever TVM raises for a name it has not
        raise InputError(
            f"{where}: expected a TVM module with a function '{function}' ({first_line(error)})"
        ) from error
    return _Translation(where, module).model(main)


class _Translation:
    """A relax function becoming a list of ONNX nodes; values are ONNX names, tuples of them are lists."""

    def __init__(self, where: str, module: Any) -> None:
        self.where, self.module = where, module
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self.names: set[str] = set()  # of values
        self.stacked: dict[str, tuple[int, list[str]]] = {}  # by name: axis, and the values that are stacked there
        self.binding = ""

    def model(self, main: Any) -> Any:
        """Translate a function."""
        values: dict[Any, Any] = {}
        for variable in main.params:
            key = str(variable.name)
            values[variable] = key
            self.names.add(key)
            self.inputs.append(helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT, self._shape(variable)))
        result = self._body(main, values)
        outputs = [x for x in (result if isinstance(result, list) else [result]) if x]
        info = [helper.make_tensor_value_info(x, onnx.TensorProto.FLOAT, None) for x in outputs]
        graph = helper.make_graph(self.nodes, "relax", self.inputs, info, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])

    def _body(self, function: Any, values: dict[Any, Any]) -> Any:
        body = function.body
        if type(body).__name__ != "SeqExpr":
            return self._value(body, values, "")
        for block in body.blocks:
            for binding in block.bindings:
                self.binding = str(binding.var.name)
                if not hasattr(binding, "value"):
                    raise self._refused("a match of types cannot be mapped")
                values[binding.var] = self._value(binding.value, values, self.binding)
        return self._value(body.body, values, "")

    def _value(self, value: Any, values: dict[Any, Any], name: str) -> Any:
        """ONNX name of a value, or a list of them for a tuple."""
        kind = type(value).__name__
        if kind in ("Var", "DataflowVar"):
            return values[value]
        if kind in ("Constant", "GenericConst"):
            return self._constant(_array(value))
        if kind == "Tuple":
            return [self._value(x, values, "") for x in value.fields]
        if kind == "TupleGetItem":
            whole = self._value(value.tuple_value, values, "")
            return whole[value.index] if isinstance(whole, list) else whole if value.index == 0 else ""
        if kind != "Call":
            raise self._refused(f"{kind} cannot be mapped")
        if type(value.op).__name__ == "GlobalVar":
            called = self.module[value.op]
            if type(called).__name__ != "Function":
                raise self._refused(f"function '{value.op.name_hint}' is no relax function")
            return self._called(called, value, values)
        if type(value.op).__name__ in ("Var", "DataflowVar", "Function"):
            called = values.get(value.op, value.op)
            return self._called(called, value, values)
        return self._operator(value, values, name)

    def _called(self, function: Any, call: Any, values: dict[Any, Any]) -> Any:
        """Put a function in where it is called."""
        own = {
            parameter: self._value(argument, values, "")
            for parameter, argument in zip(function.params, call.args, strict=True)
        }
        return self._body(function, own)

    def _operator(self, call: Any, values: dict[Any, Any], name: str) -> Any:
        op = str(call.op.name).removeprefix("relax.")
        arguments = [None if type(x).__name__ == "ShapeExpr" else self._argument(x, values) for x in call.args]
        method = METHODS.get(op)
        if method is not None:
            return method(self, op, call, arguments, name)
        if op in SAME:
            target = SAME[op]
            given = [x for x in (arguments[:1] if target in ALONE else arguments) if isinstance(x, str)]
            result = self._node(target, given, name)
            return [result, "", ""] if op in ("nn.batch_norm", "nn.dropout") else result
        raise self._refused(f"operator relax.{op} cannot be mapped")

    def _argument(self, value: Any, values: dict[Any, Any]) -> Any:
        if type(value).__name__ in ("PrimValue", "StringImm", "DataTypeImm"):
            return None
        return self._value(value, values, "")

    # ---------------------------------------------------------------------------------------------------- operators

    def _convolution(self, op: str, call: Any, arguments: list[Any], name: str) -> str:
        self._check_layout(call.attrs)
        transposed = op.endswith("_transpose")
        attributes = {
            "strides": _integers(call.attrs.strides),
            "pads": _integers(call.attrs.padding),
            "dilations": _integers(call.attrs.dilation),
            "group": int(call.attrs.groups),
        }
        if transposed:
            attributes["output_padding"] = _integers(call.attrs.output_padding)
        return self._node("ConvTranspose" if transposed else "Conv", arguments, name, **attributes)

    def _pool(self, op: str, call: Any, arguments: list[Any], name: str) -> str:
        self._check_layout(call.attrs)
        attributes = {
            "kernel_shape": _integers(call.attrs.pool_size),
            "strides": _integers(call.attrs.strides),
            "pads": _integers(call.attrs.padding),
            "dilations": _integers(call.attrs.dilation),
            "ceil_mode": int(call.attrs.ceil_mode),
        }
        target = "MaxPool" if "max" in op else "AveragePool"
        if target == "AveragePool":
            del attributes["dilations"]
        return self._node(target, arguments, name, **attributes)

    def _pool_across(self, op: str, call: Any, arguments: list[Any], name: str) -> str:
        """Sum over neighbouring channels, which ONNX's LRN divides by."""
        if _integers(call.attrs.pool_size)[1:] != [1, 1] or set(_integers(call.attrs.strides)) != {1}:
            raise self._refused("relax.nn.avg_pool3d can be mapped across channels alone")
        return self._node("LRN", arguments, name, size=_integers(call.attrs.pool_size)[0])

    def _adaptive_pool(self, op: str, call: Any, arguments: list[Any], name: str) -> str:
        if any(n != 1 for n in self._shape(call)[2:]):
            raise self._refused(f"relax.{op} to a map of {self._shape(call)} cannot be mapped, only to one value")
        return self._node("GlobalAveragePool" if "avg" in op else "GlobalMaxPool", arguments, name)

    def _reshape(self, op: str, call: Any, arguments: list[Any], name: str) -> str:
        return self._node("Reshape", [arguments[0], self._constant(np.array(self._shape(call), dtype=np.int64))], name)

    def _expand(self, op: str, call: Any, arguments: list[Any], name: str) -> str:
        return self._node("Expand", [arguments[0], self._constant(np.array(self._shape(call), dtype=np.int64))], name)

    def _transpose(self, op: str, call: Any, arguments: list[Any], name: str) -> str:
        axes = call.attrs.axes
        given = {} if axes is None else {"perm": [a % len(self._shape(call)) for a in _integers(axes)]}
        return self._node("Transpose", arguments, name, **given)

    def _concat(self, op: str, call: Any, arguments: list[Any], name: str) -> str:
        return self._node("Concat", arguments[0], name, axis=int(call.attrs.axis or 0))

    def _stack(self, op: str, call: Any, arguments: list[Any], name: str) -> str:
        axis, rank = int(call.attrs.axis or 0), len(self._shape(call))
        at = self._constant(np.array([axis % rank], dtype=np.int64))
        result = self._node(
            "Concat", [self._node("Unsqueeze", [x, at], "") for x in arguments[0]], name, axis=axis % rank
        )
        self.stacked[result] = axis % rank, arguments[0]
        return result

    def _split(self, op: str, call: Any, arguments: list[Any], name: str) -> list[str]:
        axis = int(call.attrs.axis)
        parts = [_shape_of(x, self.where) for x in call.ty.fields]
        sizes = np.array([shape[axis] for shape in parts], dtype=np.int64)
        outputs = [f"{self.binding}_{len(self.nodes)}_{i}" for i in range(len(parts))]
        self.nodes.append(
            helper.make_node("Split", [arguments[0], self._constant(sizes)], outputs, name=outputs[0], axis=axis)
        )
        return outputs

    def _reduce(self, op: str, call: Any, arguments: list[Any], name: str) -> str:
        axes = None if call.attrs.axis is None else _integers(call.attrs.axis)
        stacked = self.stacked.get(arguments[0])
        if op == "sum" and stacked is not None and axes == [stacked[0]] and not call.attrs.keepdims:
            return self._node("Sum", stacked[1], name)  # how ONNX's sum of tensors comes into TVM
        given = {} if axes is None else {"axes": axes}
        if op == "sum":  # takes its axes as an input in this opset
            inputs = [arguments[0]] + ([] if axes is None else [self._constant(np.array(axes, dtype=np.int64))])
            return self._node("ReduceSum", inputs, name, keepdims=int(call.attrs.keepdims))
        return self._node(REDUCTIONS[op], arguments, name, keepdims=int(call.attrs.keepdims), **given)

    def _take(self, op: str, call: Any, arguments: list[Any], name: str) -> str:
        return self._node("Gather", arguments, name, axis=int(call.attrs.axis or 0))

    def _slice(self, op: str, call: Any, arguments: list[Any], name: str) -> str:
        bounds = [self._constant(np.array(_tuple(x), dtype=np.int64)) for x in call.args[2:]]
        axes = self._constant(np.array(_tuple(call.args[1]), dtype=np.int64))
        return self._node("Slice", [arguments[0], bounds[0], bounds[1], axes, *bounds[2:]], name)

    def _pad(self, op: str, call: Any, arguments: list[Any], name: str) -> str:
        flat = _integers(call.attrs.pad_width)
        pads = np.array([*flat[::2], *flat[1::2]], dtype=np.int64)
        return self._node("Pad", [arguments[0], self._constant(pads)], name)

    # -------------------------------------------------------------------------------------------------------- parts

    def _node(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node of one output; a binding's name is taken once, functions put in twice have others."""
        output = name or self.binding
        while output in self.names:
            output = f"{output}_{len(self.nodes)}"
        self.names.add(output)
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def _constant(self, array: NDArray[Any]) -> str:
        key = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), key))
        return key

    def _shape(self, value: Any) -> list[int]:
        return _shape_of(value.ty, f"{self.where}, binding '{self.binding}'")

    def _check_layout(self, attributes: Any) -> None:
        for key, known in LAYOUTS.items():
            given = str(getattr(attributes, key, known[0]))
            if given not in known:
                raise self._refused(f"{key}: expected {' or '.join(known)}, got {given}; convert it (ConvertLayout)")

    def _refused(self, reason: str) -> InputError:
        return InputError(f"{self.where}, binding '{self.binding}': {reason}")


METHODS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(
        ("nn.conv1d", "nn.conv2d", "nn.conv1d_transpose", "nn.conv2d_transpose"), _Translation._convolution
    ),
    **dict.fromkeys(("nn.max_pool1d", "nn.max_pool2d", "nn.avg_pool1d", "nn.avg_pool2d"), _Translation._pool),
    **dict.fromkeys(
        ("nn.adaptive_avg_pool1d", "nn.adaptive_avg_pool2d", "nn.adaptive_max_pool2d"), _Translation._adaptive_pool
    ),
    **dict.fromkeys(("reshape", "flatten", "squeeze", "expand_dims", "nn.batch_flatten"), _Translation._reshape),
    "nn.avg_pool3d": _Translation._pool_across,
    "broadcast_to": _Translation._expand,
    "permute_dims": _Translation._transpose,
    "concat": _Translation._concat,
    "stack": _Translation._stack,
    "split": _Translation._split,
    "take": _Translation._take,
    "strided_slice": _Translation._slice,
    "nn.pad": _Translation._pad,
    **dict.fromkeys(REDUCTIONS, _Translation._reduce),
}


def _array(constant: Any) -> NDArray[Any]:
    held = constant.value if hasattr(constant, "value") else constant.data
    return np.asarray(held.numpy() if hasattr(held, "numpy") else held)


def _integers(values: Any) -> list[int]:
    return [int(n) for n in values]


def _tuple(value: Any) -> list[int]:
    """Numbers of a tuple of prim values, or of a shape."""
    fields = value.fields if hasattr(value, "fields") else value.values
    return [int(x.value) if hasattr(x, "value") else int(x) for x in fields]


def _shape_of(kind: Any, where: str) -> list[int]:
    try:
        return [int(n) for n in kind.shape]
    except (AttributeError, TypeError) as error:
        raise InputError(f"{where}: expected a tensor of fixed size, got {kind}") from error
