"""Intel Loihi 2 behind the device protocol, through Lava: python -m neuromap_moo.workers.lava_board [--dry-run].

It measures the network of the hello, with made weights: each slice is a LIF process whose neurons fire by a bias
current, as often as the network's activity says, and synapses lead where the network has them, too weak to matter. So
Lava cuts nothing itself, and inputs are on cores as well. With `--model` it measures the user's own Lava network.

Nothing here imports Lava: every compile and every run is a process of its own, with a time limit (`lava_run`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack
from tabulate import tabulate

from neuromap_moo.connectivity import Connectivity
from neuromap_moo.errors import InputError
from neuromap_moo.mapping import Mapping as CoreMapping
from neuromap_moo.mapping import entry_of, load_mappings, placement_of
from neuromap_moo.network import Network, load_npz
from neuromap_moo.readers.lava import run_lava
from neuromap_moo.readers.spiking import ALIGN_BITS
from neuromap_moo.system import load_system
from neuromap_moo.workers.lava_run import IMPOSSIBLE, REFUSED, SAID
from neuromap_moo.workers.serving import FatalError, MappingError, Measure, TransientError, serve

WORKER = Path(__file__).with_name("lava_run.py")

#: Of made neurons: no decay of the voltage, a current that lasts one timestep, biases in units of 2^7.
NEURONS = {"vth": 4096, "du": 4095, "dv": 0, "bias_exp": 7}
LEVEL = (NEURONS["vth"] << ALIGN_BITS) >> NEURONS["bias_exp"]  # above which a voltage fires, in these units

#: Of made synapses: sums of weights are shifted by it, so that no spike depends much on them.
WEIGHT_EXP = -6

#: Target neurons that are looked at together; connectivity counts slices in 16 bits.
CHUNK = 50_000


def made(network: Network, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return arrays of neurons and synapses that behave as a network says, for `lava_run`.

    A neuron fires every p timesteps, p being one of the whole numbers around 1 / activity, so that the layer's mean is
    that of its activity (at most 1, at least 1 in LEVEL + 1), from a random phase on. Weights have a random sign.
    """
    rng = np.random.default_rng(seed)
    arrays: dict[str, NDArray[Any]] = {}
    for i, layer in enumerate(network.layers):
        activity = np.minimum(layer.activity, 1.0)
        fires = activity > 0.0
        exact = 1.0 / activity[fires]
        low = np.floor(exact)
        share_of_longer = 1.0 - (1.0 / exact - 1.0 / (low + 1.0)) * low * (low + 1.0)
        longer = np.diff(np.floor(np.cumsum(np.append(rng.random(), share_of_longer))))  # as many as the sum says
        wanted = np.minimum(low + longer, LEVEL + 1).astype(np.int64)
        bias = np.zeros(layer.size, dtype=np.int64)
        # In the middle of those that take so many timesteps: what synapses add does not matter then.
        least, most = LEVEL // wanted + 1, np.where(wanted > 1, LEVEL // np.maximum(wanted - 1, 1), 2 * LEVEL - 1)
        bias[fires] = (least + most) // 2
        period = LEVEL // np.maximum(bias, 1) + 1
        arrays[f"bias_mant_{i}"] = bias
        arrays[f"v_{i}"] = (rng.integers(0, period) * bias) << NEURONS["bias_exp"]
    projections = []
    for i, projection in enumerate(network.projections):
        matrix = synapses_of(projection.connectivity)
        size = 1 << (9 - min(max(projection.weight_bits, 2), 8))  # of the least weight of so many bits, sign included
        arrays[f"data_{i}"] = size * rng.choice([-1, 1], matrix.nnz)
        arrays[f"indices_{i}"], arrays[f"indptr_{i}"] = matrix.indices, matrix.indptr
        projections.append((projection.source, projection.target, WEIGHT_EXP))
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
    """The board at work: knows its network and system after hello."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self._folder = tempfile.TemporaryDirectory(prefix="neuromap_moo_")
        self.cores: dict[str, NDArray[np.int64]] = {}  #: virtual cores by process, of the last dry run
        self.sent: dict[str, NDArray[np.int64]] = {}  #: what layers sent (size, steps) in it

    def start(self, message: Mapping[str, Any]) -> tuple[str, tuple[str, ...], Measure]:
        """Return name, metrics and what measures, for the network and system of a hello."""
        options = self.options
        self.network, self._system = load_npz(message["network"]), load_system(Path(message["system"]))
        if options.model is None:
            np.savez(Path(self._folder.name) / "made.npz", **made(self.network, options.seed))  # type: ignore[arg-type]
        n = len(self.network.layers)
        whole = CoreMapping((1,) * n, tuple(range(n)))
        missing = self._run("names", whole)["missing"].tolist()
        if missing:
            raise FatalError(
                f"'{options.model}': expected a process for each layer of the network, or one for each slice such as "
                f"'{missing[0]}[0]'; there is none for {', '.join(map(repr, missing))}"
            )
        if options.dry_run:
            return "lava dry run", ("spikes",), self.measure
        where = options.board or options.partition or "on this host"
        return f"loihi2 {where}", ("latency_s", "energy_j") if options.energy_steps else ("latency_s",), self.measure

    def measure(self, message: Mapping[str, Any]) -> dict[str, list[float]]:
        """Return the values of all repeats by metric."""
        mapping, repeats = CoreMapping(**{k: message["mapping"][k] for k in MAPPING_KEYS}), message["repeats"]
        if self.options.dry_run:
            self.cores = self._run("place", mapping)
            self.sent = self._run("spikes", mapping)
            return {"spikes": [float(sum(np.count_nonzero(x) for x in self.sent.values()))] * repeats}
        values: dict[str, list[float]] = {"latency_s": [self._latency_s(mapping) for _ in range(repeats)]}
        if self.options.energy_steps:
            values["energy_j"] = [self._energy_j(mapping) for _ in range(repeats)]
        return values

    def _latency_s(self, mapping: CoreMapping) -> float:
        times = self._run("measure", mapping, probe="time")["execution_time_s"]
        if times.size == 0 or not np.isfinite(times).all() or times.min() < 0.0 or times.sum() <= 0.0:
            raise TransientError("the probe of the execution time gave no time, or one below 0")
        return float(times.sum()) / times.size * (self.network.steps_per_inference + self.network.depth - 1)

    def _energy_j(self, mapping: CoreMapping) -> float:
        steps = self.options.energy_steps
        found = self._run("measure", mapping, probe="energy", steps=steps)
        energy = float(found["energy_j"]) - (float(found["static_energy_j"]) if self.options.dynamic else 0.0)
        if not energy > 0.0:
            raise TransientError(f"the energy probe gave {energy:g} J; small networks need more --energy-steps")
        return float(energy / steps * self.network.steps_per_inference)

    def _run(self, what: str, mapping: CoreMapping, **more: Any) -> dict[str, NDArray[Any]]:
        """Run Lava on a mapping in a process of its own; its arrays."""
        options, network = self.options, self.network
        sizes: dict[str, list[int]] = {layer.name: [] for layer in network.layers}
        for s in entry_of("", mapping, network)["slices"]:
            sizes[s["layer"]].append(s["stop"] - s["start"])
        layers = placement_of("", mapping, network, self._system)["layers"]
        job = {
            "model": None if options.model is None else str(Path(options.model).resolve()),
            "made": str(Path(self._folder.name) / "made.npz"),
            "slices": sizes,
            "placement": {layer["process"]: layer["cores"] for layer in layers},
            "inputs": [layer.name for layer in network.layers if options.model and layer.kind == "input"],
            "steps": options.steps,
            "cache": options.cache and str(Path(options.cache).resolve()),
            "on_chip": not options.dry_run,
            **more,
        }
        path = Path(self._folder.name) / "job.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        slurm = bool(options.partition or options.board)
        code, arrays, last = run_lava(WORKER, what, str(path), limit_s=options.time_limit_s, slurm=slurm)
        last = last.removeprefix(SAID)
        if code is None:
            raise TransientError(f"Lava did not end within {options.time_limit_s:g} s and was stopped ({last})")
        if code == REFUSED:
            raise FatalError(last)
        if code == IMPOSSIBLE:
            raise MappingError(last)
        if code != 0:
            raise TransientError(f"Lava failed: {last}")
        return arrays


MAPPING_KEYS = ("cores_per_layer", "core_of_slice")


def try_once(board: LavaBoard, folder: Path, name: str | None) -> str:
    """Measure a mapping of what task=export wrote; return a text to print."""
    mappings, _, _ = load_mappings(folder / "mappings.json")
    name = next(iter(mappings)) if name is None else name
    if name not in mappings:
        raise InputError(
            f"'{folder / 'mappings.json'}': expected --id to be one of {', '.join(mappings)}, got '{name}'"
        )
    hello = {"network": str(folder / "network.npz"), "system": str(folder / "system.yaml")}
    title, _, measure = board.start(hello)
    network = board.network
    values = measure({"mapping": entry_of(name, mappings[name], network), "repeats": 1})
    lines = [f"mapping {name}, {title}: " + ", ".join(f"{key} {value[0]:g}" for key, value in values.items())]
    if board.cores:
        rows = [(process, " ".join(map(str, ids))) for process, ids in board.cores.items()]
        lines.append(tabulate(rows, ("process", "virtual cores")))
        rates = [
            (x.name, x.size, x.activity.mean(), np.count_nonzero(board.sent[x.name]) / board.sent[x.name].size)
            for x in network.layers
            if x.name in board.sent
        ]
        lines.append(tabulate(rates, ("layer", "neurons", "activity of the network", "of this run"), floatfmt=".4f"))
    return "\n\n".join(lines)


def main() -> int:
    """Take the options; serve until the host is gone, or try one mapping."""
    parser = argparse.ArgumentParser(
        prog="python -m neuromap_moo.workers.lava_board", description=(__doc__ or "").splitlines()[0]
    )
    add = parser.add_argument
    add("--model", help="Python file whose build() returns the Lava network, one process to a layer (made weights)")
    add("--steps", type=int, default=1000, help="timesteps of a run (%(default)s)")
    add("--energy-steps", type=int, default=0, help="of a run with the energy probe, best 100000; 0: no energy_j")
    add("--dynamic", action="store_true", help="leave the static energy out, which is that of the whole board")
    add("--partition", help="SLURM partition to run on")
    add("--board", help="SLURM node to run on")
    add("--generation", default="N3B3", help="of the chip, for SLURM (%(default)s)")
    add("--cache", help="folder in which Lava keeps what it compiled, where the network is cut alike for all mappings")
    add("--time-limit-s", type=float, default=300.0, help="of each compile with its run (%(default)s)")
    add("--seed", type=int, default=0, help="of made weights and phases (%(default)s)")
    add("--dry-run", action="store_true", help="compile through stand-ins, run on the CPU; measures no time")
    add("--try", dest="folder", help="measure one mapping of this folder, which task=export wrote, and end")
    add("--id", help="with --try: which, such as m003 (the first)")
    add("--spikes", help="with --try and --dry-run: write what layers sent (size, steps) to this .npz")
    options = parser.parse_args()
    if options.partition or options.board:
        os.environ.pop("NOSLURM", None)
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
        np.savez(options.spikes, **board.sent)  # type: ignore[arg-type]
    return 0


if __name__ == "__main__":
    sys.exit(main())
