"""Plain-Python oracle of the analytic model, written from the equations alone.

It shares no code with the partitioner, the kernels or the analytic evaluator, walks every synapse and every hop, and is
slow. Tests compare the fast path with it; anyone can read it as the definition of the metrics.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from neuromap_moo.mapping.mapping import Mapping
from neuromap_moo.network.connectivity import Convolution, Dense
from neuromap_moo.network.network import Network, Projection
from neuromap_moo.partition.core_graph import CoreGraph
from neuromap_moo.system.system import System
from neuromap_moo.system.topology import Graph, Mesh


def reference_metrics(network: Network | CoreGraph, system: System, mapping: Mapping) -> dict[str, Any]:
    """Return all metric columns of one mapping by the equations of docs/model.md.

    Parameters
    ----------
    network
        what is mapped: a network, or a core graph whose partition is fixed.
    system
        where it is mapped to.
    mapping
        legal for both; not checked.

    Returns
    -------
    numbers by column of COLUMNS, and `bottleneck` as text.

    """
    if isinstance(network, CoreGraph):
        dendops, synops, reads = (list(map(float, x)) for x in (network.dendops, network.synops, network.synmem_reads))
        sent = {
            (int(b), int(c)): float(m) for b, c, m in zip(network.source, network.target, network.messages, strict=True)
        }
        depth = network.depth
    else:
        dendops, synops, reads, sent = _count(network, mapping)
        depth = _depth(network)
    steps = network.steps_per_inference
    cost = {key: c.value for key, c in system.costs.items()}
    load, inter_chip = _loads(network, system, mapping, sent)
    between = [m for link, m in load.items() if link[0] not in ("inject", "eject")]
    chips = len({_chip(system, core) for core in mapping.core_of_slice})
    cores = len(mapping.core_of_slice)

    terms = {
        "dendops": max(dendops) * cost["t_dendop_s"],
        "synops": max(synops) * cost["t_synop_s"],
        "synmem_reads": max(reads) * cost["t_synmem_s"],
        "link": max(
            (m * cost["message_bits"] / cost[f"bandwidth_bit_per_s.{link[0]}"] for link, m in load.items()), default=0.0
        ),
        "barrier": _barrier(cost, chips),
    }
    if system.combine == "max":
        step = max(terms.values())
    else:
        step = max(v for k, v in terms.items() if k != "barrier") + terms["barrier"]
    energy = {
        "e_static_j": steps * (cost["p_chip_w"] * chips + cost["p_core_w"] * cores) * step,
        "e_dendops_j": steps * cost["e_dendop_j"] * math.fsum(dendops),
        "e_synops_j": steps * cost["e_synop_j"] * math.fsum(synops),
        "e_synmem_reads_j": steps * cost["e_synmem_j"] * math.fsum(reads),
        "e_messages_j": steps * cost["e_message_j"] * math.fsum(sent.values()),
        "e_links_j": steps * math.fsum(m * cost[f"e_link_j.{link[0]}"] for link, m in load.items()),
    }
    return {
        "latency_s": (steps + depth - 1) * step,
        "energy_j": math.fsum(energy.values()),
        "step_time_s": step,
        "throughput_hz": 1 / (steps * step) if step else math.inf,
        **{f"t_{name}_s": value for name, value in terms.items()},
        "bottleneck": max(terms, key=lambda name: terms[name]),
        **energy,
        "messages": math.fsum(sent.values()),
        "message_hops": math.fsum(between),
        "peak_link_messages": max(between, default=0.0),
        "inter_chip_messages": inter_chip,
        "cores_used": cores,
        "chips_used": chips,
    }


def _loads(
    network: Network | CoreGraph, system: System, mapping: Mapping, sent: dict[tuple[int, int], float]
) -> tuple[dict[tuple[Any, ...], float], float]:
    """Walk every message over its links; a link is (class, from, to). Also returns the messages between chips."""
    load: dict[tuple[Any, ...], float] = {}
    inter_chip = 0.0
    for (b, c), m in sent.items():
        for link in route(system, mapping.core_of_slice[b], mapping.core_of_slice[c]):
            load[link] = load.get(link, 0.0) + m
        if _chip(system, mapping.core_of_slice[b]) != _chip(system, mapping.core_of_slice[c]):
            inter_chip += m
    if system.copies == "per_route" and isinstance(network, Network):
        load = _shared_load(network, system, mapping)
    return load, inter_chip


def _count(
    network: Network, mapping: Mapping
) -> tuple[list[float], list[float], list[float], dict[tuple[int, int], float]]:
    slice_of = _slices(network, mapping)
    dendops = [0.0] * sum(mapping.cores_per_layer)
    for owner in slice_of.values():
        for c in owner:
            dendops[c] += 1.0
    synops, reads = [0.0] * len(dendops), [0.0] * len(dendops)
    sent: dict[tuple[int, int], float] = {}
    for p in network.projections:
        activity = next(layer.activity for layer in network.layers if layer.name == p.source)
        for i in range(p.connectivity.n_source):
            synapses: dict[int, int] = {}
            for j in _targets(p, i):
                c = slice_of[p.target][j]
                synapses[c] = synapses.get(c, 0) + 1
            a = float(activity[i])
            for c, s in synapses.items():
                synops[c] += a * s
                reads[c] += a * math.ceil((s * (p.weight_bits + 12) + 16) / 64) if p.weight_bits else 0.0
                pair = (slice_of[p.source][i], c)
                sent[pair] = sent.get(pair, 0.0) + a
    return dendops, synops, reads, {pair: m for pair, m in sent.items() if m > 0}


def _slices(network: Network, mapping: Mapping) -> dict[str, list[int]]:
    """Slice of each neuron, by layer name."""
    slice_of: dict[str, list[int]] = {}
    n = 0
    for layer, k in zip(network.layers, mapping.cores_per_layer, strict=True):
        slice_of[layer.name] = []
        for i in range(k):
            slice_of[layer.name] += [n] * (layer.size // k + (1 if i < layer.size % k else 0))
            n += 1
    return slice_of


def _targets(projection: Projection, neuron: int) -> list[int]:
    """Target neurons of one source neuron."""
    c = projection.connectivity
    if isinstance(c, Dense):
        return list(range(c.n_target))
    if isinstance(c, Convolution):
        return _targets_of_convolution(c, neuron)
    targets: list[int] = c.indices[c.indptr[neuron] : c.indptr[neuron + 1]].tolist()
    return targets


def _targets_of_convolution(c: Convolution, neuron: int) -> list[int]:
    """Kernel position after kernel position, as a convolution is defined; numbered as the target is cut."""
    (n_in, height, width), (n_out, out_height, out_width) = c.input_shape, c.output_shape
    place = int(c.place[neuron])
    if place < 0:
        return []
    channel, (y, x) = place // (height * width), divmod(place % (height * width), width)
    group = channel // (n_in // c.groups)
    found = set()
    for j, i in itertools.product(range(c.kernel[0]), range(c.kernel[1])):
        to_v, to_u = j * c.dilation[0] - c.padding[0], i * c.dilation[1] - c.padding[1]
        if c.transposed:
            v, u = y * c.stride[0] + to_v, x * c.stride[1] + to_u
        else:
            (v, rest_v), (u, rest_u) = divmod(y - to_v, c.stride[0]), divmod(x - to_u, c.stride[1])
            if rest_v or rest_u:
                continue
        if not (0 <= v < out_height and 0 <= u < out_width):
            continue
        for d in range(group * n_out // c.groups, (group + 1) * n_out // c.groups):
            found.add(
                {
                    "channels": (d * out_height + v) * out_width + u,
                    "rows": (v * out_width + u) * n_out + d,
                    "columns": (u * out_height + v) * n_out + d,
                }[c.cut]
            )
    return sorted(found)


def _shared_load(network: Network, system: System, mapping: Mapping) -> dict[tuple[Any, ...], float]:
    """Messages per link where a neuron's message is copied only where its routes part."""
    load: dict[tuple[Any, ...], float] = {}
    slice_of = _slices(network, mapping)
    for layer in network.layers:
        for i in range(layer.size):
            links: set[tuple[Any, ...]] = set()
            for p in network.projections:
                if p.source != layer.name:
                    continue
                for c in {slice_of[p.target][j] for j in _targets(p, i)}:
                    own, other = mapping.core_of_slice[slice_of[layer.name][i]], mapping.core_of_slice[c]
                    links.update(route(system, own, other))
            for link in links:
                load[link] = load.get(link, 0.0) + float(layer.activity[i])
    return load


def _depth(network: Network) -> int:
    """Longest path in projections; reaching a layer of a cycle adds its cycle (all layers on it) once."""
    after: dict[str, set[str]] = {layer.name: set() for layer in network.layers}
    for p in network.projections:
        after[p.source].add(p.target)

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        todo = list(after[start])
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += after[name]
        return seen

    reach = {name: reachable(name) for name in after}
    together = {name: frozenset({other for other in reach[name] if name in reach[other]} | {name}) for name in after}

    def longest(group: frozenset[str]) -> int:
        own = len(group) if any(name in reach[name] for name in group) else 0
        onward = {together[b] for a in group for b in after[a]} - {group}
        return own + max((1 + longest(g) for g in onward), default=0)

    return max(1, *(longest(g) for g in set(together.values())))


def _chip(system: System, core: int) -> int:
    t = system.topology
    if isinstance(t, Graph):
        return t.chips[core // t.cores_per_router]
    return core // (t.width * t.height * t.cores_per_router)


def _position(t: Mesh, core: int) -> tuple[int, int]:
    chip, local = divmod(core, t.width * t.height * t.cores_per_router)
    router = local // t.cores_per_router
    return (chip % t.chips_x) * t.width + router % t.width, (chip // t.chips_x) * t.height + router // t.width


def route(system: System, source: int, target: int) -> list[tuple[Any, ...]]:
    """Links from core to core as (class, from, to); routers are (x, y) on a mesh, ids on a graph.

    Parameters
    ----------
    system
        where mappings go.
    source
        core that sends.
    target
        core that receives.

    """
    t = system.topology
    way = _shortest_way(t, source, target) if isinstance(t, Graph) else _x_then_y(t, source, target)
    return [("inject", source), *way, ("eject", target)]


def _x_then_y(t: Mesh, source: int, target: int) -> list[tuple[Any, ...]]:
    (x, y), (x2, y2) = _position(t, source), _position(t, target)
    path: list[tuple[Any, ...]] = []
    while (x, y) != (x2, y2):
        here = (x, y)
        if x != x2:
            x += 1 if x2 > x else -1
        else:
            y += 1 if y2 > y else -1
        crosses = (here[0] // t.width, here[1] // t.height) != (x // t.width, y // t.height)
        kind = "chip" if crosses else "mesh_x" if here[1] == y else "mesh_y"
        path.append((kind, here, (x, y)))
    return path


def _shortest_way(t: Graph, source: int, target: int) -> list[tuple[Any, ...]]:
    """Fewest links; where several ways are as short, the lowest next router at every step."""
    here, end = source // t.cores_per_router, target // t.cores_per_router
    distance = {end: 0}
    rim = [end]
    while rim:
        reached = {a for a, b, _ in t.links if b in rim and a not in distance}
        distance |= dict.fromkeys(reached, distance[rim[0]] + 1)
        rim = sorted(reached)
    path: list[tuple[Any, ...]] = []
    while here != end:
        nearer = {b: kind for a, b, kind in t.links if a == here and distance[b] == distance[here] - 1}
        path.append((nearer[min(nearer)], here, min(nearer)))
        here = min(nearer)
    return path


def _barrier(cost: dict[str, float], chips: int) -> float:
    table = sorted((int(k.split("chips_")[1]), v) for k, v in cost.items() if k.startswith("t_barrier_s"))
    for (n1, s1), (n2, s2) in itertools.pairwise(table):
        if n1 <= chips <= n2:
            return s1 + (s2 - s1) * math.log(chips / n1) / math.log(n2 / n1)
    return table[0][1] if chips < table[0][0] else table[-1][1]
