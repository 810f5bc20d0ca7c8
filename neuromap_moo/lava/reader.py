"""Networks as graphs of Lava processes: a Python file whose `build()` returns a process of the graph, or several.

Lava runs in a process of its own (`lava/worker.py`): it executes the user's file, and a failing run of it hangs
and leaves processes and shared memory behind, which are removed here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuromap_moo.arrays import FloatArray
from neuromap_moo.errors import InputError, first_line
from neuromap_moo.fixed_point.simulator import (
    Delta,
    Geometry,
    Lif,
    Neurons,
    Relay,
    Sigma,
    SigmaDelta,
    Synapses,
    stored_weights,
)
from neuromap_moo.lava.runner import TIME_LIMIT_S, called
from neuromap_moo.network.activity import Activity, ActivitySpec, digest_of
from neuromap_moo.network.assembly import Assembly, Tensor, weight_bits_of
from neuromap_moo.network.network import Network

#: Timesteps of a run that is to show activity.
STEPS = 100

CONNECTIONS = ("dense", "sparse", "conv")

#: What Lava calls processes that were given no name.
UNNAMED = re.compile(r"Process_\d+")


class Described(NamedTuple):
    """A graph of processes: the layers and their connections, and how they compute, as far as this is simulated."""

    assembly: Assembly
    layers: list[tuple[Tensor, Neurons | None]]
    synapses: list[Synapses]
    data: dict[int, NDArray[Any]]  #: of sources, (n, timesteps), by the index of their layer
    processes: list[int]  #: of each layer, its index in the graph
    unlike: tuple[str, ...]  #: what the simulation lacks


def read_lava(path: Path, spec: ActivitySpec) -> Network:
    """Read a graph of Lava processes; zero weights of dense and sparse connections are culled."""
    return describe(path).assembly.network(path.stem, spec)


def measure_lava(path: str | Path, steps: int | None = None) -> Activity:
    """Run the graph by Lava's fixed-point models; activity is the share of timesteps in which a neuron sends something.

    The graph's own sources are its samples.
    """
    path = Path(path)
    described = describe(path)
    n_steps = STEPS if steps is None else steps
    sent = sent_by_lava(path, n_steps)
    activity = np.zeros(described.assembly.n_neurons)
    for (neurons, _), process in zip(described.layers, described.processes, strict=True):
        activity[neurons - 1] = (sent[process] != 0).mean(axis=1)
    described.assembly.pass_on(activity)
    return Activity(described.assembly.by_layer(activity), 1, (), digest_of(path))


def sent_by_lava(path: Path, steps: int, limit_s: float = TIME_LIMIT_S) -> dict[int, NDArray[Any]]:
    """What processes send (size, steps) in a run of the graph on the CPU, by their index."""
    arrays = called(path, limit_s, "run", str(steps))
    return {int(name.removeprefix("sent_")): values for name, values in arrays.items()}


def describe(path: Path) -> Described:
    """Put layers and connections of a graph together."""
    arrays = called(path, TIME_LIMIT_S, "describe")
    try:
        return _assembled(path, json.loads(str(arrays["meta"])), arrays)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise InputError(f"'{path}': its processes do not fit together ({first_line(error)})") from error


def _assembled(path: Path, entries: list[dict[str, Any]], arrays: Mapping[str, NDArray[Any]]) -> Described:
    graph = _Graph(path, entries, arrays)
    for i, entry in enumerate(entries):
        if entry["type"] not in (*CONNECTIONS, "sink") and i not in graph.hosts:
            graph.add_layer(i)
    synapses = [s for i in graph.neurons for s in graph.connect(i)]
    whole = [s for s in synapses if s is not None]
    if len(whole) < len(synapses):
        graph.unlike.append("weights that are no integers")
    return Described(graph.assembly, graph.layers, whole, graph.data, graph.processes, tuple(graph.unlike))


class _Graph:
    """A graph of processes being read: its layers first, then what connects them."""

    def __init__(self, path: Path, entries: list[dict[str, Any]], arrays: Mapping[str, NDArray[Any]]) -> None:
        self.path, self.entries, self.arrays = path, entries, arrays
        self.assembly = Assembly(f"'{path}'")
        self.hosts = _hosts(entries)
        self.layers: list[tuple[Tensor, Neurons | None]] = []
        self.neurons: dict[int, Tensor] = {}  # of each process, in the shape of its output
        self.processes: list[int] = []
        self.data: dict[int, NDArray[Any]] = {}
        self.unlike: list[str] = []

    def add_layer(self, i: int) -> None:
        """Make the layer of process i, with what it sends where it is a source."""
        entry, arrays = self.entries[i], self.arrays
        shape = entry["shape"]
        size = int(np.prod(shape))
        name = f"{entry['type']}_{i}" if UNNAMED.fullmatch(entry["name"]) else entry["name"]
        if len(shape) == 3:  # (x, y, channels)
            own = self.assembly.layer(name, size, entry["type"], shape[::-1])
            self.neurons[i] = own.reshape(shape[::-1]).transpose(2, 1, 0)
        else:
            self.neurons[i] = self.assembly.layer(name, size, entry["type"]).reshape(shape)
        model = _model(entry, {key: arrays[f"{key}_{i}"] for key in ("bias", "u", "v") if f"{key}_{i}" in arrays})
        if model is None:
            self.unlike.append(f"'{entry['name']}' ({entry['type']})")
        if f"data_{i}" in arrays:
            self.data[len(self.layers)] = arrays[f"data_{i}"].reshape(size, -1)
        for j, via in enumerate(entry["reads"]):
            if via in self.hosts and f"data_{via}" in arrays:
                places = arrays[f"reads_{i}_{j}"].ravel() - 1
                data = arrays[f"data_{via}"]
                self.data[len(self.layers)] = data.reshape(-1, data.shape[-1])[places]
        self.layers.append((self.neurons[i].ravel(), model))
        self.processes.append(i)

    def connect(self, i: int) -> Iterator[Synapses | None]:
        """Connect what process i reads to its layer; yield how it computes, None where this is not simulated."""
        for j, via in enumerate(self.entries[i]["reads"]):
            if via not in self.hosts:
                yield from self._connect_by(i, via, self.arrays[f"reads_{i}_{j}"])

    def _connect_by(self, i: int, via: int, places: NDArray[Any]) -> Iterator[Synapses | None]:
        """Connect what comes to process i from one other, a connection or neurons."""
        entry = self.entries[via]
        if via in self.neurons:
            read = _taken(self.neurons[via], places).ravel()
            self.assembly.connect_each(read, np.sort(self.neurons[i].ravel()))
            self.unlike.append(f"'{self.entries[i]['name']}' (reads '{entry['name']}' without a connection)")
            return
        target = _arranged(self.neurons[i], places, entry["shape"])
        for k, source in enumerate(entry["reads"]):
            if source not in self.neurons:
                raise InputError(
                    f"'{self.path}', process '{entry['name']}': expected neurons or a source before it, got "
                    f"another connection '{self.entries[source]['name']}'"
                )
            reads = _taken(self.neurons[source], self.arrays[f"reads_{via}_{k}"])
            yield _connected(self.assembly, self.path, entry, self.arrays[f"weights_{via}"], reads, target)


def _hosts(entries: list[dict[str, Any]]) -> set[int]:
    """Sources that feed one process of neurons and nothing else: these neurons are the input, not the source."""
    readers: dict[int, list[int]] = {}
    for i, entry in enumerate(entries):
        for via in entry["reads"] if entry["type"] != "sink" else []:
            readers.setdefault(via, []).append(i)
    neurons = {i for i, entry in enumerate(entries) if entry["type"] not in (*CONNECTIONS, "sink")}
    sources = {i for i, entry in enumerate(entries) if entry["type"] == "input"}
    return {i for i in sources if len(readers.get(i, [])) == 1 and readers[i][0] in neurons}


def _taken(numbers: Tensor, places: NDArray[Any]) -> Tensor:
    """Neurons by 1 + place of a process's output, 0 for none."""
    return np.asarray(np.append(0, numbers.ravel())[places])


def _arranged(numbers: Tensor, places: NDArray[Any], shape: list[int]) -> Tensor:
    """The neurons that a connection's sums go to, in the shape of its output; 0 where some get no sum of it."""
    target = np.zeros(int(np.prod(shape)), dtype=np.int64)
    there = places.ravel() > 0
    target[places.ravel()[there] - 1] = numbers.ravel()[there]
    return target.reshape(shape) if there.all() else np.zeros_like(target)


def _connected(
    assembly: Assembly, path: Path, entry: Mapping[str, Any], weights: NDArray[Any], source: Tensor, target: Tensor
) -> Synapses | None:
    """Add a projection; return it as it computes, if its weights are integers."""
    where, given = f"'{path}', process '{entry['name']}'", entry["parameters"]
    if not np.isfinite(weights).all():
        raise InputError(f"{where}: expected finite weights, found NaN or infinity")
    is_integer = bool((weights == np.rint(weights)).all())
    bits = min(8, weight_bits_of(weights.astype(np.float64))) if is_integer else 8
    if (target == 0).any():
        raise InputError(f"{where}: expected one sum for each neuron of the process behind it, and for no others")
    if entry["type"] == "conv":
        kernel = weights[:, ::-1, ::-1].transpose(0, 3, 2, 1)  # Lava flips it when it convolves
        stride, padding, dilation = ((given[key][1], given[key][0]) for key in ("stride", "padding", "dilation"))
        geometry = Geometry(stride, padding, dilation, given["groups"])
        maps, to = source.transpose(2, 1, 0), target.transpose(2, 1, 0)
        if (np.diff(to.ravel()) != 1).any():
            raise InputError(f"{where}: expected a map of neurons (x, y, channels) behind a convolution")
        assembly.connect_convolution(maps, to.ravel(), bits, to.shape, kernel=kernel.shape[2:], **geometry._asdict())
        return Synapses(maps, to.ravel(), kernel.astype(np.int64), geometry, 0, given["graded"]) if is_integer else None
    flat = target.ravel()
    order = np.argsort(flat)
    if is_integer:
        low, high = weights.min(initial=0), weights.max(initial=0)
        mode = (given["sign_mode"] or ("EXCITATORY" if low >= 0 else "INHIBITORY" if high <= 0 else "MIXED")).lower()
        weights = stored_weights(weights.astype(np.int64), int(given["num_weight_bits"]), mode)
    assembly.connect_matrix(source.ravel(), flat[order], bits, weights[order].T, keep_zeros=False)
    if not is_integer:
        return None
    return Synapses(source.ravel(), flat, weights, None, int(given["weight_exp"]), given["graded"])


def _model(entry: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Neurons | None:
    """Return how neurons compute in fixed point, with what they have an array of; None for what is not simulated."""
    given = entry["parameters"]
    numbers = [value for value in given.values() if isinstance(value, float)]
    whole = all(value == round(value) for value in numbers) and all((x == np.rint(x)).all() for x in arrays.values())
    if not whole or given.get("cum_error"):
        return None
    values = {key: int(value) if isinstance(value, float) else value for key, value in given.items()}
    values.pop("cum_error", None)
    values |= {key: x.astype(np.int64) for key, x in arrays.items()}
    models: dict[str, Any] = {"lif": Lif, "delta": Delta, "sigma_delta": SigmaDelta, "sigma": Sigma, "input": Relay}
    model = models.get(entry["type"])
    return None if model is None else model(**values)
