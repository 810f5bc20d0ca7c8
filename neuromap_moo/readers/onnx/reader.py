"""Networks from ONNX graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import onnx
import onnx.checker
import onnx.inliner
from google.protobuf.message import DecodeError

from neuromap_moo.errors import InputError, first_line
from neuromap_moo.network.activity import ActivitySpec
from neuromap_moo.network.assembly import Assembly, Tensor
from neuromap_moo.network.network import Network
from neuromap_moo.readers.input_shape import InputShape
from neuromap_moo.readers.onnx.operators import OPERATORS
from neuromap_moo.readers.onnx.values import READ_ERRORS, Values
from neuromap_moo.readers.onnx.walk import Shown, Walk


class OnnxGraph(NamedTuple):
    """What a graph makes."""

    assembly: Assembly
    outputs: dict[str, Tensor]  #: neurons that send the outputs, by name
    shown: tuple[Shown, ...]  #: later ones say more than earlier ones of the same neurons


def read_onnx(path: Path, spec: ActivitySpec, input_shape: InputShape = None, weight_bits: int = 8) -> Network:
    """Read an ONNX graph; see docs/networks.md for what becomes of each operator.

    Parameters
    ----------
    path
        Of the file.
    spec
        Activity, of which the file holds none.
    input_shape
        In place of the graph's own: of the one input, or of each by its name. Without it a batch axis of no fixed size
        is taken as 1.
    weight_bits
        That weights whose width the graph does not tell are taken as quantised to.

    Raises
    ------
    InputError
        With the node for what cannot be read.

    """
    return walk(f"'{path}'", load_model(path), input_shape, weight_bits).assembly.network(path.stem, spec)


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


def walk(where: str, model: Any, input_shape: InputShape = None, weight_bits: int = 8) -> OnnxGraph:
    """Return the layers that a model makes, and which of its values they send."""
    try:
        first = Walk(where, model, input_shape, weight_bits, OPERATORS, None)
        first.graph()
        first.assembly = Assembly(where)  # its layers are not needed any more
        second = Walk(where, model, input_shape, weight_bits, OPERATORS, first)
        outputs = second.graph()
    except MemoryError as error:
        raise InputError(f"{where}: a value of the graph does not fit into memory ({error})") from error
    except RecursionError as error:
        raise InputError(f"{where}: subgraphs are nested too deeply") from error
    neurons = {name: value.ids for name, value in outputs.items() if isinstance(value, Values)}
    return OnnxGraph(second.assembly, neurons, tuple(second.shown))
