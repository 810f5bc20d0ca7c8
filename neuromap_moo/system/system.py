"""Systems: chips, routers, cores, links, capacities and costs, and where each number comes from."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from neuromap_moo.arrays import FloatArray, IndexArray
from neuromap_moo.errors import InputError, did_you_mean, finite_number, whole_number
from neuromap_moo.files import whole_file
from neuromap_moo.system.composition import composed, layers_of
from neuromap_moo.system.costs import BARRIER, CAPACITY_UNITS, COST_UNITS, Constant, check_constants
from neuromap_moo.system.files import constants_of, nested
from neuromap_moo.system.routing import Links, Routes
from neuromap_moo.system.shapes import graph_from_networkx, topology_from_dict
from neuromap_moo.system.topology import GIVEN, MESH_CLASSES, Mesh, Topology


def load_system(name_or_path: str | Path, changes: Mapping[str, Any] | None = None) -> System:
    """Load a preset by name or a system YAML by path; `changes` in the same form are laid over it.

    A YAML may begin with ``defaults: [loihi2, _self_]`` to take a preset and change only some numbers. Raises
    InputError for an unknown preset, a file that cannot be read, and values that make no system.

    Examples
    --------
    >>> load_system("loihi2", {"topology": {"chips_x": 2}}).n_cores
    256

    """
    layers = layers_of(name_or_path)
    return system_from_dict(composed([*layers, changes] if changes else layers), where=str(name_or_path))


def save_system(system: System, path: str | Path) -> None:
    """Write a system as YAML, which load_system reads."""
    with whole_file(path) as temporary:
        text = yaml.safe_dump(system.to_dict(), sort_keys=False, allow_unicode=True)
        temporary.write_text(text, encoding="utf-8")


def mesh_system(
    width: int,
    height: int,
    cores_per_router: int = 1,
    *,
    chips_x: int = 1,
    chips_y: int = 1,
    masked_cores: Sequence[int] = (),
    combine: str = "max",
    copies: str = "per_core",
    name: str = "mesh",
    **costs: float | Mapping[str, float],
) -> System:
    """Make a mesh system with Loihi 2's capacities and costs, except those given.

    Parameters
    ----------
    width, height
        Routers per chip along x and y.
    cores_per_router
        Cores at each router.
    chips_x, chips_y
        Chips along x and y.
    masked_cores
        Ids of cores that are not to be used.
    combine
        How a step's busy time and barrier make its time: "max" or "max_plus_barrier".
    copies
        Messages on links: "per_core", one for each destination core, or "per_route", one per link of their common tree.
    name
        Of the system; it does not count when systems are compared.
    **costs
        Costs and capacities by their YAML names: ``t_synop_s=1e-9``, ``synapse_words=500``; of those with several
        entries a number sets all and a dict some: ``bandwidth_bit_per_s=1e9``, ``e_link_j={"chip": 1e-12}``.

    Raises
    ------
    InputError
        For unknown costs and numbers out of range, with the key.

    Examples
    --------
    >>> mesh_system(4, 3, cores_per_router=2, masked_cores=[0]).usable_cores.size
    23

    """
    topology = Mesh(width, height, cores_per_router, chips_x, chips_y)
    return _with_costs("mesh_system", name, topology, masked_cores, combine, copies, costs)


def system_from_dict(data: Mapping[str, Any], where: str = "system") -> System:
    """Build a system from the content of a system YAML; `where` names it in errors."""
    if not isinstance(data, Mapping):
        raise InputError(f"system '{where}': expected a mapping with topology, capacities and costs, got {data!r:.60}")
    known = {"name", "topology", "masked_cores", "combine", "copies", "capacities", "costs"}
    for key in data:
        if key not in known:
            raise InputError(f"system '{where}': unknown key '{key}'{did_you_mean(key, known)}")
    for key in ("topology", "capacities", "costs"):
        if not isinstance(data.get(key), Mapping):
            raise InputError(
                f"system '{where}', {key}: expected a mapping, got {data.get(key)!r}; "
                "start the file with 'defaults: [loihi2, _self_]' to take what you do not give from a preset"
            )
    return System(
        name=str(data.get("name", where)),
        topology=topology_from_dict(data["topology"], f"system '{where}', topology"),
        capacities=constants_of(f"system '{where}', capacities", data["capacities"]),
        costs=constants_of(f"system '{where}', costs", data["costs"]),
        masked_cores=() if data.get("masked_cores") is None else data["masked_cores"],
        combine=str(data.get("combine", "max")),
        copies=str(data.get("copies", "per_core")),
    )


@cache
def _mesh_preset() -> System:
    """Of the package, read once: many systems begin with its capacities and costs."""
    return load_system("mesh")


def _with_costs(
    where: str,
    name: str,
    topology: Topology,
    masked_cores: Sequence[int],
    combine: str,
    copies: str,
    costs: Mapping[str, Any],
) -> System:
    """Return a system with Loihi 2's capacities and costs, except those given by their YAML names."""
    base = _mesh_preset()
    numbers = {"capacities": dict(base.capacities), "costs": dict(base.costs)}
    for key, given in costs.items():
        part = numbers["capacities" if key in CAPACITY_UNITS else "costs"]
        members = [k for k in part if k == key or k.startswith(key + ".")]
        if not members:
            known = {k.partition(".")[0] for p in numbers.values() for k in p}
            raise InputError(f"{where}: unknown cost '{key}'{did_you_mean(key, known)}")
        values = (
            {f"{key}.{k}": v for k, v in given.items()} if isinstance(given, Mapping) else dict.fromkeys(members, given)
        )
        for full, value in values.items():
            unit = part[full].unit if full in part else part[members[0]].unit
            part[full] = Constant(value, unit, GIVEN["source"], GIVEN["kind"])
    return System(name, topology, numbers["capacities"], numbers["costs"], masked_cores, combine, copies)


COMBINE = ("max", "max_plus_barrier")
COPIES = ("per_core", "per_route")


@dataclass(frozen=True, eq=False)
class System:
    """A spatial accelerator; compared by content digest.

    Parameters
    ----------
    name
        For people; it does not count when systems are compared.
    topology
        Routers, the links between them and their cores: `nm.Mesh` or `nm.Graph`.
    capacities
        Constants `synapse_words` (64-bit words) and `neurons` of a core.
    costs
        Constants by their full names, such as `t_synop_s` or `e_link_j.chip`; docs/model.md lists them.
    masked_cores
        Ids of cores that are not to be used.
    combine
        How a step's busy time and barrier make its time: "max" or "max_plus_barrier".
    copies
        Messages on links: "per_core" or "per_route".

    Raises
    ------
    InputError
        For whatever is missing, unknown or out of range, with the key.

    """

    name: str
    topology: Topology
    capacities: Mapping[str, Constant]
    costs: Mapping[str, Constant]
    masked_cores: Sequence[int] = ()
    combine: str = "max"
    copies: str = "per_core"

    def __post_init__(self) -> None:
        """Check every part; the message names the system and the key."""
        where = f"system '{self.name}'"
        object.__setattr__(self, "topology", self.topology.checked(f"{where}, topology"))
        if isinstance(self.masked_cores, str) or not isinstance(self.masked_cores, Iterable):
            raise InputError(f"{where}, masked_cores: expected a list of core ids, got {self.masked_cores!r}")
        for key, known in (("combine", COMBINE), ("copies", COPIES)):
            value = getattr(self, key)
            if value not in known:
                raise InputError(f"{where}, {key}: got '{value}'{did_you_mean(str(value), known)}")
        masked = {whole_number(f"{where}, masked_cores", c) for c in self.masked_cores}
        object.__setattr__(self, "masked_cores", tuple(sorted(masked.union(self.topology.missing_cores))))
        bad = [c for c in self.masked_cores if not 0 <= c < self.n_cores]
        if bad:
            raise InputError(f"{where}, masked_cores: expected core ids in 0..{self.n_cores - 1}, got {bad}")
        if len(self.masked_cores) == self.n_cores:
            raise InputError(f"{where}, masked_cores: all {self.n_cores} cores are masked; leave some to use")
        check_constants(f"{where}, capacities", self.capacities, CAPACITY_UNITS, tuple(CAPACITY_UNITS))
        for key, c in self.capacities.items():
            finite_number(f"{where}, capacities.{key}", c.value, 1.0, c.unit)
        self._check_costs()

    def _check_costs(self) -> None:
        where = f"system '{self.name}'"
        barriers = {key: "s" for key in self.costs if key.startswith(BARRIER + ".")}
        if f"{BARRIER}.chips_1" not in barriers:
            raise InputError(f"{where}, costs.{BARRIER}.chips_1: missing; expected the barrier time of one chip in s")
        for key in barriers:
            if not re.fullmatch(r"t_barrier_s\.chips_[1-9]\d*", key):
                raise InputError(f"{where}, costs.{key}: expected keys chips_1, chips_2, ... for the number of chips")
        divisors = ("message_bits", *(key for key in COST_UNITS if key.startswith("bandwidth")))
        check_constants(f"{where}, costs", self.costs, COST_UNITS | barriers, divisors)

    @classmethod
    def from_networkx(
        cls,
        graph: Any,
        cores_per_router: int = 1,
        *,
        name: str = "graph",
        masked_cores: Sequence[int] = (),
        combine: str = "max",
        copies: str = "per_core",
        **costs: float | Mapping[str, float],
    ) -> System:
        """Take a networkx graph as the topology: its nodes are routers 0, 1, ... in node order, its edges links.

        Capacities and costs are those of Loihi 2 except those given. Routes: see `nm.Graph`.

        Parameters
        ----------
        graph
            An undirected edge is a link both ways. Optional node attributes: `chip` (default 0), `cores` (default
            `cores_per_router`; fewer leave the rest masked, a switch has 0), a place for drawings as `x` and `y` or as
            `pos`. Optional edge attribute: `link_class` (mesh_x, mesh_y or chip; default chip between chips, else
            mesh_x).
        cores_per_router
            Cores at each router, or the most.
        name, masked_cores, combine, copies, **costs
            As of `nm.mesh_system`.

        Raises
        ------
        InputError
            For graphs that are not (strongly) connected, loops, parallel edges and wrong attributes.

        """
        where = f"system '{name}'"
        topology = graph_from_networkx(graph, cores_per_router, where)
        return _with_costs("System.from_networkx", name, topology, masked_cores, combine, copies, costs)

    def cost(self, key: str) -> float:
        """Value of a cost by its full name, e.g. ``t_synop_s`` or ``e_link_j.chip``."""
        return self.costs[key].value

    @property
    def synapse_words(self) -> int:
        """Synapse memory of a core in 64-bit words."""
        return int(self.capacities["synapse_words"].value)

    @property
    def neurons_per_core(self) -> int:
        """Neurons a core can hold."""
        return int(self.capacities["neurons"].value)

    @property
    def n_chips(self) -> int:
        """Chips in the system."""
        return self.topology.n_chips

    @property
    def n_routers(self) -> int:
        """Routers of all chips."""
        return self.topology.n_routers

    @property
    def n_cores(self) -> int:
        """Cores of all chips, masked ones included."""
        return self.n_routers * self.topology.cores_per_router

    @cached_property
    def usable_cores(self) -> IndexArray:
        """Core ids that are not masked, ascending."""
        return np.setdiff1d(np.arange(self.n_cores, dtype=np.int32), np.array(self.masked_cores, dtype=np.int32))

    @cached_property
    def router_of_core(self) -> IndexArray:
        """(n_cores,) router id of each core."""
        return np.arange(self.n_cores, dtype=np.int32) // np.int32(self.topology.cores_per_router)

    @property
    def chip_of_router(self) -> IndexArray:
        """(n_routers,) chip id of each router."""
        return self.topology.chip_of_router

    @property
    def router_xy(self) -> IndexArray | FloatArray | None:
        """(n_routers, 2) place of each router: mesh coordinates, or what a graph gives for drawing, if anything."""
        return self.topology.router_xy

    @property
    def links(self) -> Links:
        """Directed links between routers, numbered so that routes are few intervals."""
        return self.topology.link_table

    @property
    def routes(self) -> Routes:
        """Routes between all pairs of routers: x first, then y on a mesh, shortest paths on a graph."""
        return self.topology.routes

    @property
    def hops(self) -> IndexArray:
        """(n_routers, n_routers) links between routers on the route from one to another."""
        return self.topology.hops

    @cached_property
    def next_link(self) -> IndexArray:
        """(n_routers, n_routers) first link on the route from one router to another; 0 where there is none to take."""
        n, (start, first, stop) = self.n_routers, self.routes
        has = start[1:] > start[:-1]
        at = start[:-1][has]
        source = np.repeat(np.arange(n, dtype=np.int32), n)[has]
        # An interval of links may be travelled from either end.
        link = np.zeros(n * n, dtype=np.int32)
        link[has] = np.where(self.links.source[first[at]] == source, first[at], stop[at] - 1)
        return link.reshape(n, n)

    def per_link(self, cost: str) -> FloatArray:
        """(n_links,) value of a cost that has one number per link class, e.g. ``e_link_j``."""
        return np.array([self.cost(f"{cost}.{c}") for c in MESH_CLASSES])[self.links.link_class]

    def barrier_s(self, chips: FloatArray) -> FloatArray:
        """Barrier time for numbers of chips used, interpolated in log(chips) between the given ones."""
        table = sorted((int(k.rpartition("_")[2]), v.value) for k, v in self.costs.items() if k.startswith(BARRIER))
        known = np.log([n for n, _ in table])
        return np.asarray(np.interp(np.log(chips), known, np.array([s for _, s in table])), dtype=np.float64)

    def with_barrier(self, busy_s: FloatArray, barrier_s: FloatArray | float) -> FloatArray:
        """Step times in which cores and links are busy for `busy_s`: the longer of both, or their sum (`combine`)."""
        return np.asarray(np.maximum(busy_s, barrier_s) if self.combine == "max" else busy_s + barrier_s)

    def with_costs(self, changes: Mapping[str, float | Constant]) -> System:
        """Return the system with some costs changed, by full name; a bare number keeps unit, source and kind.

        Topology and routes are shared with this one.
        """
        costs = dict(self.costs)
        for key, given in changes.items():
            if isinstance(given, Constant):
                costs[key] = given
            elif key in costs:
                costs[key] = replace(costs[key], value=given, low=None, high=None)
            else:
                raise InputError(f"system '{self.name}': no cost '{key}'{did_you_mean(key, costs)}")
        other = copy.copy(self)
        object.__setattr__(other, "costs", costs)
        other.__dict__.pop("digest", None)
        other._check_costs()
        return other

    def to_dict(self) -> dict[str, Any]:
        """Return the system in the form of a system YAML."""
        return {
            "name": self.name,
            "topology": self.topology.to_dict(),
            "masked_cores": list(self.masked_cores),
            "combine": self.combine,
            "copies": self.copies,
            "capacities": nested(self.capacities),
            "costs": nested(self.costs),
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the numbers (names and sources do not count)."""
        content = {
            "topology": self.topology.content,
            "masked_cores": self.masked_cores,
            "combine": self.combine,
            "copies": self.copies,
            "numbers": {k: float(c.value) for k, c in sorted({**self.capacities, **self.costs}.items())},
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, System) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)
