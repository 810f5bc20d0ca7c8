"""Pictures for papers: functions that take an Axes, and figures of a whole run as PDF and PNG."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from neuromap_moo.calibration.fit import Calibration
from neuromap_moo.evolution.operators import DRAWN
from neuromap_moo.models.metrics import COLUMNS, MAXIMISED, half_interval
from neuromap_moo.results.front import Front
from neuromap_moo.results.mesh_plot import mesh_figure
from neuromap_moo.results.run import ROBUSTNESS, Run, hypervolume
from neuromap_moo.results.style import ACCENT, COLUMN_INCHES, GREY, INK, figure_style, save_figure

PANELS_PER_ROW = 3
MARKERS = ("s", "^", "v", "D", "P", "X", "<", ">", "h", "p", "d", (4, 1, 0))


def pareto(ax: Any, front: Front, baselines: Front | None = None, x: int = 0, y: int = 1) -> None:
    """Draw objectives `x` and `y` of a front, its knee and the baselines; units on both axes."""
    F = front.objectives
    order = np.lexsort((F[:, y], F[:, x]))
    if F.shape[1] == 2:
        # What is attained between two mappings: the one at the smaller x where x is minimised, else the next.
        steps = "steps-pre" if front.objective_names[x] in MAXIMISED else "steps-post"
        ax.plot(F[order, x], F[order, y], "-", color=GREY, lw=0.8, zorder=1, drawstyle=steps)
    label = f"front ({len(front)} mapping{'s' * (len(front) != 1)})"
    if ROBUSTNESS in front.table:
        shade = {"c": front.table[ROBUSTNESS][order], "cmap": "Greys", "vmin": 0.0, "vmax": 1.0}
        label += ",\ndarker where robust"
        ax.scatter(F[order, x], F[order, y], s=9, ec=INK, lw=0.4, label=label, zorder=3, **shade)
    else:
        ax.plot(F[order, x], F[order, y], "o", color=INK, ms=2.8, label=label, zorder=3)
    wide = [half_interval(front.table, front.objective_names[i])[order] for i in (x, y)]
    if np.isfinite(wide).all() and np.any(wide):
        ax.errorbar(F[order, x], F[order, y], wide[1], wide[0], ls="", color=GREY, lw=0.7, zorder=2)
    ax.plot(F[front.knee, x], F[front.knee, y], "*", color=ACCENT, mec=INK, mew=0.5, ms=10, label="knee", zorder=4)
    if baselines is not None:
        B = baselines.objectives
        for i, (name, marker) in enumerate(zip(baselines.ids, itertools.cycle(MARKERS), strict=False)):
            style = {"marker": marker, "mfc": "white", "mec": INK, "mew": 0.8, "ms": 4.5, "ls": ""}
            ax.plot(B[i, x], B[i, y], **style, label=name, zorder=2)
    for axis, name in ((ax.xaxis, front.objective_names[x]), (ax.yaxis, front.objective_names[y])):
        _units(axis, name)
    ax.grid(True, lw=0.3, color="#dddddd", zorder=0)
    ax.margins(0.06)


def single_objective(ax: Any, front: Front, baselines: Front) -> None:
    """Draw the one objective of a front's best mapping beside the baselines as bars."""
    name = front.objective_names[0]
    values = [front.objectives[front.best(name), 0], *baselines.objectives[:, 0]]
    ax.barh(range(len(values)), values, color=[INK] + ["#c8c8c8"] * len(baselines), edgecolor=INK, lw=0.6)
    ax.set_yticks(range(len(values)), ["search", *baselines.ids])
    ax.invert_yaxis()
    _units(ax.xaxis, name)


def convergence(ax: Any, run: Run) -> None:
    """Draw the hypervolume over evaluations, and the baselines' own hypervolume as the line to beat."""
    ax.plot(
        run.history_of("evaluations"),
        run.history_of("hypervolume"),
        "-",
        color=INK,
        lw=1.2,
        label=f"{run.algorithm}, seed {run.seed}",
    )
    ax.axhline(hypervolume(run.problem, run.baselines), color=GREY, lw=0.9, ls="--", label="all baselines together")
    ax.set_xlabel("evaluations")
    ax.set_ylabel("hypervolume (in units of\nthe reference point)")
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.grid(True, lw=0.3, color="#dddddd")
    ax.legend(frameon=False, loc="best")


def rank_correlation(ax: Any, run: Run) -> None:
    """Draw how a guided search's predictions rank what was then measured, dotted where the model was left aside."""
    at, value = run.history_of("evaluations"), run.history_of("model_rank_correlation")
    trusted = run.history_of("model_trusted") > 0
    ax.plot(at, value, ":", color=INK, lw=1.0)
    ax.plot(at, np.where(trusted, value, np.nan), "-", color=INK, lw=1.2)
    ax.set_ylim(min(-0.05, float(np.nanmin(value, initial=0.0))), 1.05)
    ax.set_xlabel("evaluations")
    ax.set_ylabel("rank correlation\nof the model")
    ax.grid(True, lw=0.3, color="#dddddd")


def operator_shares(ax: Any, run: Run, kind: str) -> None:
    """Draw the share of each operator of one kind (a key of search.DRAWN) over evaluations, stacked to one."""
    names = [name for name in DRAWN[kind] if run.history_of(f"share_{name}").any()]
    lightness = np.linspace(0.25, 0.95, len(names))
    ax.stackplot(
        run.history_of("evaluations"),
        *(run.history_of(f"share_{name}") for name in names),
        labels=names,
        colors=[str(shade) for shade in lightness],
        ec=INK,
        lw=0.3,
    )
    ax.set_ylim(0, 1)
    ax.set_xlim(0, run.evaluations)
    ax.set_xlabel("evaluations")
    ax.set_ylabel(f"share of {kind}s")
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], labels[::-1], frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def pareto_figure(front: Front, baselines: Front | None, earlier: Front | None = None) -> Figure:
    """Front and baselines: one panel for two objectives, one per pair for more, bars for a single one.

    `earlier` is another front to show behind, such as the same mappings under another model.
    """
    m = len(front.objective_names)
    pairs = list(itertools.combinations(range(m), 2))
    with figure_style():
        columns = min(max(1, len(pairs)), PANELS_PER_ROW)
        rows = -(-max(1, len(pairs)) // columns)
        size = (COLUMN_INCHES * (0.85 * columns + 0.4), COLUMN_INCHES * 0.95 * rows)
        figure = Figure(figsize=size, layout="constrained")
        axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
        for ax in axes[max(1, len(pairs)) :]:
            ax.remove()
        if not pairs and baselines is not None:
            single_objective(axes[0], front, baselines)
        for ax, (x, y) in zip(axes, pairs, strict=False):
            if earlier is not None:
                E = earlier.objectives
                ax.plot(E[:, x], E[:, y], "+", color=GREY, ms=4, label="mappings of the run", zorder=1)
            pareto(ax, front, baselines, x, y)
        if pairs:
            figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside right center")
    return figure


def convergence_figure(run: Run) -> Figure:
    """Hypervolume over evaluations, and of a guided search how its model ranks mappings."""
    guided = "model_rank_correlation" in run.history_columns
    with figure_style():
        figure = Figure(figsize=(COLUMN_INCHES, COLUMN_INCHES * (1.2 if guided else 0.75)), layout="constrained")
        axes = figure.subplots(1 + guided, 1, sharex=True, squeeze=False)[:, 0]
        convergence(axes[0], run)
        if guided:
            axes[0].set_xlabel("")
            rank_correlation(axes[1], run)
    return figure


def operators_figure(run: Run) -> Figure:
    """Shares of crossovers and mutations over evaluations, for a run whose algorithm adapts them."""
    with figure_style():
        figure = Figure(figsize=(COLUMN_INCHES, COLUMN_INCHES * 1.3), layout="constrained")
        for ax, kind in zip(figure.subplots(len(DRAWN), 1), DRAWN, strict=True):
            operator_shares(ax, run, kind)
    return figure


def predicted_figure(calibration: Calibration) -> Figure:
    """Measured against predicted, before and after calibration; held-out mappings stand out."""
    shown = {column: values for column, values in calibration.measured.items() if np.isfinite(values).any()}
    with figure_style():
        size = (COLUMN_INCHES * 0.9 * len(shown), COLUMN_INCHES * 0.95)
        figure = Figure(figsize=size, layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(shown)))
        for ax, (column, measured) in zip(axes, shown.items(), strict=True):
            held_out = calibration.held_out
            ax.plot(measured, calibration.preset[column], "+", color=GREY, ms=4, label="before", zorder=2)
            for rows, style, label in (
                (~held_out, {"mfc": INK, "mec": INK}, "fitted"),
                (held_out, {"mfc": "white", "mec": ACCENT}, "held out"),
            ):
                ax.plot(
                    measured[rows],
                    calibration.predicted[column][rows],
                    "o",
                    ms=3,
                    mew=0.8,
                    label=label,
                    zorder=3,
                    **style,
                )
            ax.axline((np.nanmedian(measured),) * 2, slope=1, color=INK, lw=0.6, zorder=1)
            ax.set(xscale="log", yscale="log")
            for axis, word in ((ax.xaxis, "measured"), (ax.yaxis, "predicted")):
                _units(axis, column)
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_minor_formatter(NullFormatter())
                axis.set_label_text(f"{word} {column}")
            ax.grid(True, lw=0.3, color="#dddddd", zorder=0)
        figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=3)
    return figure


def chosen_mappings(run: Run) -> dict[str, tuple[Front, int]]:
    """Mappings worth a picture, each as a set and its place in it: fastest, most frugal, knee, the vendor's default."""
    front = run.front
    picks = {"fastest": "latency_s", "most_frugal": "energy_j"}
    return {
        # A board may measure no energy.
        **{n: (front, front.best(x)) for n, x in picks.items() if np.isfinite(front.table[x]).any()},
        "knee": (front, front.knee),
        "vendor_default": (run.baselines, run.baselines.ids.index("vendor_default")),
    }


def write_pictures(run: Run, folder: Path) -> None:
    """Write pareto, convergence, operators and mesh_* as PDF and PNG."""
    write_pareto(run.front, run.baselines, folder)
    save_figure(convergence_figure(run), folder, "convergence")
    if run.adapts_operators:
        save_figure(operators_figure(run), folder, "operators")
    for name, (front, i) in chosen_mappings(run).items():
        metrics = {column: values[i] for column, values in front.table.items()}
        save_figure(mesh_figure(run.problem, front.mappings[i], name, metrics), folder, f"mesh_{name}")


def _units(axis: Any, column: str) -> None:
    """Label an axis with a metric column and give its ticks SI prefixes; counts stay plain numbers."""
    unit = COLUMNS[column] or ""
    if unit or max(abs(v) for v in axis.get_data_interval()) >= 1e5:
        axis.set_major_formatter(EngFormatter(unit=unit, sep="\N{NO-BREAK SPACE}"))
    axis.set_major_locator(MaxNLocator(5))
    axis.set_label_text(column)


def write_pareto(front: Front, baselines: Front, folder: Path, earlier: Front | None = None) -> None:
    """Write pareto.pdf and pareto.png; see `pareto_figure`."""
    save_figure(pareto_figure(front, baselines, earlier), folder, "pareto")


def write_predicted(calibration: Calibration, folder: Path) -> None:
    """Write predicted.pdf and predicted.png; see `predicted_figure`."""
    save_figure(predicted_figure(calibration), folder, "predicted")
