"""Latency and energy reductions over the vendor's default, beside the figures of arXiv 2602.04717.

    python experiments/e01_paper_tables/run.py [--seeds 5]

Runs each experiment with each seed in outputs/e01_paper_tables/, then writes table.csv and table.md beside this file.
A finished run is not repeated, an unfinished one goes on: remove that folder after a change of the code.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from common import above_zero, parser_of, spread, table_of, write_csv, write_page

RUNS = Path("outputs") / "e01_paper_tables"

#: Reductions of latency and energy that the paper reports, on the chip (our mlp_b_two_chips stands for its two chips).
PAPER = {
    "mlp_a": ("-35 %", "about -30 %"),
    "mlp_b": ("-30 %", "about -40 %"),
    "mlp_b_two_chips": ("-32 %", "about -38 %"),
}
ALGORITHMS = ("nsga2", "es")

COMPARABLE = """\
**What is comparable**: the method (partition and placement evolved together against the vendor's default), the kind of
network (sparse MLPs) and, loosely, the size of the gain. **What is not**: the paper measures a chip and its own two
networks, whose sizes, weights and activity were not at hand; the figures here come from the analytic model with the
constants of `conf/system/loihi2.yaml`, many of them assumptions (each is labelled), for networks generated here.
`mlp_b_two_chips` is a larger network than `mlp_b`, one that does not fit one chip.

On one chip the vendor's default uses few cores and is bound by the SynOps of its fullest core, so most of the latency
gain is the partition's, and simple rules have it too: compare with the best of them, the last row of each block. In
this model speed costs energy on one chip, because every further core a layer is cut into adds messages; the paper saw
energy fall together with latency, as it does here only in the case of two chips, which is bound by links. The
percentages say what the search finds under this model, not what a board would show.
"""


def main() -> None:
    parser = parser_of(__doc__, __file__)
    parser.add_argument("--seeds", type=above_zero, default=5, help="runs of each algorithm")
    parser.add_argument("--experiments", nargs="+", choices=list(PAPER), default=list(PAPER), help="which of them")
    parser.add_argument("--evaluations", type=above_zero, help="of a run, instead of the default budget")
    arguments = parser.parse_args()
    rows, notes = [], []
    for experiment in arguments.experiments:
        runs = {
            algorithm: [run(experiment, algorithm, seed, arguments.evaluations) for seed in range(arguments.seeds)]
            for algorithm in ALGORITHMS
        }
        rows += rows_of(experiment, runs)
        notes += notes_of(experiment, runs["nsga2"][0])
    write_csv(arguments.out / "table.csv", rows)
    budget = "default budget" if arguments.evaluations is None else f"{arguments.evaluations} evaluations"
    lines = [
        "# Change over vendor_default",
        "",
        f"Median (range) of {arguments.seeds} seeds, {budget}; made by `python experiments/e01_paper_tables/run.py`.",
        "",
        table_of([{name.replace("_", " "): cell for name, cell in row.items()} for row in rows]),
        "",
        *notes,
        COMPARABLE,
    ]
    write_page(arguments.out / "table.md", lines)


def run(experiment: str, algorithm: str, seed: int, evaluations: int | None) -> Path:
    """Return the folder of a finished run."""
    budget = "" if evaluations is None else f"_n{evaluations}"
    folder = RUNS / f"{experiment}_{algorithm}_s{seed}{budget}"
    if not (folder / "summary.json").exists() or (folder / "checkpoint.pkl").exists():
        command = [sys.executable, "-m", "neuromap_moo", f"+experiment={experiment}", f"algorithm={algorithm}"]
        command += [f"seed={seed}", f"output={folder}"]
        if evaluations is not None:
            command.append(f"budget.evaluations={evaluations}")
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def rows_of(experiment: str, runs: dict[str, list[Path]]) -> list[dict[str, str]]:
    """One row per algorithm and one for the best simple rule."""
    rows = []
    for algorithm, folders in runs.items():
        best = [json.loads((folder / "summary.json").read_text(encoding="utf-8"))["best"] for folder in folders]
        latency, energy = (
            [run_best[name]["reduction_vs_vendor_default"] for run_best in best] for name in ("latency_s", "energy_j")
        )
        rows.append(row_of(experiment, algorithm, latency, energy, [energy_at_fastest(f) for f in folders]))
    baselines = records(runs["nsga2"][0] / "baselines.csv")
    vendor = vendor_default(baselines)
    simple = fastest(baselines)
    gain = {c: 1 - float(simple[c]) / float(vendor[c]) for c in ("latency_s", "energy_j")}
    rows.append(row_of(experiment, simple["name"], [gain["latency_s"]], [gain["energy_j"]], [gain["energy_j"]]))
    return rows


def notes_of(experiment: str, folder: Path) -> list[str]:
    """Say where the vendor's rule had to be bent."""
    note = vendor_default(records(folder / "baselines.csv"))["note"]
    return [f"`vendor_default` of {experiment}: {note}.", ""] if note else []


def energy_at_fastest(folder: Path) -> float:
    """Energy gain over vendor_default of the fastest mapping that a run found."""
    vendor = vendor_default(records(folder / "baselines.csv"))
    return 1 - float(fastest(records(folder / "front.csv"))["energy_j"]) / float(vendor["energy_j"])


def records(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def vendor_default(baselines: list[dict[str, str]]) -> dict[str, str]:
    return next(b for b in baselines if b["name"] == "vendor_default")


def fastest(mappings: list[dict[str, str]]) -> dict[str, str]:
    return min(mappings, key=lambda m: float(m["latency_s"]))


def row_of(
    experiment: str, by: str, latency: list[float], energy: list[float], at_fastest: list[float]
) -> dict[str, str]:
    return {
        "experiment": experiment,
        "by": by,
        "latency_of_the_fastest": change(latency),
        "energy_of_the_fastest": change(at_fastest),
        "energy_of_the_most_frugal": change(energy),
        "paper_latency": PAPER[experiment][0],
        "paper_energy": PAPER[experiment][1],
    }


def change(gains: Sequence[float]) -> str:
    """Median change over vendor_default in per cent, with the range over the seeds."""
    return spread([-100 * gain for gain in gains], "{:+.1f}", " %", narrow=None if len(gains) > 1 else 0.0)


if __name__ == "__main__":
    main()
