"""Analytic evaluation of many placements against plain numpy, a straightforward compiled loop, and the oracle.

    python benchmarks/evaluation.py [--edges 1000 2000 4000 8000] [--placements 1000]

One thread; all figures come from one process, agreement is asserted, and every line gives a ratio to another.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import networkx as nx
import numpy as np
from numba import njit

import neuromap_moo as nm
from neuromap_moo.arrays import FloatArray, IndexArray, IntArray
from neuromap_moo.mapping.mapping import MappingBatch
from neuromap_moo.models.analytic import AnalyticEvaluator
from neuromap_moo.oracles.analytic import reference_metrics
from neuromap_moo.partition.fixed import FixedPartitioner

N_SLICES, WIDTH, HEIGHT = 120, 12, 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--edges", nargs="+", type=int, default=[1000, 2000, 4000, 8000], help="of the core graphs")
    parser.add_argument("--placements", type=int, default=1000, help="evaluated at once")
    arguments = parser.parse_args()
    system = nm.mesh_system(WIDTH, HEIGHT)
    seconds = {}
    print(f"{arguments.placements} placements of {N_SLICES} slices on a {WIDTH}x{HEIGHT} mesh")
    print("edges   ours ms   ns per edge and placement   loop/ours   numpy/ours   oracle/ours")
    for n_edges in arguments.edges:
        seconds[n_edges], *slower = compared(core_graph(n_edges), system, arguments.placements)
        each = seconds[n_edges] / n_edges / arguments.placements
        loop, in_numpy, oracle = (other / seconds[n_edges] for other in slower)
        ours = f"{1e3 * seconds[n_edges]:9.1f} {1e9 * each:27.2f}"
        print(f"{n_edges:5d} {ours} {loop:11.2f} {in_numpy:12.1f} {oracle:13.0f}")
    if len(seconds) > 1:
        slope = np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0]
        print(f"time grows with edges to the power {slope:.2f}")


def compared(graph: nm.CoreGraph, system: nm.System, n_placements: int) -> tuple[float, float, float, float]:
    """Seconds for all placements by the evaluator, the loop, numpy and the oracle, once they are seen to agree."""
    evaluator = AnalyticEvaluator(FixedPartitioner(graph, system), system)
    rng = np.random.default_rng(1)
    placements = rng.permuted(np.tile(np.arange(N_SLICES, dtype=np.int32), (n_placements, 1)), axis=1)
    batch = MappingBatch(np.ones((n_placements, N_SLICES), dtype=np.int64), placements)
    mapping = nm.Mapping((1,) * N_SLICES, tuple(placements[0].tolist()))
    start, links = paths(system)

    def by_loop(cores: IndexArray) -> FloatArray:
        return np.asarray(peak_loop(graph.source, graph.target, graph.messages, cores, WIDTH, HEIGHT))

    def by_numpy(cores: IndexArray) -> FloatArray:
        return peak_numpy(graph, cores, start, links)

    found = evaluator.evaluate(batch)["peak_link_messages"]
    np.testing.assert_allclose(by_numpy(placements[:20]), found[:20], rtol=1e-9)
    np.testing.assert_allclose(by_loop(placements), found, rtol=1e-9)
    oracle = reference_metrics(graph, system, mapping)["peak_link_messages"]
    np.testing.assert_allclose(oracle, found[0], rtol=1e-9)
    few = min(100, n_placements)
    return (
        best_of(lambda: evaluator.evaluate(batch)),
        best_of(lambda: by_loop(placements)),
        best_of(lambda: by_numpy(placements[:few])) * n_placements / few,
        best_of(lambda: reference_metrics(graph, system, mapping), repeats=2) * n_placements,
    )


def core_graph(n_edges: int) -> nm.CoreGraph:
    """Return a random core graph with messages of very different numbers."""
    rng = np.random.default_rng(0)
    graph = nx.gnm_random_graph(N_SLICES, n_edges, seed=0, directed=True)
    for edge in graph.edges:
        graph.edges[edge]["messages"] = float(rng.lognormal())
    return nm.CoreGraph.from_networkx(graph)


def best_of(call: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the quickest of some calls, after one that is not timed."""
    call()  # compiles
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def paths(system: nm.System) -> tuple[IntArray, IntArray]:
    """Links of every route, one after the other, and where each pair's begin."""
    routes = system.routes
    links: list[int] = []
    start = [0]
    for pair in range(system.n_routers**2):
        for j in range(routes.start[pair], routes.start[pair + 1]):
            links.extend(range(routes.first[j], routes.stop[j]))
        start.append(len(links))
    return np.array(start), np.array(links)


def peak_numpy(graph: nm.CoreGraph, placements: IndexArray, start: IntArray, links: IntArray) -> FloatArray:
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
