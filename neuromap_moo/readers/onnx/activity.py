"""The activity of an ONNX graph's neurons, measured by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from neuromap_moo.arrays import BoolArray, FloatArray
from neuromap_moo.errors import InputError, first_line
from neuromap_moo.network.activity import Activity, digest_of
from neuromap_moo.readers.input_shape import InputShape
from neuromap_moo.readers.onnx.reader import load_model, walk
from neuromap_moo.readers.onnx.walk import Shown

#: Samples that are drawn where none are given.
RANDOM_SAMPLES = 16

#: What neurons send whose values no run shows, such as the gates of an LSTM: something in every step.
NOT_SHOWN = 1.0


def measure_onnx(
    path: Path,
    samples: Mapping[str, NDArray[Any]] | None = None,
    input_shape: InputShape = None,
    seed: int = 0,
) -> Activity:
    """Run an ONNX graph by onnxruntime; a neuron's activity is the share of samples in which its value is not zero.

    Parameters
    ----------
    path
        Of the file.
    samples
        Arrays (n, ...) by input name; random ones are drawn from a normal distribution without them.
    input_shape
        As of `read_onnx`.
    seed
        Of random samples.

    """
    model = load_model(path)
    walked = walk(f"'{path}'", model, input_shape)
    session = _session(path, model, walked.shown)
    of_input = {s.name: s.neurons.shape for s in walked.shown}
    inputs = {x.name: (x.type, of_input.get(x.name)) for x in session.get_inputs()}
    feeds = _feeds(path, inputs, samples, seed)
    n_samples = len(next(iter(feeds.values()))) if feeds else 1
    counts = _counts(path, session, walked.shown, feeds, n_samples)
    activity, known = _of_neurons(walked.assembly.n_neurons, walked.shown, counts, n_samples)
    walked.assembly.pass_on(activity)
    walked.assembly.pass_on(known)
    by_layer = walked.assembly.by_layer(np.where(known, activity, NOT_SHOWN))
    told = walked.assembly.by_layer(known.astype(np.float64))
    hidden = tuple(name for name, of_layer in told.items() if not of_layer.all())
    return Activity(by_layer, n_samples if samples is not None else 0, hidden, digest_of(path))


def _session(path: Path, model: Any, shown: Sequence[Shown]) -> Any:
    """Return a session of onnxruntime in which the model's outputs are all values that neurons send."""
    names = {x.name for x in model.graph.output} | {x.name for x in model.graph.input}
    for name in dict.fromkeys(s.name for s in shown):
        if name not in names:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # every value must stay
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class but this
        raise InputError(f"'{path}': onnxruntime cannot run it ({first_line(error)})") from error


def _counts(
    path: Path, session: Any, shown: Sequence[Shown], feeds: Mapping[str, NDArray[Any]], n_samples: int
) -> dict[str, FloatArray]:
    """Return how many samples each value is no zero in, in its shape, by its name."""
    inputs = {x.name for x in session.get_inputs()}
    wanted = list(dict.fromkeys(s.name for s in shown if s.name not in inputs))
    zero = {s.name: s.zero for s in shown}
    counts: dict[str, FloatArray] = {}
    for i in range(n_samples):
        one = {name: array[i] for name, array in feeds.items()}
        try:
            values = dict(zip(wanted, session.run(wanted, one), strict=True)) | one
        except Exception as error:  # as in _session
            raise InputError(f"'{path}': sample {i} cannot be run ({first_line(error)})") from error
        for name, value in values.items():
            sends = np.asarray(value) != zero[name] if name in zero else None
            if sends is not None:
                counts[name] = counts.get(name, np.zeros(sends.shape)) + sends
    return counts


def _of_neurons(
    n: int, shown: Sequence[Shown], counts: Mapping[str, FloatArray], n_samples: int
) -> tuple[FloatArray, BoolArray]:
    activity, known = np.zeros(n), np.zeros(n, dtype=bool)
    for name, neurons, _ in shown:
        if name not in counts or counts[name].shape != neurons.shape:
            continue
        there = neurons > 0
        ids, shares = neurons[there] - 1, counts[name][there] / n_samples
        if ids.size == 0:
            continue
        low = int(ids.min())
        times = np.bincount(ids - low)
        own = low + np.flatnonzero(times)
        activity[own] = np.bincount(ids - low, shares)[own - low] / times[own - low]
        known[own] = True
    return activity, known


def _feeds(
    path: Path, inputs: Mapping[str, tuple[str, Any]], samples: Mapping[str, NDArray[Any]] | None, seed: int
) -> dict[str, NDArray[Any]]:
    """Return (n, *shape) arrays by input."""
    rng = np.random.default_rng(seed)
    if samples is not None and set(samples) != set(inputs):
        if not len(samples) == len(inputs) == 1:
            raise InputError(f"samples: expected arrays for the inputs {list(inputs)}, got {list(samples)}")
        samples = dict(zip(inputs, samples.values(), strict=True))  # a .npy file names nothing
    feeds: dict[str, NDArray[Any]] = {}
    for name, (kind, shape) in inputs.items():
        dtype = TYPES.get(kind)
        if dtype is None or shape is None:
            raise InputError(f"'{path}', input '{name}': values of {kind} cannot be given as samples")
        feeds[name] = _drawn(shape, dtype, rng) if samples is None else _given(name, shape, dtype, samples[name])
    if len({len(array) for array in feeds.values()}) > 1:
        raise InputError(f"samples: expected as many for each input, got { {k: len(v) for k, v in feeds.items()} }")
    return feeds


def _drawn(shape: Sequence[int], dtype: Any, rng: np.random.Generator) -> NDArray[Any]:
    """Random samples of an input: normal, or 0 and 1 where it takes integers."""
    whole = np.issubdtype(dtype, np.integer)
    draw = rng.integers(0, 2, (RANDOM_SAMPLES, *shape)) if whole else rng.normal(size=(RANDOM_SAMPLES, *shape))
    return draw.astype(dtype)


def _given(name: str, shape: Sequence[int], dtype: Any, samples: NDArray[Any]) -> NDArray[Any]:
    """Samples of an input as a user gives them, checked; an axis for a batch of 1 may be missing."""
    array = np.asarray(samples)
    if array.shape[1:] == shape[1:] and shape[0] == 1:
        array = array[:, None]
    if array.shape[1:] != tuple(shape) or len(array) == 0:
        raise InputError(
            f"samples of input '{name}': expected shape (n, {', '.join(map(str, shape[1:]))}), got {array.shape}"
        )
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise InputError(f"samples of input '{name}': expected finite numbers, got {array.dtype}")
    return array.astype(dtype)


TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}
