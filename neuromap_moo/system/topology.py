"""Topologies: routers, the links between them and the routes over those, for meshes and for arbitrary graphs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from numbers import Real
from typing import Any, TypeAlias

import numpy as np

from neuromap_moo.arrays import FloatArray, IndexArray
from neuromap_moo.errors import InputError, did_you_mean, whole_number
from neuromap_moo.system.routing import Links, Paths, Routes, shortest_paths, unconnected

KINDS = ("published", "derived", "assumed")
MESH_CLASSES = ("mesh_x", "mesh_y", "chip")  #: classes of the links between routers; a link's class is its index here

#: Where a number comes from when its user says nothing of it.
GIVEN = {"source": "given by the user", "kind": "assumed"}

#: Routes are tabled for every pair of routers; this many take about 90 MB on a mesh.
MAXIMUM_ROUTERS = 2048


@dataclass(frozen=True)
class Mesh:
    """A grid of chips, each a grid of routers with a few cores; dimension-order routing, x first.

    Parameters
    ----------
    width, height
        Routers per chip along x and y.
    cores_per_router
        Cores at each router.
    chips_x, chips_y
        Chips along x and y.
    source, kind
        Where the sizes come from, and how well they are known: published, derived or assumed.

    """

    width: int
    height: int
    cores_per_router: int = 1
    chips_x: int = 1
    chips_y: int = 1
    source: str = GIVEN["source"]
    kind: str = GIVEN["kind"]

    def checked(self, where: str) -> Mesh:
        """Return the mesh with plain numbers; raises InputError that names `where` and the key."""
        keys = ("width", "height", "cores_per_router", "chips_x", "chips_y")
        sizes: dict[str, Any] = {k: whole_number(f"{where}.{k}", getattr(self, k), 1) for k in keys}
        _check_kind(where, self.kind)
        mesh = replace(self, **sizes)
        check_size(where, mesh.n_routers)
        return mesh

    def to_dict(self) -> dict[str, Any]:
        """Return the mesh in the form of a system YAML."""
        return {"type": "mesh", **_fields(self)}

    @property
    def content(self) -> Any:
        """What the digest of a system counts."""
        return [self.width, self.height, self.cores_per_router, self.chips_x, self.chips_y]

    @property
    def n_chips(self) -> int:
        """Chips of the mesh."""
        return self.chips_x * self.chips_y

    @property
    def n_routers(self) -> int:
        """Routers of all chips."""
        return self.n_chips * self.width * self.height

    @property
    def missing_cores(self) -> list[int]:
        """Core ids that no router has: none, every router has all its cores."""
        return []

    @cached_property
    def chip_of_router(self) -> IndexArray:
        """(n_routers,) chip id of each router."""
        return np.arange(self.n_routers, dtype=np.int32) // np.int32(self.width * self.height)

    @cached_property
    def router_xy(self) -> IndexArray:
        """(n_routers, 2) global mesh coordinates of each router."""
        chip, local = np.divmod(np.arange(self.n_routers, dtype=np.int32), self.width * self.height)
        local_y, local_x = np.divmod(local, self.width)
        chip_y, chip_x = np.divmod(chip, self.chips_x)
        xy = np.stack([chip_x * self.width + local_x, chip_y * self.height + local_y], axis=1)
        return xy.astype(np.int32)

    @cached_property
    def link_table(self) -> Links:
        """Links between neighbours, both ways.

        Numbered so that the links of one row (or column) in one direction follow each other: east, west, south,
        north, which makes every dimension-order route at most two intervals.
        """
        columns, rows = self.width * self.chips_x, self.height * self.chips_y
        router = np.empty((rows, columns), dtype=np.int32)
        router[self.router_xy[:, 1], self.router_xy[:, 0]] = np.arange(self.n_routers)
        west_end, east_end = router[:, :-1].ravel(), router[:, 1:].ravel()
        north_end, south_end = router[:-1, :].T.ravel(), router[1:, :].T.ravel()
        source = np.concatenate([west_end, east_end, north_end, south_end])
        target = np.concatenate([east_end, west_end, south_end, north_end])
        link_class = np.repeat(np.array([0, 1], dtype=np.int32), [2 * west_end.size, 2 * north_end.size])
        link_class[self.chip_of_router[source] != self.chip_of_router[target]] = MESH_CLASSES.index("chip")
        return Links(source, target, link_class)

    @cached_property
    def routes(self) -> Routes:
        """Dimension-order routes, all of x first, then y, on global coordinates (docs/model.md, Routes)."""
        columns, rows = self.width * self.chips_x, self.height * self.chips_y
        n_x, n_y = rows * (columns - 1), columns * (rows - 1)
        x, y = self.router_xy[:, 0], self.router_xy[:, 1]
        x1, x2 = (a.ravel() for a in np.meshgrid(x, x, indexing="ij"))
        y1, y2 = (a.ravel() for a in np.meshgrid(y, y, indexing="ij"))
        row = y1 * (columns - 1) + np.where(x2 < x1, n_x, 0)
        column = 2 * n_x + x2 * (rows - 1) + np.where(y2 < y1, n_y, 0)
        first = np.stack([row + np.minimum(x1, x2), column + np.minimum(y1, y2)], axis=1)
        stop = np.stack([row + np.maximum(x1, x2), column + np.maximum(y1, y2)], axis=1)
        used = stop > first
        start = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
        return Routes(start.astype(np.int32), first[used].astype(np.int32), stop[used].astype(np.int32))

    @cached_property
    def hops(self) -> IndexArray:
        """(n_routers, n_routers) links on the route from one router to another."""
        x, y = self.router_xy.T
        hops: IndexArray = np.abs(x[:, None] - x) + np.abs(y[:, None] - y)
        return hops

    def walk(self, routers: IndexArray, along_x: bool) -> IndexArray:
        """Return `routers` row by row (or column by column), in alternating direction."""
        x, y = self.router_xy[routers].T
        along, across = (x, y) if along_x else (y, x)
        return routers[np.lexsort((np.where(across % 2 == 0, along, -along), across))]


@dataclass(frozen=True)
class Graph:
    """Routers joined by any links: a torus, a tree, whatever is connected.

    A route takes the fewest hops; where several do, it goes on at every router to the neighbour with the lowest id.
    In a System all of this is checked, and `links` holds every directed link as (source, target, class), sorted.

    Parameters
    ----------
    routers
        Their number; ids are 0, 1, ...
    links
        Pairs of router ids, or triples with a link class: mesh_x, mesh_y or chip; by default chip where the ends lie on
        different chips, else mesh_x.
    cores_per_router
        Most cores of a router.
    directed
        Whether each link goes one way alone.
    chips
        Chip of every router; all on chip 0 when left out.
    cores
        How many of its `cores_per_router` cores each router really has; all when left out, 0 for a switch.
    xy
        Place of each router in drawings, in any unit.
    source, kind
        Where the links come from, and how well they are known: published, derived or assumed.

    Examples
    --------
    >>> Graph(3, [(0, 1), (1, 2)]).checked("line").hops.tolist()
    [[0, 1, 2], [1, 0, 1], [2, 1, 0]]

    """

    routers: int
    links: Sequence[Sequence[Any]]
    cores_per_router: int = 1
    directed: bool = False
    chips: Sequence[int] = ()
    cores: Sequence[int] = ()
    xy: Sequence[Sequence[float]] = ()
    source: str = GIVEN["source"]
    kind: str = GIVEN["kind"]

    def checked(self, where: str) -> Graph:
        """Return the graph in its standard form; raises InputError that names `where`, the key and the router."""
        n = whole_number(f"{where}.routers", self.routers, 1)
        check_size(where, n)
        k = whole_number(f"{where}.cores_per_router", self.cores_per_router, 1)
        if not isinstance(self.directed, bool):
            raise InputError(f"{where}.directed: expected true or false, got {self.directed!r}")
        _check_kind(where, self.kind)
        chips = self._per_router(f"{where}.chips", self.chips, "a chip id") or (0,) * n
        for chip in range(max(chips)):
            if chip not in chips:
                raise InputError(
                    f"{where}.chips: expected chip ids without a gap from 0 to {max(chips)}, got no router "
                    f"on chip {chip}; number the chips anew"
                )
        cores = self._per_router(f"{where}.cores", self.cores, "a number of cores")
        if cores and max(cores) > k:
            raise InputError(
                f"{where}.cores: expected at most cores_per_router = {k} cores at a router, got {max(cores)} at router "
                f"{cores.index(max(cores))}; raise cores_per_router"
            )
        links = self._directed_links(f"{where}.links", chips)
        gap = unconnected(n, *_ends(links))
        if gap:
            raise InputError(
                f"{where}.links: expected a way between all routers, got none from {gap[0]} to {gap[1]}; add links"
            )
        xy = self._places(f"{where}.xy")
        return replace(self, routers=n, links=links, cores_per_router=k, directed=True, chips=chips, cores=cores, xy=xy)

    def to_dict(self) -> dict[str, Any]:
        """Return the graph in the form of a system YAML."""
        data = {"type": "graph", **_fields(self)}
        for key in ("links", "xy"):
            data[key] = [list(entry) for entry in data[key]]
        for key in ("chips", "cores"):
            data[key] = list(data[key])
        return {key: value for key, value in data.items() if value != []} | {"links": data["links"]}

    @property
    def content(self) -> Any:
        """What the digest of a system counts; places in drawings do not."""
        return [self.routers, self.cores_per_router, self.links, self.chips]

    @property
    def n_chips(self) -> int:
        """Chips that the routers lie on."""
        return max(self.chips) + 1

    @property
    def n_routers(self) -> int:
        """Routers of all chips."""
        return self.routers

    @property
    def missing_cores(self) -> list[int]:
        """Core ids that stand for no core because the router has fewer than `cores_per_router`."""
        k = self.cores_per_router
        return [router * k + j for router, has in enumerate(self.cores) for j in range(has, k)]

    @cached_property
    def chip_of_router(self) -> IndexArray:
        """(n_routers,) chip id of each router."""
        return np.array(self.chips, dtype=np.int32)

    @cached_property
    def router_xy(self) -> FloatArray | None:
        """(n_routers, 2) places of the routers in drawings, None where the graph gives none."""
        return np.array(self.xy, dtype=np.float64) if self.xy else None

    @property
    def link_table(self) -> Links:
        """Directed links, numbered so that links which routes often take one after the other follow each other."""
        return self._paths.links

    @property
    def hops(self) -> IndexArray:
        """(n_routers, n_routers) links on the route from one router to another."""
        return self._paths.hops

    @cached_property
    def routes(self) -> Routes:
        """Shortest paths, at each router on to the neighbour with the lowest id of those that are nearer.

        Raises InputError where their intervals would take too much memory.
        """
        return self._paths.routes()

    def walk(self, routers: IndexArray, along_x: bool) -> IndexArray:
        """Return `routers` in an order that goes on to the nearest one left, from one that lies at the rim.

        Distances are hops there and back, the lowest id is first among equals. A graph has no rows and columns:
        `along_x` makes no difference.
        """
        distance = (self.hops + self.hops.T)[np.ix_(routers, routers)]
        left = np.ones(len(routers), dtype=bool)
        at = int(distance.max(axis=1).argmax())
        walked = [at]
        for _ in range(len(routers) - 1):
            left[at] = False
            at = int(np.where(left, distance[at], np.iinfo(np.int32).max).argmin())
            walked.append(at)
        return routers[walked]

    @cached_property
    def _paths(self) -> Paths:
        link_class = np.array([MESH_CLASSES.index(name) for _, _, name in self.links], dtype=np.int32)
        return shortest_paths(self.routers, Links(*_ends(self.links), link_class))

    def _per_router(self, where: str, given: Any, what: str) -> tuple[int, ...]:
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise InputError(f"{where}: expected {what} for each of the {self.routers} routers, got {given!r}")
        numbers = tuple(whole_number(f"{where}, router {i}", value) for i, value in enumerate(given))
        if numbers and len(numbers) != self.routers:
            raise InputError(f"{where}: expected {what} for each of the {self.routers} routers, got {len(numbers)}")
        return numbers

    def _directed_links(self, where: str, chips: Sequence[int]) -> tuple[tuple[int, int, str], ...]:
        if isinstance(self.links, str) or not isinstance(self.links, Iterable):
            raise InputError(f"{where}: expected a list of pairs of routers, got {self.links!r}")
        links: dict[tuple[int, int], str] = {}
        for i, entry in enumerate(self.links):
            at = f"{where}, entry {i}"
            a, b, name = self._link(at, entry, chips)
            for pair in [(a, b)] if self.directed else [(a, b), (b, a)]:
                if pair in links:
                    mend = "give it once" if self.directed else "give it once, or set directed: true"
                    raise InputError(f"{at}: the link from router {pair[0]} to {pair[1]} is there already; {mend}")
                links[pair] = name
        return tuple((a, b, name) for (a, b), name in sorted(links.items()))

    def _link(self, at: str, entry: Any, chips: Sequence[int]) -> tuple[int, int, str]:
        """Return the ends and the class of a link, checked."""
        if isinstance(entry, str) or not isinstance(entry, Iterable) or not 2 <= len(parts := list(entry)) <= 3:
            raise InputError(f"{at}: expected two routers and perhaps a link class, got {entry!r}")
        a, b = (whole_number(at, end) for end in parts[:2])
        if max(a, b) >= self.routers:
            raise InputError(f"{at}: expected routers 0 to {self.routers - 1}, got {max(a, b)}; raise routers")
        if a == b:
            raise InputError(f"{at}: expected two different routers, got {a} twice; leave the link out")
        name = parts[2] if len(parts) == 3 else "mesh_x" if chips[a] == chips[b] else "chip"
        if name not in MESH_CLASSES:
            raise InputError(f"{at}: no link class {name!r}{did_you_mean(str(name), MESH_CLASSES)}")
        return a, b, name

    def _places(self, where: str) -> tuple[tuple[float, float], ...]:
        if isinstance(self.xy, str) or not isinstance(self.xy, Iterable):
            raise InputError(f"{where}: expected x and y for each of the {self.routers} routers, got {self.xy!r}")
        places = [_place(f"{where}, router {i}", entry) for i, entry in enumerate(self.xy)]
        if places and len(places) != self.routers:
            raise InputError(f"{where}: expected x and y for each of the {self.routers} routers, got {len(places)}")
        if len(set(places)) < len(places):
            twice = next(xy for xy in places if places.count(xy) > 1)
            raise InputError(f"{where}: expected routers in different places, got two at {twice}; move one of them")
        return tuple(places)


def _place(where: str, entry: Any) -> tuple[float, float]:
    pair: list[Any] = list(entry) if isinstance(entry, Iterable) else []
    if len(pair) != 2 or not all(isinstance(value, Real) and math.isfinite(value) for value in pair):
        raise InputError(f"{where}: expected x and y, two finite numbers, got {entry!r}")
    return float(pair[0]), float(pair[1])


Topology: TypeAlias = Mesh | Graph


def _ends(links: Sequence[Sequence[Any]]) -> tuple[IndexArray, IndexArray]:
    return np.array([a for a, *_ in links], dtype=np.int32), np.array([b for _, b, *_ in links], dtype=np.int32)


def check_size(where: str, n_routers: int) -> None:
    """Raise InputError for more than MAXIMUM_ROUTERS routers."""
    if n_routers > MAXIMUM_ROUTERS:
        raise InputError(
            f"{where}: expected at most {MAXIMUM_ROUTERS} routers, got {n_routers}; "
            "use fewer chips or more cores per router"
        )


def _check_kind(where: str, kind: str) -> None:
    if kind not in KINDS:
        raise InputError(f"{where}.kind: expected {' | '.join(KINDS)}, got '{kind}'")


def _fields(topology: Topology) -> dict[str, Any]:
    return {f.name: getattr(topology, f.name) for f in fields(topology)}
