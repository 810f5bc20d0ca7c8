"""What a search gains on convolutional, recurrent and transformer networks, and what the packet simulator says of it.

    python experiments/e04_architectures/run.py [--seeds 5] [--jobs 2]

Searches each experiment on the analytic model with its default budget, then has the packet simulator judge the front
and the baselines on spikes that no search has seen. Writes table.csv and table.md beside this file; takes about
20 minutes on two cores.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import neuromap_moo as nm
from neuromap_moo.problem.networks import network_for
from neuromap_moo.results.benchmark.instances import experiment_parts

sys.path.append(str(Path(__file__).resolve().parents[1]))

from common import above_zero, in_processes, parser_of, spread, table, write_csv, write_page

EXPERIMENTS = ("pilotnet", "cnn_a", "rnn_a", "transformer_a")
JUDGE = {"name": "packet", "steps": 4, "seed": 1000}

#: Cores of PilotNet's layers in a public log of the vendor's compiler; the input is no layer there.
PUBLIC_LOG = (25, 13, 3, 3, 2, 12, 1, 1, 1)


def problem_of(name: str, evaluator: Any = "analytic") -> nm.MappingProblem:
    """The problem of conf/experiment/NAME.yaml."""
    config, system = experiment_parts(name)
    return nm.MappingProblem(network_for(config, system), system, evaluator=evaluator, cut="as_given")


def searched(task: tuple[str, int, int]) -> dict[str, Any]:
    """Changes over vendor_default that one search finds; the task is the experiment, evaluations and seed."""
    name, evaluations, seed = task
    problem, judge = problem_of(name), problem_of(name, JUDGE)
    run = nm.search(problem, evaluations=evaluations, seed=seed)
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


HEAD = (
    *("experiment", "by", "latency, front's best", "latency, named fastest", "best baseline"),
    *("energy, front's best", "best baseline"),
)
HEAD_OF_LOG = (
    *("by", "latency, front's best", "energy, front's best", "vendor_default's latency"),
    "vendor_default's energy",
)


def main() -> None:
    parser = parser_of(__doc__, __file__)
    parser.add_argument("--seeds", type=above_zero, default=5, help="searches of each experiment")
    parser.add_argument("--jobs", type=above_zero, default=2, help="processes at a time")
    parser.add_argument("--evaluations", type=above_zero, default=20_000, help="of each search")
    parser.add_argument("--experiments", nargs="+", choices=EXPERIMENTS, default=EXPERIMENTS, help="which of them")
    arguments = parser.parse_args()
    tasks = list(itertools.product(arguments.experiments, (arguments.evaluations,), range(arguments.seeds)))
    rows = list(in_processes(searched, tasks, arguments.jobs))
    write_csv(arguments.out / "table.csv", rows)
    lines = [
        "# Change over vendor_default",
        "",
        f"Medians (ranges) of {arguments.seeds} seeds of {arguments.evaluations} evaluations on the analytic model; "
        "made by",
        "`python experiments/e04_architectures/run.py`. The simulator judges the same fronts on spikes that no search",
        "has seen: the mapping that the model calls fastest, and the front's best. Best baseline: the best of all",
        "constructive mappings in that column.",
        "",
        table(changes(rows), HEAD),
    ]
    if "pilotnet" in arguments.experiments:
        lines += ["", *against_public_log(rows)]
    write_page(arguments.out / "table.md", lines)


def changes(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Cells of HEAD: two rows per experiment."""
    cells = []
    for name in dict.fromkeys(row["experiment"] for row in rows):
        own = [row for row in rows if row["experiment"] == name]
        for model in ("model", "simulator"):
            keys = (
                f"{model}_latency_s",
                "model_latency_s" if model == "model" else "simulator_latency_of_named",
                f"{model}_latency_s_baseline",
                f"{model}_energy_j",
                f"{model}_energy_j_baseline",
            )
            cells.append([name, model, *(change([row[key] for row in own]) for key in keys)])
    return cells


def against_public_log(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Compare the fronts of PilotNet with the partition that the vendor's compiler chose for it."""
    problem, judge = problem_of("pilotnet"), problem_of("pilotnet", JUDGE)
    vendor = nm.baselines(problem)["vendor_default"]
    cores = (vendor.cores_per_layer[0], *PUBLIC_LOG)
    in_order = tuple(problem.system.usable_cores[: sum(cores)].tolist())
    own = [row for row in rows if row["experiment"] == "pilotnet"]
    cells = []
    for model, by in (("model", problem), ("simulator", judge)):
        metrics = by.evaluate_mappings([vendor, nm.Mapping(cores, in_order)])
        fronts, default = [], []
        for objective in ("latency_s", "energy_j"):
            ratio = float(metrics[objective][0] / metrics[objective][1])
            fronts.append(change([ratio * (1 + float(row[f"{model}_{objective}"])) - 1 for row in own]))
            default.append(change([ratio - 1]))
        cells.append([model, *fronts, *default])
    return [
        f"PilotNet against the partition of the public log, {', '.join(map(str, PUBLIC_LOG))} cores behind "
        f"{cores[0]} of the input, in order:",
        "",
        table(cells, HEAD_OF_LOG),
    ]


def change(values: Sequence[float]) -> str:
    """Median change in per cent, with the range where it can be seen."""
    return spread([100 * value for value in values], "{:+.1f}", " %", narrow=0.05)


if __name__ == "__main__":
    main()
