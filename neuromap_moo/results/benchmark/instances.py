"""Named benchmark instances: problems made from fixed seeds, each with the best front known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import moocore
import networkx as nx
import numpy as np
from numpy.typing import NDArray

from neuromap_moo.arrays import FloatArray, IntArray
from neuromap_moo.errors import InputError, did_you_mean
from neuromap_moo.files import config_folder
from neuromap_moo.generators.mlp import sparse_mlp
from neuromap_moo.mapping.mapping import Mapping
from neuromap_moo.network.network import Network
from neuromap_moo.partition.core_graph import CoreGraph
from neuromap_moo.partition.partitioner import Partitioner
from neuromap_moo.problem.networks import network_for
from neuromap_moo.problem.problem import MappingProblem
from neuromap_moo.system.composition import composed, layers_of, read_yaml
from neuromap_moo.system.system import System, load_system, mesh_system, system_from_dict

TIME_AND_ENERGY = ("latency_s", "energy_j")
LINKS = ("peak_link_messages", "message_hops")
HOPS = ("message_hops",)

#: Messages of generated core graphs are rounded to this many decimals, so that libraries which differ in the last bit
#: make the same graph.
DECIMALS = 6

#: Draws of instances begin with this: a search with the same seed must not draw the planted placement.
STREAM = 2602_04717

#: Blocks of a grid (rows, columns) and the least sum of Manhattan distances over all pairs of as many different cells
#: (Demaine et al., Computational Geometry 44(2), 2011): no placement gives a block's slices less.
BLOCKS = {(1, 2): 1, (2, 1): 1, (2, 2): 8, (2, 3): 25, (3, 2): 25, (3, 3): 72}


@dataclass(frozen=True)
class Built:
    """What a generator returns; `planted` is a placement that no other beats in message_hops, where one is known."""

    network: Network | CoreGraph
    system: System
    planted: Mapping | None = None


@dataclass(frozen=True)
class Instance:
    """How one benchmark instance is made: `generator` with `arguments`, and what is minimised."""

    name: str
    family: str
    description: str
    objectives: tuple[str, ...]
    generator: Callable[..., Built]
    arguments: tuple[Any, ...]

    @property
    def call(self) -> str:
        """The generator's call as text."""
        return f"{self.generator.__name__}({', '.join(map(repr, self.arguments))})"

    def build(self) -> Built:
        """Make network or core graph, system and planted placement; the same at every call."""
        return self.generator(*self.arguments)


@dataclass(frozen=True)
class Benchmark:
    """A problem with the best front known, n mappings and m objectives.

    `objectives` (n, m) are minimised and sorted by the first; `reference_point` (m,) belongs to the instance and stays
    when baselines change. `optimum` is the proven least value of the one objective, None where none is known.
    """

    name: str
    description: str
    problem: MappingProblem
    objectives: FloatArray
    mappings: tuple[Mapping, ...]
    reference_point: FloatArray
    optimum: float | None
    planted: Mapping | None = None

    def hypervolume(self, F: FloatArray) -> float:
        """Hypervolume of minimised objectives (k, m) in units of the reference point."""
        return float(moocore.hypervolume(F / self.reference_point, ref=np.ones(len(self.reference_point))))

    def relative_hypervolume(self, F: FloatArray) -> float:
        """Hypervolume as a share of the best-known front's; above 1 where the mappings beat it."""
        return self.hypervolume(F) / self._best_known

    @cached_property
    def _best_known(self) -> float:
        return self.hypervolume(self.objectives)

    def igd_plus(self, F: FloatArray) -> float:
        """IGD+ of minimised objectives (k, m) to the front; 1 is the front's range (the reference point's distance)."""
        low, high = self.objectives.min(axis=0), self.objectives.max(axis=0)
        # A front of one point has no range.
        span = np.where(high > low, high - low, self.reference_point - low)
        return float(moocore.igd_plus((F - low) / span, ref=(self.objectives - low) / span))


def experiment(name: str, activity_sigma: float | None = None) -> Built:
    """Build network and system of conf/experiment/`name`; `activity_sigma` in place of the default."""
    config, system = experiment_parts(name)
    if activity_sigma is not None:
        config["activity_sigma"] = activity_sigma
    return Built(network_for(config, system), system)


def experiment_parts(name: str) -> tuple[dict[str, Any], System]:
    """Return the config group `network` of conf/experiment/`name`, and its system."""
    folder = config_folder()
    data = read_yaml(folder / "experiment" / f"{name}.yaml")
    chosen = {key.removeprefix("override /"): value for part in data.pop("defaults") for key, value in part.items()}
    groups = {group: composed(layers_of(folder / group / f"{choice}.yaml")) for group, choice in chosen.items()}
    whole = composed([groups, data])
    return whole["network"], system_from_dict(whole["system"], chosen["system"])


def placement(width: int, height: int, topology: str = "mesh") -> Built:
    """Cut a sparse MLP, layers in 1 : 2 : 2 : 2 : 1 and 32 neurons a core, to fill a mesh or torus of single cores.

    Three synapses per neuron and a wide spread of activity make the traffic differ between pairs of slices: with more,
    all pairs of two layers would exchange about the same, and placements would differ little.
    """
    part = width * height // 8
    cores_per_layer = (part, 2 * part, 2 * part, 2 * part, part)
    sizes = [32 * k for k in cores_per_layer]
    network = sparse_mlp(sizes, density=[3 / n for n in sizes[1:]], activity_sigma=1.5)
    system = load_system(topology, {"topology": {"width": width, "height": height}})
    graph = Partitioner(network, system).core_graph(cores_per_layer)
    return Built(_core_graph(graph.n_slices, graph.source, graph.target, graph.messages), system)


def planted_grid(width: int, height: int, seed: int = 0) -> Built:
    """Relabel the mesh itself: messages between neighbouring cores only, so their sum is the least of message_hops."""
    rng = np.random.default_rng((STREAM, seed))
    core = rng.permutation(width * height)
    return _planted(width, height, core, _messages_of_blocks(width, height, [(1, 2), (2, 1)], rng), rng)


def planted_blocks(width: int, height: int, seed: int = 0) -> Built:
    """Overlay blocks of slices that all talk to each other, each laid out at the least cost that so many slices allow.

    Every block is optimal where it lies, hence so is their sum.
    """
    rng = np.random.default_rng((STREAM, seed))
    core = rng.permutation(width * height)
    return _planted(width, height, core, _messages_of_blocks(width, height, list(BLOCKS), rng), rng)


def dense_flows(width: int, height: int, seed: int = 0) -> Built:
    """Draw flows 0 to 10 between all pairs, half of them 0, as the nug* instances of QAPLIB have; no optimum known."""
    rng = np.random.default_rng((STREAM, seed))
    n = width * height
    a, b = np.triu_indices(n, 1)
    messages = rng.integers(1, 11, a.size) * rng.integers(0, 2, a.size)
    return Built(_core_graph(n, a, b, messages), mesh_system(width, height))


def random_graph(width: int, height: int, degree: int, seed: int = 0) -> Built:
    """Draw a random graph of this mean degree with messages 1 to 99, as many slices as cores."""
    rng = np.random.default_rng((STREAM, seed))
    n = width * height
    a, b = np.triu_indices(n, 1)
    chosen = rng.choice(a.size, n * degree // 2, replace=False)
    return Built(_core_graph(n, a[chosen], b[chosen], rng.integers(1, 100, chosen.size)), mesh_system(width, height))


def _messages_of_blocks(
    width: int, height: int, blocks: Iterable[tuple[int, int]], rng: np.random.Generator
) -> IntArray:
    """Messages (n, n) between cores, above the diagonal: every block at every place of the grid, weighted 1 to 99."""
    cells = np.arange(width * height).reshape(height, width)
    messages = np.zeros((width * height, width * height), dtype=np.int64)
    for rows, columns in blocks:
        for y in range(height - rows + 1):
            for x in range(width - columns + 1):
                own = cells[y : y + rows, x : x + columns].ravel()
                messages[np.ix_(own, own)] += rng.integers(1, 100)
    return np.triu(messages, 1)


def _planted(width: int, height: int, core: IntArray, messages: IntArray, rng: np.random.Generator) -> Built:
    """Name the slices so that slice s of the planted placement lies on core[s]."""
    a, b = np.nonzero(messages)
    slice_on = np.argsort(core)
    order = rng.permutation(a.size)
    graph = _core_graph(core.size, slice_on[a][order], slice_on[b][order], messages[a, b][order])
    return Built(graph, mesh_system(width, height), Mapping((1,) * core.size, tuple(core.tolist())))


def _core_graph(n: int, source: NDArray[Any], target: NDArray[Any], messages: NDArray[Any]) -> CoreGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from(range(n))
    rounded = np.round(np.asarray(messages, dtype=np.float64), DECIMALS)
    ends = zip(source.tolist(), target.tolist(), rounded.tolist(), strict=True)
    graph.add_weighted_edges_from(ends, weight="messages")
    return CoreGraph.from_networkx(graph)


def _of(
    name: str, family: str, objectives: tuple[str, ...], generator: Callable[..., Built], *arguments: Any, about: str
) -> Instance:
    return Instance(name, family, about, objectives, generator, arguments)


def _placement(name: str, width: int, height: int) -> Instance:
    about = f"a sparse MLP cut to fill a mesh of {width}x{height} cores; placement alone"
    return _of(name, "placement", LINKS, placement, width, height, about=about)


#: Every instance by name.
INSTANCES: dict[str, Instance] = {
    i.name: i
    for i in (
        _of("mlp_a", "mlp", TIME_AND_ENERGY, experiment, "mlp_a", about="a sparse MLP with wide layers on one Loihi 2"),
        _of("mlp_b", "mlp", TIME_AND_ENERGY, experiment, "mlp_b", about="a deeper, sparser MLP on one Loihi 2"),
        _of(
            "mlp_b_two_chips", "two_chips", TIME_AND_ENERGY, experiment, "mlp_b_two_chips",
            about="a larger MLP on two Loihi 2 in a row",
        ),
        _of(
            "mlp_b_heterogeneous", "heterogeneous", TIME_AND_ENERGY, experiment, "mlp_b", 1.5,
            about="mlp_b with activity that differs much between neurons",
        ),
        _placement("placement_32", 8, 4),
        _placement("placement_64", 8, 8),
        _placement("placement_120", 12, 10),
        _placement("placement_256", 16, 16),
        _placement("placement_512", 32, 16),
        _of(
            "torus_64", "torus", LINKS, placement, 8, 8, "torus",
            about="the MLP of placement_64 on an 8x8 torus; placement alone",
        ),
        _of(
            "grid_120", "planted", HOPS, planted_grid, 12, 10,
            about="the 12x10 mesh itself, relabelled; the optimum is planted",
        ),
        _of("qap_36", "qap", HOPS, planted_blocks, 6, 6, about="overlaid blocks on a 6x6 mesh; planted optimum"),
        _of("qap_64", "qap", HOPS, planted_blocks, 8, 8, about="overlaid blocks on an 8x8 mesh; planted optimum"),
        _of("flows_30", "qap", HOPS, dense_flows, 6, 5, about="dense random flows on a 6x5 mesh, as in nug30"),
        _of("flows_64", "qap", HOPS, dense_flows, 8, 8, about="dense random flows on an 8x8 mesh, as in sko64"),
        _of("er_120", "random_graph", HOPS, random_graph, 12, 10, 6, about="a random graph of mean degree 6 on 12x10"),
        _of("grid_120_links", "placement", LINKS, planted_grid, 12, 10, about="grid_120 with its busiest link"),
        _of("blocks_120_links", "placement", LINKS, planted_blocks, 12, 10, about="overlaid blocks on a 12x10 mesh"),
        _of("er_120_links", "placement", LINKS, random_graph, 12, 10, 6, about="er_120 with its busiest link"),
    )
}  # fmt: skip


def benchmarks() -> dict[str, str]:
    """Names of the benchmark instances and a line about each."""
    return {name: instance.description for name, instance in INSTANCES.items()}


def instance_of(name: str) -> Instance:
    """Return an instance by name; raises InputError for an unknown one."""
    if name not in INSTANCES:
        raise InputError(f"benchmark: no '{name}'{did_you_mean(name, INSTANCES)}")
    return INSTANCES[name]
