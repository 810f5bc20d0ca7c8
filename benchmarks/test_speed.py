"""Speeds that are tracked from change to change on one machine, by pytest-benchmark.

    python -m pytest benchmarks/test_speed.py -n0 --benchmark-timer=time.process_time --benchmark-autosave
    python -m pytest benchmarks/test_speed.py -n0 --benchmark-timer=time.process_time --benchmark-compare

The first command keeps the times in .benchmarks/, the second holds the present ones against the last that were kept;
`--benchmark-compare-fail=min:20%` makes it fail where they are worse.
"""

from __future__ import annotations

import numpy as np
import pytest
from evaluation import core_graph
from moves import EVERYTHING, annealed, exchanges, grid_graph, mlp_b, recuts
from moves import core_graph as regular_graph
from pytest_benchmark.fixture import BenchmarkFixture

import neuromap_moo as nm

N_MAPPINGS = 200


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("n_edges", [1000, 8000])
def test_placements(benchmark: BenchmarkFixture, rng: np.random.Generator, n_edges: int) -> None:
    problem = nm.MappingProblem(core_graph(n_edges), nm.mesh_system(12, 10), EVERYTHING)
    batch = problem.encoding.decode(problem.encoding.random(N_MAPPINGS, rng))
    benchmark(problem.evaluator.evaluate, batch)


def test_new_partitions(benchmark: BenchmarkFixture, rng: np.random.Generator) -> None:
    problem = mlp_b()
    benchmark(lambda: problem.evaluate(problem.encoding.random(N_MAPPINGS, rng)))


def test_packet_simulator(benchmark: BenchmarkFixture, rng: np.random.Generator) -> None:
    network = nm.sparse_mlp([64, 128, 64], 0.1)
    problem = nm.MappingProblem(network, nm.mesh_system(4, 4), evaluator={"name": "packet", "steps": 2})
    batch = problem.encoding.decode(problem.encoding.random(10, rng))
    benchmark(problem.evaluator.evaluate, batch)


@pytest.mark.parametrize("kept", [True, False])
def test_exchanges(benchmark: BenchmarkFixture, rng: np.random.Generator, kept: bool) -> None:
    problem = nm.MappingProblem(regular_graph(256, 40), nm.mesh_system(16, 16), EVERYTHING)
    benchmark(exchanges, problem, rng, 10_000, kept)


def test_annealing(benchmark: BenchmarkFixture, rng: np.random.Generator) -> None:
    problem = nm.MappingProblem(grid_graph(16), nm.mesh_system(16, 16), EVERYTHING)
    benchmark(annealed, problem, rng, 10_000)


def test_recuts(benchmark: BenchmarkFixture, rng: np.random.Generator) -> None:
    benchmark.pedantic(recuts, (mlp_b(), rng), rounds=3, warmup_rounds=1)


def test_search(benchmark: BenchmarkFixture) -> None:
    problem = mlp_b()
    benchmark.pedantic(nm.search, (problem,), {"evaluations": 300, "seed": 0}, rounds=3, warmup_rounds=1)
