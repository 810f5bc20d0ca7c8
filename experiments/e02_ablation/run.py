"""What each ingredient of the search is worth: the default search, and the same with one ingredient taken out.

    python experiments/e02_ablation/run.py [--seeds 10] [--seconds 10] [--jobs 2]

Every run is a file in outputs/e02_ablation/, one that is there is not repeated: remove that folder after a change of
the code. Writes table.csv and table.md beside this file.
"""

from __future__ import annotations

import json
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

sys.path.append(str(Path(__file__).resolve().parents[1]))

from common import above_zero, in_processes, parser_of, spread, table_of, write_csv, write_page

RUNS = Path("outputs") / "e02_ablation"
INSTANCES = ("mlp_b", "mlp_b_two_chips", "placement_120")
FULL = "everything"


def replace(of: object, name: str, value: object) -> None:
    """Put something in the place of a part of the search, for the rest of this process."""
    if not hasattr(of, name):
        raise SystemExit(f"{of!r} has no '{name}' any more: this script must follow the change")
    setattr(of, name, value)


def without_seeds() -> None:
    """Begin with random genotypes alone, and let runs start from such."""
    sample = operators.MappingSampling._do

    def drawn(self: Any, problem: Any, n_samples: int, *args: Any, random_state: Any = None, **kwargs: Any) -> Any:
        self.seeds = self.seeds[:0]
        self.partitions = problem.encoding.random(len(self.partitions), random_state)
        return sample(self, problem, n_samples, *args, random_state=random_state, **kwargs)

    replace(operators.MappingSampling, "_do", drawn)
    without_pool()


def without_crossover() -> None:
    """Leave both parents as they are."""
    shares = operators.Variation.shares

    def copies(self: Any, kind: str, problem: Any) -> Any:
        odds = shares(self, kind, problem)
        return np.eye(odds.size)[0] if kind == "crossover" else odds

    replace(operators.Variation, "shares", copies)


def without_adaptation() -> None:
    """Draw all operators equally often, whatever they have made."""
    replace(operators.Variation, "learn", lambda self, X, F, made_by: self.local.observe(X, F))


def without_pool() -> None:
    """Start every annealing run from the archive."""
    replace(memetic.LocalSearch, "_start", lambda self, problem, scalarisation, best, n_moves, rng: best)


def without_norm() -> None:
    """Judge moves by the busiest link throughout."""
    replace(annealing_run, "SOFT_PART", 0.0)


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
    parser = parser_of(__doc__, __file__)
    parser.add_argument("--seeds", type=above_zero, default=10, help="runs of each variant")
    parser.add_argument("--seconds", type=float, default=10.0, help="of every run")
    parser.add_argument("--jobs", type=above_zero, default=1, help="runs at a time; no more than there are free cores")
    parser.add_argument("--instances", nargs="+", choices=INSTANCES, default=INSTANCES, help="which of them")
    parser.add_argument(
        "--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help=f"which of them; '{FULL}' is always run"
    )
    arguments = parser.parse_args()
    n_seeds, seconds = arguments.seeds, arguments.seconds
    seeds = range(n_seeds)
    variants = list(dict.fromkeys((FULL, *arguments.variants)))
    tasks = [(i, v, seed, seconds) for seed in seeds for i in arguments.instances for v in variants]
    # A process for each run: what one takes out must not be missing in the next.
    for _ in in_processes(work, [task for task in tasks if not path_of(task).exists()], arguments.jobs, fresh=True):
        pass
    runs = {task: json.loads(path_of(task).read_text(encoding="utf-8")) for task in tasks}
    rows = []
    for instance in arguments.instances:
        rows += rows_of(instance, {v: [runs[instance, v, seed, seconds] for seed in seeds] for v in variants})
    write_csv(arguments.out / "table.csv", rows)
    lines = [
        "# What each ingredient is worth",
        "",
        f"{n_seeds} seeds of {seconds:g} s each, one thread a run; made by `python experiments/e02_ablation/run.py`.",
        "Hypervolume (median with quartiles) is relative to the best-known front of the instance; loss and ends",
        "compare medians with the search that has everything (a loss below zero: better without); p is of Wilcoxon's",
        "signed-rank test, paired by seed, without correction.",
        "",
        table_of(rows),
    ]
    write_page(arguments.out / "table.md", lines)


def path_of(task: Task) -> Path:
    instance, variant, seed, seconds = task
    return RUNS / f"{instance}_{variant.replace(' ', '_')}_s{seed}_{seconds:g}s.json"


def work(task: Task) -> None:
    """Write what one run finds into a file."""
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
    with whole_file(path_of(task)) as temporary:
        temporary.write_text(json.dumps(result), encoding="utf-8")


def rows_of(instance: str, runs: dict[str, list[dict[str, Any]]]) -> list[dict[str, str]]:
    """One row per variant, of runs by variant and seed."""
    full = np.array([r["hypervolume"] for r in runs[FULL]])
    ends = np.median([r["ends"] for r in runs[FULL]], axis=0)
    rows = []
    for variant, of_variant in runs.items():
        volume = np.array([r["hypervolume"] for r in of_variant])
        gain = full - volume
        ratio = np.median([r["ends"] for r in of_variant], axis=0) / ends - 1
        rows.append(
            {
                "instance": instance,
                "taken out": variant.removeprefix("no ") if variant != FULL else "nothing",
                "hypervolume": spread(volume.tolist(), "{:.4f}", quantiles=(0.25, 0.75)),
                "loss": f"{100 * (1 - np.median(volume) / np.median(full)):+.2f} %",
                "worse in": f"{(gain > 0).sum()}/{gain.size}",
                "p": f"{wilcoxon(gain).pvalue:.3f}" if gain.any() else "",
                "ends": ", ".join(f"{100 * r:+.2f} %" for r in ratio),
                "evaluations": f"{np.median([r['evaluations'] for r in of_variant]):.0f}",
            }
        )
    return rows


if __name__ == "__main__":
    main()
