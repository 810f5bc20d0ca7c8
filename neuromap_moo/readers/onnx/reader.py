"""Networks from ONNX graphs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import onnx.checker
import onnx.inliner
from google.protobuf.message import DecodeError

from neuromap_moo.errors import InputError, first_line
from neuromap_moo.network.assembly import Assembly, Tensor
from neuromap_moo.network.network import Network
from neuromap_moo.readers.onnx.operators import OPERATORS
from neuromap_moo.readers.onnx.values import READ_ERRORS, Values
from neuromap_moo.readers.onnx.walk import Shown, Walk


class OnnxGraph(NamedTuple):
    """What a graph makes."""

    assembly: Assembly
    outputs: dict[str, Tensor]  #: neurons that send the outputs, by name
    notes: tuple[str, ...]  #: what was left out
    shown: tuple[Shown, ...]  #: later ones say more than earlier ones of the same neurons


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


def walk(where: str, model: Any, input_shape: Any = None, weight_bits: int = 8) -> OnnxGraph:
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
    return OnnxGraph(second.assembly, neurons, tuple(second.notes), tuple(second.shown))
