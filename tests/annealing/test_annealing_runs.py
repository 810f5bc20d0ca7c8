"""Annealing runs over partitions and placements: by themselves, between generations, and as an algorithm."""

from __future__ import annotations

import itertools
import pickle

import cloudpickle
import networkx as nx
import numpy as np
import pytest
from helpers import NUMERIC, busy_graph, examples, gapped_network, three_layers
from hypothesis import given
from hypothesis import strategies as st
from pymoo.core.termination import NoTermination

import neuromap_moo as nm
from neuromap_moo.annealing import space, tables
from neuromap_moo.annealing.exchange import LONGEST_RUN
from neuromap_moo.annealing.run import COLD, advance, propose_resize, start_run
from neuromap_moo.annealing.space import AnnealingCache, Scalarisation
from neuromap_moo.evolution import memetic
from neuromap_moo.evolution.algorithms import make_algorithm, reference_directions
from neuromap_moo.evolution.generation import non_dominated_rows
from neuromap_moo.evolution.memetic import END_PART, END_SHARE, MOST_RUNS, SHORTEST, LocalSearch
from neuromap_moo.evolution.multi_weight import FIRST_MOVES, SNAPSHOTS, TIE_BREAK
from neuromap_moo.heuristics.rules import slowest_slice_s
from neuromap_moo.models.metrics import minimised

seeds = st.integers(0, 2**32 - 1)

SYSTEM = {"chips_x": 2, "synapse_words": 70, "masked_cores": [5], "t_barrier_s": 1e-9, "e_link_j": 1e-9}


@pytest.fixture(scope="module")
def network():
    return three_layers()


@pytest.fixture(scope="module")
def system():
    """Two chips of six cores, one masked; memory sets a minimum above one core, and energy is that of links."""
    return nm.mesh_system(3, 1, 2, **SYSTEM)


@pytest.fixture(scope="module")
def problem(network, system):
    made = nm.MappingProblem(network, system)
    assert made.encoding.minimum.tolist() == [1, 2, 2]
    return made


@pytest.fixture(scope="module")
def gapped():
    made = nm.MappingProblem(gapped_network(), nm.mesh_system(5, 2, synapse_words=8))
    assert np.flatnonzero(made.encoding.fits[1]).tolist() == [2, 5, 6]
    return made


def values(problem, X):
    """Return minimised objectives (n, m) of genotypes."""
    return minimised(problem.evaluator.evaluate(problem.encoding.decode(np.atleast_2d(X))), problem.objectives)


def weighted(problem, scalarisation, k, place):
    return float(values(problem, problem.encoding.join(k, place))[0] @ scalarisation.weights)


def scaled(problem, X):
    """Return a scalarisation under which every objective counts as much as it is at a genotype."""
    return Scalarisation(tuple(1 / abs(f) if f else 1.0 for f in values(problem, X)[0]))


def assert_feasible(problem, X):
    assert problem.encoding.first_infeasible(np.atleast_2d(X)) == -1


def contents(run):
    """Return everything that a run holds, as plain numbers."""
    flat = [run.scalarisation, run.done, run.total, run.first_temperature, run.last_temperature, run.best_cost]
    return [*flat, *(a.tolist() for a in (run.cores_per_layer, run.place, *run.best))]


# ---------------------------------------------------------------------------------------------------- runs


@examples(25)
@given(seeds)
def test_a_run_in_pieces_stays_legal_and_knows_what_its_best_costs(network, system, gapped, seed):
    rng = np.random.default_rng(seed)
    objectives = tuple(rng.permutation(NUMERIC)[: rng.integers(1, 4)].tolist())
    problem = gapped if rng.random() < 0.3 else nm.MappingProblem(network, system, objectives)
    start = problem.encoding.random(1, rng)[0]
    run = start_run(problem.space, scaled(problem, start), start, 6000, float(rng.choice([0.01, 0.3, 10.0])), rng)
    cost = run.best_cost
    assert cost == pytest.approx(float(values(problem, start)[0] @ run.scalarisation.weights), rel=1e-9)
    while not run.ended:
        before, wanted = run.done, int(rng.integers(1, 1500))
        made, looked = advance(problem.space, run, wanted, rng)
        assert run.done == before + made
        assert min(wanted, run.total - before) <= made <= min(wanted, run.total - before) + 2 * LONGEST_RUN
        assert 0 <= looked <= made
        here = problem.encoding.join(run.cores_per_layer, run.place)
        assert_feasible(problem, [here, problem.encoding.join(*run.best)])
        assert run.best_cost <= cost
        cost = run.best_cost
        assert cost == pytest.approx(weighted(problem, run.scalarisation, *run.best), rel=1e-9, abs=1e-12)
        # Nothing cheaper than the best is ever left behind, be it by a move or by cutting anew.
        assert weighted(problem, run.scalarisation, run.cores_per_layer, run.place) >= cost - 1e-9 * abs(cost) - 1e-12
    assert advance(problem.space, run, 100, rng) == (0, 0)


def test_the_same_generator_state_makes_the_same_run(problem):
    def run(seed, pieces):
        rng = np.random.default_rng(seed)
        start = problem.encoding.random(1, rng)[0]
        made = start_run(problem.space, scaled(problem, start), start, 8000, 0.3, rng)
        for n in pieces:
            advance(problem.space, made, n, rng)
        return [*contents(made), rng.random()]

    assert run(0, [8000]) == run(0, [8000])
    assert run(0, [300, 5000, 2700]) == run(0, [300, 5000, 2700])
    assert run(0, [8000]) != run(1, [8000])


def test_a_run_goes_on_from_a_pickle_as_if_never_broken_off(network, system, problem):
    rng = np.random.default_rng(3)
    start = problem.encoding.random(1, rng)[0]
    run = start_run(problem.space, scaled(problem, start), start, 9000, 0.3, rng)
    advance(problem.space, run, 4000, rng)
    again, again_rng = pickle.loads(pickle.dumps((run, rng)))
    advance(problem.space, run, 5000, rng)
    advance(nm.MappingProblem(network, system).space, again, 5000, again_rng)
    assert contents(again) == contents(run)
    assert run.ended


def test_temperatures_follow_from_the_mean_change_of_cost():
    # Exchanges of two slices on two routers leave the cost of one message as it is, a free place on the same router
    # makes it nothing: 32 drawn changes of 0 or 1, of which heat takes its share.
    rng = np.random.default_rng(0)
    graph = busy_graph(2, [(0, 1, 1.0)])
    two = nm.MappingProblem(graph, nm.mesh_system(2, 1, 2), ("message_hops",))
    run = start_run(two.space, Scalarisation((5.0,)), two.encoding.random(1, rng)[0], 100, 0.2, rng)
    assert run.first_temperature * 32 == pytest.approx(round(run.first_temperature * 32))
    assert 0 < run.first_temperature < 0.2 * 5
    assert run.last_temperature / run.first_temperature == pytest.approx(COLD / 0.2)
    # Where nothing changes anything, any temperature will do.
    one = nm.MappingProblem(graph, nm.mesh_system(1, 1, 3), ("message_hops",))
    run = start_run(one.space, Scalarisation((5.0,)), one.encoding.random(1, rng)[0], 100, 0.2, rng)
    assert run.first_temperature == 0.2
    advance(one.space, run, 100, rng)
    assert run.ended


def test_a_fixed_partition_stays():
    graph = busy_graph(4, [(0, 1, 1.0), (2, 3, 2.0), (3, 1, 4.0)])
    fixed = nm.MappingProblem(graph, nm.mesh_system(3, 3))
    rng = np.random.default_rng(0)
    run = start_run(fixed.space, Scalarisation((1.0, 1.0)), fixed.encoding.random(1, rng)[0], 5000, 0.2, rng)
    while not run.ended:
        advance(fixed.space, run, 1700, rng)
        assert run.cores_per_layer.tolist() == run.best[0].tolist() == [1, 1, 1, 1]


# ---------------------------------------------------------------------------------------------------- cutting anew


@examples(10)
@given(seeds)
def test_proposals_are_legal_and_leave_other_layers_alone(problem, gapped, seed):
    for p in (problem, gapped):
        rng = np.random.default_rng(seed)
        e, hops = p.encoding, p.system.hops
        router = p.space.cache.links.router
        k, place = e.split(e.random(1, rng)[0])
        for _ in range(60):
            old_k, old_place = k, place
            proposal = propose_resize(p.space, k, place, rng)
            if proposal is None:
                continue
            k, place = proposal
            assert_feasible(p, e.join(k, place))
            changed = np.flatnonzero(k != old_k)
            assert 1 <= changed.size <= 2
            assert np.sign((k - old_k)[changed]).sum() in (-1, 0, 1)
            before, after = (np.split(x, np.cumsum(n)[:-1]) for x, n in ((old_place, old_k), (place, k)))
            for layer in range(e.n_layers):
                kept, own = before[layer].tolist(), after[layer].tolist()
                if k[layer] <= old_k[layer]:
                    assert own == [c for c in kept if c in own]  # in the order in which they were
                    continue
                assert own[: len(kept)] == kept
                new = own[len(kept) :]
                free = np.setdiff1d(np.arange(e.n_cores), place).tolist() + new
                # The first is as near to some slice of its layer as anything that is free.
                assert any(
                    hops[router[c], router[new[0]]] == min(hops[router[c], router[f]] for f in free) for c in kept
                )
                # One core more, or as few as fit.
                assert not e.fits[layer, old_k[layer] + 1 : k[layer]].any()


def test_proposals_reach_the_fewest_and_the_most_cores_of_every_layer_and_of_all(problem, gapped):
    for p in (problem, gapped):
        e, rng = p.encoding, np.random.default_rng(1)
        most = e.n_cores - e.minimum.sum() + e.minimum
        ways = [lambda k, layer=layer: k[layer] for layer in range(e.n_layers)] + [np.sum]
        ends = [(e.minimum[i], np.flatnonzero(e.fits[i, : most[i] + 1]).max()) for i in range(e.n_layers)]
        ends.append((e.minimum.sum(), e.n_cores))
        for cores, (fewest, largest) in zip(ways, ends, strict=True):
            k, place = p.encoding.split(e.random(1, rng)[0])
            for sign, end in ((1, largest), (-1, fewest)):
                for _ in range(600):
                    proposal = propose_resize(p.space, k, place, rng)
                    if proposal is not None and sign * cores(proposal[0]) >= sign * cores(k):
                        k, place = proposal
                assert cores(k) == end


def test_where_nothing_can_be_cut_anew_there_is_no_proposal(problem):
    rng = np.random.default_rng(2)
    full = nm.MappingProblem(nm.sparse_mlp([4, 4], 1.0, seed=0), nm.mesh_system(2, 1))
    single = nm.MappingProblem(nm.Network("one", (nm.Layer("a", 1, "lif", [1.0]),), ()), nm.mesh_system(3, 1))
    for p in (full, single):
        for genome in p.encoding.random(20, rng):
            assert propose_resize(p.space, *p.encoding.split(genome), rng) is None


def test_the_slowest_layer_gets_cores_every_other_time_and_some_by_chance(problem):
    rng = np.random.default_rng(3)
    k, place = np.array([1, 2, 2]), np.arange(5)
    slow = problem.space.cache.slowest_layer(k)
    taken = []
    for _ in range(900):
        proposal = propose_resize(problem.space, k, place, rng)
        if proposal is not None:  # all layers are at their minimum, so none can give
            taken.append(int(np.flatnonzero(proposal[0] != k)[0]))
    assert len(taken) == pytest.approx(300, abs=50)
    assert taken.count(slow) / len(taken) == pytest.approx(0.5 + 0.5 / 3, abs=0.09)


# ---------------------------------------------------------------------------------------------------- the cache


def test_partitions_lately_used_are_kept(problem, monkeypatch):
    monkeypatch.setattr(space, "KEPT_PARTITIONS", 3)
    cache = AnnealingCache(problem.partitioner, problem.system, problem.objectives)
    k = [np.array([1, 2, n]) for n in (2, 3, 4, 5)]
    first, second, third = (cache.partition_tables(x) for x in k[:3])
    assert cache.partition_tables(k[0].astype(np.int32)) is first  # whatever integers it comes in
    cache.partition_tables(k[3])  # the second has not been used for longest
    assert cache.partition_tables(k[0]) is first
    assert cache.partition_tables(k[2]) is third
    again = cache.partition_tables(k[1])
    assert again is not second
    assert np.array_equal(again.neighbours.sent, second.neighbours.sent)
    assert again.load == second.load


def test_a_kept_partition_does_not_change_with_the_array_it_was_asked_by(problem):
    cache = AnnealingCache(problem.partitioner, problem.system, problem.objectives)
    k = np.array([1, 2, 2])
    partition = cache.partition_tables(k)
    k[0] = 3
    assert partition.cores_per_layer.tolist() == [1, 2, 2]
    assert cache.partition_tables(k) is not partition


def test_borrowed_states_are_nobody_elses_until_given_back(problem):
    cache = AnnealingCache(problem.partitioner, problem.system, problem.objectives)
    first, second, other = cache.borrow_state(5), cache.borrow_state(5), cache.borrow_state(6)
    assert first is not second
    assert (first.place.size, other.place.size) == (5, 6)
    cache.give_back(first)
    assert cache.borrow_state(6) is not first
    assert cache.borrow_state(5) is first


def test_a_state_given_back_brings_nothing_along(problem):
    rng = np.random.default_rng(4)
    cache = problem.space.cache
    partition = cache.partition_tables(np.array([2, 3, 3]))
    cost = cache.cost(partition, Scalarisation((1.0, 1.0)))
    used, fresh = tables.make_state(cache.links, 8), tables.make_state(cache.links, 8)
    for _ in range(3):
        tables.put(cache.links, partition.neighbours, cost, used, rng.permutation(11)[:8])
    place = rng.permutation(11)[:8]
    for state in (used, fresh):
        tables.put(cache.links, partition.neighbours, cost, state, place)
    for a, b in zip(used[:-1], fresh[:-1], strict=True):  # the last holds what was looked at, for nobody to read
        assert np.array_equal(a, b)


def test_the_slowest_layer_is_that_of_the_fullest_core(problem):
    for k in ([1, 2, 2], [4, 2, 3], [2, 6, 2], [1, 3, 7]):
        times = [slowest_slice_s(problem.partitioner, i, n, problem.system) for i, n in enumerate(k)]
        assert problem.space.cache.slowest_layer(np.array(k)) == int(np.argmax(times))


def test_an_unpriced_cost_is_nothing_but_keeps_up_the_loads(problem):
    cache = problem.space.cache
    partition = cache.partition_tables(np.array([1, 2, 2]))
    cost, state = cache.unpriced(partition), cache.borrow_state(5)
    tables.put(cache.links, partition.neighbours, cost, state, np.arange(5))
    assert state.sums[tables.COST] == state.sums[tables.LINEAR] == 0.0
    assert state.sums[tables.PEAK] == state.load.max() > 0.0


# ---------------------------------------------------------------------------------------------------- memetic step


def archive(problem, rng, n=60):
    X = problem.encoding.random(n, rng)
    F = values(problem, X)
    keep = non_dominated_rows(F)
    return X[keep], F[keep]


def pool_of(problem):
    return problem.encoding.encode([*nm.baselines(problem).values(), *(b.mapping for b in problem.balanced)])


def searcher(problem, rng, share=0.8, n=60):
    made = LocalSearch(share, pool_of(problem))
    made.observe(*archive(problem, rng, n))
    return made


def test_without_an_archive_or_a_share_nothing_is_done(problem):
    rng = np.random.default_rng(0)
    without, nothing = LocalSearch(0.8, pool_of(problem)), searcher(problem, np.random.default_rng(1), share=0.0)
    for idle in (without, nothing):
        assert idle.improve(problem, 1000, rng) == []
        assert (idle.moves, idle.owed_s, idle.run) == (0, 0.0, None)
    assert rng.random() == np.random.default_rng(0).random()


OBJECTIVES = (
    ("latency_s",),
    ("latency_s", "energy_j"),
    ("throughput_hz", "peak_link_messages", "inter_chip_messages"),
    ("energy_j", "t_link_s", "message_hops", "chips_used"),
    ("cores_used", "messages"),
)


@pytest.mark.parametrize("objectives", OBJECTIVES, ids=len)
@pytest.mark.default_cases(1)
def test_every_genotype_that_runs_come_to_is_legal_and_as_good_as_it_says(network, system, objectives):
    problem = nm.MappingProblem(network, system, objectives)
    rng = np.random.default_rng(2)
    search = searcher(problem, rng)
    found = []
    for _ in range(60):
        run = search.run
        new = search.improve(problem, 20, rng)
        found += new
        assert len(new) <= 20
        assert search.owed_s <= 0.0 or len(new) == 20
        if new:
            assert_feasible(problem, new)
        if new and run is not None and run.ended:
            assert values(problem, new[0])[0] @ run.scalarisation.weights == pytest.approx(run.best_cost, rel=1e-9)
    assert len(found) >= 10
    assert search.moves > 60 * 20
    assert (search.tally[:, 1] <= search.tally[:, 0]).all()
    best = values(problem, found).min(axis=0)
    assert (best <= search.archive[1].min(axis=0) + 1e-9 * np.abs(best)).all()


@pytest.mark.slow
def test_work_is_owed_by_evaluations_and_paid_by_moves(problem):
    rng = np.random.default_rng(3)
    half, most = (searcher(problem, np.random.default_rng(4), share) for share in (0.5, 0.9))
    for search in (half, most):
        for _ in range(8):
            search.improve(problem, 200, rng)
    assert most.moves / half.moves == pytest.approx(9, rel=0.35)


def turn(search, towards):
    """Let the next run go towards an end, or between them, and forget the last one."""
    search.run, search.owed_s = None, 0.0
    search.tally[:, 2] = 1.0
    search.tally[towards, 2] = 0.0


def test_runs_grow_with_the_work_done(problem):
    rng = np.random.default_rng(5)
    search = searcher(problem, rng)
    n = len(search.archive[1])
    assert 1 < n < MOST_RUNS
    search.improve(problem, 1, rng)
    assert search.run.total == SHORTEST
    X, F = search.archive
    for towards, part in ((0, END_PART), (1, END_PART), (2, 1 / (1 / END_PART + n))):
        for looks in (0, 500):  # of 1000 moves before
            turn(search, towards)
            search.tally[towards, :2] = 1000, looks
            search.improve(problem, 1, rng)
            assert search.target_objective == towards
            best = X[(F @ search.run.scalarisation.weights).argmin()]
            move_s, look_s = search._work(problem, problem.encoding.split(best)[0])
            assert search.run.total == int(part * 2.0 / (move_s + look_s * looks / 1000))


def test_work_is_shared_out_between_the_ends_and_what_lies_between(network, system):
    for objectives in (("latency_s", "energy_j"), ("latency_s", "energy_j", "message_hops")):
        problem = nm.MappingProblem(network, system, objectives)
        rng = np.random.default_rng(6)
        search = searcher(problem, rng)
        while search.moves < 800_000:
            search.improve(problem, 500, rng)
        m = len(objectives)
        shares = search.tally[:, 2] / search.tally[:, 2].sum()
        assert shares == pytest.approx([END_SHARE / m] * m + [1 - END_SHARE], abs=1.2 * END_PART)


def test_a_single_objective_has_one_end_and_nothing_between(network, system):
    problem = nm.MappingProblem(network, system, ("latency_s",))
    rng = np.random.default_rng(7)
    search = searcher(problem, rng)
    for _ in range(40):
        search.improve(problem, 100, rng)
        assert search.target_objective == 0
    assert search.tally[:, 0].tolist() == [search.moves, 0]


def test_a_long_run_towards_an_end_begins_at_that_end(problem):
    rng = np.random.default_rng(8)
    search = searcher(problem, rng)
    X, F = search.archive
    search.improve(problem, 1, rng)
    for end in (0, 1):
        turn(search, end)
        search.improve(problem, 1, rng)
        assert search.run.total > len(search.pool) * SHORTEST
        assert search.pool_slot == -1
        best = X[F[:, end].argmin()]
        weights = np.array(search.run.scalarisation.weights) * np.ptp(F, axis=0)
        assert weights[end] == pytest.approx(1.0)
        assert weights[1 - end] == pytest.approx(memetic.TIE_BREAK)
        assert search.run.best_cost <= values(problem, best)[0] @ search.run.scalarisation.weights * (1 + 1e-12)


def test_ends_that_need_no_links_are_not_burdened_with_other_objectives(network, system):
    problem = nm.MappingProblem(network, system, ("peak_link_messages", "message_hops"))
    rng = np.random.default_rng(8)
    search = searcher(problem, rng)
    search.improve(problem, 1, rng)
    for end, others in ((0, True), (1, False)):
        turn(search, end)
        search.improve(problem, 1, rng)
        assert (search.run.scalarisation.weights[1 - end] > 0.0) == others


def test_short_runs_start_from_the_better_part_of_the_pool_and_take_their_places(problem):
    rng = np.random.default_rng(9)
    search = searcher(problem, rng)
    search.improve(problem, 1, rng)
    n_pool = len(search.pool)
    assert n_pool > 8
    for part in (1, 2, 4):
        starts = set()
        for _ in range(150):
            search.owed_s, before = 0.0, search.pool.copy()
            best = search.archive[0][0]
            start = search._start(problem, Scalarisation((1.0, 0.0)), best, part * SHORTEST, rng)
            assert search.owed_s < 0.0
            assert np.array_equal(search.pool, before)
            costs = values(problem, [*before, best])[:, 0]
            cost = values(problem, start)[0, 0]
            assert (costs < cost * (1 - 1e-9)).sum() < n_pool // part
            assert 0 <= search.pool_slot < n_pool
            starts.add(problem.encoding.decode(start[None]).unstack()[0])
        assert len(starts) > 2
    # A run's result stands in the pool where its start stood, or in place of the worst.
    for _ in range(300):
        if search.run is None or search.pool_slot < 0:
            turn(search, 2)
            search.tally[:, 2] *= 1e-6
            search.improve(problem, 1, rng)
        takes, run, before = search.pool_slot, search.run, search.pool.copy()
        search.improve(problem, 30, rng)
        if run.ended:
            break
    assert run.ended
    assert np.array_equal(search.pool[takes], problem.encoding.join(*run.best)) or search.run is not run
    assert (search.pool != before).any()


@pytest.mark.slow
def test_mappings_that_a_run_meets_are_evaluated_when_it_is_no_longer_hot(problem):
    rng = np.random.default_rng(9)
    search = searcher(problem, rng, share=0.5)
    search.improve(problem, 1, rng)
    turn(search, 0)
    met = hot = 0
    search.improve(problem, 1, rng)
    while True:
        run = search.run
        found = search.improve(problem, 4, rng)
        if run.ended:
            break
        assert len(found) <= 2  # at most half are snapshots
        hot += len(found) if 2 * run.done <= run.total else 0
        met += len(found)
        if found:
            assert_feasible(problem, found)
    assert hot == 0 < met


ODD = {
    "one core, one slice": lambda: (busy_graph(1, [(0, 0, 1.0)]), nm.mesh_system(1, 1)),
    "one slice, many cores": lambda: (busy_graph(1, []), nm.mesh_system(4, 4)),
    "one router": lambda: (busy_graph(3, [(0, 1, 2.0)]), nm.mesh_system(1, 1, 4)),
    "all cores used": lambda: (busy_graph(4, [(0, 1, 2.0), (2, 3, 1.0)]), nm.mesh_system(2, 2)),
    "no messages": lambda: (
        nm.Network("silent", tuple(nm.Layer(c, 5, "lif", np.zeros(5)) for c in "ab"), ()),
        nm.mesh_system(2, 2),
    ),
}


@pytest.mark.parametrize("objectives", [("latency_s",), ("energy_j", "message_hops"), ("cores_used", "chips_used")])
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.default_cases(5)
def test_odd_problems_take_no_more_moves_than_others(odd, objectives):
    problem = nm.MappingProblem(*ODD[odd](), objectives)
    rng = np.random.default_rng(10)
    search = searcher(problem, rng)
    search.improve(problem, 1, rng)
    found = [genome for _ in range(5) for genome in search.improve(problem, 100, rng)]
    assert_feasible(problem, found)
    assert 10_000 < search.moves < 5_000_000


def test_an_objective_that_is_zero_all_over_the_archive_does_not_drown_the_others(network):
    # All layers on one chip of two: nothing crosses yet, and a message that did must not weigh more than all else.
    chips = nm.mesh_system(3, 2, 2, chips_x=2, t_barrier_s={"chips_1": 1e-9, "chips_2": 1e-9})
    problem = nm.MappingProblem(network, chips, ("message_hops", "inter_chip_messages"))
    rng = np.random.default_rng(11)
    X = np.concatenate([problem.encoding.minimum * 0 + [2, 3, 3], np.arange(24)])[None]
    F = values(problem, X)
    assert F[0, 1] == 0 < F[0, 0]
    search = LocalSearch(0.8, X)
    search.observe(X, F)
    found = []
    while len(found) < 8:
        search.improve(problem, 1, rng)
        run = search.run
        assert run.first_temperature < 1e6
        while not found or search.run is run:
            found += search.improve(problem, 50, rng)
        assert run.best_cost == pytest.approx(weighted(problem, run.scalarisation, *run.best), rel=1e-9, abs=1e-12)
        assert run.best_cost <= float(F[0] @ run.scalarisation.weights)


@pytest.mark.slow
def test_a_search_goes_on_from_a_checkpoint_as_if_never_broken_off(network, system, problem):
    rng = np.random.default_rng(12)
    search = searcher(problem, rng)
    for _ in range(7):
        search.improve(problem, 33, rng)
    again, again_rng = cloudpickle.loads(cloudpickle.dumps((search, rng)))
    fresh = nm.MappingProblem(network, system)
    for _ in range(10):
        found, other = search.improve(problem, 50, rng), again.improve(fresh, 50, again_rng)
        assert np.array_equal(found, other)
    assert contents(again.run) == contents(search.run)
    assert (again.moves, again.owed_s, again.tally.tolist()) == (search.moves, search.owed_s, search.tally.tolist())
    assert np.array_equal(again.pool, search.pool)


# ---------------------------------------------------------------------------------------------------- annealing


def random_graph(seed):
    """Return a core graph of six slices."""
    rng = np.random.default_rng(seed)
    graph = nx.gnp_random_graph(6, 0.5, seed=seed, directed=True)
    return busy_graph(6, [(a, b, float(rng.lognormal(0, 1)) * 1000) for a, b in graph.edges])


@pytest.mark.parametrize("seeds", [range(2), pytest.param(range(2, 10), marks=pytest.mark.slow)], ids=["two", "eight"])
@pytest.mark.parametrize("objective", ["energy_j", "message_hops", "peak_link_messages", "t_link_s"])
@pytest.mark.default_cases(1)
def test_the_best_of_all_720_placements_of_six_slices_is_found(objective, seeds):
    everything = np.concatenate([np.zeros((720, 6), dtype=int), list(itertools.permutations(range(6)))], axis=1)
    for seed in seeds:
        problem = nm.MappingProblem(random_graph(seed), nm.mesh_system(3, 2), (objective,))
        least = values(problem, everything).min()
        rng = np.random.default_rng(seed)
        run = start_run(problem.space, Scalarisation((1.0,)), everything[0], 20_000, 1.0, rng)
        advance(problem.space, run, 20_000, rng)
        assert run.best_cost == pytest.approx(least, rel=1e-9)
        result = nm.search(problem, "annealing", evaluations=400, seed=seed, options={"snapshot_moves": 1000})
        assert result.front.objectives.min() == pytest.approx(least, rel=1e-9)


def test_a_run_finds_the_best_of_all_partitions_and_placements():
    network = nm.Network(
        "two",
        (nm.Layer("a", 3, "input", [1.0, 2.0, 0.5]), nm.Layer("b", 3, "lif", np.zeros(3))),
        (nm.Projection("a", "b", nm.Sparse.from_matrix(np.array([[1, 0, 1], [1, 1, 0], [0, 1, 1]]))),),
    )
    costs = {"t_barrier_s": 0.0, "t_synop_s": 1e-8, "e_message_j": 1e-11, "e_link_j": 3e-11}
    problem = nm.MappingProblem(network, nm.mesh_system(5, 1, **costs))
    everything = [
        nm.Mapping((a, b), cores)
        for a, b in itertools.product((1, 2, 3), repeat=2)
        if a + b <= 5
        for cores in itertools.permutations(range(5), a + b)
    ]
    F = minimised(problem.evaluate_mappings(everything), problem.objectives)
    best = set()
    for share in (0.0, 0.2, 0.5, 0.8, 1.0):
        scalarisation = Scalarisation((share / F[:, 0].mean(), (1 - share) / F[:, 1].mean()))
        rng = np.random.default_rng(1)
        run = start_run(problem.space, scalarisation, problem.encoding.random(1, rng)[0], 60_000, 0.3, rng)
        advance(problem.space, run, 60_000, rng)
        assert run.best_cost == pytest.approx((F @ scalarisation.weights).min(), rel=1e-9)
        best.add(tuple(run.best[0].tolist()))
    assert len(best) > 1  # weights do ask for different partitions


def begun(problem, **options):
    """Return the annealing algorithm after its baselines, its first generation evaluated and told."""
    algorithm = make_algorithm("annealing", problem, options)
    algorithm.setup(problem, termination=NoTermination(), seed=0)
    return algorithm, generation(algorithm, problem)


def generation(algorithm, problem):
    asked = algorithm.ask()
    algorithm.evaluator.eval(problem, asked)
    F = asked.get("F")
    asked.set("F", problem.normalised(F))
    algorithm.tell(infills=asked)
    return asked.get("X"), F


def test_weights_count_in_units_of_the_baselines_and_starts_are_the_best_of_them(problem):
    algorithm, (X, F) = begun(problem, weights=5)
    assert len(X) == len(problem.named_baselines)
    units = np.maximum(reference_directions(2, 5), TIE_BREAK)
    assert algorithm.weights * np.ptp(F, axis=0) == pytest.approx(units)
    for weights, start in zip(algorithm.weights, algorithm.starts, strict=True):
        assert values(problem, start)[0] @ weights == pytest.approx((F @ weights).min(), rel=1e-9)


def test_an_objective_on_which_all_baselines_agree_counts_in_units_of_its_value(network):
    problem = nm.MappingProblem(network, nm.mesh_system(3, 2, 2), ("latency_s", "chips_used", "inter_chip_messages"))
    algorithm, (_, F) = begun(problem, weights=3)
    assert np.ptp(F, axis=0)[1:].tolist() == [0.0, 0.0]
    assert algorithm.weights[:, 1:] * problem.reference_point[1:] == pytest.approx(
        np.maximum(reference_directions(3, 3), TIE_BREAK)[:, 1:]
    )


@pytest.mark.parametrize(
    ("run_moves", "totals"), [(0, [FIRST_MOVES, 2 * FIRST_MOVES, 4 * FIRST_MOVES]), (700, [700] * 3)]
)
def test_runs_take_weights_in_turn_and_double_their_moves(problem, run_moves, totals):
    algorithm, _ = begun(problem, weights=2, run_moves=run_moves, snapshot_moves=700)
    weights = algorithm.weights.copy()
    seen = []
    while algorithm.n_runs < 6:
        n = algorithm.n_runs
        X, _ = generation(algorithm, problem)
        assert len(X) == SNAPSHOTS
        assert_feasible(problem, X)
        if algorithm.run is not None and algorithm.n_runs > n:
            seen.append((algorithm.n_runs, algorithm.run.total, algorithm.run.scalarisation.weights))
    for n, total, used in seen:
        assert total == [*totals, 2 * totals[-1]][n // 2]
        assert used == tuple(weights[n % 2])
    assert len(seen) >= (5 if run_moves == 0 else 0)
    assert algorithm.moves >= 2 * sum(totals)


def test_the_next_run_of_a_weight_begins_where_the_last_one_ended(problem):
    algorithm, (_, F) = begun(problem, weights=2, snapshot_moves=5000, run_moves=5000)
    cost = (F @ algorithm.weights.T).min(axis=0)
    for _ in range(3):
        X, F = generation(algorithm, problem)  # a run each, of either weight in turn
        assert np.array_equal(algorithm.starts, X[-2:])
        for which, weights in enumerate(algorithm.weights):
            reached = np.append(cost[which], F[which::2] @ weights)
            assert (np.diff(reached) <= 1e-9 * reached[1:]).all()
            cost[which] = reached[-1]
