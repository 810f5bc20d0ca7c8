"""Incremental moves against evaluating anew, and how their cost grows with the system.

    python benchmarks/moves.py [--moves 100000] [--largest 2025]

One thread; every time stands beside another of the same process. A move here is the exchange of two slices with all
link loads, maxima and sums kept up; a fresh evaluation is one placement of a batch of 1000 by the analytic evaluator.
"""

from __future__ import annotations

import argparse
import time

import networkx as nx
import numpy as np
from evaluation import best_of

import neuromap_moo as nm
from neuromap_moo.annealing import tables
from neuromap_moo.annealing.metropolis import NO_MOVES, walk
from neuromap_moo.annealing.run import advance, start_run
from neuromap_moo.annealing.space import AnnealingCache, Scalarisation

DEGREE = 40
EVERYTHING = ("latency_s", "energy_j")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--moves", type=int, default=100_000, help="that are timed together")
    parser.add_argument("--largest", type=int, default=2025, help="no systems with more routers than that")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    print_exchanges(rng, arguments.moves, arguments.largest)
    print_annealed(rng, arguments.moves, arguments.largest)
    print("\ncutting two layers anew against putting the whole mapping anew (mlp_b, 94 cores)")
    changed, whole = recuts(mlp_b(), rng)
    print(f"changed layers {1e6 * changed:.1f} us, whole mapping {1e6 * whole:.1f} us, {whole / changed:.2f} times")


def print_exchanges(rng: np.random.Generator, n_moves: int, largest: int) -> None:
    print(f"exchange of two slices with {DEGREE} partners each, places drawn from the whole system")
    print("routers  edges   move us   moves that are kept us   fresh evaluation us   fresh/move")
    for width, height in ((12, 10), (16, 16), (32, 32)):
        n = width * height
        if n > largest:
            continue
        graph = core_graph(n, DEGREE)
        problem = nm.MappingProblem(graph, nm.mesh_system(width, height), EVERYTHING)
        kept, looked_at = (exchanges(problem, rng, n_moves, hot) for hot in (True, False))
        fresh = evaluation(problem, rng)
        print(
            f"{n:7d} {graph.messages.size:6d} {1e6 * looked_at:9.2f} {1e6 * kept:24.2f} {1e6 * fresh:21.1f}"
            f" {fresh / looked_at:12.1f}"
        )


def print_annealed(rng: np.random.Generator, n_moves: int, largest: int) -> None:
    print("\nannealed placements of a grid of slices (4 partners each), where routes are short")
    print("routers   hops alone ns/move   latency and energy ns/move")
    for side in (8, 16, 32, 45):
        if side * side > largest:
            continue
        system = nm.mesh_system(side, side)
        row = [f"{side * side:7d}"]
        for objectives in (("message_hops",), EVERYTHING):
            problem = nm.MappingProblem(grid_graph(side), system, objectives)
            row.append(f"{1e9 * annealed(problem, rng, n_moves):20.0f}")
        print(*row)


def mlp_b() -> nm.MappingProblem:
    return nm.MappingProblem(
        nm.sparse_mlp([1024, 2048, 2048, 2048, 1024, 1024, 512], 0.03), nm.load_system("loihi2"), EVERYTHING
    )


def core_graph(n: int, degree: int) -> nm.CoreGraph:
    """Random graph in which every slice has `degree` partners; each message goes one way."""
    graph = nx.random_regular_graph(degree, n, seed=0)
    rng = np.random.default_rng(0)
    directed = nx.DiGraph()
    directed.add_nodes_from(range(n))
    for a, b in graph.edges:
        a, b = (a, b) if rng.random() < 0.5 else (b, a)
        directed.add_edge(a, b, messages=float(rng.lognormal()))
    return nm.CoreGraph.from_networkx(directed)


def grid_graph(side: int) -> nm.CoreGraph:
    graph = nx.convert_node_labels_to_integers(nx.grid_2d_graph(side, side))
    nx.set_edge_attributes(graph, 1.0, "messages")
    return nm.CoreGraph.from_networkx(graph)


def prepared(
    problem: nm.MappingProblem, place: np.ndarray
) -> tuple[AnnealingCache, tables.Neighbours, tables.Cost, tables.State]:
    cache = problem.space.cache
    partition = cache.partition_tables(problem.encoding.minimum)
    cost = cache.cost(partition, Scalarisation(tuple(1.0 / problem.reference_point)))
    state = cache.borrow_state(place.size)
    tables.put(cache.links, partition.neighbours, cost, state, place)
    return cache, partition.neighbours, cost, state


def exchanges(problem: nm.MappingProblem, rng: np.random.Generator, n_moves: int, kept: bool) -> float:
    """Seconds per exchange; all kept, or all turned down after every link has been looked at."""
    n = problem.encoding.n_cores
    cache, neighbours, cost, state = prepared(problem, rng.permutation(n))
    if not kept:
        # A linear part of the other sign lets every move pass the first test and fail the last.
        cost = cost._replace(
            pair_x=-1e3 * cost.pair_x, pair_y=-1e3 * cost.pair_y, max_terms=cost.max_terms._replace(per_peak=1e12)
        )
        tables.put(cache.links, neighbours, cost, state, state.place.copy())
    given = rng.integers(n, size=(n_moves, 2)) if kept else NO_MOVES
    best = np.empty_like(state.place)
    temperature = 1e300 if kept else 1e-300
    walk(rng, cache.links, neighbours, cost, state, 10, temperature, temperature, given[:10], best)
    start = time.perf_counter()
    _, looked, _ = walk(rng, cache.links, neighbours, cost, state, n_moves, temperature, temperature, given, best)
    return float((time.perf_counter() - start) / max(looked, 1))


def evaluation(problem: nm.MappingProblem, rng: np.random.Generator) -> float:
    X = problem.encoding.random(1000, rng)
    X[:, problem.encoding.n_layers :] = rng.permuted(X[:, problem.encoding.n_layers :], axis=1)
    batch = problem.encoding.decode(X)
    return best_of(lambda: problem.evaluator.evaluate(batch)) / 1000


def annealed(problem: nm.MappingProblem, rng: np.random.Generator, n_moves: int) -> float:
    """Seconds per move late in an annealing run."""
    n = problem.encoding.n_cores
    in_order = np.concatenate([np.zeros(problem.encoding.n_layers, dtype=np.int64), np.arange(n)])
    scalarisation = Scalarisation(tuple(1.0 / problem.reference_point))
    run = start_run(problem.space, scalarisation, in_order, n_moves, 1e-3, rng)
    advance(problem.space, run, 10, rng)
    start = time.perf_counter()
    made, _ = advance(problem.space, run, n_moves, rng)
    return float((time.perf_counter() - start) / made)


def recuts(problem: nm.MappingProblem, rng: np.random.Generator) -> tuple[float, float]:
    cache = problem.space.cache
    k = np.array([7, 13, 26, 26, 13, 7, 2])
    after = k + np.array([0, 0, 0, 0, 1, -1, 0])
    old_partition, partition = cache.partition_tables(k), cache.partition_tables(after)
    scalarisation = Scalarisation(tuple(1.0 / problem.reference_point))
    old_cost, cost = cache.cost(old_partition, scalarisation), cache.cost(partition, scalarisation)
    old, new = cache.borrow_state(int(k.sum())), tables.make_state(cache.links, int(after.sum()))
    place = rng.permutation(problem.encoding.n_cores)[: int(k.sum())]
    tables.put(cache.links, old_partition.neighbours, old_cost, old, place)
    changed = k != after
    seconds = best_of(
        lambda: tables.resize_layers(
            cache.links, old_partition.neighbours, old_cost, old, partition.neighbours, cost, new, place, changed
        ),
        200,
    )
    whole = best_of(lambda: tables.put(cache.links, partition.neighbours, cost, new, place), 200)
    return seconds, whole


if __name__ == "__main__":
    main()
