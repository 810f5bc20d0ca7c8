"""Topologies from a few numbers, from the content of a YAML file and from networkx graphs."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from neuromap_moo.errors import InputError, did_you_mean, whole_number
from neuromap_moo.system.topology import GIVEN, Graph, Mesh, Topology, check_size


def torus(
    where: str, width: int, height: int, cores_per_router: int = 1, source: str = GIVEN["source"], kind: str = "assumed"
) -> Graph:
    """Return a mesh of one chip that wraps around both ways: router y * width + x, links mesh_x and mesh_y.

    Along a side of two routers the way round is the direct link, which is there once.

    Parameters
    ----------
    where
        Names the topology in errors.
    width, height
        Routers along x and y.
    cores_per_router
        Cores at each router.
    source, kind
        As of `Graph`.

    """
    width, height = whole_number(f"{where}.width", width, 1), whole_number(f"{where}.height", height, 1)
    check_size(where, width * height)
    links = {}
    for y, x in itertools.product(range(height), range(width)):
        here = y * width + x
        for name, there in (("mesh_x", y * width + (x + 1) % width), ("mesh_y", (y + 1) % height * width + x)):
            if here != there:
                links[min(here, there), max(here, there)] = name
    xy = [(x, y) for y, x in itertools.product(range(height), range(width))]
    triples = [(a, b, name) for (a, b), name in links.items()]
    return Graph(width * height, triples, cores_per_router, xy=xy, source=source, kind=kind)


def tree(
    where: str,
    branching: int,
    depth: int,
    cores_per_router: int = 1,
    cores_at: str = "leaves",
    source: str = GIVEN["source"],
    kind: str = "assumed",
) -> Graph:
    """Return a complete tree: router 0 is the root, the `branching` children of router r begin at branching * r + 1.

    Parameters
    ----------
    where
        Names the topology in errors.
    branching
        Children of a router.
    depth
        Links from the root to a leaf.
    cores_per_router
        Cores at each router that has any.
    cores_at
        Which routers have cores: "leaves" or "all".
    source, kind
        As of `Graph`.

    """
    branching, depth = whole_number(f"{where}.branching", branching, 1), whole_number(f"{where}.depth", depth, 1)
    if cores_at not in ("leaves", "all"):
        raise InputError(f"{where}.cores_at: got {cores_at!r}{did_you_mean(str(cores_at), ('leaves', 'all'))}")
    k = whole_number(f"{where}.cores_per_router", cores_per_router, 1)
    levels, routers = [1], 1
    while len(levels) <= depth:
        levels.append(levels[-1] * branching)
        routers += levels[-1]
        check_size(where, routers)
    xy = [((i + 0.5) * levels[-1] / n - 0.5, float(y)) for y, n in enumerate(levels) for i in range(n)]
    links = [((child - 1) // branching, child) for child in range(1, routers)]
    inner = routers - levels[-1]
    cores = [0] * inner + [k] * levels[-1] if cores_at == "leaves" else ()
    return Graph(routers, links, k, cores=cores, xy=xy, source=source, kind=kind)


#: What makes a topology of each type; the keys of the YAML are the parameters.
TYPES: dict[str, Any] = {"mesh": Mesh, "graph": Graph, "torus": torus, "tree": tree}
NEEDED = {
    "width": "routers per chip along that side",
    "height": "routers per chip along that side",
    "routers": "the number of routers",
    "links": "a list of pairs of routers",
    "branching": "the children of a router",
    "depth": "the links from the root to a leaf",
}


def topology_from_dict(data: Mapping[str, Any], where: str) -> Topology:
    """Build a topology from that part of a system YAML; `where` names it in errors. Keys that are null do not count."""
    given = {key: value for key, value in data.items() if value is not None}
    kind = given.pop("type", "mesh")
    if kind not in TYPES:
        raise InputError(f"{where}.type: no {kind!r}{did_you_mean(str(kind), TYPES)}")
    known = {name: {*inspect.signature(make).parameters} - {"where"} for name, make in TYPES.items()}
    for key in given:
        if key not in known[kind]:
            raise _unknown_key(where, key, kind, known)
    for key, what in NEEDED.items():
        if key in known[kind] and key not in given:
            raise InputError(f"{where}.{key}: missing; expected {what}")
    made: Topology = TYPES[kind](where, **given) if kind in ("torus", "tree") else TYPES[kind](**given)
    return made


def _unknown_key(where: str, key: str, kind: str, known: Mapping[str, set[str]]) -> InputError:
    """Return the error for a key that a topology of this kind has not, which another may have."""
    others = [name for name in TYPES if key in known[name]]
    if not others:
        return InputError(f"{where}: unknown key '{key}'{did_you_mean(key, known[kind])}")
    return InputError(
        f"{where}.{key}: expected a key of type {kind} ({', '.join(sorted(known[kind]))}), got one of type "
        f"{' or '.join(others)}; set it to null or leave it out"
    )


def graph_from_networkx(graph: Any, cores_per_router: int, where: str) -> Graph:
    """Take a networkx graph: nodes are routers in node order; see `System.from_networkx` for the attributes."""
    if not hasattr(graph, "nodes") or not hasattr(graph, "is_directed"):
        raise InputError(f"{where}: expected a networkx graph, got {graph!r:.60}")
    cores_per_router = whole_number(f"{where}, cores_per_router", cores_per_router, 1)
    index = {node: i for i, node in enumerate(graph.nodes)}
    chips, cores, places = [], [], []
    for node, attributes in graph.nodes(data=True):
        chips.append(whole_number(f"{where}, node {node!r}, chip", attributes.get("chip", 0)))
        cores.append(whole_number(f"{where}, node {node!r}, cores", attributes.get("cores", cores_per_router)))
        place = (attributes["x"], attributes["y"]) if {"x", "y"} <= set(attributes) else attributes.get("pos")
        if place is not None:
            places.append(tuple(place) if isinstance(place, Iterable) else place)
    links = [
        (index[a], index[b], *([name] if name is not None else [])) for a, b, name in graph.edges(data="link_class")
    ]
    some_missing = any(has != cores_per_router for has in cores)
    return Graph(len(index), links, cores_per_router, graph.is_directed(), chips, cores if some_missing else (), places)
