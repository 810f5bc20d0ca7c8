"""What a search gains on convolutional, recurrent and transformer networks, and what the packet simulator says of it.

    python experiments/e04_architectures/run.py [--seeds 5] [--jobs 2]

Searches each experiment on the analytic model with its default budget, then has the packet simulator judge the front
and the baselines on spikes that no search has seen. Writes table.csv and table.md beside this file; takes about
20 minutes on two cores.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import multiprocessing
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import neuromap_moo as nm
from neuromap_moo.problem.networks import network_for
from neuromap_moo.results.benchmark.instances import experiment_parts

HERE = Path(__file__).resolve().parent
EXPERIMENTS = ("pilotnet", "cnn_a", "rnn_a", "transformer_a")
EVALUATIONS = 20_000
JUDGE = {"name": "packet", "steps": 4, "seed": 1000}

#: Cores of PilotNet's layers in a public log of the vendor's compiler; the input is no layer there.
PUBLIC_LOG = (25, 13, 3, 3, 2, 12, 1, 1, 1)


def problem_of(name: str, evaluator: Any = "analytic") -> nm.MappingProblem:
    """The problem of conf/experiment/NAME.yaml."""
    config, system = experiment_parts(name)
    return nm.MappingProblem(network_for(config, system), system, evaluator=evaluator, cut="as_given")


def one(task: tuple[str, int]) -> dict[str, Any]:
    name, seed = task
    problem, judge = problem_of(name), problem_of(name, JUDGE)
    run = nm.search(problem, evaluations=EVALUATIONS, seed=seed)
    baselines = nm.baselines(problem)
    ids = list(baselines)
    row: dict[str, Any] = {"experiment": name, "seed": seed, "front": len(run.front.mappings), "seconds": run.seconds}
    for model, by in (("model", problem), ("simulator", judge)):
        metrics = by.evaluate_mappings([*baselines.values(), *run.front.mappings])
        for objective in ("latency_s", "energy_j"):
            values = metrics[objective]
            vendor = values[ids.index("vendor_default")]
            found = values[len(ids) :]
            if model == "simulator" and objective == "latency_s":  # of the mapping that the search would name
                fastest = int(run.front.table["latency_s"].argmin())
                row["simulator_latency_of_named"] = found[fastest] / vendor - 1
            row[f"{model}_{objective}"] = found.min() / vendor - 1
            row[f"{model}_{objective}_baseline"] = values[: len(ids)].min() / vendor - 1
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    os.environ.update({f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")})
    tasks = list(itertools.product(EXPERIMENTS, range(arguments.seeds)))
    rows = []
    with multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool:
        for i, row in enumerate(pool.imap(one, tasks, chunksize=1), 1):
            print(f"{i}/{len(tasks)} {row['experiment']} seed {row['seed']}", file=sys.stderr, flush=True)
            rows.append(row)
    with open(HERE / "table.csv", "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    text = "\n".join(["# Change over vendor_default", "", *lines(rows, arguments.seeds), *against_public_log(rows)])
    (HERE / "table.md").write_text(text, encoding="utf-8")
    print(text)


def lines(rows: Sequence[dict[str, Any]], n_seeds: int) -> list[str]:
    out = [
        f"Medians (ranges) of {n_seeds} seeds of {EVALUATIONS} evaluations on the analytic model; made by",
        "`python experiments/e04_architectures/run.py`. The simulator judges the same fronts on spikes that no search",
        "has seen: the mapping that the model calls fastest, and the front's best. Best baseline: the best of all",
        "constructive mappings in that column.",
        "",
        "| experiment | by | latency, front's best | latency, named fastest | best baseline | energy, front's best "
        "| best baseline |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["experiment"] for row in rows):
        own = [row for row in rows if row["experiment"] == name]
        for model in ("model", "simulator"):
            named = "model_latency_s" if model == "model" else "simulator_latency_of_named"
            keys = (
                f"{model}_latency_s",
                named,
                f"{model}_latency_s_baseline",
                f"{model}_energy_j",
                f"{model}_energy_j_baseline",
            )
            cells = [spread([row[key] for row in own]) for key in keys]
            out.append(f"| {name} | {model} | {' | '.join(cells)} |")
    return [*out, ""]


def against_public_log(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Compare the fronts of PilotNet with the partition that the vendor's compiler chose for it."""
    problem, judge = problem_of("pilotnet"), problem_of("pilotnet", JUDGE)
    vendor = nm.baselines(problem)["vendor_default"]
    cores = (vendor.cores_per_layer[0], *PUBLIC_LOG)
    in_order = tuple(problem.system.usable_cores[: sum(cores)].tolist())
    own = [row for row in rows if row["experiment"] == "pilotnet"]
    out = [
        f"PilotNet against the partition of the public log, {', '.join(map(str, PUBLIC_LOG))} cores behind "
        f"{cores[0]} of the input, in order:",
        "",
        "| by | latency, front's best | energy, front's best | vendor_default's latency | vendor_default's energy |",
        "|---|---|---|---|---|",
    ]
    for model, by in (("model", problem), ("simulator", judge)):
        metrics = by.evaluate_mappings([vendor, nm.Mapping(cores, in_order)])
        cells, default = [], []
        for objective in ("latency_s", "energy_j"):
            ratio = float(metrics[objective][0] / metrics[objective][1])
            found = [ratio * (1 + float(row[f"{model}_{objective}"])) - 1 for row in own]
            cells.append(spread(found))
            default.append(f"{100 * (ratio - 1):+.1f} %")
        out.append(f"| {model} | {' | '.join([*cells, *default])} |")
    return [*out, ""]


def spread(values: Sequence[float]) -> str:
    middle = f"{100 * statistics.median(values):+.1f} %"
    low, high = min(values), max(values)
    return middle if high - low < 5e-4 else f"{middle} ({100 * low:+.1f} to {100 * high:+.1f})"


if __name__ == "__main__":
    main()
