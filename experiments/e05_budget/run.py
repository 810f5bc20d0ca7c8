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
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import neuromap_moo as nm
from neuromap_moo.boards.noise import estimates
from neuromap_moo.boards.store import DONE, Store
from neuromap_moo.boards.virtual_board import Options, truth
from neuromap_moo.evolution.generation import non_dominated_rows
from neuromap_moo.files import whole_file
from neuromap_moo.mapping.mapping import stack
from neuromap_moo.models.metrics import minimised
from neuromap_moo.results.front import save_columns

HERE = Path(__file__).resolve().parent
RUNS = HERE.parents[1] / "outputs" / "e05_budget"

NETWORKS = {
    "mlp_a": ([1024, 2048, 2048, 1024, 512], 0.05),
    "mlp_b": ([1024, 2048, 2048, 2048, 1024, 1024, 512], 0.03),
}
#: Options and measurements of each algorithm; plain NSGA-II starts from baselines and balanced mappings as ours does.
ALGORITHMS = {
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


def one(network_name: str, algorithm: str, seed: int) -> dict[str, list[float]]:
    """Hypervolume at each count of AT that the run reaches."""
    sizes, density = NETWORKS[network_name]
    network = nm.sparse_mlp(sizes, density, seed=0)
    system = nm.load_system("loihi2")
    board = Options(seed=seed, luck=seed, steps=STEPS)
    worker = f"{shlex.quote(sys.executable)} -m neuromap_moo.workers.virtual_board"
    folder = RUNS / f"{network_name}_{algorithm}_{seed}"
    evaluator = {
        "name": "device",
        "command": f"{worker} --seed {seed} --luck {seed} --steps {STEPS}",
        "folder": str(folder),
        "confirm": 1,  # or the last of the budget would go to what is measured already
    }
    problem = nm.MappingProblem(network, system, OBJECTIVES, evaluator)
    options, budget = ALGORITHMS[algorithm]
    nm.search(problem, algorithm, evaluations=budget, seed=seed, options=options)
    problem.evaluator.close()
    store = Store(folder / "measurements.sqlite", network.digest, system.digest)
    attempts = [a for a in store.attempts() if a.status == DONE]
    mappings = store.mappings(list(dict.fromkeys(a.mapping for a in attempts)))
    store.close()
    exact = nm.MappingProblem(network, system, OBJECTIVES, truth(network, system, board))
    known: dict[str, np.ndarray] = {}
    curve: dict[str, list[float]] = {"measurements": [], "hypervolume": [], "best_latency_s": [], "best_energy_j": []}
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


def curves(networks: list[str], algorithms: list[str], seeds: range, jobs: int) -> dict[tuple[str, str, int], dict]:
    """Every run, in processes of their own."""
    RUNS.mkdir(parents=True, exist_ok=True)
    wanted = [(n, a, s) for s in seeds for n in networks for a in algorithms]
    waiting = [run for run in wanted if not _file(run).exists()]
    running: list[tuple[subprocess.Popen, tuple[str, str, int]]] = []
    while waiting or running:
        while waiting and len(running) < jobs:
            run = waiting.pop(0)
            print(f"{len(waiting)} to go: {run}", file=sys.stderr, flush=True)
            command = [sys.executable, __file__, "--one", *map(str, run)]
            running.append((subprocess.Popen(command), run))
        process, run = running[0]
        for process, run in running:
            try:
                process.wait(0.5)
            except subprocess.TimeoutExpired:
                continue
            if process.returncode:
                raise SystemExit(f"{run}: ended with code {process.returncode}")
            running.remove((process, run))
            break
    return {run: json.loads(_file(run).read_text(encoding="utf-8")) for run in wanted}


def _file(run: tuple[str, str, int]) -> Path:
    return RUNS / f"{'_'.join(map(str, run))}.json"


def report(found: dict[tuple[str, str, int], dict], seeds: range) -> None:
    """Write the curves, the table and the figures."""
    rows: dict[str, list] = {"network": [], "algorithm": [], "seed": []}
    for run, curve in found.items():
        for key, value in zip(("network", "algorithm", "seed"), run, strict=True):
            rows[key] += [value] * len(curve["measurements"])
        for key, values in curve.items():
            rows.setdefault(key, []).extend(values)
    save_columns(HERE / "curves.csv", rows)
    networks = sorted({run[0] for run in found})
    lines = [
        "# Few measurements",
        "",
        f"Hypervolume of what is believed to be the front, by exact values; median of {len(seeds)} boards. Made by",
        "`python experiments/e05_budget/run.py`.",
    ]
    for network in networks:
        head = [n for n in AT if n in (50, 100, 150, 200, 300, 500, 1000, 1500)]
        lines += [
            "",
            f"## {network}",
            "",
            f"| algorithm | {' | '.join(map(str, head))} |",
            "|---" * (len(head) + 1) + "|",
        ]
        for algorithm in ALGORITHMS:
            cells = [_median(found, network, algorithm, n, seeds) for n in head]
            lines.append(f"| {LABELS[algorithm]} | {' | '.join('' if c is None else f'{c:.4f}' for c in cells)} |")
        target = [_at(found[network, "nsga2", s], TARGET) for s in seeds]
        needed = [
            next((n for n, v in zip(c["measurements"], c["hypervolume"], strict=True) if v >= t), np.inf)
            for c, t in ((found[network, "guided", s], t) for s, t in zip(seeds, target, strict=True))
        ]
        reached = sum(n <= BUDGET for n in needed)
        lines += [
            "",
            f"Board by board, guided search has the hypervolume that NSGA-II has after {TARGET} measurements after "
            f"{np.median(needed):.0f} of them (median); within {BUDGET} on {reached} of {len(seeds)} boards.",
        ]
        figure, ax = plt.subplots(figsize=(3.5, 2.9), layout="constrained")
        for algorithm, (_, budget) in ALGORITHMS.items():
            at = [n for n in AT if n <= budget]
            # Boards differ more than algorithms do, so each is its own measure.
            values = [
                [_at(found[network, algorithm, s], n) / t for n in at] for s, t in zip(seeds, target, strict=True)
            ]
            (line,) = ax.plot(at, np.median(values, axis=0), label=LABELS[algorithm], lw=1.4)
            ax.fill_between(at, *np.quantile(values, (0.25, 0.75), axis=0), alpha=0.2, color=line.get_color(), lw=0)
        ax.axhline(1.0, color="0.4", lw=0.8, ls="--")
        ax.set(xscale="log", xlabel="measurements", ylabel=f"hypervolume, NSGA-II at {TARGET} = 1")
        ax.set_xticks([30, 100, 300, 1000], ["30", "100", "300", "1000"])
        figure.legend(fontsize=7, frameon=False, loc="outside upper center", ncols=2)
        ax.grid(alpha=0.3, lw=0.4)
        for ending in ("pdf", "png"):
            with whole_file(HERE / f"{network}.{ending}") as temporary:
                figure.savefig(temporary, dpi=200)
        plt.close(figure)
    (HERE / "table.md").write_text("\n".join([*lines, ""]), encoding="utf-8")
    print("\n".join(lines))


def _at(curve: dict, n: int) -> float:
    """Hypervolume after at most n measurements."""
    return [v for m, v in zip(curve["measurements"], curve["hypervolume"], strict=True) if m <= n][-1]


def _median(found: dict, network: str, algorithm: str, n: int, seeds: range) -> float | None:
    if n > ALGORITHMS[algorithm][1]:
        return None
    return float(np.median([_at(found[network, algorithm, s], n) for s in seeds]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--one", nargs=3, metavar=("NETWORK", "ALGORITHM", "SEED"), help="one run alone")
    arguments = parser.parse_args()
    if arguments.one:
        network, algorithm, seed = arguments.one
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            curve = one(network, algorithm, int(seed))
        with whole_file(_file((network, algorithm, int(seed)))) as temporary:
            temporary.write_text(json.dumps(curve), encoding="utf-8")
        return
    seeds = range(arguments.seeds)
    report(curves(list(NETWORKS), list(ALGORITHMS), seeds, arguments.jobs), seeds)


if __name__ == "__main__":
    main()
