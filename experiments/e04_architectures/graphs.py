"""Load and search the nine public graphs that come with the onnx package: real structure, constant weights.

    python experiments/e04_architectures/graphs.py [--evaluations 500]

Each graph gets a process of its own, on a mesh that is large enough; cores hold more synapse words where a dense layer
has more inputs than a core of Loihi 2 can serve. Writes graphs.md beside this file; takes about 20 minutes.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import onnx

import neuromap_moo as nm

sys.path.append(str(Path(__file__).resolve().parents[1]))

from common import above_zero, parser_of, table, write_page

GRAPHS = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

#: Width and height of the mesh in routers, cores per router, synapse words per core.
SYSTEMS = {
    "squeezenet": (24, 24, 1, 12_000),
    "shufflenet": (28, 28, 1, 12_000),
    "inception_v1": (32, 32, 1, 12_000),
    "inception_v2": (36, 36, 1, 12_000),
    "resnet50": (32, 32, 2, 12_000),
    "densenet121": (40, 40, 2, 12_000),
    "bvlc_alexnet": (32, 32, 4, 64_000),
    "zfnet512": (32, 32, 4, 32_000),
    "vgg19": (32, 32, 4, 64_000),
}


def one(name: str, evaluations: int) -> dict[str, object]:
    """Sizes, times in s and the peak of memory of one graph in this process."""
    width, height, cores, words = SYSTEMS[name]
    topology = {"width": width, "height": height, "cores_per_router": cores}
    system = nm.load_system("mesh", {"topology": topology, "capacities": {"synapse_words": {"value": words}}})
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = nm.load_network(GRAPHS / f"light_{name}.onnx")
    loaded = time.perf_counter()
    problem = nm.MappingProblem(nm.with_best_cuts(network, system), system)
    baselines = nm.baselines(problem)
    ready = time.perf_counter()
    front = nm.search(problem, evaluations=evaluations, seed=0).front
    done = time.perf_counter()
    vendor = problem.evaluate_mappings([baselines["vendor_default"]])
    return {
        "neurons": sum(x.size for x in network.layers),
        "synapses": sum(p.connectivity.n_synapses for p in network.projections),
        "cores": int(problem.partitioner.minimum.sum()),
        "of": system.n_cores,
        "words": words,
        "load": loaded - start,
        "baselines": ready - loaded,
        "search": done - ready,
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "latency": float(front.table["latency_s"].min() / vendor["latency_s"][0]) - 1,
        "energy": float(front.table["energy_j"].min() / vendor["energy_j"][0]) - 1,
    }


HEAD = (
    *("graph", "neurons", "synapses", "fewest cores", "words per core", "loaded in s", "baselines s", "search s", "GB"),
    *("latency", "energy"),
)


def main() -> None:
    parser = parser_of(__doc__, __file__)
    parser.add_argument("--evaluations", type=above_zero, default=500, help="of each search")
    parser.add_argument("--graphs", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), help="which of them")
    parser.add_argument("--only", choices=SYSTEMS, help="one graph in this process; prints its figures as JSON")
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(one(arguments.only, arguments.evaluations)))
        return
    rows = []
    for name in arguments.graphs:
        command = [sys.executable, __file__, "--only", name, "--evaluations", str(arguments.evaluations)]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        rows.append(row_of(name, found))
        print(f"{name}: done", file=sys.stderr, flush=True)
    lines = [
        "# The graphs of the onnx package",
        "",
        f"Searches of {arguments.evaluations} evaluations, changes over vendor_default; made by",
        "`python experiments/e04_architectures/graphs.py`.",
        "",
        table(rows, HEAD),
    ]
    write_page(arguments.out / "graphs.md", lines)


def row_of(name: str, found: dict[str, float]) -> list[str]:
    """Cells of HEAD, from what `one` returns."""
    return [
        name,
        f"{found['neurons'] / 1e6:.2f} M",
        f"{found['synapses'] / 1e9:.2f} G",
        f"{found['cores']} of {found['of']}",
        f"{found['words']}",
        f"{found['load']:.1f}",
        f"{found['baselines']:.0f}",
        f"{found['search']:.0f}",
        f"{found['gigabytes']:.1f}",
        f"{100 * found['latency']:+.0f} %",
        f"{100 * found['energy']:+.0f} %",
    ]


if __name__ == "__main__":
    main()
