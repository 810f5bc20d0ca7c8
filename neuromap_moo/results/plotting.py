"""Pictures for papers: functions that take an Axes, and figures of a whole run as PDF and PNG."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import networkx as nx
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter
from scipy.spatial import cKDTree

from neuromap_moo.arrays import FloatArray
from neuromap_moo.calibration.fit import Calibration
from neuromap_moo.evolution.operators import DRAWN
from neuromap_moo.files import whole_file
from neuromap_moo.mapping.mapping import Mapping
from neuromap_moo.models.analytic import LinkLoads, link_loads
from neuromap_moo.models.metrics import COLUMNS, MAXIMISED, half_interval
from neuromap_moo.problem.problem import MappingProblem
from neuromap_moo.results.front import Front
from neuromap_moo.results.run import ROBUSTNESS, Run, hypervolume
from neuromap_moo.system.system import System
from neuromap_moo.system.topology import MESH_CLASSES, Mesh

#: Fonts are embedded as text, sizes fit one column of a paper.
STYLE = {"font.size": 8, "axes.labelsize": 8, "legend.fontsize": 6.5, "pdf.fonttype": 42, "svg.fonttype": "none"}
DPI = 300
COLUMN_INCHES = 3.5
LONGEST_INCHES = 9.0
PANELS_PER_ROW = 3
TILE = 0.52  # side of a router's square of cores, neighbours on a mesh are 1 apart
MOST_LAID_OUT = 256  # routers that the finer layout of a graph takes; it would be slow for more
MARKERS = ("s", "^", "v", "D", "P", "X", "<", ">", "h", "p", "d", (4, 1, 0))
INK, GREY, ACCENT = "#1a1a1a", "#8a8a8a", "#c1272d"


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


def mesh(ax: Any, problem: MappingProblem, mapping: Mapping, title: str = "") -> Any:
    """Draw a mapping on the chip: cores shaded and numbered by layer, links by load, the busiest one marked.

    Returns the colour scale of the links (a ScalarMappable).
    """
    system, names = problem.system, problem.network.layer_names
    t = system.topology
    xy = _places(system)
    columns, rows = np.ptp(xy, axis=0) + 1
    layer_of_core = np.full(system.n_cores, -1)
    layer_of_core[list(mapping.core_of_slice)] = np.repeat(np.arange(len(names)), mapping.cores_per_layer)
    shades = _layer_colours(len(names))
    per_side = int(np.ceil(np.sqrt(t.cores_per_router)))
    cell = TILE / per_side
    crowding = min(1.0, 8.0 / columns, 14.0 / rows)
    font = 7.0 * crowding * (1.0 if len(names) <= 26 else 0.6) * (1.4 if per_side == 1 else 1)
    for core in np.setdiff1d(np.arange(system.n_cores), t.missing_cores).tolist():
        x0, y0 = xy[system.router_of_core[core]] - TILE / 2
        row, column = divmod(core % t.cores_per_router, per_side)
        corner = (x0 + column * cell, y0 + row * cell)
        layer = layer_of_core[core]
        masked = core in system.masked_cores
        face = shades[layer] if layer >= 0 else "#ffffff"
        ax.add_artist(  # not add_patch, which would look for limits of the axes each time
            Rectangle(corner, cell, cell, fc=face, ec="#555555", lw=0.3, hatch="////" if masked else None, zorder=3)
        )
        if layer >= 0:
            dark = np.dot(face[:3], (0.299, 0.587, 0.114)) < 0.5
            ax.text(
                corner[0] + cell / 2,
                corner[1] + cell / 2,
                str(layer),
                fontsize=font,
                ha="center",
                va="center",
                color="white" if dark else "black",
                zorder=4,
            )
    on_links = link_loads(problem.partitioner, system, mapping)
    loads = on_links.between
    greys = ListedColormap(matplotlib.colormaps["Greys"](np.linspace(0.2, 1.0, 256)))
    heaviest = loads.max(initial=0.0) or 1.0
    scale = ScalarMappable(Normalize(0, heaviest), greys)
    seconds = loads * system.cost("message_bits") / system.per_link("bandwidth_bit_per_s")
    busiest = int(seconds.argmax()) if loads.size and loads.max() > 0 else -1
    for link, (a, b) in enumerate(zip(system.links.source, system.links.target, strict=True)):
        ahead = (xy[b] - xy[a]) / np.linalg.norm(xy[b] - xy[a])
        side = np.array([-ahead[1], ahead[0]]) * 0.08  # the two directions run beside each other
        rim = ahead * (TILE / 2 / np.abs(ahead).max() + 0.02)  # from the middle of a router to its edge
        share = loads[link] / heaviest
        colour = ACCENT if link == busiest else scale.to_rgba(loads[link])
        ax.add_artist(
            FancyArrowPatch(
                xy[a] + rim + side,
                xy[b] - rim + side,
                arrowstyle="-|>",
                connectionstyle=f"arc3,rad={_bend(xy, a, b):.3f}",
                mutation_scale=3.5,
                lw=0.3 + 1.7 * share,
                color=colour,
                zorder=5 if link == busiest else 2,
                shrinkA=0,
                shrinkB=0,
                # In grey the busiest link is known by its black edge.
                path_effects=[Stroke(linewidth=4.0, foreground="black"), Normal()] if link == busiest else None,
            )
        )
    metrics = {c: v[0] for c, v in problem.evaluate_mappings([mapping]).items()}
    time, energy = EngFormatter("s", 2), EngFormatter("J", 2)
    spent = f"{energy(metrics['energy_j'])}, " if math.isfinite(metrics["energy_j"]) else ""  # a board may measure none
    lines = [
        f"{title}: {time(metrics['latency_s'])}, {spent}{metrics['cores_used']} cores",
        f"bound by {metrics['bottleneck']}; busiest link: " + _link_name(problem, mapping, busiest, on_links),
    ]
    ax.set_title("\n".join(lines), fontsize=7, loc="left")
    ax.set_xlim(-0.6, columns - 0.4)
    ax.set_ylim(rows - 0.4, -0.6)
    ax.set_aspect("equal")
    if isinstance(t, Mesh):
        for edge in range(1, t.chips_x):
            ax.axvline(edge * t.width - 0.5, color=GREY, lw=0.8, ls=":")
        for edge in range(1, t.chips_y):
            ax.axhline(edge * t.height - 0.5, color=GREY, lw=0.8, ls=":")
        ax.set_xticks(range(int(columns)))
        ax.set_yticks(range(int(rows)))
        ax.set_xlabel("router x")
        ax.set_ylabel("router y")
    else:
        _label_routers(ax, system, xy, 5.0 * crowding)
    ax.tick_params(length=2, labelsize=6)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return scale


def pareto_figure(front: Front, baselines: Front | None, earlier: Front | None = None) -> Figure:
    """Front and baselines: one panel for two objectives, one per pair for more, bars for a single one.

    `earlier` is another front to show behind, such as the same mappings under another model.
    """
    m = len(front.objective_names)
    pairs = list(itertools.combinations(range(m), 2))
    with _style():
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
    with _style():
        figure = Figure(figsize=(COLUMN_INCHES, COLUMN_INCHES * (1.2 if guided else 0.75)), layout="constrained")
        axes = figure.subplots(1 + guided, 1, sharex=True, squeeze=False)[:, 0]
        convergence(axes[0], run)
        if guided:
            axes[0].set_xlabel("")
            rank_correlation(axes[1], run)
    return figure


def operators_figure(run: Run) -> Figure:
    """Shares of crossovers and mutations over evaluations, for a run whose algorithm adapts them."""
    with _style():
        figure = Figure(figsize=(COLUMN_INCHES, COLUMN_INCHES * 1.3), layout="constrained")
        for ax, kind in zip(figure.subplots(len(DRAWN), 1), DRAWN, strict=True):
            operator_shares(ax, run, kind)
    return figure


def mesh_figure(problem: MappingProblem, mapping: Mapping, title: str) -> Figure:
    """One mapping on the chip, with the scale of its links and the names of its layers."""
    columns, rows = (np.ptp(_places(problem.system), axis=0) + 1).tolist()
    # Routers are drawn up to 0.62 inches apart, less where the figure would not fit a page.
    apart = min(0.62, LONGEST_INCHES / columns, LONGEST_INCHES / rows)
    width, height = max(apart * columns + 1.0, COLUMN_INCHES), max(apart * rows, 0.8) + 1.5
    names = problem.network.layer_names
    with _style():
        figure = Figure(figsize=(width, height), layout="constrained")
        ax = figure.subplots()
        scale = mesh(ax, problem, mapping, title)
        bar = figure.colorbar(scale, ax=ax, shrink=0.8, pad=0.01, aspect=30)
        bar.set_label("messages per link\nand timestep")
        bar.ax.yaxis.set_major_formatter(EngFormatter(sep=""))
        if len(names) <= 26:
            shades = _layer_colours(len(names))
            handles = [
                Rectangle((0, 0), 1, 1, fc=shades[i], ec="#555555", lw=0.3, label=f"{i} {name} ({k} cores)")
                for i, (name, k) in enumerate(zip(names, mapping.cores_per_layer, strict=True))
            ]
            figure.legend(
                handles=handles, loc="outside lower center", ncols=max(1, int(width / 1.4)), frameon=False, fontsize=6
            )
    return figure


def predicted_figure(calibration: Calibration) -> Figure:
    """Measured against predicted, before and after calibration; held-out mappings stand out."""
    shown = {column: values for column, values in calibration.measured.items() if np.isfinite(values).any()}
    with _style():
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


def chosen_mappings(run: Run) -> dict[str, Mapping]:
    """Mappings worth a picture: fastest, most frugal, knee and the vendor's default."""
    front = run.front
    picks = {"fastest": "latency_s", "most_frugal": "energy_j"}
    return {
        # A board may measure no energy.
        **{n: front.mappings[front.best(x)] for n, x in picks.items() if np.isfinite(front.table[x]).any()},
        "knee": front.mappings[front.knee],
        "vendor_default": run.baselines.by_id["vendor_default"],
    }


def write_pictures(run: Run, folder: Path) -> None:
    """Write pareto, convergence, operators and mesh_* as PDF and PNG."""
    save_figure(pareto_figure(run.front, run.baselines), folder, "pareto")
    save_figure(convergence_figure(run), folder, "convergence")
    if run.adapts_operators:
        save_figure(operators_figure(run), folder, "operators")
    for name, mapping in chosen_mappings(run).items():
        save_figure(mesh_figure(run.problem, mapping, name), folder, f"mesh_{name}")


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as PDF and PNG, each whole or not at all."""
    with _style():
        figure.draw_without_rendering()
    figure.set_layout_engine(None)  # or each file is laid out again, twice
    for ending, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
        with whole_file(folder / f"{name}.{ending}") as temporary, _style():
            figure.savefig(temporary, dpi=DPI, metadata=metadata)


def _layer_colours(n: int) -> Sequence[Any]:
    """Colours whose lightness falls from layer to layer, so that they can be told apart in grey."""
    return list(matplotlib.colormaps["viridis_r"](np.linspace(0.02, 1.0, n)))


def _units(axis: Any, column: str) -> None:
    """Label an axis with a metric column and give its ticks SI prefixes; counts stay plain numbers."""
    unit = COLUMNS[column] or ""
    if unit or max(abs(v) for v in axis.get_data_interval()) >= 1e5:
        axis.set_major_formatter(EngFormatter(unit=unit, sep="\N{NO-BREAK SPACE}"))
    axis.set_major_locator(MaxNLocator(5))
    axis.set_label_text(column)


def _link_name(problem: MappingProblem, mapping: Mapping, link: int, loads: LinkLoads) -> str:
    """Name the slowest link of all classes; `link` is the busiest one between routers, -1 if none carries anything."""
    system = problem.system
    slowest, name = 0.0, "none"
    for kind, messages in (("inject", loads.inject), ("eject", loads.eject)):
        at = int(messages.argmax())
        seconds = messages[at] / system.cost(f"bandwidth_bit_per_s.{kind}")
        if seconds > slowest:
            slowest, name = seconds, f"{kind} of core {mapping.core_of_slice[at]}, {messages[at]:.0f} messages"
    if link < 0 or loads.between[link] / system.per_link("bandwidth_bit_per_s")[link] < slowest:
        return name
    a, b = (str(ends[link]) for ends in system.links[:2])
    if isinstance(system.topology, Mesh):
        a, b = ("({},{})".format(*system.topology.router_xy[int(end)]) for end in (a, b))
    else:
        a = f"router {a}"
    kind = MESH_CLASSES[system.links.link_class[link]]
    return f"{a}\N{RIGHTWARDS ARROW}{b} {kind}, {loads.between[link]:.0f} messages"


def _places(system: System) -> FloatArray:
    """Where each router is drawn (n_routers, 2), from (0, 0) on, the nearest two 1 apart.

    On a mesh its coordinates; on a graph those it gives, else a layout in which distance follows hops.
    """
    known = system.router_xy
    if known is None and system.n_routers > 1:
        graph = nx.Graph(zip(system.links.source.tolist(), system.links.target.tolist(), strict=True))
        few = system.n_routers <= MOST_LAID_OUT
        found = nx.kamada_kawai_layout(graph) if few else nx.spring_layout(graph, seed=0)
        known = np.array([found[router] for router in range(system.n_routers)])
    xy = np.zeros((1, 2)) if known is None else known.astype(np.float64)
    xy -= xy.min(axis=0)
    if len(xy) > 1:
        xy /= np.min(cKDTree(xy).query(xy, k=[2])[0])
    return xy


def _bend(xy: FloatArray, a: int, b: int) -> float:
    """How much an arrow from router a to b is bent (height over length), to pass beside the routers in between."""
    length = float(np.linalg.norm(xy[b] - xy[a]))
    ahead = (xy[b] - xy[a]) / length
    along, across = (xy - xy[a]) @ ahead, (xy - xy[a]) @ np.array([-ahead[1], ahead[0]])
    between = (along > 0.01) & (along < length - 0.01) & (np.abs(across) < TILE / 2 + 0.1)
    return 0.85 / length if between.any() else 0.0


def _label_routers(ax: Any, system: System, xy: FloatArray, font: float) -> None:
    """Number the routers of a graph, with their chip where there are several; those without cores get a ring."""
    per_side = int(np.ceil(np.sqrt(system.topology.cores_per_router)))
    below = TILE * (-(-system.topology.cores_per_router // per_side) / per_side - 0.5) + 0.03
    for router, (x, y) in enumerate(xy):
        chip = f"{system.chip_of_router[router]}:" if system.n_chips > 1 else ""
        ax.text(x - TILE / 2, y + below, f"{chip}{router}", fontsize=font, color=GREY, ha="left", va="top", zorder=6)
    bare = np.setdiff1d(np.arange(system.n_routers), np.delete(system.router_of_core, system.topology.missing_cores))
    ax.plot(*xy[bare].T, "o", mfc="white", mec="#555555", mew=0.5, ms=4, zorder=3)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_xlabel("numbers are chip:router" if system.n_chips > 1 else "numbers are routers")


def _style() -> Any:
    return matplotlib.rc_context(STYLE)
