"""Genotypes: decoding, repair, random draws, and the variation operators on them."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
from helpers import gapped_network, three_layers
from hypothesis import given
from hypothesis import strategies as st
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.population import Population
from pymoo.optimize import minimize

import neuromap_moo as nm
from neuromap_moo.annealing.link_tables import NEAR
from neuromap_moo.evolution.budget import Budget
from neuromap_moo.evolution.driver import search_mappings
from neuromap_moo.evolution.generation import variation_of
from neuromap_moo.evolution.moves import MOVES, busiest_pair, cross_blocks, cross_layers, fill_block, mutate, relieve
from neuromap_moo.evolution.operators import (
    CROSSOVERS,
    DRAWN,
    MUTATIONS,
    NOBODY,
    PLACEMENT_MOVES,
    MappingCrossover,
    MappingDuplicates,
    MappingMutation,
    MappingRepair,
    Variation,
)
from neuromap_moo.mapping.encoding import repartition
from neuromap_moo.models.analytic import link_loads

CROSSES = (cross_layers, cross_blocks)


@pytest.fixture(scope="module")
def problem():
    """Three layers on 12 cores, one masked, where memory sets a minimum above 1 core."""
    system = nm.mesh_system(3, 2, 2, synapse_words=70, masked_cores=[5])
    made = nm.MappingProblem(three_layers(), system)
    assert made.encoding.minimum.tolist() == [1, 2, 2]
    return made


@pytest.fixture(scope="module")
def gapped():
    made = nm.MappingProblem(gapped_network(), nm.mesh_system(4, 2, synapse_words=8))
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
            children = cross(p.space, parents, rng)
            assert children.shape == parents.shape
            assert_feasible(p, children.reshape(12, -1))
        assert_feasible(p, mutate(p.space, X, rng.integers(len(MOVES), size=12), rng))
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
        children = cross(problem.space, X.reshape(2, 1, -1), rng)[:, 0]
        used = 3 + 2 + 3 + 3
        assert (children[:, 5:used] == X[0, 5:used]).all()


@pytest.mark.parametrize("cross", CROSSES)
def test_crossover_of_equal_parents_gives_them_back(problem, cross):
    rng = np.random.default_rng(6)
    X = np.tile(problem.encoding.random(1, rng), (2, 1)).reshape(2, 1, -1)
    children = cross(problem.space, X, rng)[:, 0]
    assert problem.encoding.keys(children) == problem.encoding.keys(X[:, 0])


def test_crossover_takes_counts_from_the_parents_where_they_fit(problem):
    rng = np.random.default_rng(7)
    X = problem.encoding.random(200, rng)
    X[:, :3] = rng.integers(0, 3, size=(200, 3))  # at most 3 + 4 + 4 = 11 cores: always affordable
    X = problem.encoding.repair(X).reshape(2, 100, -1)
    children = cross_layers(problem.space, X, rng)
    for child, mate in ((children[0], children[1]), (children[1], children[0])):
        assert ((child[:, :3] == X[0, :, :3]) | (child[:, :3] == X[1, :, :3])).all()
        # The other child takes what this one leaves.
        assert (child[:, :3] + mate[:, :3] == X[0, :, :3] + X[1, :, :3]).all()


@pytest.mark.parametrize("move", MOVES)
def test_each_move_changes_what_it_says(problem, move):
    rng = np.random.default_rng(8)
    X = problem.encoding.random(300, rng)
    mutated = mutate(problem.space, X, np.full(300, MOVES.index(move)), rng)
    partition_changed = (mutated[:, :3] != X[:, :3]).any(axis=1)
    order_changed = (mutated[:, 3:] != X[:, 3:]).any(axis=1)
    assert (partition_changed | order_changed).mean() > 0.5
    if move in PLACEMENT_MOVES:
        assert not partition_changed.any()
    if move == "shift":
        # What one layer gives another one gets, unless a maximum is in the way.
        assert (mutated[:, :3].sum(axis=1) == X[:, :3].sum(axis=1)).mean() > 0.9


def test_mutation_leaves_a_fixed_partition_alone():
    graph = nx.relabel_nodes(nx.path_graph(5, create_using=nx.DiGraph), str)
    nx.set_edge_attributes(graph, 1.0, "messages")
    p = nm.MappingProblem(nm.CoreGraph.from_networkx(graph), nm.mesh_system(3, 3))
    rng = np.random.default_rng(9)
    X = p.encoding.random(200, rng)
    variation = nm.operators(p)["mutation"].variation
    shares = dict(zip(DRAWN["mutation"], variation.shares("mutation", p), strict=True))
    assert {move for move, share in shares.items() if share > 0} == set(PLACEMENT_MOVES)
    mutated = mutate(p.space, X, rng.choice(len(MOVES), size=200, p=list(shares.values())), rng)
    assert (mutated[:, :5] == 0).all()
    assert (mutated != X).any(axis=1).mean() > 0.8


def split(problem, genome):
    """Return the places of each layer of a genotype."""
    k, place = problem.encoding.split(genome)
    return np.split(place, np.cumsum(k)[:-1])


def test_split_and_join_are_inverse(problem):
    for genome in problem.encoding.random(20, np.random.default_rng(0)):
        k, place = problem.encoding.split(genome)
        joined = problem.encoding.join(k, place)
        assert_feasible(problem, joined[None])
        assert problem.encoding.keys(joined[None]) == problem.encoding.keys(genome[None])
        assert (np.diff(joined[3 + place.size :]) > 0).all()


@given(st.integers(0, 2**32 - 1))
def test_rebalance_leaves_the_cores_of_other_layers_alone(problem, gapped, seed):
    for p in (problem, gapped):
        rng = np.random.default_rng(seed)
        X = p.encoding.random(6, rng)
        mutated = mutate(p.space, X, np.full(6, MOVES.index("rebalance")), rng)
        assert_feasible(p, mutated)
        for old, new in zip(X, mutated, strict=True):
            before, after = split(p, old), split(p, new)
            changed = [i for i in range(p.encoding.n_layers) if len(before[i]) != len(after[i])]
            assert len(changed) <= 2
            for layer in range(p.encoding.n_layers):
                fewer, more = sorted((before[layer].tolist(), after[layer].tolist()), key=len)
                assert set(fewer) <= set(more)


# ---------------------------------------------------------------------------------------------------- credit

NO_POOL = np.empty((0, 1), dtype=int)


def test_odds_of_operators_are_those_of_what_they_made_plus_one(problem):
    variation = Variation(0.0, NO_POOL)
    assert variation.shares("crossover", problem).tolist() == [1 / 3] * 3
    assert variation.shares("mutation", problem).tolist() == [1 / 7] * 7
    X, F = np.zeros((6, problem.n_var), dtype=int), np.zeros((6, 2))
    anneal = MUTATIONS.index("anneal")
    labels = np.array([[0, 0], [2, 0], [2, 6], [2, 4], [NOBODY, anneal], [NOBODY, NOBODY]])
    variation.learn(X, F, labels)
    assert variation.shares("crossover", problem) == pytest.approx(np.array([2, 1, 4]) / 7)
    # Annealing runs have a share of the work apart: what they made counts for no move.
    assert variation.shares("mutation", problem) == pytest.approx(np.array([3, 1, 1, 1, 2, 1, 2]) / 11)
    # What is driven out of the archive counts no longer.
    variation.learn(X[:1], F[:1], labels[:1])
    assert variation.shares("crossover", problem) == pytest.approx(np.array([2, 1, 1]) / 4)
    assert variation.shares("mutation", problem) == pytest.approx(np.array([2, 1, 1, 1, 1, 1, 1]) / 8)


def test_moves_that_change_a_partition_have_no_odds_where_it_is_fixed():
    p = nm.MappingProblem(line_graph(5), nm.mesh_system(3, 3))
    variation = Variation(0.0, NO_POOL)
    made = np.array([[0, MOVES.index(move)] for move in MOVES])
    variation.learn(np.zeros((7, p.n_var), dtype=int), np.zeros((7, 2)), made)
    shares = dict(zip(MOVES, variation.shares("mutation", p), strict=True))
    assert shares == {move: 0.25 if move in PLACEMENT_MOVES else 0.0 for move in MOVES}


def line_graph(n):
    graph = nx.relabel_nodes(nx.path_graph(n, create_using=nx.DiGraph), str)
    nx.set_edge_attributes(graph, 1.0, "messages")
    return nm.CoreGraph.from_networkx(graph)


def test_operators_are_drawn_by_their_odds(problem):
    variation = Variation(0.0, NO_POOL)
    labels = np.array([[2, MOVES.index("relieve")]] * 96)
    variation.learn(np.zeros((96, problem.n_var), dtype=int), np.zeros((96, 2)), labels)
    rng = np.random.default_rng(0)
    X = problem.encoding.random(600, rng)
    children = MappingCrossover(variation).do(problem, Population.new("X", X), pairs(300), random_state=rng)
    children = MappingMutation(variation).do(problem, children, random_state=rng)
    assert np.mean(children.get("crossover") == 2) == pytest.approx(97 / 99, abs=0.03)
    assert np.mean(children.get("mutation") == MOVES.index("relieve")) == pytest.approx(97 / 103, abs=0.03)


def pairs(n):
    return np.arange(2 * n).reshape(n, 2)


def test_children_carry_the_labels_of_the_operators_that_made_them(problem):
    rng = np.random.default_rng(1)
    variation = Variation(0.0, NO_POOL)
    parents = problem.encoding.random(120, rng)
    children = MappingCrossover(variation).do(problem, Population.new("X", parents), pairs(60), random_state=rng)
    crossed = children.get("crossover")
    assert set(crossed) == {0, 1, 2}
    assert (crossed[:60] == crossed[60:]).all()  # both children of two parents
    copied = np.flatnonzero(crossed == CROSSOVERS.index("copy"))
    in_order = np.concatenate([parents[::2], parents[1::2]])
    assert (children.get("X")[copied] == in_order[copied]).all()
    assert (children.get("X") != in_order)[crossed != 0].any(axis=1).mean() > 0.7
    before = children.get("X").copy()
    children = MappingMutation(variation).do(problem, children, random_state=rng)
    assert (children.get("crossover") == crossed).all()
    moves = children.get("mutation")
    assert set(moves) == set(range(len(MOVES)))
    changed = (children.get("X")[:, :3] != before[:, :3]).any(axis=1)
    assert {MOVES[m] for m in moves[changed]} == set(MOVES) - set(PLACEMENT_MOVES)
    assert_feasible(problem, children.get("X"))


def test_children_of_no_crossover_carry_the_label_of_their_mutation_alone(problem):
    rng = np.random.default_rng(2)
    variation = Variation(0.0, NO_POOL)
    crossover = MappingCrossover(variation)
    crossover.prob.set(0.0)
    parents = problem.encoding.random(8, rng)
    children = crossover.do(problem, Population.new("X", parents), pairs(4), random_state=rng)
    children = MappingMutation(variation).do(problem, children, random_state=rng)
    assert (children.get("crossover") == NOBODY).all()
    assert (children.get("mutation") >= 0).all()


@pytest.mark.parametrize("n_found", [0, 3, 8])
def test_what_annealing_runs_come_to_takes_the_first_rows_and_is_nobody_elses(problem, n_found, monkeypatch):
    rng = np.random.default_rng(3)
    variation = Variation(0.8, NO_POOL)
    found = list(problem.encoding.random(n_found, np.random.default_rng(77)))
    monkeypatch.setattr(variation.local, "improve", lambda problem, n_evaluations, rng: found)
    parents = Population.new("X", problem.encoding.random(8, rng))
    children = MappingCrossover(variation).do(problem, parents, pairs(4), random_state=rng)
    children = MappingMutation(variation).do(problem, children, random_state=rng)
    n = min(n_found, 8)
    assert (children.get("X")[:n] == np.reshape(found[:n], (n, problem.n_var))).all()
    anneal = MUTATIONS.index("anneal")
    assert (children.get("mutation") == anneal).tolist() == [True] * n + [False] * (8 - n)
    assert (children.get("crossover") == NOBODY).tolist() == [True] * n + [False] * (8 - n)


@pytest.mark.parametrize("local_share", [0.0, 0.5])
def test_labels_follow_their_mappings_into_the_archive(problem, local_share):
    three = nm.MappingProblem(problem.network, problem.system, ("throughput_hz", "energy_j", "message_hops"))
    seen = {}

    def look(state):
        variation = variation_of(state.algorithm)
        for column, kind in enumerate(DRAWN):
            labels = state.archive_made_by[:, column]
            assert [(labels == label).sum() for label in range(variation.made[kind].size)] == variation.made[
                kind
            ].tolist()
        shares = [share for kind in DRAWN for share in variation.shares(kind, three)]
        assert list(state.history[-1][-len(shares) :]) == shares
        for key, made_by in zip(three.encoding.keys(state.archive_X), state.archive_made_by.tolist(), strict=True):
            assert seen.setdefault(key, made_by) == made_by

    search_mappings(three, options={"local_share": local_share}, budget=Budget(1500), seed=0, on_generation=look)
    crossovers, mutations = (set(labels) for labels in np.transpose(list(seen.values())))
    if local_share == 0.0:
        assert crossovers > {NOBODY}  # and some operator
        assert mutations > {NOBODY}
    assert (MUTATIONS.index("anneal") in mutations) == (local_share > 0.0)


# ---------------------------------------------------------------------------------------------------- neighbourhoods


def test_a_block_is_filled_by_hand():
    # Two layers, at least 1 + 1 of 6 places. Child: layer 0 on 0 1 2, layer 1 on 3; parent: layer 0 on 4 0, layer 1
    # on 1 2. In the block of 0, 1 and 4: place 4 gets slice 0, so 0, where it was, is free for slice 1, and place 1
    # gets slice 3, the first of layer 1. The child has no second slice of layer 1.
    child = np.array([2, 0, 0, 1, 2, 3, 4, 5])
    parent = np.array([1, 1, 4, 0, 1, 2, 3, 5])
    fill_block(child, parent, np.array([4, 0, 1, 2]), np.array([1, 1]))
    assert child.tolist() == [2, 0, 4, 0, 2, 1, 3, 5]


@given(st.integers(0, 2**32 - 1))
def test_a_filled_block_is_as_in_the_parent_and_all_that_is_not_in_the_way_stays(problem, gapped, seed):
    for p in (problem, gapped):
        rng = np.random.default_rng(seed)
        e = p.encoding
        before, parent = e.random(2, rng)
        block = rng.permutation(e.n_cores)[: rng.integers(1, e.n_cores + 1)]
        child = before.copy()
        fill_block(child, parent, block, e.minimum)
        assert (child[: e.n_layers] == before[: e.n_layers]).all()
        assert_feasible(p, child[None])
        wanted = {}  # place: slice of the child, as layer and number
        for layer, (own, other) in enumerate(zip(split(p, before), split(p, parent), strict=True)):
            wanted |= {c: (layer, j) for j, c in enumerate(other[: len(own)].tolist())}
        wanted = {place: which for place, which in wanted.items() if place in block}
        after = split(p, child)
        for place, (layer, j) in wanted.items():
            assert after[layer][j] == place
        for layer, own in enumerate(split(p, before)):
            for j, place in enumerate(own.tolist()):
                if (layer, j) not in wanted.values() and place not in wanted:
                    assert after[layer][j] == place


def test_children_of_a_block_crossover_have_more_slices_as_the_other_parent_and_keep_their_partition(problem):
    def agree(one, other):
        """Count the slices that are on the same place in both."""
        layers = zip(split(problem, one), split(problem, other), strict=True)
        return sum(a == b for x, y in layers for a, b in zip(x, y, strict=False))

    rng = np.random.default_rng(4)
    parents = problem.encoding.random(80, rng).reshape(2, 40, -1)
    children = cross_blocks(problem.space, parents, rng)
    assert (children[:, :, :3] == parents[:, :, :3]).all()
    gained = []
    for side in range(2):
        for child, own, other in zip(children[side], parents[side], parents[1 - side], strict=True):
            gained.append(agree(child, other) - agree(own, other))
            assert agree(child, own) > 0 or own[:3].sum() < 4
    assert min(gained) >= 0
    assert np.mean(gained) > 0.8


def routed_over(problem, place, link):
    """Return the messages over a link by their ends, slice to slice."""
    system, graph = problem.system, problem.network
    router = system.router_of_core[problem.encoding.cores[place]]
    found = {}
    for a, b, messages in zip(graph.source.tolist(), graph.target.tolist(), graph.messages.tolist(), strict=True):
        pair = router[a] * system.n_routers + router[b]
        intervals = range(system.routes.start[pair], system.routes.start[pair + 1])
        if any(system.routes.first[j] <= link < system.routes.stop[j] for j in intervals):
            found[a, b] = messages
    return found


def pair_drawn(problem, k, place, draws):
    cache = problem.space.cache
    partition = cache.partition_tables(k)
    state = cache.borrow_state(place.size)
    drawn = busiest_pair(cache.links, partition.neighbours, cache.unpriced(partition), state, place, np.array(draws))
    cache.give_back(state)
    return drawn


def test_a_pair_on_the_busiest_link_by_hand():
    # On a line of four routers 0 -> 1 carries 3 + 1 messages, 1 -> 2 the 1 that goes on, and 1 -> 0 two.
    graph = nx.DiGraph([("a", "b"), ("a", "c"), ("b", "a")])
    nx.set_edge_attributes(graph, {("a", "b"): 3.0, ("a", "c"): 1.0, ("b", "a"): 2.0}, "messages")
    p = nm.MappingProblem(nm.CoreGraph.from_networkx(graph), nm.mesh_system(4, 1))
    k, place = np.ones(3, dtype=int), np.array([0, 1, 2])
    # Three quarters of the draws are a -> b, the rest a -> c; either end moves to a router near the other.
    assert pair_drawn(p, k, place, [0.0, 0.4, 0.0, 0.0]) == (0, 1)
    assert pair_drawn(p, k, place, [0.74, 0.4, 0.25, 0.0]) == (0, 0)
    assert pair_drawn(p, k, place, [0.74, 0.6, 0.99, 0.0]) == (1, 3)
    assert pair_drawn(p, k, place, [0.76, 0.4, 0.3, 0.0]) == (0, 1)
    assert pair_drawn(p, k, place, [0.99, 0.6, 0.6, 0.5]) == (2, 2)


@given(st.integers(0, 2**32 - 1))
def test_pairs_are_drawn_from_the_busiest_link_by_their_messages(random_graph_system, random_system, seed):
    rng = np.random.default_rng(seed)
    system = (random_system if rng.random() < 0.5 else random_graph_system)(rng)
    n = int(rng.integers(1, min(10, system.usable_cores.size) + 1))
    graph = nx.gnp_random_graph(n, 0.4, seed=int(rng.integers(1000)), directed=True)
    for a, b in graph.edges:
        graph.edges[a, b]["messages"] = float(rng.lognormal())
    p = nm.MappingProblem(nm.CoreGraph.from_networkx(graph), system, ("message_hops",))
    place = rng.permutation(p.encoding.n_cores)[:n]
    k = np.ones(n, dtype=int)
    mapping = nm.Mapping(k, p.encoding.cores[place])
    loads = link_loads(p.partitioner, system, mapping).between
    if not loads.any():
        assert pair_drawn(p, k, place, rng.random(4)) == (-1, -1)
        assert relieve(p.space, k, place, rng).tolist() == place.tolist()
        return
    seconds = loads / system.per_link("bandwidth_bit_per_s")
    over = routed_over(p, place, int(np.argmax(seconds)))
    links = p.space.cache.links
    drawn = dict.fromkeys(over, 0)
    for share in (np.arange(200) + 0.5) / 200:
        first, _ = pair_drawn(p, k, place, [share, 0.0, 0.0, 0.0])
        second, _ = pair_drawn(p, k, place, [share, 0.9, 0.0, 0.0])
        drawn[first, second] += 1
    total = sum(over.values())
    for pair, times in drawn.items():
        assert times == pytest.approx(200 * over[pair] / total, abs=1.01)
    for _ in range(10):
        draws = rng.random(4)
        moved, b = pair_drawn(p, k, place, draws)
        near = [{a, c} - {moved} for a, c in over if moved in (a, c)]
        assert any(links.router[b] in links.near[links.router[place[min(other)]]] for other in near)


def test_relieve_brings_one_slice_near_another_it_talks_to_by_one_exchange():
    rng = np.random.default_rng(5)
    graph = nx.gnp_random_graph(9, 0.4, seed=1, directed=True)
    nx.set_edge_attributes(graph, {edge: float(rng.lognormal()) for edge in graph.edges}, "messages")
    system = nm.mesh_system(6, 5)
    p = nm.MappingProblem(nm.CoreGraph.from_networkx(graph), system)
    links, k = p.space.cache.links, np.ones(9, dtype=int)
    assert links.near.shape[1] == NEAR
    brought = 0
    for _ in range(200):
        place = rng.permutation(30)[:9]
        kept = place.copy()
        new = relieve(p.space, k, place, rng)
        assert (place == kept).all()
        assert len(set(new.tolist())) == 9
        moved = np.flatnonzero(new != place)
        assert len(moved) <= 2
        if len(moved) == 2:
            assert new[moved].tolist() == place[moved[::-1]].tolist()
        talks = [set(graph.successors(s)) | set(graph.predecessors(s)) for s in range(9)]
        brought += any(links.router[new[s]] in links.near[links.router[new[t]]] for s in moved for t in talks[s])
    assert brought > 150


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
