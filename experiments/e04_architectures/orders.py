"""What it gains to number neurons so that those with common sources share slices (`network.order=shared_sources`).

    python experiments/e04_architectures/orders.py [--seeds 3] [--evaluations 5000]

Sparse MLPs with and without structure in their synapses, structured ones with their neurons in random order too, and
the experiments mlp_a, mlp_b and rnn_a: messages at some numbers of slices, and the ends of the fronts that searches
find with either order. Writes orders.md beside this file; takes about 10 minutes on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import neuromap_moo as nm
from neuromap_moo.problem.networks import build_network
from neuromap_moo.results.benchmark.instances import experiment_parts

HERE = Path(__file__).resolve().parent
SLICES = (4, 16, 64)


def networks() -> Iterator[tuple[str, nm.Network, nm.System]]:
    sizes, system = [512, 1024, 1024, 256], nm.load_system("loihi2")
    rng = np.random.default_rng(0)
    for structure in ("unstructured", "power_law", "block", "banded"):
        network = nm.sparse_mlp(sizes, 0.05, structure=structure)
        yield structure, network, system
        if structure in ("block", "banded"):
            mixed = {layer.name: rng.permutation(layer.size) for layer in network.layers}
            yield f"{structure}, neurons in random order", nm.with_orders(network, mixed), system
    for name in ("mlp_a", "mlp_b", "rnn_a"):
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=5000)
    arguments = parser.parse_args()
    lines = [
        "# Neurons with common sources side by side",
        "",
        f"Change by `network.order=shared_sources`; fronts of {arguments.evaluations} evaluations, medians of "
        f"{arguments.seeds} seeds; made by",
        "`python experiments/e04_architectures/orders.py`.",
        "",
        "| network | layers in a new order | "
        + " | ".join(f"messages at {k} slices" for k in SLICES)
        + " | least latency | least energy | s |",
        "|---" * (len(SLICES) + 5) + "|",
    ]
    for name, network, system in networks():
        start = time.perf_counter()
        ordered = nm.with_shared_sources(network, system)
        seconds = time.perf_counter() - start
        changed = sum(a.order is not b.order for a, b in zip(network.layers, ordered.layers, strict=True))
        figures = [messages(ordered, k) / messages(network, k) - 1 for k in SLICES]
        if changed:
            pairs = [ends(n, system, arguments.evaluations, arguments.seeds) for n in (network, ordered)]
            figures += [after / before - 1 for before, after in zip(*pairs, strict=True)]
        else:
            figures += [0.0, 0.0]
        cells = " | ".join(f"{100 * x:+.1f} %" for x in figures)
        lines.append(f"| {name} | {changed} of {len(network.layers) - 1} | {cells} | {seconds:.1f} |")
        print(lines[-1], flush=True)
    (HERE / "orders.md").write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
