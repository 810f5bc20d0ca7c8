"""What each ingredient of the search is worth: the default search, and the same with one ingredient taken out.

    python experiments/e02_ablation/run.py [--seeds 10] [--seconds 10] [--jobs 2]

Every run is a file in outputs/e02_ablation/, one that is there is not repeated: remove that folder after a change of
the code. Writes table.csv and table.md beside this file.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

import neuromap_moo as nm
from neuromap_moo.annealing import run as annealing_run
from neuromap_moo.evolution import memetic, operators
from neuromap_moo.files import whole_file

HERE = Path(__file__).resolve().parent
RUNS = Path("outputs") / "e02_ablation"
INSTANCES = ("mlp_b", "mlp_b_two_chips", "placement_120")
FULL = "everything"


def without_seeds() -> None:
    """Begin with random genotypes alone, and let runs start from such."""
    sample = operators.MappingSampling._do

    def drawn(self: Any, problem: Any, n_samples: int, *args: Any, random_state: Any = None, **kwargs: Any) -> Any:
        self.seeds = self.seeds[:0]
        self.partitions = problem.encoding.random(len(self.partitions), random_state)
        return sample(self, problem, n_samples, *args, random_state=random_state, **kwargs)

    operators.MappingSampling._do = drawn
    without_pool()


def without_crossover() -> None:
    """Leave both parents as they are."""
    shares = operators.Variation.shares

    def copies(self: Any, kind: str, problem: Any) -> Any:
        odds = shares(self, kind, problem)
        return np.eye(odds.size)[0] if kind == "crossover" else odds

    operators.Variation.shares = copies


def without_adaptation() -> None:
    """Draw all operators equally often, whatever they have made."""
    operators.Variation.learn = lambda self, X, F, made_by: self.local.observe(X, F)


def without_pool() -> None:
    """Start every annealing run from the archive."""
    memetic.LocalSearch._start = lambda self, problem, scalarisation, best, n_moves, rng: best


def without_norm() -> None:
    """Judge moves by the busiest link throughout."""
    annealing_run.SOFT_PART = 0.0


#: What is taken out: how, and options of the search.
VARIANTS: dict[str, tuple[Callable[[], None] | None, dict[str, Any]]] = {
    FULL: (None, {}),
    "no memetic step": (None, {"local_share": 0.0}),
    "no norm over links": (without_norm, {}),
    "no pool of starts": (without_pool, {}),
    "no seeds": (without_seeds, {}),
    "no crossover": (without_crossover, {}),
    "no adaptation": (without_adaptation, {}),
}

Task = tuple[str, str, int, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10.0, help="of every run")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; no more than there are free cores")
    arguments = parser.parse_args()
    seeds = range(arguments.seeds)
    tasks = [
        (instance, variant, seed, arguments.seconds)
        for seed in seeds
        for instance in INSTANCES
        for variant in VARIANTS
        if not path_of(instance, variant, seed).exists()
    ]
    os.environ.update({f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")})
    # A process for each run: what one takes out must not be missing in the next.
    with multiprocessing.get_context("spawn").Pool(arguments.jobs, maxtasksperchild=1) as pool:
        for n, line in enumerate(pool.imap_unordered(work, tasks, chunksize=1), 1):
            print(f"[{n}/{len(tasks)}] {line}", file=sys.stderr, flush=True)
    rows = [row for instance in INSTANCES for row in rows_of(instance, seeds)]
    with open(HERE / "table.csv", "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    text = markdown(rows, len(seeds), arguments.seconds)
    (HERE / "table.md").write_text(text, encoding="utf-8")
    print(text)


def path_of(instance: str, variant: str, seed: int) -> Path:
    return RUNS / f"{instance}_{variant.replace(' ', '_')}_s{seed}.json"


def work(task: Task) -> str:
    instance, variant, seed, seconds = task
    take_out, options = VARIANTS[variant]
    known = nm.benchmark(instance)
    known.problem.reference_point  # noqa: B018 (made before the clock starts)
    nm.search(known.problem, evaluations=200, seed=seed)  # compiles what is compiled
    if take_out is not None:
        take_out()
    found = nm.search(known.problem, evaluations=None, seconds=seconds, seed=seed, options=options)
    result = {
        "hypervolume": known.relative_hypervolume(found.front.objectives),
        "ends": found.front.objectives.min(axis=0).tolist(),
        "evaluations": found.evaluations,
    }
    with whole_file(path_of(instance, variant, seed)) as temporary:
        temporary.write_text(json.dumps(result), encoding="utf-8")
    return f"{instance}, {variant}, seed {seed}: {result['hypervolume']:.4f}"


def rows_of(instance: str, seeds: range) -> list[dict[str, object]]:
    runs = {v: [json.loads(path_of(instance, v, s).read_text(encoding="utf-8")) for s in seeds] for v in VARIANTS}
    full = np.array([r["hypervolume"] for r in runs[FULL]])
    ends = np.median([r["ends"] for r in runs[FULL]], axis=0)
    rows: list[dict[str, object]] = []
    for variant, of_variant in runs.items():
        volume = np.array([r["hypervolume"] for r in of_variant])
        gain = full - volume
        ratio = np.median([r["ends"] for r in of_variant], axis=0) / ends - 1
        low, middle, high = np.quantile(volume, (0.25, 0.5, 0.75))
        rows.append(
            {
                "instance": instance,
                "taken out": variant.removeprefix("no ") if variant != FULL else "nothing",
                "hypervolume": f"{middle:.4f} ({low:.4f} to {high:.4f})",
                "loss": f"{100 * (1 - middle / np.median(full)):+.2f} %",
                "worse in": f"{(gain > 0).sum()}/{len(seeds)}",
                "p": f"{wilcoxon(gain).pvalue:.3f}" if gain.any() else "",
                "ends": ", ".join(f"{100 * r:+.2f} %" for r in ratio),
                "evaluations": f"{np.median([r['evaluations'] for r in of_variant]):.0f}",
            }
        )
    return rows


def markdown(rows: list[dict[str, object]], n_seeds: int, seconds: float) -> str:
    head = list(rows[0])
    lines = [
        "# What each ingredient is worth",
        "",
        f"{n_seeds} seeds of {seconds:g} s each, one thread a run; made by `python experiments/e02_ablation/run.py`.",
        "Hypervolume (median with quartiles) is relative to the best-known front of the instance; loss and ends",
        "compare medians with the search that has everything (a loss below zero: better without); p is of Wilcoxon's",
        "signed-rank test, paired by seed, without correction.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(str(row[name]) for name in head) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
