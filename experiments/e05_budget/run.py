"""Hypervolume against the number of measurements: guided search, plain NSGA-II, the paper's strategy, random mappings.

    python experiments/e05_budget/run.py [--jobs 2] [--seeds 10]

Every run measures on a virtual board of its own through the device protocol: cost constants planted by the seed within
a factor of 2 of the preset's, 3 % scatter of each of 3 repeats. Every attempt counts, those at the control mapping and
second ones at the same mapping too. What is shown is what a user gets who stops there: the mappings that are
non-dominated by what was measured so far, and their hypervolume by what the board would measure without scatter.
Writes curves.csv, table.md and the figures (median and quartiles of the boards) beside this file; takes one and a half
hours on two cores. Each run is kept in outputs/e05_budget, and one that is there already is not repeated.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import neuromap_moo as nm
from neuromap_moo.arrays import FloatArray
from neuromap_moo.boards.evaluator import DeviceEvaluator
from neuromap_moo.boards.noise import estimates
from neuromap_moo.boards.store import DONE, Store
from neuromap_moo.boards.virtual_board import Options, truth
from neuromap_moo.evolution.generation import non_dominated_rows
from neuromap_moo.files import whole_file
from neuromap_moo.mapping.mapping import stack
from neuromap_moo.models.metrics import minimised
from neuromap_moo.results.front import save_columns

sys.path.append(str(Path(__file__).resolve().parents[1]))

from common import above_zero, parser_of, table, write_page

RUNS = Path("outputs") / "e05_budget"

NETWORKS = {
    "mlp_a": ([1024, 2048, 2048, 1024, 512], 0.05),
    "mlp_b": ([1024, 2048, 2048, 2048, 1024, 1024, 512], 0.03),
}
#: Options and measurements of each algorithm; plain NSGA-II starts from baselines and balanced mappings as ours does.
ALGORITHMS: dict[str, tuple[dict[str, Any], int]] = {
    "guided": ({}, 300),
    "nsga2": ({"local_share": 0.0}, 1500),
    "es": ({}, 1500),
    "random": ({}, 500),
}
LABELS = {"guided": "guided (ours)", "nsga2": "NSGA-II", "es": "ES of arXiv 2602.04717", "random": "random"}
OBJECTIVES = ("latency_s", "energy_j")
AT = (30, 50, 75, 100, 150, 200, 250, 300, 400, 500, 750, 1000, 1250, 1500)
TARGET, BUDGET = 1500, 300
STEPS = 4  # timesteps of the packet simulator
COLUMNS = (50, 100, 150, 200, 300, 500, 1000, 1500)  # of the table, some of AT

Run = tuple[str, str, int, int]  # network, algorithm, seed, and the most measurements that it may take
Curve = dict[str, list[float]]  # columns: measurements, hypervolume and the best of each objective


def folder_of(run: Run) -> Path:
    network, algorithm, seed, most = run
    return RUNS / "_".join([network, algorithm, str(seed), *([str(most)] if most < TARGET else [])])


def curve_file(run: Run) -> Path:
    return folder_of(run).with_suffix(".json")


def budget_of(algorithm: str, most: int) -> int:
    return min(ALGORITHMS[algorithm][1], most)


def one(run: Run) -> Curve:
    """Hypervolume at each count of AT that the run reaches."""
    network_name, algorithm, seed, most = run
    sizes, density = NETWORKS[network_name]
    network = nm.sparse_mlp(sizes, density, seed=0)
    system = nm.load_system("loihi2")
    board = Options(seed=seed, luck=seed, steps=STEPS)
    worker = f"{shlex.quote(sys.executable)} -m neuromap_moo.workers.virtual_board"
    folder = folder_of(run)
    evaluator = {
        "name": "device",
        "command": f"{worker} --seed {seed} --luck {seed} --steps {STEPS}",
        "folder": str(folder),
        "confirm": 1,  # or the last of the budget would go to what is measured already
    }
    problem = nm.MappingProblem(network, system, OBJECTIVES, evaluator)
    budget = budget_of(algorithm, most)
    nm.search(problem, algorithm, evaluations=budget, seed=seed, options=ALGORITHMS[algorithm][0])
    if isinstance(problem.evaluator, DeviceEvaluator):
        problem.evaluator.close()
    store = Store(folder / "measurements.sqlite", network.digest, system.digest)
    attempts = [a for a in store.attempts() if a.status == DONE]
    mappings = store.mappings(list(dict.fromkeys(a.mapping for a in attempts)))
    store.close()
    exact = nm.MappingProblem(network, system, OBJECTIVES, truth(network, system, board))
    known: dict[str, FloatArray] = {}
    curve: Curve = {"measurements": [], "hypervolume": [], "best_latency_s": [], "best_energy_j": []}
    for n in (n for n in AT if n <= min(budget, len(attempts))):
        found = estimates(attempts[:n], OBJECTIVES, attempts[0].mapping)
        keys = list(found.of["latency_s"])
        measured = np.array([[found.of[name][key].value for name in OBJECTIVES] for key in keys])
        front = [keys[i] for i in np.flatnonzero(non_dominated_rows(measured))]
        if missing := [key for key in front if key not in known]:
            F = minimised(exact.evaluator.evaluate(stack([mappings[key] for key in missing])), OBJECTIVES)
            known.update(zip(missing, F, strict=True))
        F = np.array([known[key] for key in front])
        for column, value in zip(curve, (n, exact.hypervolume(F), *F.min(axis=0)), strict=True):
            curve[column].append(float(value))
    return curve


def curves(wanted: Sequence[Run], jobs: int) -> dict[Run, Curve]:
    """Every run, in processes of their own."""
    RUNS.mkdir(parents=True, exist_ok=True)
    waiting = [run for run in wanted if not curve_file(run).exists()]
    running: dict[Run, subprocess.Popen[bytes]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            run = waiting.pop(0)
            print(f"{len(waiting)} to go: {run}", file=sys.stderr, flush=True)
            running[run] = subprocess.Popen([sys.executable, __file__, "--one", *map(str, run)])
        time.sleep(0.2)
        for run in [run for run, process in running.items() if process.poll() is not None]:
            if code := running.pop(run).returncode:
                raise SystemExit(f"{run}: ended with code {code}")
    return {run: json.loads(curve_file(run).read_text(encoding="utf-8")) for run in wanted}


class Boards:
    """The curves of one network: of every algorithm on the same boards, one per seed."""

    def __init__(self, network: str, found: dict[Run, Curve], most: int) -> None:
        self.network, self.most = network, most
        self.of = {
            algorithm: [curve for (n, a, *_), curve in found.items() if (n, a) == (network, algorithm)]
            for algorithm in ALGORITHMS
        }
        self.target = min(TARGET, most)
        self.aim = [after(curve, self.target) for curve in self.of["nsga2"]]

    def cells(self, algorithm: str, at: Sequence[int]) -> list[str]:
        """Medians of the hypervolume after some numbers of measurements, empty where an algorithm takes fewer."""
        budget = budget_of(algorithm, self.most)
        return [
            f"{np.median([after(curve, n) for curve in self.of[algorithm]]):.4f}" if n <= budget else "" for n in at
        ]

    def sentence(self) -> str:
        """Say when guided search has what NSGA-II has at the end."""
        needed = [
            next((n for n, v in zip(c["measurements"], c["hypervolume"], strict=True) if v >= aim), np.inf)
            for c, aim in zip(self.of["guided"], self.aim, strict=True)
        ]
        budget = min(BUDGET, self.most)
        return (
            "Board by board, guided search has the hypervolume that NSGA-II has after "
            f"{self.target} measurements after {np.median(needed):.0f} of them (median); within {budget} on "
            f"{sum(n <= budget for n in needed)} of {len(needed)} boards."
        )

    def figure(self) -> Figure:
        """Median and quartiles of the hypervolume against measurements."""
        figure = Figure(figsize=(3.5, 2.9), layout="constrained")
        ax = figure.subplots()
        for algorithm, curves in self.of.items():
            at = [n for n in AT if n <= budget_of(algorithm, self.most)]
            # Boards differ more than algorithms do, so each is its own measure.
            values = [[after(curve, n) / aim for n in at] for curve, aim in zip(curves, self.aim, strict=True)]
            (line,) = ax.plot(at, np.median(values, axis=0), label=LABELS[algorithm], lw=1.4)
            ax.fill_between(at, *np.quantile(values, (0.25, 0.75), axis=0), alpha=0.2, color=line.get_color(), lw=0)
        ax.axhline(1.0, color="0.4", lw=0.8, ls="--")
        ax.set(xscale="log", xlabel="measurements", ylabel=f"hypervolume, NSGA-II at {self.target} = 1")
        ax.set_xticks([30, 100, 300, 1000], ["30", "100", "300", "1000"])
        figure.legend(fontsize=7, frameon=False, loc="outside upper center", ncols=2)
        ax.grid(alpha=0.3, lw=0.4)
        return figure


def after(curve: Curve, n: int) -> float:
    """Hypervolume after at most n measurements."""
    return [v for m, v in zip(curve["measurements"], curve["hypervolume"], strict=True) if m <= n][-1]


def report(found: dict[Run, Curve], out: Path, most: int) -> None:
    """Write the curves, the table and the figures."""
    columns: dict[str, list[Any]] = {"network": [], "algorithm": [], "seed": []}
    for run, curve in found.items():
        for key, value in zip(("network", "algorithm", "seed"), run[:3], strict=True):
            columns[key] += [value] * len(curve["measurements"])
        for key, values in curve.items():
            columns.setdefault(key, []).extend(values)
    save_columns(out / "curves.csv", columns)
    n_boards = len({seed for _, _, seed, _ in found})
    lines = [
        "# Few measurements",
        "",
        f"Hypervolume of what is believed to be the front, by exact values; median of {n_boards} boards. Made by",
        "`python experiments/e05_budget/run.py`.",
    ]
    head = [n for n in COLUMNS if n <= most]
    for network in sorted({network for network, *_ in found}):
        boards = Boards(network, found, most)
        rows = [[LABELS[algorithm], *boards.cells(algorithm, head)] for algorithm in ALGORITHMS]
        lines += ["", f"## {network}", "", table(rows, ["algorithm", *map(str, head)]), "", boards.sentence()]
        figure = boards.figure()
        for ending in ("pdf", "png"):
            with whole_file(out / f"{network}.{ending}") as temporary:
                figure.savefig(temporary, dpi=200)
    write_page(out / "table.md", lines)


def main() -> None:
    parser = parser_of(__doc__, __file__)
    parser.add_argument("--jobs", type=above_zero, default=2, help="runs at a time")
    parser.add_argument("--seeds", type=above_zero, default=10, help="boards for each algorithm")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="which of them")
    parser.add_argument("--measurements", type=above_zero, default=TARGET, help=f"the most of a run; {AT[0]} or more")
    parser.add_argument("--one", nargs=4, metavar=("NETWORK", "ALGORITHM", "SEED", "MOST"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        network, algorithm, seed, most = arguments.one
        run = (network, algorithm, int(seed), int(most))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            curve = one(run)
        with whole_file(curve_file(run)) as temporary:
            temporary.write_text(json.dumps(curve), encoding="utf-8")
        return
    if arguments.measurements < AT[0]:
        parser.error(f"argument --measurements: expected {AT[0]} or more, got {arguments.measurements}")
    most = arguments.measurements
    wanted = [(n, a, s, most) for s in range(arguments.seeds) for n in arguments.networks for a in ALGORITHMS]
    report(curves(wanted, arguments.jobs), arguments.out, most)


if __name__ == "__main__":
    main()
