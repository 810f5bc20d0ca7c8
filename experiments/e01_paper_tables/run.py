"""Latency and energy reductions over the vendor's default, beside the figures of arXiv 2602.04717.

    python experiments/e01_paper_tables/run.py [--seeds 5]

Runs each experiment with each seed in outputs/e01_paper_tables/, then writes table.csv and table.md beside this file.
A finished run is not repeated, an unfinished one goes on: remove that folder after a change of the code.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    for experiment in PAPER:
        for algorithm in ALGORITHMS:
            for seed in seeds:
                run(experiment, algorithm, seed)
    rows = [row for experiment in PAPER for row in rows_of(experiment, seeds)]
    notes = [note for experiment in PAPER for note in notes_of(experiment)]
    with open(HERE / "table.csv", "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (HERE / "table.md").write_text(markdown(rows, notes, len(seeds)), encoding="utf-8")
    print(markdown(rows, notes, len(seeds)))


def run(experiment: str, algorithm: str, seed: int) -> None:
    folder = RUNS / f"{experiment}_{algorithm}_s{seed}"
    if (folder / "summary.json").exists() and not (folder / "checkpoint.pkl").exists():
        return
    command = [sys.executable, "-m", "neuromap_moo", f"+experiment={experiment}", f"algorithm={algorithm}"]
    subprocess.run([*command, f"seed={seed}", f"output={folder}"], check=True, stdout=subprocess.DEVNULL)


def rows_of(experiment: str, seeds: range) -> list[dict[str, object]]:
    """One row per algorithm and one for the best simple rule."""
    rows = []
    for algorithm in ALGORITHMS:
        runs = [json.loads((RUNS / f"{experiment}_{algorithm}_s{s}" / "summary.json").read_text()) for s in seeds]
        gains = {
            name: [r["best"][name]["reduction_vs_vendor_default"] for r in runs] for name in ("latency_s", "energy_j")
        }
        at_fastest = [energy_at_fastest(RUNS / f"{experiment}_{algorithm}_s{s}") for s in seeds]
        rows.append(row_of(experiment, algorithm, gains["latency_s"], gains["energy_j"], at_fastest))
    with open(RUNS / f"{experiment}_nsga2_s0" / "baselines.csv", newline="") as f:
        baselines = list(csv.DictReader(f))
    vendor = next(b for b in baselines if b["name"] == "vendor_default")
    best = min(baselines, key=lambda b: float(b["latency_s"]))
    gain = {c: 1 - float(best[c]) / float(vendor[c]) for c in ("latency_s", "energy_j")}
    rows.append(row_of(experiment, best["name"], [gain["latency_s"]], [gain["energy_j"]], [gain["energy_j"]]))
    return rows


def notes_of(experiment: str) -> list[str]:
    """Say where the vendor's rule had to be bent."""
    with open(RUNS / f"{experiment}_nsga2_s0" / "baselines.csv", newline="") as f:
        note = next(b["note"] for b in csv.DictReader(f) if b["name"] == "vendor_default")
    return [f"`vendor_default` of {experiment}: {note}.", ""] if note else []


def energy_at_fastest(folder: Path) -> float:
    with open(folder / "front.csv", newline="") as f:
        fastest = min(csv.DictReader(f), key=lambda row: float(row["latency_s"]))
    with open(folder / "baselines.csv", newline="") as f:
        vendor = next(b for b in csv.DictReader(f) if b["name"] == "vendor_default")
    return 1 - float(fastest["energy_j"]) / float(vendor["energy_j"])


def row_of(
    experiment: str, by: str, latency: list[float], energy: list[float], at_fastest: list[float]
) -> dict[str, object]:
    return {
        "experiment": experiment,
        "by": by,
        "latency_of_the_fastest": spread(latency),
        "energy_of_the_fastest": spread(at_fastest),
        "energy_of_the_most_frugal": spread(energy),
        "paper_latency": PAPER[experiment][0],
        "paper_energy": PAPER[experiment][1],
    }


def spread(gains: list[float]) -> str:
    """Median change over vendor_default in per cent, with the range over the seeds."""
    text = f"{-100 * statistics.median(gains):+.1f} %"
    return text if len(gains) == 1 else f"{text} ({-100 * max(gains):+.1f} to {-100 * min(gains):+.1f})"


def markdown(rows: list[dict[str, object]], notes: list[str], n_seeds: int) -> str:
    head = list(rows[0])
    lines = [
        "# Change over vendor_default",
        "",
        f"Median (range) of {n_seeds} seeds, default budget; made by `python experiments/e01_paper_tables/run.py`.",
        "",
        "| " + " | ".join(name.replace("_", " ") for name in head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(str(row[name]) for name in head) + " |" for row in rows),
        "",
        *notes,
        COMPARABLE,
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
