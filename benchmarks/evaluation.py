"""Analytic evaluation of many placements against plain numpy, a straightforward compiled loop, and the oracle.

    python benchmarks/evaluation.py

One thread; all figures come from one process, agreement is asserted, and every line gives a ratio to another.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import networkx as nx
import numpy as np
from numba import njit

import neuromap_moo as nm
from neuromap_moo.mapping.mapping import MappingBatch
from neuromap_moo.models.analytic import AnalyticEvaluator
from neuromap_moo.oracles.analytic import reference_metrics
from neuromap_moo.partition.fixed import FixedPartitioner

N_PLACEMENTS, N_SLICES = 1000, 120


def main() -> None:
    system = nm.mesh_system(12, 10)
    seconds = {}
    print(f"{N_PLACEMENTS} placements of {N_SLICES} slices on a 12x10 mesh")
    print("edges   ours ms   ns per edge and placement   loop/ours   numpy/ours   oracle/ours")
    for n_edges in (1000, 2000, 4000, 8000):
        graph = core_graph(n_edges)
        evaluator = AnalyticEvaluator(FixedPartitioner(graph, system), system)
        rng = np.random.default_rng(1)
        placements = rng.permuted(np.tile(np.arange(N_SLICES, dtype=np.int32), (N_PLACEMENTS, 1)), axis=1)
        batch = MappingBatch(np.ones((N_PLACEMENTS, N_SLICES), dtype=np.int64), placements)
        ours = best_of(lambda e=evaluator, b=batch: e.evaluate(b))
        found = evaluator.evaluate(batch)["peak_link_messages"]

        walk = paths(system)
        assert np.allclose(peak_numpy(graph, placements[:20], *walk), found[:20], rtol=1e-9)
        in_numpy = best_of(lambda g=graph, p=placements, w=walk: peak_numpy(g, p[:100], *w)) * N_PLACEMENTS / 100
        assert np.allclose(peak_loop(graph.source, graph.target, graph.messages, placements, 12, 10), found, rtol=1e-9)
        in_loop = best_of(lambda g=graph, p=placements: peak_loop(g.source, g.target, g.messages, p, 12, 10))

        mapping = nm.Mapping([1] * N_SLICES, placements[0])
        assert np.isclose(reference_metrics(graph, system, mapping)["peak_link_messages"], found[0], rtol=1e-9)
        oracle = best_of(lambda g=graph, m=mapping: reference_metrics(g, system, m), repeats=2) * N_PLACEMENTS
        seconds[n_edges] = ours
        print(
            f"{n_edges:5d} {1e3 * ours:9.1f} {1e9 * ours / n_edges / N_PLACEMENTS:27.2f} {in_loop / ours:11.2f} "
            f"{in_numpy / ours:12.1f} {oracle / ours:13.0f}"
        )
    slope = np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0]
    print(f"time grows with edges to the power {slope:.2f}")


def core_graph(n_edges: int) -> nm.CoreGraph:
    rng = np.random.default_rng(0)
    graph = nx.gnm_random_graph(N_SLICES, n_edges, seed=0, directed=True)
    for edge in graph.edges:
        graph.edges[edge]["messages"] = float(rng.lognormal())
    return nm.CoreGraph.from_networkx(graph)


def best_of(call: Callable[[], object], repeats: int = 5) -> float:
    call()  # compiles
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def paths(system: nm.System) -> tuple[np.ndarray, np.ndarray]:
    """Links of every route, one after the other, and where each pair's begin."""
    routes, links = system.routes, []
    start = [0]
    for pair in range(system.n_routers**2):
        for j in range(routes.start[pair], routes.start[pair + 1]):
            links.extend(range(routes.first[j], routes.stop[j]))
        start.append(len(links))
    return np.array(start), np.array(links)


def peak_numpy(graph: nm.CoreGraph, placements: np.ndarray, start: np.ndarray, links: np.ndarray) -> np.ndarray:
    """Busiest link in plain numpy: look up every route, repeat the messages, count per link."""
    peaks = []
    for cores in placements:
        pair = cores[graph.source].astype(np.int64) * len(cores) + cores[graph.target]
        hops = start[pair + 1] - start[pair]
        at = np.repeat(start[pair] - np.concatenate([[0], np.cumsum(hops)[:-1]]), hops) + np.arange(hops.sum())
        peaks.append(np.bincount(links[at], np.repeat(graph.messages, hops)).max())
    return np.array(peaks)


@njit(cache=True)
def peak_loop(source, target, messages, placements, width, height):  # type: ignore[no-untyped-def]
    """Busiest link by walking every hop of every message, the loop one would write first."""
    peaks = np.empty(len(placements))
    for n in range(len(placements)):
        load = np.zeros((4, width * height))
        for e in range(source.size):
            y, x = divmod(placements[n, source[e]], width)
            y2, x2 = divmod(placements[n, target[e]], width)
            while x < x2:
                load[0, y * width + x] += messages[e]
                x += 1
            while x > x2:
                load[1, y * width + x] += messages[e]
                x -= 1
            while y < y2:
                load[2, y * width + x] += messages[e]
                y += 1
            while y > y2:
                load[3, y * width + x] += messages[e]
                y -= 1
        peaks[n] = load.max()
    return peaks


if __name__ == "__main__":
    main()
