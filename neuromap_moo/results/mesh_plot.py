"""Pictures of mappings: slices on the cores of a chip, messages on its links."""

from __future__ import annotations

import math
from collections import abc
from collections.abc import Sequence
from typing import Any

import matplotlib
import networkx as nx
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import EngFormatter
from scipy.spatial import cKDTree

from neuromap_moo.arrays import FloatArray
from neuromap_moo.mapping.mapping import Mapping
from neuromap_moo.models.analytic import LinkLoads, link_loads
from neuromap_moo.problem.problem import MappingProblem
from neuromap_moo.results.style import ACCENT, COLUMN_INCHES, GREY, figure_style
from neuromap_moo.system.system import System
from neuromap_moo.system.topology import MESH_CLASSES, Mesh

LONGEST_INCHES = 9.0
TILE = 0.52  # side of a router's square of cores, neighbours on a mesh are 1 apart
MOST_LAID_OUT = 256  # routers that the finer layout of a graph takes; it would be slow for more


def mesh(
    ax: Any, problem: MappingProblem, mapping: Mapping, title: str = "", metrics: abc.Mapping[str, Any] | None = None
) -> Any:
    """Draw a mapping on the chip: cores shaded and numbered by layer, links by load, the busiest one marked.

    Parameters
    ----------
    ax
        Axes to draw on.
    problem, mapping
        What is mapped, and how.
    title
        Name of the mapping.
    metrics
        Its metrics by column where they are known; else it is evaluated.

    Returns
    -------
    The colour scale of the links, a ScalarMappable.

    """
    system = problem.system
    xy = _places(system)
    columns, rows = np.ptp(xy, axis=0) + 1
    crowding = min(1.0, 8.0 / columns, 14.0 / rows)
    _draw_cores(ax, problem, mapping, xy, crowding)
    on_links = link_loads(problem.partitioner, system, mapping)
    scale, busiest = _draw_links(ax, system, on_links.between, xy)
    if metrics is None:
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
    if isinstance(system.topology, Mesh):
        _draw_grid(ax, system.topology, int(columns), int(rows))
    else:
        _label_routers(ax, system, xy, 5.0 * crowding)
    ax.tick_params(length=2, labelsize=6)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return scale


def _draw_cores(ax: Any, problem: MappingProblem, mapping: Mapping, xy: FloatArray, crowding: float) -> None:
    """Draw every core as a square, shaded and numbered by its layer; routers are at `xy` (R, 2)."""
    system, names = problem.system, problem.network.layer_names
    t = system.topology
    layer_of_core = np.full(system.n_cores, -1)
    layer_of_core[list(mapping.core_of_slice)] = np.repeat(np.arange(len(names)), mapping.cores_per_layer)
    shades = _layer_colours(len(names))
    per_side = int(np.ceil(np.sqrt(t.cores_per_router)))
    cell = TILE / per_side
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


def _draw_links(ax: Any, system: System, loads: FloatArray, xy: FloatArray) -> tuple[ScalarMappable, int]:
    """Draw links by their messages (n_links,) as arrows between routers at `xy` (R, 2).

    Returns the colour scale and the index of the busiest link, -1 where none carries anything.
    """
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
    return scale, busiest


def _draw_grid(ax: Any, topology: Mesh, columns: int, rows: int) -> None:
    """Draw the borders of chips and number the routers of a mesh along its sides."""
    for edge in range(1, topology.chips_x):
        ax.axvline(edge * topology.width - 0.5, color=GREY, lw=0.8, ls=":")
    for edge in range(1, topology.chips_y):
        ax.axhline(edge * topology.height - 0.5, color=GREY, lw=0.8, ls=":")
    ax.set_xticks(range(columns))
    ax.set_yticks(range(rows))
    ax.set_xlabel("router x")
    ax.set_ylabel("router y")


def mesh_figure(
    problem: MappingProblem, mapping: Mapping, title: str, metrics: abc.Mapping[str, Any] | None = None
) -> Figure:
    """One mapping on the chip, with the scale of its links and the names of its layers; see `mesh`."""
    columns, rows = (np.ptp(_places(problem.system), axis=0) + 1).tolist()
    # Routers are drawn up to 0.62 inches apart, less where the figure would not fit a page.
    apart = min(0.62, LONGEST_INCHES / columns, LONGEST_INCHES / rows)
    width, height = max(apart * columns + 1.0, COLUMN_INCHES), max(apart * rows, 0.8) + 1.5
    names = problem.network.layer_names
    with figure_style():
        figure = Figure(figsize=(width, height), layout="constrained")
        ax = figure.subplots()
        scale = mesh(ax, problem, mapping, title, metrics)
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


def _layer_colours(n: int) -> Sequence[Any]:
    """Colours whose lightness falls from layer to layer, so that they can be told apart in grey."""
    return list(matplotlib.colormaps["viridis_r"](np.linspace(0.02, 1.0, n)))


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
