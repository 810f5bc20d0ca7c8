"""Rank correlation of the independent simulator SANA-FE with the analytic model and the packet-level simulator.

    python experiments/e03_fidelity/outside_opinion.py --python sanafe_env/bin/python [--mappings 40]

SANA-FE (GPL) must be installed in an environment of its own: docs/sanafe.md. All three take the same varied mappings of
mlp_a and mlp_b, those with at most 1024 neurons on a core, which is what SANA-FE can hold. Half as many mappings then
show where the two simulators part, by costs that leave one cause at a time. Writes sanafe.md beside this file; takes
about 10 s per mapping.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import pearsonr, spearmanr

import neuromap_moo as nm
from neuromap_moo.arrays import FloatArray

HERE = Path(__file__).resolve().parent
MOST_NEURONS = 1024

LINKS = ("mesh_x", "mesh_y", "inject", "eject")
QUICK_LINKS = {f"bandwidth_bit_per_s.{link}": 1e18 for link in LINKS}
NO_HOPS = {f"t_hop_s.{link}": 0.0 for link in LINKS}

#: Changes of the preset's costs; 1e-18 where a time may not be 0.
CAUSES = {
    "preset": {},
    "links of any bandwidth": QUICK_LINKS,
    "the same, receiving and hops take no time": QUICK_LINKS | NO_HOPS | {"t_synop_s": 1e-18},
    "the same, updating and hops take no time": QUICK_LINKS | NO_HOPS | {"t_dendop_s": 1e-18},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="interpreter of the environment that holds SANA-FE")
    parser.add_argument("--mappings", type=int, default=20)
    arguments = parser.parse_args()
    sanafe = {"name": "sanafe", "timing": "detailed", "python": arguments.python}
    of_all, causes = [], []
    for name in ("mlp_a", "mlp_b"):
        of = nm.benchmark(name).problem
        held = varied(of, arguments.mappings)
        step = {e["name"]: steps(of, e, held) for e in (sanafe, {"name": "analytic"}, {"name": "packet"})}
        for model in ("analytic", "packet"):
            of_all.append(f"| {name} | {len(held)} | {model} | {compared(step['sanafe'], step[model])} |")
        for cause, changes in CAUSES.items():
            changed = nm.MappingProblem(of.network, of.system.with_costs(changes))
            held = varied(changed, arguments.mappings // 2)
            theirs = steps(changed, sanafe, held)
            ours = steps(changed, {"name": "packet", "buffer_messages": 0}, held)
            least = steps(changed, sanafe | {"timing": "simple"}, held)
            ratio = ours / least
            causes.append(
                f"| {name} | {cause} | {len(held)} | {compared(theirs, ours)} | "
                f"{np.median(ratio):.3f} ({ratio.min():.3f} to {ratio.max():.3f}) |"
            )
            print(f"{name}, {cause}: done", flush=True)
    text = "\n".join(
        [
            "# SANA-FE, detailed timing, against both models",
            "",
            f"Step times of {arguments.mappings} varied mappings each, the same spikes; made by",
            "`python experiments/e03_fidelity/outside_opinion.py`.",
            "",
            "| network | mappings | SANA-FE against | spearman | pearson | SANA-FE / model, median (range) |",
            "|---|---|---|---|---|---|",
            *of_all,
            "",
            "Where the two simulators part: queues of any length on our side, costs that leave one cause at a time.",
            "SANA-FE's `simple` timing is the slowest core alone, without waiting.",
            "",
            "| network | costs | mappings | spearman | pearson | SANA-FE / packet (range) | packet / `simple` |",
            "|---|---|---|---|---|---|---|",
            *causes,
            "",
        ]
    )
    (HERE / "sanafe.md").write_text(text, encoding="utf-8")
    print(text)


def varied(problem: nm.MappingProblem, count: int) -> list[nm.Mapping]:
    """Mappings from few cores to many, spread and packed, that SANA-FE can hold."""
    sizes = np.array([layer.size for layer in problem.network.layers])
    found = nm.varied_mappings(problem, 4 * count, np.random.default_rng(0)).values()
    held = [m for m in found if (np.ceil(sizes / np.array(m.cores_per_layer)) <= MOST_NEURONS).all()]
    return held[:: max(1, len(held) // count)][:count]


def steps(problem: nm.MappingProblem, evaluator: dict[str, object], mappings: list[nm.Mapping]) -> FloatArray:
    """(n,) step times in s by an evaluator."""
    return nm.MappingProblem(problem.network, problem.system, evaluator=evaluator).evaluate_mappings(mappings)[
        "step_time_s"
    ]


def compared(theirs: FloatArray, ours: FloatArray) -> str:
    """Correlations and ratios as cells of a table."""
    ratio = theirs / ours
    return (
        f"{spearmanr(theirs, ours).statistic:.3f} | {pearsonr(theirs, ours).statistic:.3f} | "
        f"{np.median(ratio):.3f} ({ratio.min():.3f} to {ratio.max():.3f})"
    )


if __name__ == "__main__":
    main()
