"""Intel Loihi 2 behind the device protocol, through Lava: python -m neuromap_moo.workers.lava_board [--dry-run].

It measures the network of the hello with generated weights. Each slice is a LIF process whose neurons fire by a bias
current, as often as the network's activity says. Synapses lead where the network has them, with weights too small to
cause spikes, so the mapping alone decides the partition; inputs sit on cores too. With `--model` it measures the user's
own Lava network.

Nothing here imports Lava: every compile and every run is a process of its own, with a time limit (`lava/run.py`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections import abc
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack
from tabulate import tabulate

from neuromap_moo.arrays import IntArray
from neuromap_moo.boards.serving import FatalError, MappingError, Measure, TransientError, serve
from neuromap_moo.errors import InputError
from neuromap_moo.files import whole_file
from neuromap_moo.fixed_point.simulator import ALIGN_BITS
from neuromap_moo.lava import run
from neuromap_moo.lava.run import IMPOSSIBLE, REFUSED, save_arrays
from neuromap_moo.lava.runner import run_lava
from neuromap_moo.mapping.files import entry_of, load_mappings, placement_of
from neuromap_moo.mapping.mapping import Mapping
from neuromap_moo.network.connectivity import Connectivity
from neuromap_moo.network.files import load_npz
from neuromap_moo.network.network import Network
from neuromap_moo.system.system import load_system

WORKER = Path(run.__file__)

#: Generated neurons: no decay of the voltage, a current that lasts one timestep, biases in units of 2^7.
NEURONS = {"vth": 4096, "du": 4095, "dv": 0, "bias_exp": 7}
LEVEL = (NEURONS["vth"] << ALIGN_BITS) >> NEURONS["bias_exp"]  # above which a voltage fires, in these units

#: By which generated synapses change a voltage: little, and exactly, so that the order of sums does not matter.
LEAST = 2

#: Target neurons that are looked at together; connectivity counts slices in 16 bits.
CHUNK = 50_000


def generated_arrays(network: Network, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return arrays of neurons and synapses that behave as a network says, for `lava/run.py`.

    A neuron fires every p timesteps, p being one of the two periods around 1 / activity that a bias current can make,
    so that the layer's mean is that of its activity (at most 1), from a random phase on. The weights of a neuron
    alternate in sign along sources of rising activity: they add up to about nothing.
    """
    rng = np.random.default_rng(seed)
    arrays: dict[str, NDArray[Any]] = {}
    period = LEVEL // np.arange(1, 2 * LEVEL) + 1  # by bias, from 1 on
    first = np.flatnonzero(np.append(True, np.diff(period) != 0))  # of those with the same period
    biases = np.append(0, (first + np.append(first[1:], period.size) + 1) // 2)
    rates = np.append(0.0, 1.0 / period[biases[1:] - 1])
    for i, layer in enumerate(network.layers):
        activity = np.minimum(layer.activity, 1.0)
        low = np.minimum(np.searchsorted(rates, activity, side="right") - 1, rates.size - 2)
        share_of_higher = (activity - rates[low]) / (rates[low + 1] - rates[low])
        higher = np.diff(np.floor(np.cumsum(np.append(rng.random(), share_of_higher))))  # as many as the sum says
        bias = biases[low + np.clip(higher, 0, 1).astype(np.int64)]
        phases = rng.integers(0, np.where(bias > 0, LEVEL // np.maximum(bias, 1) + 1, 1))
        arrays[f"bias_mant_{i}"], arrays[f"v_{i}"] = bias, (phases * bias) << NEURONS["bias_exp"]
    projections = []
    for i, projection in enumerate(network.projections):
        source = network.layers[network.layer_index[projection.source]]
        shift = 8 - min(max(projection.weight_bits, 2), 8)  # weights of fewer bits have steps of 2^shift
        matrix = synapses_of(projection.connectivity)
        rank = np.argsort(np.argsort(source.activity, kind="stable"))
        order = np.lexsort((rank[matrix.indices], np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))))
        place = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], np.diff(matrix.indptr))
        signs = np.empty(matrix.nnz, dtype=np.int64)
        signs[order] = np.where(place % 2, -1, 1)
        arrays[f"data_{i}"] = (LEAST << shift) * signs
        arrays[f"indices_{i}"], arrays[f"indptr_{i}"] = matrix.indices, matrix.indptr
        projections.append((projection.source, projection.target, -shift))
    return arrays | {"meta": np.array(json.dumps({"neurons": NEURONS, "projections": projections}))}


def synapses_of(connectivity: Connectivity) -> csr_array:
    """Return the synapses (n_target, n_source) as a matrix of ones."""
    n_target, parts = connectivity.n_target, []
    for low in range(0, n_target, CHUNK):
        high = min(low + CHUNK, n_target)
        bounds = np.unique(np.concatenate([[0], np.arange(low, high + 1), [n_target]]))
        rows = connectivity.rows(bounds)
        shape = (rows.start.size - 1, bounds.size - 1)
        by_row = csr_array((np.ones(rows.slices.size, dtype=np.int64), rows.slices.astype(np.int64), rows.start), shape)
        first = int(np.searchsorted(bounds, low))
        parts.append(by_row[connectivity.row_of_source][:, first : first + high - low])
    return csr_array(hstack(parts).T)


class LavaBoard:
    """A board that runs each mapping through Lava; `start` gives it its network and system.

    `options` are those of `options_of`.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.cores: dict[str, IntArray] = {}  #: virtual cores by process, of the last dry run
        self.sent: dict[str, IntArray] = {}  #: what layers sent (size, steps) in it

    def start(self, message: abc.Mapping[str, Any]) -> tuple[str, tuple[str, ...], Measure]:
        """Take the network and system of a message `hello`; return the worker's name, its metrics and what measures.

        Raises FatalError where the user's Lava network has no process for a layer.
        """
        options = self.options
        self.network, self.system = load_npz(message["network"]), load_system(Path(message["system"]))
        self._arrays = Path(message["network"]).resolve().with_name(f"lava_made_{options.seed}.npz")
        if options.model is None:
            with whole_file(self._arrays) as temporary:
                save_arrays(temporary, generated_arrays(self.network, options.seed))
        n = len(self.network.layers)
        missing = self.run("names", Mapping((1,) * n, tuple(range(n))))["missing"].tolist()
        if missing:
            raise FatalError(
                f"'{options.model}': expected a process for each layer of the network, or one for each slice such as "
                f"'{missing[0]}[0]'; there is none for {', '.join(map(repr, missing))}"
            )
        if options.dry_run:
            return "lava dry run", ("spikes",), self.values_of
        where = options.board or options.partition or "on this host"
        return f"loihi2 {where}", ("latency_s", "energy_j") if options.energy_steps else ("latency_s",), self.values_of

    def values_of(self, message: abc.Mapping[str, Any]) -> dict[str, list[float]]:
        """Return the values of all repeats by metric, for a message `measure`."""
        given, repeats = message["mapping"], message["repeats"]
        mapping = Mapping(given["cores_per_layer"], given["core_of_slice"])
        if self.options.dry_run:
            self.cores = self.run("place", mapping)
            self.sent = self.run("spikes", mapping, whole=True)
            return {"spikes": [float(sum(np.count_nonzero(x) for x in self.sent.values()))] * repeats}
        values: dict[str, list[float]] = {"latency_s": [self._latency_s(mapping) for _ in range(repeats)]}
        if self.options.energy_steps:
            values["energy_j"] = [self._energy_j(mapping) for _ in range(repeats)]
        return values

    def _latency_s(self, mapping: Mapping) -> float:
        times = self.run("measure", mapping, probe="time")["execution_time_s"]
        if times.size == 0 or not np.isfinite(times).all() or times.min() < 0.0 or times.sum() <= 0.0:
            raise TransientError("the probe of the execution time gave no time, or one below 0")
        return float(times.sum()) / times.size * (self.network.steps_per_inference + self.network.depth - 1)

    def _energy_j(self, mapping: Mapping) -> float:
        steps = self.options.energy_steps
        found = self.run("measure", mapping, probe="energy", steps=steps)
        energy = float(found["energy_j"]) - (float(found["static_energy_j"]) if self.options.dynamic else 0.0)
        if not energy > 0.0:
            raise TransientError(f"the energy probe gave {energy:g} J; small networks need more --energy-steps")
        return float(energy / steps * self.network.steps_per_inference)

    def run(self, what: str, mapping: Mapping, **more: Any) -> dict[str, NDArray[Any]]:
        """Run Lava on a mapping in a process of its own; return its arrays.

        Parameters
        ----------
        what
            `names`, `place`, `spikes` or `measure`, see `lava/run.py`.
        mapping
            The mapping to run.
        more
            Further keys of the job.

        Raises
        ------
        TransientError
            Where Lava fails or takes too long.
        MappingError
            Where this mapping cannot be compiled.
        FatalError
            Where none can.

        """
        limit_s = self.options.time_limit_s
        code, arrays, last = run_lava(WORKER, what, self._job(mapping) | more, limit_s=limit_s)
        if code is None:
            last = f": {last}" if last else ""
            raise TransientError(f"Lava did not end within {limit_s:g} s and was stopped{last}")
        if code == REFUSED:
            raise FatalError(last)
        if code == IMPOSSIBLE:
            raise MappingError(last)
        if code != 0:
            raise TransientError(f"Lava failed: {last or f'it ended with code {code}'}")
        return arrays

    def _job(self, mapping: Mapping) -> dict[str, Any]:
        """Return the job of a mapping as `lava/run.py` takes it."""
        options = self.options
        layers = placement_of("", mapping, self.network, self.system)["layers"]
        model = None if options.model is None else str(Path(options.model).resolve())
        slices = {layer["process"]: [stop - start for start, stop in layer["neurons"]] for layer in layers}
        cache = ""
        if options.cache is not None:  # Lava takes whatever it finds there
            content = Path(model or self._arrays).read_bytes() + json.dumps([slices, options.generation]).encode()
            cache = str(Path(options.cache).resolve() / hashlib.sha256(content).hexdigest()[:16])
        return {
            "model": model,
            "made": str(self._arrays),
            "slices": slices,
            "placement": {layer["process"]: layer["cores"] for layer in layers},
            "inputs": [layer["process"] for layer in layers if model and layer["kind"] == "input"],
            "steps": options.steps,
            "exact": options.exact,
            "on_chip": not options.dry_run,
            "cache": cache,
        }


def try_once(board: LavaBoard, folder: Path, name: str | None) -> str:
    """Measure a mapping of what task=export wrote.

    Parameters
    ----------
    board
        One that has not started.
    folder
        What task=export wrote.
    name
        The id of the mapping; None for the first.

    Returns
    -------
    text
        What it measured, to print.

    Raises
    ------
    InputError
        For a folder that is none of task=export, and for an unknown id.

    """
    if not (folder / "network.npz").exists():
        raise InputError(f"'{folder}': expected a folder that task=export wrote, with network.npz; there is none")
    mappings, *digests = load_mappings(folder / "mappings.json")
    name = next(iter(mappings), None) if name is None else name
    if name not in mappings:
        raise InputError(
            f"'{folder / 'mappings.json'}': expected --id to be one of {', '.join(mappings)}, got '{name}'"
        )
    network, system = load_npz(folder / "network.npz"), load_system(folder / "system.yaml")
    if [network.digest, system.digest] != digests:
        raise InputError(
            f"'{folder}': mappings.json belongs to another network or system than network.npz and system.yaml; "
            "have task=export write them together"
        )
    hello = {"network": str(folder / "network.npz"), "system": str(folder / "system.yaml")}
    title, _, measure = board.start(hello)
    values = measure({"mapping": entry_of(name, mappings[name], network), "repeats": 1})
    line = f"mapping {name}, {title}: " + ", ".join(f"{key} {value[0]:g}" for key, value in values.items())
    return "\n\n".join([line, *_dry_run_tables(board, network)])


def _dry_run_tables(board: LavaBoard, network: Network) -> list[str]:
    """Return tables of virtual cores and of activity after a dry run, none after a measurement."""
    if not board.cores:
        return []
    rows = [(process, " ".join(map(str, ids))) for process, ids in board.cores.items()]
    rates = [
        (x.name, x.size, x.activity.mean(), np.count_nonzero(board.sent[x.name]) / board.sent[x.name].size)
        for x in network.layers
        if x.name in board.sent
    ]
    headers = ("layer", "neurons", "activity of the network", "of this run")
    return [tabulate(rows, ("process", "virtual cores")), tabulate(rates, headers, floatfmt=".4f")]


def _above_0(text: str) -> float:
    with suppress(ValueError):
        if 0.0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number above 0, got '{text}'")


def _steps(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got '{text}'")
    return int(text)


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of a command line, this process's own by default; SystemExit where they cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m neuromap_moo.workers.lava_board", description=(__doc__ or "").splitlines()[0]
    )
    add = parser.add_argument
    add(
        "--model", help="Python file whose build() returns the Lava network, one process to a layer (generated weights)"
    )
    add("--steps", type=_steps, default=1000, help="timesteps of a run (%(default)s)")
    add("--energy-steps", type=_steps, help="of a run with the energy probe, best 100000; without, no energy_j")
    add("--dynamic", action="store_true", help="leave the static energy out, which is that of the whole board")
    add("--partition", help="SLURM partition to run on")
    add("--board", help="SLURM node to run on")
    add("--generation", default="N3B3", help="of the chip, for SLURM (%(default)s)")
    add("--exact", action="store_true", help="use the cores of a mapping themselves, not their ranks among those used")
    add("--cache", help="folder in which Lava keeps what it compiled, for mappings that cut the network alike")
    add("--time-limit-s", type=_above_0, default=300.0, help="of each compile with its run (%(default)s)")
    add("--seed", type=int, default=0, help="of generated weights and phases (%(default)s)")
    add("--dry-run", action="store_true", help="compile through stand-ins, run on the CPU; measures no time")
    add("--try", dest="folder", help="measure one mapping of this folder, which task=export wrote, and end")
    add("--id", help="with --try: which, such as m003 (the first)")
    add("--spikes", help="with --try and --dry-run: write what layers sent (size, steps) to this .npz")
    options = parser.parse_args(arguments)
    if options.spikes and not Path(options.spikes).resolve().parent.is_dir():
        parser.error(f"--spikes: expected a file in a folder that exists, got '{options.spikes}'")
    if options.folder is None and (options.id or options.spikes):
        parser.error("--id and --spikes are for --try DIR, with a DIR that task=export wrote")
    return options


def main() -> int:
    """Take the options; serve until the host is gone, or try one mapping."""
    options = options_of()
    if options.partition or options.board:
        for key in ("NOSLURM", "PARTITION", "BOARD"):
            os.environ.pop(key, None)
        os.environ |= {"SLURM": "1", "LOIHI_GEN": options.generation}
        os.environ |= {key: value for key in ("PARTITION", "BOARD") if (value := getattr(options, key.lower()))}
    board = LavaBoard(options)
    if options.folder is None:
        return serve(board.start)
    try:
        print(try_once(board, Path(options.folder), options.id))
    except (InputError, FatalError, MappingError, TransientError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.spikes:
        save_arrays(options.spikes, board.sent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
