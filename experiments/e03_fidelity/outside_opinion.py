"""Rank correlation of the independent simulator SANA-FE with the analytic model and the packet-level simulator.

    python experiments/e03_fidelity/outside_opinion.py --python sanafe_env/bin/python [--mappings 40]

SANA-FE (GPL) must be installed in an environment of its own: docs/sanafe.md. All three take the same varied mappings of
mlp_a and mlp_b, those with at most 1024 neurons on a core, which is what SANA-FE can hold. Writes sanafe.md beside this
file; takes about 10 s per mapping.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import pearsonr, spearmanr

import neuromap_moo as nm

HERE = Path(__file__).resolve().parent
MOST_NEURONS = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="interpreter of the environment that holds SANA-FE")
    parser.add_argument("--mappings", type=int, default=24)
    arguments = parser.parse_args()
    lines = [
        "# SANA-FE, detailed timing, against both models",
        "",
        f"Step times of {arguments.mappings} varied mappings each, the same spikes; made by",
        "`python experiments/e03_fidelity/outside_opinion.py`.",
        "",
        "| network | mappings | SANA-FE against | spearman | pearson | SANA-FE / model, median (range) |",
        "|---|---|---|---|---|---|",
    ]
    for name in ("mlp_a", "mlp_b"):
        of = nm.benchmark(name).problem
        sizes = np.array([layer.size for layer in of.network.layers])
        varied = nm.varied_mappings(of, 4 * arguments.mappings, np.random.default_rng(0)).values()
        held = [m for m in varied if (np.ceil(sizes / np.array(m.cores_per_layer)) <= MOST_NEURONS).all()]
        held = held[:: max(1, len(held) // arguments.mappings)][: arguments.mappings]
        step = {}
        for evaluator in (
            {"name": "sanafe", "timing": "detailed", "python": arguments.python},
            {"name": "analytic"},
            {"name": "packet"},
        ):
            problem = nm.MappingProblem(of.network, of.system, evaluator=evaluator)
            step[evaluator["name"]] = problem.evaluate_mappings(held)["step_time_s"]
            print(f"{name}: {evaluator['name']} done", flush=True)
        for model in ("analytic", "packet"):
            ratio = step["sanafe"] / step[model]
            lines.append(
                f"| {name} | {len(held)} | {model} | {spearmanr(step['sanafe'], step[model]).statistic:.3f} | "
                f"{pearsonr(step['sanafe'], step[model]).statistic:.3f} | {np.median(ratio):.3f} "
                f"({ratio.min():.3f} to {ratio.max():.3f}) |"
            )
    text = "\n".join([*lines, ""])
    (HERE / "sanafe.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
