"""Genotypes: decoding, repair, random draws, and the variation operators on them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.population import Population
from pymoo.optimize import minimize

import neuromap_moo as nm
from neuromap_moo.search.encoding import repartition
from neuromap_moo.search.operators import (
    DRAWN,
    MOVES,
    PLACEMENT_MOVES,
    MappingDuplicates,
    MappingRepair,
    cross_blocks,
    cross_layers,
    mutate,
)

CROSSES = (cross_layers, cross_blocks)


@pytest.fixture(scope="module")
def problem():
    """Three layers on 12 cores, one masked, where memory sets a minimum above 1 core."""
    network = nm.sparse_mlp([20, 30, 16], 0.5, seed=3)
    system = nm.mesh_system(3, 2, 2, synapse_words=70, masked_cores=[5])
    made = nm.MappingProblem(network, system)
    assert made.encoding.minimum.tolist() == [1, 2, 2]
    return made


@pytest.fixture(scope="module")
def gapped():
    """A layer that fits in 2 and in 5 slices but not in 3 or 4: neurons 2 and 3 of six are the heavy ones."""
    rows, columns = np.nonzero(np.tile([0, 0, 1, 1, 0, 0], (8, 1)))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows))])
    layers = (nm.Layer("a", 8, "input", np.ones(8)), nm.Layer("b", 6, "lif", np.zeros(6)))
    network = nm.Network("gapped", layers, (nm.Projection("a", "b", nm.Sparse(8, 6, indptr, columns), 30),))
    # one synapse: ceil((42 + 16) / 64) = 1 word, two of the same source: ceil((84 + 16) / 64) = 2 words; 8 sources
    made = nm.MappingProblem(network, nm.mesh_system(4, 2, synapse_words=8))
    assert made.encoding.fits[1].tolist() == [False, False, True, False, False, True, True, False, False]
    return made


def assert_feasible(problem, X):
    for row, mapping in zip(X, problem.encoding.decode(X).unstack(), strict=True):
        assert sorted(row[problem.encoding.n_layers :]) == list(range(problem.encoding.n_cores))
        nm.check(mapping, problem)


@given(st.integers(0, 2**32 - 1))
def test_repair_makes_any_integers_feasible_and_is_idempotent(problem, gapped, seed):
    rng = np.random.default_rng(seed)
    for p in (problem, gapped):
        X = rng.integers(-5, 20, size=(5, p.n_var))
        repaired = p.encoding.repair(X)
        assert_feasible(p, repaired)
        assert (p.encoding.repair(repaired) == repaired).all()


def test_repair_keeps_feasible_rows_and_rounds_floats(problem):
    X = problem.encoding.random(50, np.random.default_rng(0))
    assert (problem.encoding.repair(X) == X).all()
    assert (problem.encoding.repair(X + 0.3) == X).all()


def test_repair_takes_the_largest_surplus_first_and_layers_keep_their_cores(problem):
    # Minimum 1, 2, 2; extras 9, 0, 3 ask for 10 + 2 + 5 = 17 of 11 cores. The largest surplus gives one back at a
    # time: layer 0 from 9 down to 3, so 4 + 2 + 5 = 11. Read as far as they go, the cores 0..9 were layer 0's and 10
    # layer 1's; layer 0 keeps 0..3, layer 1 its 10, and 4..9 go round to who lacks some.
    row = np.concatenate([[9, 0, 3], np.arange(11)])
    assert problem.encoding.repair(row[None]).tolist() == [[3, 0, 3, 0, 1, 2, 3, 10, 4, 5, 6, 7, 8, 9]]


def test_a_count_that_does_not_fit_moves_to_the_next_that_does(gapped):
    order = list(range(8))
    # Layer b: minimum 2, extra 1 asks for 3 slices, which do not fit; 5 do.
    assert gapped.encoding.repair(np.array([[0, 1, *order]]))[0, :2].tolist() == [0, 3]
    # With layer a on 5 cores only 3 are left: b goes down to 2.
    assert gapped.encoding.repair(np.array([[4, 1, *order]]))[0, :2].tolist() == [4, 0]


def test_repartition_keeps_cores_in_every_small_case():
    counts = [k for k in itertools.product(range(1, 5), repeat=3) if sum(k) <= 7]
    for old, new in itertools.product(counts, counts):
        order = np.arange(7)[::-1].copy()
        before = np.split(order.copy(), np.cumsum(old))
        repartition(order, np.array(old), np.array(new))
        after = np.split(order, np.cumsum(new))
        assert sorted(order) == list(range(7))
        for layer in range(3):
            kept = min(old[layer], new[layer])
            assert after[layer][:kept].tolist() == before[layer][:kept].tolist()
        # What is lacking comes from the front of the old tail first.
        lacking = np.concatenate([after[i][old[i] :] for i in range(3)])
        from_tail = min(len(lacking), len(before[3]))
        assert lacking[:from_tail].tolist() == before[3][:from_tail].tolist()


def test_decode_reads_layers_in_turn_and_ignores_the_tail(problem):
    # usable cores: 0 1 2 3 4 6 7 8 9 10 11; extras 1, 0, 1 on minimum 1, 2, 2 are 2, 2, 3 cores
    X = np.array([[1, 0, 1, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0], [0, 0, 0, *range(11)]])
    first, second = problem.encoding.decode(X).unstack()
    assert first == nm.Mapping([2, 2, 3], [11, 10, 9, 8, 7, 6, 4])
    assert second == nm.Mapping([1, 2, 2], [0, 1, 2, 3, 4])
    same = X.copy()
    same[0, -4:] = same[0, -4:][::-1]
    assert problem.encoding.keys(same) == problem.encoding.keys(X)
    assert len(set(problem.encoding.keys(X))) == 2


def test_encode_and_decode_are_inverse(problem):
    mappings = list(nm.baselines(problem).values())
    X = problem.encoding.encode(mappings)
    assert problem.encoding.decode(X).unstack() == mappings
    assert_feasible(problem, X)


def test_random_genotypes_are_feasible_and_reach_both_ends(problem):
    X = problem.encoding.random(400, np.random.default_rng(1))
    assert_feasible(problem, X)
    used = problem.encoding.decode(X).cores_per_layer.sum(axis=1)
    assert used.min() == problem.encoding.minimum.sum()
    assert used.max() >= problem.encoding.n_cores - 1


@given(st.integers(0, 2**32 - 1))
def test_operators_keep_genotypes_feasible_and_their_input_untouched(problem, gapped, seed):
    for p in (problem, gapped):
        rng = np.random.default_rng(seed)
        X = p.encoding.random(12, rng)
        before = X.copy()
        parents = X.reshape(2, 6, -1)
        for cross in CROSSES:
            children = cross(p, parents, rng)
            assert children.shape == parents.shape
            assert_feasible(p, children.reshape(12, -1))
        assert_feasible(p, mutate(p, X, rng.integers(len(MOVES), size=12), rng))
        assert (before == X).all()


@pytest.mark.parametrize("cross", CROSSES)
def test_crossover_keeps_what_parents_agree_on(problem, cross):
    rng = np.random.default_rng(5)
    X = problem.encoding.random(2, rng)
    X[:, :3] = [1, 1, 1]
    X[1, 3:] = X[0, 3:]
    # The parents differ in two slices alone, those on the first two places of layer 0.
    X[1, [3, 4]] = X[1, [4, 3]]
    for _ in range(20):
        children = cross(problem, X.reshape(2, 1, -1), rng)[:, 0]
        used = 3 + 2 + 3 + 3
        assert (children[:, 5:used] == X[0, 5:used]).all()


@pytest.mark.parametrize("cross", CROSSES)
def test_crossover_of_equal_parents_gives_them_back(problem, cross):
    rng = np.random.default_rng(6)
    X = np.tile(problem.encoding.random(1, rng), (2, 1)).reshape(2, 1, -1)
    children = cross(problem, X, rng)[:, 0]
    assert problem.encoding.keys(children) == problem.encoding.keys(X[:, 0])


def test_crossover_takes_counts_from_the_parents_where_they_fit(problem):
    rng = np.random.default_rng(7)
    X = problem.encoding.random(200, rng)
    X[:, :3] = rng.integers(0, 3, size=(200, 3))  # at most 3 + 4 + 4 = 11 cores: always affordable
    X = problem.encoding.repair(X).reshape(2, 100, -1)
    children = cross_layers(problem, X, rng)
    for child, mate in ((children[0], children[1]), (children[1], children[0])):
        assert ((child[:, :3] == X[0, :, :3]) | (child[:, :3] == X[1, :, :3])).all()
        # The other child takes what this one leaves.
        assert (child[:, :3] + mate[:, :3] == X[0, :, :3] + X[1, :, :3]).all()


@pytest.mark.parametrize("move", MOVES)
def test_each_move_changes_what_it_says(problem, move):
    rng = np.random.default_rng(8)
    X = problem.encoding.random(300, rng)
    mutated = mutate(problem, X, np.full(300, MOVES.index(move)), rng)
    partition_changed = (mutated[:, :3] != X[:, :3]).any(axis=1)
    order_changed = (mutated[:, 3:] != X[:, 3:]).any(axis=1)
    assert (partition_changed | order_changed).mean() > 0.5
    if move in PLACEMENT_MOVES:
        assert not partition_changed.any()
    if move == "shift":
        # What one layer gives another one gets, unless a maximum is in the way.
        assert (mutated[:, :3].sum(axis=1) == X[:, :3].sum(axis=1)).mean() > 0.9


def test_mutation_leaves_a_fixed_partition_alone():
    import networkx as nx

    graph = nx.relabel_nodes(nx.path_graph(5, create_using=nx.DiGraph), str)
    nx.set_edge_attributes(graph, 1.0, "messages")
    p = nm.MappingProblem(nm.CoreGraph.from_networkx(graph), nm.mesh_system(3, 3))
    rng = np.random.default_rng(9)
    X = p.encoding.random(200, rng)
    variation = nm.operators(p)["mutation"].variation
    shares = dict(zip(DRAWN["mutation"], variation.shares("mutation", p), strict=True))
    assert {move for move, share in shares.items() if share > 0} == set(PLACEMENT_MOVES)
    mutated = mutate(p, X, rng.choice(len(MOVES), size=200, p=list(shares.values())), rng)
    assert (mutated[:, :5] == 0).all()
    assert (mutated != X).any(axis=1).mean() > 0.8


def test_same_generator_state_same_children(problem):
    def children(seed):
        rng = np.random.default_rng(seed)
        X = problem.encoding.random(20, rng)
        operators = nm.operators(problem)
        crossed = operators["crossover"]._do(problem, X.reshape(2, 10, -1), random_state=rng).reshape(20, -1)
        return operators["mutation"]._do(problem, crossed, random_state=rng)

    assert (children(1) == children(1)).all()
    assert (children(1) != children(2)).any()


def test_duplicates_are_equal_mappings_not_equal_genotypes(problem):
    X = problem.encoding.random(4, np.random.default_rng(2))
    X[:, :3] = 0
    X[1] = X[0]
    X[1, -2:] = X[1, -2:][::-1]  # the tail only
    eliminate = MappingDuplicates(problem)
    assert eliminate.do(Population.new("X", X)).get("X").tolist() == X[[0, 2, 3]].tolist()
    others = Population.new("X", X[2:3])
    assert eliminate.do(Population.new("X", X), others).get("X").tolist() == X[[0, 3]].tolist()


def test_stock_pymoo_runs_on_the_problem_and_returns_legal_mappings(problem):
    result = minimize(problem, NSGA2(pop_size=20, **nm.operators(problem)), ("n_eval", 400), seed=1)
    mappings = problem.encoding.decode(np.atleast_2d(result.X)).unstack()
    metrics = problem.evaluate_mappings(mappings)
    assert np.array_equal(np.atleast_2d(result.F), np.stack([metrics["latency_s"], metrics["energy_j"]], axis=1))
    for mapping in mappings:
        nm.check(mapping, problem)


def test_infeasible_genotypes_are_refused_not_scored(problem, gapped):
    legal = problem.encoding.random(3, np.random.default_rng(0))
    for change in ((slice(3, 14), 0), (0, 50), (0, -1), (5, 11)):
        X = legal.copy()
        X[1, change[0]] = change[1]
        with pytest.raises(nm.InputError, match="genotype 1: breaks the rules of the encoding; repair it first"):
            problem.evaluate(X)
    X = gapped.encoding.random(1, np.random.default_rng(0))
    X[0, :2] = [0, 1]  # three slices, which do not fit
    with pytest.raises(nm.InputError, match="genotype 0"):
        gapped.evaluate(X)


def test_repair_operator_serves_foreign_operators(problem):
    X = np.random.default_rng(3).uniform(-3, 15, size=(10, problem.n_var))
    population = MappingRepair().do(problem, Population.new("X", X))
    assert_feasible(problem, population.get("X").astype(np.int64))
