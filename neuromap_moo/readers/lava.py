"""Networks as graphs of Lava processes: a Python file whose `build()` returns a process of the graph, or several.

Lava runs in a process of its own (`workers/lava_worker.py`): it executes the user's file, and a failing run of it hangs
and leaves processes and shared memory behind, which are removed here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuromap_moo.errors import InputError, first_line, last_line
from neuromap_moo.network import Network
from neuromap_moo.readers.activity import Activity, digest_of
from neuromap_moo.readers.assemble import Assembly, Tensor
from neuromap_moo.readers.netx import weight_bits_of
from neuromap_moo.readers.spiking import (
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

WORKERS = Path(__file__).resolve().parents[1] / "workers"
WORKER, KEEPER = WORKERS / "lava_worker.py", WORKERS / "keeper.py"

#: For one call of the worker.
TIME_LIMIT_S = 300.0

#: Characters of a folder for Lava's temporary files: it has sockets there, whose paths may have 107.
LONGEST_FOLDER = 60

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


def read_lava(
    path: str | Path,
    activity: float = 0.2,
    activity_sigma: float = 0.5,
    steps_per_inference: int = 1,
    seed: int = 0,
) -> Network:
    """Read a graph of Lava processes; zero weights of dense and sparse connections are culled."""
    path = Path(path)
    return describe(path).assembly.network(path.stem, activity, activity_sigma, steps_per_inference, seed)


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
    arrays = _called(path, limit_s, "run", str(steps))
    return {int(name.removeprefix("sent_")): values for name, values in arrays.items()}


def describe(path: Path) -> Described:
    """Put layers and connections of a graph together."""
    arrays = _called(path, TIME_LIMIT_S, "describe")
    try:
        return _assembled(path, json.loads(str(arrays["meta"])), arrays)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise InputError(f"'{path}': its processes do not fit together ({first_line(error)})") from error


def _assembled(path: Path, entries: list[dict[str, Any]], arrays: Mapping[str, NDArray[Any]]) -> Described:
    assembly, unlike = Assembly(f"'{path}'"), []
    layers: list[tuple[Tensor, Neurons | None]] = []
    neurons: dict[int, Tensor] = {}  # of each process, in the shape of its output
    processes: list[int] = []
    data: dict[int, NDArray[Any]] = {}
    hosts = _hosts(entries)
    for i, entry in enumerate(entries):
        if entry["type"] in (*CONNECTIONS, "sink") or i in hosts:
            continue
        shape = entry["shape"]
        size = int(np.prod(shape))
        name = f"{entry['type']}_{i}" if UNNAMED.fullmatch(entry["name"]) else entry["name"]
        if len(shape) == 3:  # (x, y, channels)
            own = assembly.layer(name, size, entry["type"], shape[::-1])
            neurons[i] = own.reshape(shape[::-1]).transpose(2, 1, 0)
        else:
            neurons[i] = assembly.layer(name, size, entry["type"]).reshape(shape)
        model = _model(entry, {key: arrays[f"{key}_{i}"] for key in ("bias", "u", "v") if f"{key}_{i}" in arrays})
        if model is None:
            unlike.append(f"'{entry['name']}' ({entry['type']})")
        if f"data_{i}" in arrays:
            data[len(layers)] = arrays[f"data_{i}"].reshape(size, -1)
        for j, via in enumerate(entry["reads"]):
            if via in hosts and f"data_{via}" in arrays:
                places = arrays[f"reads_{i}_{j}"].ravel() - 1
                data[len(layers)] = arrays[f"data_{via}"].reshape(-1, arrays[f"data_{via}"].shape[-1])[places]
        layers.append((neurons[i].ravel(), model))
        processes.append(i)
    synapses = []
    for i, entry in enumerate(entries):
        for j, via in enumerate(entry["reads"] if i in neurons else []):
            if via in hosts:
                continue
            places = arrays[f"reads_{i}_{j}"]
            if via in neurons:
                assembly.connect_each(_taken(neurons[via], places).ravel(), np.sort(neurons[i].ravel()))
                unlike.append(f"'{entry['name']}' (reads '{entries[via]['name']}' without a connection)")
                continue
            target = _arranged(neurons[i], places, entries[via]["shape"])
            for k, source in enumerate(entries[via]["reads"]):
                if source not in neurons:
                    raise InputError(
                        f"'{path}', process '{entries[via]['name']}': expected neurons or a source before it, got "
                        f"another connection '{entries[source]['name']}'"
                    )
                reads = _taken(neurons[source], arrays[f"reads_{via}_{k}"])
                synapses.append(_connected(assembly, path, entries[via], arrays[f"weights_{via}"], reads, target))
    whole = [s for s in synapses if s is not None]
    if len(whole) < len(synapses):
        unlike.append("weights that are no integers")
    return Described(assembly, layers, whole, data, processes, tuple(unlike))


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


def _model(entry: Mapping[str, Any], arrays: Mapping[str, NDArray[np.float64]]) -> Neurons | None:
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


def run_lava(
    worker: Path, what: str, given: str | Mapping[str, Any], *arguments: str, limit_s: float
) -> tuple[int | None, dict[str, NDArray[Any]], str]:
    """Run a worker that imports Lava; return its exit code, the arrays it wrote and the last line it said.

    It is told what to do and what is given: a path, or an object that it finds in a JSON file. The code is None where
    it had to be stopped after `limit_s` seconds. Nothing of it is left behind, however it, this process or the keeper
    between them ends; SLURM jobs that it starts are named for that.
    """
    prefix = f"nm{secrets.token_hex(2)}_"
    with tempfile.TemporaryDirectory(prefix="neuromap_moo_") as name:
        result, said, job = (Path(name) / file for file in ("result.npz", "said.txt", "job.json"))
        if not isinstance(given, str):
            job.write_text(json.dumps(given), encoding="utf-8")
            given = str(job)
        reading, writing = os.pipe()
        command = [sys.executable, str(KEEPER), str(reading), "--clean", prefix, name]
        command += [sys.executable, str(worker), what, given, str(result), prefix, *arguments]
        environment = {"OPENBLAS_NUM_THREADS": "1"} | os.environ  # of each of many processes
        environment |= {"TMPDIR": name} if len(name) < LONGEST_FOLDER else {}
        environment |= {"SLURM_JOB_NAME": prefix} if os.environ.get("SLURM") == "1" else {}
        paths = [str(WORKERS.parents[1]), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        try:
            with open(said, "wb") as log:  # a pipe that fills up would stop it
                keeper = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(reading,), env=environment
                )
        finally:
            os.close(reading)
        code: int | None = None
        try:
            code = keeper.wait(limit_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(BrokenPipeError):
                os.write(writing, b".")  # upon which the keeper ends all, and cleans up
            os.close(writing)
            group = Path(name) / "group"
            if keeper.wait() < 0 and group.exists():  # killed itself
                left = [sys.executable, str(KEEPER), "--left", prefix, group.read_text(encoding="ascii")]
                subprocess.run(left, env=environment, check=False)
        arrays: dict[str, NDArray[Any]] = {}
        if code == 0 and result.is_file():
            with np.load(result, allow_pickle=False) as found:
                arrays = {key: found[key] for key in found.files}
        last = last_line(said.read_text(encoding="utf-8", errors="replace"))
        return code, arrays, last.removeprefix(f"{worker.stem}: ")[:300]


def _called(path: Path, limit_s: float, what: str, *arguments: str) -> dict[str, NDArray[Any]]:
    code, arrays, last = run_lava(WORKER, what, str(path.resolve()), *arguments, limit_s=limit_s)
    last = f": {last}" if last else ""
    if code is None:
        raise InputError(
            f"'{path}': Lava did not {what} it within {limit_s:g} s; it hangs where a process model raises{last}"
        )
    if not arrays:
        raise InputError(f"'{path}': expected a graph of Lava processes, could not {what} it{last}")
    return arrays
