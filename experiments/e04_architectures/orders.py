"""What it gains to number neurons so that those with common sources share slices (`network.order=shared_sources`).

    python experiments/e04_architectures/orders.py [--seeds 3] [--evaluations 5000]

Sparse MLPs with and without structure in their synapses, structured ones with their neurons in random order too, and
the experiments mlp_a, mlp_b and rnn_a: messages at some numbers of slices, and the ends of the fronts that searches
find with either order. Writes orders.md beside this file; takes about 10 minutes on two cores.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Container, Iterator
from pathlib import Path

import numpy as np

import neuromap_moo as nm
from neuromap_moo.problem.networks import build_network
from neuromap_moo.results.benchmark.instances import experiment_parts

sys.path.append(str(Path(__file__).resolve().parents[1]))

from common import above_zero, parser_of, table, write_page

SLICES = (4, 16, 64)


STRUCTURES, EXPERIMENTS = ("unstructured", "power_law", "block", "banded"), ("mlp_a", "mlp_b", "rnn_a")


def networks(chosen: Container[str]) -> Iterator[tuple[str, nm.Network, nm.System]]:
    """Name, network and system of each of the chosen; structured ones twice, in their order and in a random one."""
    sizes, system = [512, 1024, 1024, 256], nm.load_system("loihi2")
    rng = np.random.default_rng(0)
    for structure in (structure for structure in STRUCTURES if structure in chosen):
        network = nm.sparse_mlp(sizes, 0.05, structure=structure)
        yield structure, network, system
        if structure in ("block", "banded"):
            mixed = {layer.name: rng.permutation(layer.size) for layer in network.layers}
            yield f"{structure}, neurons in random order", nm.with_orders(network, mixed), system
    for name in (name for name in EXPERIMENTS if name in chosen):
        config, system = experiment_parts(name)
        yield name, build_network(config), system


def messages(network: nm.Network, k: int) -> float:
    """Messages per timestep with every layer in k slices, or as many as it has neurons."""
    total = 0.0
    for p in network.projections:
        target = network.layers[network.layer_index[p.target]]
        bounds = np.linspace(0, target.size, min(k, target.size) + 1).astype(np.int64)
        rows = p.connectivity.rows(bounds)
        activity = network.layers[network.layer_index[p.source]].activity
        total += float(np.diff(rows.start)[p.connectivity.row_of_source] @ activity)
    return total


def ends(network: nm.Network, system: nm.System, evaluations: int, seeds: int) -> tuple[float, float]:
    """Medians over the seeds: least latency in s and least energy in J."""
    problem = nm.MappingProblem(network, system)
    fronts = [nm.search(problem, evaluations=evaluations, seed=seed).front.table for seed in range(seeds)]
    latency, energy = (statistics.median(float(t[key].min()) for t in fronts) for key in ("latency_s", "energy_j"))
    return latency, energy


def row_of(name: str, network: nm.Network, system: nm.System, evaluations: int, seeds: int) -> list[str]:
    """Cells of the table: changes by the new order, and the seconds that it takes to find."""
    start = time.perf_counter()
    ordered = nm.with_shared_sources(network, system)
    seconds = time.perf_counter() - start
    changed = sum(a.order is not b.order for a, b in zip(network.layers, ordered.layers, strict=True))
    changes = [messages(ordered, k) / messages(network, k) - 1 for k in SLICES]
    if changed:
        pairs = [ends(n, system, evaluations, seeds) for n in (network, ordered)]
        changes += [after / before - 1 for before, after in zip(*pairs, strict=True)]
    else:
        changes += [0.0, 0.0]
    in_percent = [f"{100 * change:+.1f} %" for change in changes]
    return [name, f"{changed} of {len(network.layers) - 1}", *in_percent, f"{seconds:.1f}"]


def main() -> None:
    parser = parser_of(__doc__, __file__)
    parser.add_argument("--seeds", type=above_zero, default=3, help="searches with each order")
    parser.add_argument("--evaluations", type=above_zero, default=5000, help="of each search")
    known = [*STRUCTURES, *EXPERIMENTS]
    parser.add_argument("--networks", nargs="+", choices=known, default=known, help="which of them")
    arguments = parser.parse_args()
    rows = []
    for name, network, system in networks(arguments.networks):
        rows.append(row_of(name, network, system, arguments.evaluations, arguments.seeds))
        print(f"{name}: done", file=sys.stderr, flush=True)
    head = ["network", "layers in a new order", *(f"messages at {k} slices" for k in SLICES)]
    lines = [
        "# Neurons with common sources side by side",
        "",
        f"Change by `network.order=shared_sources`; fronts of {arguments.evaluations} evaluations, medians of "
        f"{arguments.seeds} seeds; made by",
        "`python experiments/e04_architectures/orders.py`.",
        "",
        table(rows, [*head, "least latency", "least energy", "s"]),
    ]
    write_page(arguments.out / "orders.md", lines)


if __name__ == "__main__":
    main()
