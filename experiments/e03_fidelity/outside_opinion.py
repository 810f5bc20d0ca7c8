"""Rank correlation of the independent simulator SANA-FE with the analytic model and the packet-level simulator.

    python experiments/e03_fidelity/outside_opinion.py --python sanafe_env/bin/python [--mappings 40]

SANA-FE (GPL) must be installed in an environment of its own: docs/sanafe.md. All three take the same varied mappings of
mlp_a and mlp_b, those with at most 1024 neurons on a core, which is what SANA-FE can hold. Half as many mappings then
show where the two simulators part, by costs that leave one cause at a time. Writes sanafe.md beside this file; takes
about 10 s per mapping.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.stats import pearsonr, spearmanr

import neuromap_moo as nm
from neuromap_moo.arrays import FloatArray

sys.path.append(str(Path(__file__).resolve().parents[1]))

from common import above_zero, parser_of, spread, table, write_page

MOST_NEURONS = 1024

LINKS = ("mesh_x", "mesh_y", "inject", "eject")
QUICK_LINKS = {f"bandwidth_bit_per_s.{link}": 1e18 for link in LINKS}
NO_HOPS = {f"t_hop_s.{link}": 0.0 for link in LINKS}

#: Changes of the preset's costs; 1e-18 where a time may not be 0.
CAUSES: dict[str, dict[str, float]] = {
    "preset": {},
    "links of any bandwidth": QUICK_LINKS,
    "the same, receiving and hops take no time": QUICK_LINKS | NO_HOPS | {"t_synop_s": 1e-18},
    "the same, updating and hops take no time": QUICK_LINKS | NO_HOPS | {"t_dendop_s": 1e-18},
}


HEAD = ("network", "mappings", "SANA-FE against", "spearman", "pearson", "SANA-FE / model, median (range)")
HEAD_OF_CAUSES = (
    *("network", "costs", "mappings", "spearman", "pearson", "SANA-FE / packet (range)"),
    "packet / `simple`",
)


def main() -> None:
    parser = parser_of(__doc__, __file__)
    parser.add_argument("--python", required=True, help="interpreter of the environment that holds SANA-FE")
    parser.add_argument("--mappings", type=above_zero, default=20, help="of each network; 4 or more")
    parser.add_argument("--networks", nargs="+", default=("mlp_a", "mlp_b"), metavar="NAME", help="benchmark instances")
    arguments = parser.parse_args()
    sanafe = {"name": "sanafe", "timing": "detailed", "python": arguments.python}
    of_all, causes = [], []
    for name in arguments.networks:
        problem = nm.benchmark(name).problem
        of_all += models_compared(name, problem, sanafe, arguments.mappings)
        causes += causes_compared(name, problem, sanafe, arguments.mappings // 2)
    lines = [
        "# SANA-FE, detailed timing, against both models",
        "",
        f"Step times of {arguments.mappings} varied mappings each, the same spikes; made by",
        "`python experiments/e03_fidelity/outside_opinion.py`.",
        "",
        table(of_all, HEAD),
        "",
        "Where the two simulators part: queues of any length on our side, costs that leave one cause at a time.",
        "SANA-FE's `simple` timing is the slowest core alone, without waiting.",
        "",
        table(causes, HEAD_OF_CAUSES),
    ]
    write_page(arguments.out / "sanafe.md", lines)


def models_compared(name: str, problem: nm.MappingProblem, sanafe: dict[str, str], n: int) -> list[list[str]]:
    """Rows of HEAD: SANA-FE against the analytic model and the packet simulator."""
    held = varied(problem, n)
    theirs = steps(problem, sanafe, held)
    return [
        [name, str(len(held)), model, *compared(theirs, steps(problem, {"name": model}, held))]
        for model in ("analytic", "packet")
    ]


def causes_compared(name: str, problem: nm.MappingProblem, sanafe: dict[str, str], n: int) -> list[list[str]]:
    """Rows of HEAD_OF_CAUSES: both simulators, with one cause of their differences left at a time."""
    rows = []
    for cause, changes in CAUSES.items():
        changed = nm.MappingProblem(problem.network, problem.system.with_costs(changes))
        held = varied(changed, n)
        theirs = steps(changed, sanafe, held)
        ours = steps(changed, {"name": "packet", "buffer_messages": 0}, held)
        least = steps(changed, {**sanafe, "timing": "simple"}, held)
        rows.append([name, cause, str(len(held)), *compared(theirs, ours), spread(list(ours / least), "{:.3f}")])
        print(f"{name}, {cause}: done", file=sys.stderr, flush=True)
    return rows


def varied(problem: nm.MappingProblem, count: int) -> list[nm.Mapping]:
    """Mappings from few cores to many, spread and packed, that SANA-FE can hold."""
    if not isinstance(problem.network, nm.Network):
        raise SystemExit("networks: expected instances with neurons, whose partition is free")
    sizes = np.array([layer.size for layer in problem.network.layers])
    found = nm.varied_mappings(problem, 4 * count, np.random.default_rng(0)).values()
    held = [m for m in found if (np.ceil(sizes / np.array(m.cores_per_layer)) <= MOST_NEURONS).all()]
    return held[:: max(1, len(held) // count)][:count]


def steps(problem: nm.MappingProblem, evaluator: Mapping[str, object], mappings: list[nm.Mapping]) -> FloatArray:
    """(n,) step times in s by an evaluator."""
    of = nm.MappingProblem(problem.network, problem.system, evaluator=evaluator)
    return of.evaluate_mappings(mappings)["step_time_s"]


def compared(theirs: FloatArray, ours: FloatArray) -> list[str]:
    """Spearman's and Pearson's correlation and the ratio, as cells of a table."""
    return [
        f"{spearmanr(theirs, ours).statistic:.3f}",
        f"{pearsonr(theirs, ours).statistic:.3f}",
        spread(list(theirs / ours), "{:.3f}"),
    ]


if __name__ == "__main__":
    main()
