"""Rows, tables, tests, figures and verdicts from the runs of the quality benchmark."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import moocore
import numpy as np
from matplotlib.figure import Figure
from quality_rivals import ENDS_ONLY, Record
from scipy.stats import wilcoxon

import neuromap_moo as nm
from neuromap_moo.arrays import FloatArray
from neuromap_moo.files import whole_file
from neuromap_moo.models.metrics import minimised
from neuromap_moo.results.benchmark.instances import INSTANCES
from neuromap_moo.results.style import save_figure

sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))

from common import spread, table, table_of

QUARTILES = (0.25, 0.75)
SIGNIFICANT = 0.05
HISTORY_HEAD = "| date | version | instances | s x seeds |"

#: What the project promises of its default search.
END_TOLERANCE, GRID_SECONDS, GRID_SHARE, QAP_SECONDS, QAP_TOLERANCE, STOCK_FACTOR = 1.01, 15.0, 0.7, 6.0, 0.005, 2.0
STOCK_INSTANCES = ("placement_120", "grid_120_links", "blocks_120_links", "er_120_links")

Criterion = tuple[str, str, str]  # name, verdict, what was found


@dataclass(frozen=True)
class Row:
    """One run against the best-known front; `excess` (m,) is how far each end is above the best known, relatively."""

    record: Record
    relative_hypervolume: float
    igd_plus: float
    excess: FloatArray

    def __getattr__(self, key: str) -> Any:
        """Look up facts of the run by name."""
        try:
            return self.record.facts[key]
        except KeyError:
            raise AttributeError(key) from None


@dataclass(frozen=True)
class Comparison:
    """Ours against a rival in one measure, paired by seed; `p` after Holm's correction over the instance's rivals."""

    rival: str
    measure: str
    better: int
    pairs: int
    p: float

    @property
    def verdict(self) -> str:
        if self.p > SIGNIFICANT:
            return "undecided"
        return "better" if 2 * self.better > self.pairs else "worse"


@dataclass(frozen=True)
class Summary:
    """Everything the tables are made of; the first algorithm is ours."""

    rows: tuple[Row, ...]
    known: Mapping[str, nm.Benchmark]
    algorithms: tuple[str, ...]

    @property
    def ours(self) -> str:
        return self.algorithms[0]

    def of(self, instance: str, algorithm: str) -> dict[int, Row]:
        """Rows by seed."""
        return {r.seed: r for r in self.rows if (r.instance, r.algorithm) == (instance, algorithm)}

    def median(self, instance: str, algorithm: str) -> float:
        """Median relative hypervolume; nan where there is no run."""
        values = [r.relative_hypervolume for r in self.of(instance, algorithm).values()]
        return float(np.median(values)) if values else float("nan")

    def comparisons(self, instance: str) -> list[Comparison]:
        """Wilcoxon's signed-rank test of ours against each rival, in what the rival is after."""
        objectives = INSTANCES[instance].objectives
        found = []
        for rival in self.algorithms[1:]:
            measures = ["hypervolume"]
            if rival in ENDS_ONLY:
                measures = [c for c in objectives if not rival.startswith("scipy") or c == "message_hops"]
            for measure in measures:
                a, b = (self._values(instance, name, measure) for name in (self.ours, rival))
                seeds = sorted(a.keys() & b.keys())
                if seeds:
                    gain = np.array([a[s] - b[s] for s in seeds])
                    p = float(wilcoxon(gain).pvalue) if gain.any() else 1.0
                    found.append(Comparison(rival, measure, int((gain > 0).sum()), len(seeds), p))
        adjusted = holm([c.p for c in found])
        return [Comparison(c.rival, c.measure, c.better, c.pairs, p) for c, p in zip(found, adjusted, strict=True)]

    def _values(self, instance: str, algorithm: str, measure: str) -> dict[int, float]:
        """Values by seed, the larger the better."""
        rows = self.of(instance, algorithm)
        if measure == "hypervolume":
            return {s: r.relative_hypervolume for s, r in rows.items()}
        at = INSTANCES[instance].objectives.index(measure)
        return {s: -float(r.excess[at]) for s, r in rows.items()}

    @cached_property
    def markdown(self) -> str:
        """Tables of all instances."""
        budget = sorted({r.budget_s for r in self.rows})
        n_seeds = len({r.seed for r in self.rows})
        lines = [
            "# Quality of the fronts",
            "",
            f"Up to {n_seeds} seeds of {', '.join(f'{b:g}' for b in budget)} s each; medians with quartiles.",
            "Hypervolume and ends are relative to the best-known front (1 and 0 % are as good), IGD+ is in its ranges.",
            f"p is of Wilcoxon's signed-rank test of {self.ours}, paired by seed, after Holm's correction over the",
            "instance's tests; wins counts the seeds in which it is ahead. Rivals for the ends alone have no",
            "hypervolume. A rival whose step cannot be broken off may take longer than the others.",
        ]
        for instance in self.known:
            lines += ["", *self._table(instance)]
        overall = self._overall()
        return "\n".join([*lines, "", *overall]) + "\n"

    def _table(self, instance: str) -> list[str]:
        objectives = INSTANCES[instance].objectives
        cells: list[dict[str, str]] = []
        tests = self.comparisons(instance)
        for algorithm in self.algorithms:
            rows = list(self.of(instance, algorithm).values())
            if not rows:
                continue
            after_all = algorithm not in ENDS_ONLY
            verdicts = [
                f"{'' if c.measure == 'hypervolume' else c.measure + ': '}{c.verdict} (p {c.p:.2g}, wins "
                f"{c.better}/{c.pairs})"
                for c in tests
                if c.rival == algorithm
            ]
            excess = 100 * np.array([r.excess for r in rows])
            volumes = [r.relative_hypervolume for r in rows]
            ends = [spread(column, "{:+.2f} %", quantiles=QUARTILES) for column in excess.T.tolist()]
            cells.append(
                {
                    "algorithm": algorithm,
                    "runs": str(len(rows)),
                    "hypervolume": spread(volumes, "{:.4f}", quantiles=QUARTILES) if after_all else "",
                    "IGD+": f"{np.median([r.igd_plus for r in rows]):.4f}" if after_all else "",
                    **dict(zip(objectives, ends, strict=True)),
                    "evaluations": f"{np.median([r.evaluations for r in rows]):.0f}",
                    "moves": f"{np.median([r.moves for r in rows]):.3g}",
                    "test": "; ".join(verdicts),
                }
            )
        return [f"## {instance}: {self.known[instance].description}", "", *([table_of(cells)] if cells else [])]

    def _overall(self) -> list[str]:
        """Over instances: Wilcoxon's test on their medians, as instances are what one generalises over."""
        found = []
        for rival in self.algorithms[1:]:
            if rival in ENDS_ONLY:
                continue
            gain = np.array([self.median(i, self.ours) - self.median(i, rival) for i in self.known])
            gain = gain[np.isfinite(gain)]
            if gain.size:
                p = float(wilcoxon(gain).pvalue) if gain.any() else 1.0
                found.append((rival, gain.size, int((gain > 0).sum()), p))
        adjusted = holm([p for *_, p in found])
        rows = [[*map(str, cells), f"{p:.2g}"] for (*cells, _), p in zip(found, adjusted, strict=True)]
        return ["## All instances", "", table(rows, ("rival", "instances", "ahead", "p (Holm)"))] if rows else []


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p-values after Holm, Scandinavian Journal of Statistics 6(2), 1979."""
    order, n, largest = np.argsort(p), len(p), 0.0
    adjusted = [0.0] * n
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (n - rank) * p[i]))
        adjusted[i] = largest
    return adjusted


def write(
    records: Sequence[Record], known: Mapping[str, nm.Benchmark], algorithms: Sequence[str], out: Path
) -> Summary:
    """Write results.csv, table.md and a figure per instance; the same runs give the same files."""
    rows = tuple(_row(record, known[record.facts["instance"]]) for record in records)
    summary = Summary(rows, known, tuple(algorithms))
    ends = max(len(b.reference_point) for b in known.values())
    columns = ("instance", "algorithm", "seed", "budget_s", "seconds", "setup_s", "evaluations", "moves")
    with whole_file(out / "results.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f, lineterminator="\n")
        excess = [f"excess_{i}" for i in range(1, ends + 1)]
        writer.writerow([*columns, "relative_hypervolume", "igd_plus", *excess])
        for r in rows:
            told = [getattr(r, c) for c in columns]
            padded = [*r.excess.tolist(), *[""] * (ends - r.excess.size)]
            writer.writerow([*told, r.relative_hypervolume, r.igd_plus, *padded])
    with whole_file(out / "table.md") as temporary:
        temporary.write_text(summary.markdown, encoding="utf-8")
    for instance in known:
        save_figure(anytime(summary, instance), out, f"anytime_{instance}")
    return summary


def _row(record: Record, known: nm.Benchmark) -> Row:
    low = known.objectives.min(axis=0)
    excess = np.round(record.F.min(axis=0) / low - 1, 12) + 0.0  # sums in another order are no difference
    return Row(record, known.relative_hypervolume(record.F), known.igd_plus(record.F), excess)


def anytime(summary: Summary, instance: str) -> Figure:
    """Median hypervolume against seconds, with the band between the quartiles."""
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    ax = figure.subplots()
    known = summary.known[instance]
    whole = known.hypervolume(known.objectives)
    for algorithm in summary.algorithms:
        rows = list(summary.of(instance, algorithm).values())
        if not rows or algorithm == "annealing_single":
            continue
        seconds = rows[0].record.history[:, 0]
        low, middle, high = np.quantile([r.record.history[:, 2] / whole for r in rows], (0.25, 0.5, 0.75), axis=0)
        (line,) = ax.plot(seconds, middle, label=algorithm, lw=2 if algorithm == summary.ours else 1)
        ax.fill_between(seconds, low, high, color=line.get_color(), alpha=0.15, lw=0)
    ax.axhline(1.0, color="0.6", lw=0.8, ls=":")
    ax.set(xscale="log", xlabel="time / s", ylabel="hypervolume / best known", title=instance)
    ax.legend(fontsize="small", frameon=False)
    return figure


def acceptance(summary: Summary) -> list[Criterion]:
    """Say for each promise, and each instance it is about, whether the runs keep it."""
    found = []
    for name in summary.known:
        found += [_against_annealing(summary, name), *_ends(summary, name)]
        if INSTANCES[name].family == "planted":
            found.append(_planted(summary, name))
        if INSTANCES[name].family == "qap":
            found.append(_qap(summary, name))
        if name in STOCK_INSTANCES:
            found.append(_stock(summary, name))
    return found


def _judge(name: str, kept: bool, text: str) -> Criterion:
    return name, "PASS" if kept else "FAIL", text


def _against_annealing(summary: Summary, instance: str) -> Criterion:
    name = f"hypervolume, {instance}"
    a, b = summary.median(instance, summary.ours), summary.median(instance, "annealing")
    if np.isnan(a) or np.isnan(b):
        return name, "SKIP", "needs runs of annealing"
    return _judge(name, a >= b, f"{a:.4f}, multi-weight annealing {b:.4f}")


def _ends(summary: Summary, instance: str) -> list[Criterion]:
    found = []
    a, b = (list(summary.of(instance, k).values()) for k in (summary.ours, "annealing_single"))
    for i, objective in enumerate(INSTANCES[instance].objectives):
        name = f"end {objective}, {instance}"
        if not a or not b:
            found.append((name, "SKIP", "needs runs of annealing_single"))
            continue
        ratio = np.median([1 + r.excess[i] for r in a]) / np.median([1 + r.excess[i] for r in b])
        found.append(_judge(name, ratio <= END_TOLERANCE, f"{100 * (ratio - 1):+.2f} % of annealing on it alone"))
    return found


def _planted(summary: Summary, instance: str) -> Criterion:
    name = f"planted optimum, {instance}"
    rows = list(summary.of(instance, summary.ours).values())
    optimum = summary.known[instance].optimum
    if not rows or optimum is None:
        return name, "SKIP", "needs runs of ours"
    hits = sum(r.record.at(GRID_SECONDS)[3] <= optimum * (1 + 1e-9) for r in rows)
    text = f"{hits} of {len(rows)} seeds within {min(GRID_SECONDS, rows[0].budget_s):g} s"
    return _judge(name, hits >= GRID_SHARE * len(rows), text)


def _qap(summary: Summary, instance: str) -> Criterion:
    name = f"hops of the grid, {instance}"
    rows = list(summary.of(instance, summary.ours).values())
    if not rows:
        return name, "SKIP", "needs runs of ours"
    known = summary.known[instance]
    best = known.objectives[0, 0] if known.optimum is None else known.optimum
    excess = float(np.mean([r.record.at(QAP_SECONDS)[3] / best - 1 for r in rows]))
    text = f"{100 * excess:+.3f} % above the {'best known' if known.optimum is None else 'optimum'} on average"
    return _judge(name, excess <= QAP_TOLERANCE, f"{text} after {min(QAP_SECONDS, rows[0].budget_s):g} s")


def _stock(summary: Summary, instance: str) -> Criterion:
    """Hypervolume within 1.5 x vendor_default, whatever the instance's own reference point is."""
    name = f"against stock NSGA-II, {instance}"
    a, b = (list(summary.of(instance, k).values()) for k in (summary.ours, "stock_nsga2"))
    if not a or not b:
        return name, "SKIP", "needs runs of stock_nsga2"
    problem = summary.known[instance].problem
    vendor = problem.evaluate_mappings([problem.named_baselines["vendor_default"].mapping])
    point = 1.5 * minimised(vendor, problem.objectives)[0]
    one, two = (
        np.median([moocore.hypervolume(r.record.F / point, ref=np.ones(point.size)) for r in x]) for x in (a, b)
    )
    return _judge(name, one >= STOCK_FACTOR * two, f"{one:.4f} against {two:.4f}, {one / max(two, 1e-12):.2f} times")


def history_row(summary: Summary, criteria: Sequence[Criterion], settings: Mapping[str, Any]) -> str:
    """One line for docs/benchmarks.md: medians over the instances of the median relative hypervolume."""
    day = max(r.date for r in summary.rows)
    version = f"{settings['versions']['neuromap-moo'] or nm.__version__} {(settings['git_revision'] or '')[:8]}".strip()
    n_seeds = len({r.seed for r in summary.rows})
    cells = [day, version, len(summary.known), f"{float(settings['seconds']):g} x {n_seeds}"]
    for algorithm in (summary.ours, "annealing", "stock_nsga2", "es", "random"):
        medians = [m for m in (summary.median(i, algorithm) for i in summary.known) if not np.isnan(m)]
        text = f"{np.median(medians):.3f}" if medians else "-"
        cells.append(f"{algorithm} {text}" if algorithm == summary.ours else text)
    won = sum(summary.median(i, summary.ours) >= summary.median(i, "annealing") for i in summary.known)
    judged = [v for _, v, _ in criteria if v != "SKIP"]
    cells += [f"{won}/{len(summary.known)}", f"{judged.count('PASS')}/{len(judged)}"]
    return f"| {' | '.join(map(str, cells))} |"


def add_to_history(page: Path, row: str) -> None:
    """Write a row under the history's head; a row of the same date, version, instances and budget is replaced."""
    lines = page.read_text(encoding="utf-8").splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith(HISTORY_HEAD))
    end = head + 2
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    key = row.split("|")[1:5]
    kept = [line for line in lines[head + 2 : end] if line.split("|")[1:5] != key]
    lines[head + 2 : end] = [*kept, row]
    with whole_file(page) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
