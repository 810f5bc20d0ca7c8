"""Algorithms and the search loop: one conformance suite for all, and exact answers where they are known."""

from __future__ import annotations

import itertools
import random
import warnings

import moocore
import networkx as nx
import numpy as np
import pytest
from pymoo.algorithms.moo.age2 import AGEMOEA2Survival
from pymoo.core.population import Population
from scipy.spatial.distance import cdist

import neuromap_moo as nm
from neuromap_moo.evolution.algorithms import ALGORITHMS, make_algorithm, reference_directions
from neuromap_moo.evolution.budget import Budget
from neuromap_moo.evolution.driver import search_mappings
from neuromap_moo.evolution.generation import non_dominated_rows, round_significant, variation_of
from neuromap_moo.evolution.operators import MUTATIONS, NOBODY
from neuromap_moo.evolution.survivals import (
    GeometrySurvival,
    HypervolumeSurvival,
    StrengthSurvival,
    keep_hypervolume,
    truncate,
)
from neuromap_moo.models.metrics import minimised

OBJECTIVES = {
    1: ("latency_s",),
    2: ("latency_s", "energy_j"),
    3: ("throughput_hz", "energy_j", "message_hops"),
}


#: Options under which a few hundred evaluations take little time: less annealing between them, or within one.
QUICK = {name: {"local_share": 0.5} for name in ALGORITHMS if name not in ("random", "es")}
QUICK |= {"random": {}, "es": {}, "annealing": {"snapshot_moves": 200, "run_moves": 3000}}
QUICK["guided"] = {"initial": 60, "batch": 120, "model_evaluations": 30}


@pytest.fixture(scope="module")
def network():
    return nm.sparse_mlp([64, 96, 96, 32], 0.3, seed=1)


@pytest.fixture(scope="module")
def system():
    return nm.mesh_system(4, 3, 2, masked_cores=[7], synapse_words=400)


@pytest.fixture(scope="module")
def problem(network, system):
    return nm.MappingProblem(network, system)


def values(result, problem):
    return minimised(problem.evaluate_mappings(result.mappings), problem.objectives)


def product(cases, usual):
    """Every algorithm with every case by name; what is not `usual` of them is left to the thorough run."""
    return [
        pytest.param(
            (algorithm, name), id=f"{algorithm}-{name}", marks=[] if usual(algorithm, name) else pytest.mark.slow
        )
        for algorithm in ALGORITHMS
        for name in cases
    ]


@pytest.fixture(scope="module", params=product(OBJECTIVES, lambda algorithm, n: n == 2 or algorithm == "nsga2"))
def unbroken(request, network, system):
    """Return an algorithm, its problem, and a search by it that nothing interrupted."""
    algorithm, n_objectives = request.param
    problem = nm.MappingProblem(network, system, OBJECTIVES[n_objectives])
    found = search_mappings(problem, algorithm, QUICK[algorithm], Budget(537), seed=3, keep_evaluations=True)
    return algorithm, problem, found


class TestConformance:
    """What every algorithm keeps."""

    @pytest.mark.default_cases(6)
    def test_budget_is_exact_and_every_mapping_legal_and_non_dominated(self, unbroken):
        _, problem, result = unbroken
        assert result.evaluations == 537
        assert result.ended == "evaluations"
        assert len(result.evaluated["objectives"]) == len(result.evaluated["cores_per_layer"]) == 537
        assert result.evaluated["core_of_slice"].size == result.evaluated["cores_per_layer"].sum()
        for mapping in result.mappings:
            nm.check(mapping, problem)
        # The archive is exactly the non-dominated set of all that was evaluated.
        best = round_significant(result.evaluated["objectives"])
        best = np.unique(best[moocore.is_nondominated(best)], axis=0)
        assert np.array_equal(np.unique(round_significant(values(result, problem)), axis=0), best)
        assert len(result.mappings) == len(best)

    @pytest.mark.default_cases(6)
    def test_the_same_seed_ends_alike_though_broken_off_twice(self, network, system, unbroken, tmp_path):
        algorithm, problem, whole = unbroken
        checkpoint = tmp_path / "checkpoint.pkl"

        def go_on(**more):
            again = nm.MappingProblem(network, system, problem.objectives)
            options = QUICK[algorithm]
            return search_mappings(
                again, algorithm, options, Budget(537), 3, checkpoint=checkpoint, keep_evaluations=True, **more
            )

        for _ in range(2):
            calls = itertools.count()
            part = go_on(should_stop=lambda calls=calls: next(calls) >= 1)
            assert part.ended == ""
            assert part.evaluations < 537
        rest = go_on()
        assert rest.mappings == whole.mappings
        assert np.array_equal(rest.evaluated["objectives"], whole.evaluated["objectives"])
        assert np.array_equal(np.delete(rest.history, 1, axis=1), np.delete(whole.history, 1, axis=1), equal_nan=True)

    @pytest.mark.default_cases(4)
    def test_another_seed_tries_other_mappings(self, unbroken):
        algorithm, problem, result = unbroken
        other = search_mappings(problem, algorithm, QUICK[algorithm], Budget(100), seed=2, keep_evaluations=True)
        n = other.evaluated["core_of_slice"].size
        assert not np.array_equal(result.evaluated["core_of_slice"][:n], other.evaluated["core_of_slice"])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
class TestEveryAlgorithm:
    """What every algorithm keeps, and needs no repetition for each number of objectives."""

    @pytest.mark.default_cases(4)
    def test_every_random_draw_comes_from_the_seed(self, problem, algorithm, monkeypatch):
        def global_states():
            _, keys, position, *_ = np.random.get_state()  # noqa: NPY002
            return random.getstate(), keys.tolist(), position

        seeded = np.random.default_rng
        # pymoo makes a generator without a seed where none is handed on: one that cannot be drawn from shows its use.
        monkeypatch.setattr(np.random, "default_rng", lambda seed=None: object() if seed is None else seeded(seed))
        before = global_states()
        search_mappings(problem, algorithm, QUICK[algorithm], Budget(250), seed=0)
        assert global_states() == before

    def test_two_of_a_kind_share_nothing(self, problem, algorithm):
        def parts(made):
            found = [getattr(made, name, None) for name in ("survival", "selection", "output", "evaluator")]
            for whole in (getattr(made, "mating", None), getattr(made, "initialization", None)):
                found += [] if whole is None else [p for p in vars(whole).values() if hasattr(p, "__dict__")]
            return {id(p): p for p in found if p is not None}

        first, second = make_algorithm(algorithm, problem), make_algorithm(algorithm, problem)
        one, other = parts(first), parts(second)
        assert one.keys().isdisjoint(other), [one[i] for i in one.keys() & other.keys()]

    @pytest.mark.parametrize("population", [2, pytest.param(7, marks=pytest.mark.slow)])
    @pytest.mark.default_cases(4)
    def test_small_populations(self, problem, algorithm, population):
        others = {
            "es": {"placement_offspring": 1},
            "annealing": {"weights": population, "run_moves": 7},
            "guided": {"initial": 61 - 2 * population, "batch": population, "model_evaluations": 7},
        }
        options = others.get(algorithm, {"population": population})
        assert search_mappings(problem, algorithm, options, Budget(61), seed=0).evaluations == 61


#: Objectives, messages along a chain of four slices: of which some, or all, or the only one are alike everywhere.
FLAT = {
    "one-latency": (("latency_s", "message_hops"), (1.0, 2.0, 3.0)),
    "mirrored": (("latency_s", "energy_j", "message_hops"), (1.0, 1.0, 1.0)),
    "all-alike": (("latency_s", "chips_used", "cores_used"), (1.0, 2.0, 3.0)),
    "one-objective": (("cores_used",), (1.0, 2.0, 3.0)),
}


# Each algorithm meets one of them in the default run, and each of them several algorithms.
@pytest.mark.parametrize("case", product(FLAT, lambda a, name: [*FLAT][[*ALGORITHMS].index(a) % len(FLAT)] == name))
@pytest.mark.default_cases(3)
def test_objectives_that_do_not_vary(case):
    algorithm, name = case
    objectives, messages = FLAT[name]
    graph = nx.DiGraph()
    for i, count in enumerate(messages):
        graph.add_edge(i, i + 1, messages=count)
    one_latency = nm.mesh_system(3, 2, t_barrier_s=1.0)  # the barrier outlasts all else
    problem = nm.MappingProblem(nm.CoreGraph.from_networkx(graph), one_latency, objectives)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = search_mappings(problem, algorithm, QUICK[algorithm], Budget(1030), seed=0)
    assert result.evaluations == 1030
    everything = [nm.Mapping([1] * 4, placement) for placement in itertools.permutations(range(6), 4)]
    F = round_significant(minimised(problem.evaluate_mappings(everything), objectives))
    assert (np.ptp(F, axis=0) == 0).any()
    front = np.unique(F[moocore.is_nondominated(F)], axis=0)
    found = np.unique(round_significant(values(result, problem)), axis=0)
    if algorithm == "es":  # it looks at the first objective alone
        assert found[:, 0].min() == front[:, 0].min()
    else:
        assert np.array_equal(found, front)


def front_of_a_sphere(n, m, seed=0):
    points = np.abs(np.random.default_rng(seed).normal(size=(n, m)))
    return 1 - points / np.linalg.norm(points, axis=1)[:, None]


class TestSurvivals:
    """Survivals of our own against the plain rules, where those work."""

    @pytest.mark.parametrize("m", [2, 3, 4])
    def test_hypervolume_is_given_up_as_by_removing_the_least_contribution_again_and_again(self, m):
        F = front_of_a_sphere(50, m)
        points = (F - F.min(axis=0)) / np.ptp(F, axis=0)
        left = np.arange(50)
        while len(left) > 20:
            left = np.delete(left, moocore.hv_contributions(points[left], ref=np.full(m, 11.0)).argmin())
        assert keep_hypervolume(F, 20).tolist() == left.tolist()
        assert keep_hypervolume(F, 50).tolist() == list(range(50))

    @pytest.mark.parametrize("m", [2, 3])
    def test_truncation_compares_sorted_distances(self, m):
        F = np.concatenate([front_of_a_sphere(30, m), front_of_a_sphere(10, m)])  # ten points twice
        distances = cdist(F, F)
        np.fill_diagonal(distances, np.inf)
        left = list(range(40))
        while len(left) > 15:
            ordered = np.sort(distances[np.ix_(left, left)], axis=1).tolist()
            left.pop(ordered.index(min(ordered)))
        assert truncate(distances, 15).tolist() == left

    @pytest.mark.parametrize("m", [2, 3, 5])
    @pytest.mark.slow
    def test_scores_of_a_curved_front_are_those_of_agemoea2(self, m):
        F = front_of_a_sphere(40, m)
        expected, p, span = AGEMOEA2Survival().survival_score(F.copy(), F.min(axis=0))
        score, own_p, own_span = GeometrySurvival().survival_score(F, F.min(axis=0))
        assert score == pytest.approx(expected, rel=1e-5)
        assert own_p == pytest.approx(p)
        assert own_span == pytest.approx(span)

    def test_the_last_front_is_ranked_by_its_distance_from_the_ideal_point(self):
        first = [[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]  # a line: the distance is the sum
        last = [[0.6, 1.0], [0.9, 0.8], [1.2, 0.6]]
        kept = GeometrySurvival()._do(None, Population.new("F", np.array(first + last)), n_survive=4)
        assert kept.get("F").tolist() == [*first, last[0]]

    def test_a_mapping_that_opens_up_the_front_stays(self):
        # All others differ by a thousandth; on that scale the last one is far beyond any reference point.
        F = np.array([[1.0 + i * 1e-3, 1.0 - i * 1e-3] for i in range(10)] + [[0.5, 5.0]])
        kept = HypervolumeSurvival()._do(None, Population.new("F", F), n_survive=3, ideal=F[:10].min(0))
        assert [0.5, 5.0] in kept.get("F").tolist()

    def test_strength_by_hand(self):
        # a dominates c and d, b dominates d, c dominates d: raw fitness 0, 0, 2 (a's strength), 2 + 1 + 1
        F = np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 1.5], [2.0, 2.0]])
        pop = Population.new("F", F)
        kept = StrengthSurvival()._do(None, pop, n_survive=3)
        assert np.floor(pop.get("SPEA_F").astype(float)).tolist() == [0, 0, 2, 4]
        assert {tuple(f) for f in kept.get("F")} == {tuple(f) for f in F[:3]}


def test_children_of_moead_go_to_the_direction_whose_neighbours_are_their_parents(problem):
    algorithm = make_algorithm("moead", problem, {"population": 40, "neighbours": 4})
    algorithm.setup(problem, seed=0)
    algorithm.selection.prob.set(1.0)
    algorithm.mating.crossover.prob.set(0.0)
    algorithm.mating.mutation.prob.set(0.0)  # every child is a copy of one of its parents
    first = algorithm.ask()
    algorithm.evaluator.eval(problem, first)
    algorithm.tell(infills=first)
    children = algorithm.ask().get("X")
    for i, child in zip(algorithm.indices, children, strict=True):
        assert (algorithm.pop[algorithm.neighbors[i]].get("X") == child).all(axis=1).any()


@pytest.mark.parametrize("algorithm", ["nsga2", "nsga3", "smsemoa", "agemoea2", "moead", "spea2"])
def test_what_annealing_runs_come_to_is_evaluated_and_counts_as_theirs(problem, algorithm, monkeypatch):
    made = make_algorithm(algorithm, problem, {"population": 20})
    made.setup(problem, seed=0)
    first = made.ask()
    made.evaluator.eval(problem, first)
    made.tell(infills=first)
    found = problem.encoding.random(24, np.random.default_rng(99))[::2]  # on random cores, like none that are known
    counted = []

    def improve(problem, n_evaluations, rng):
        counted.append(n_evaluations)
        return list(found) if len(counted) == 1 else []

    monkeypatch.setattr(variation_of(made).local, "improve", improve)
    children = made.ask()
    assert counted[0] == len(children) == made.pop_size
    annealed = [child for child in children if child.get("mutation") == MUTATIONS.index("anneal")]
    assert np.array_equal(np.unique([child.X for child in annealed], axis=0), np.unique(found, axis=0))
    assert {child.get("crossover") for child in annealed} == {NOBODY}


PAIRS = {
    "latency-energy": (("latency_s", "energy_j"), {"p_chip_w": 0.0, "p_core_w": 0.0, "t_barrier_s": 0.0}),
    "peak-hops": (("peak_link_messages", "message_hops"), {}),
}


@pytest.mark.parametrize("graphs", [[0], pytest.param([1, 2, 3, 4, 5], marks=pytest.mark.slow)], ids=["one", "five"])
@pytest.mark.parametrize("case", product(PAIRS, lambda algorithm, pair: pair == "latency-energy"))
@pytest.mark.default_cases(4)
def test_search_returns_exactly_the_brute_force_front_of_six_slices(case, graphs):
    algorithm, pair = case
    objectives, costs = PAIRS[pair]
    sizes = []
    for seed in graphs[:2] if algorithm == "guided" else graphs:  # its batches take longer
        rng = np.random.default_rng(seed)
        graph = nx.gnp_random_graph(6, 0.5, seed=seed, directed=True)
        for edge in graph.edges:
            graph.edges[edge]["messages"] = float(rng.lognormal(0, 1)) * 1000
        problem = nm.MappingProblem(nm.CoreGraph.from_networkx(graph), nm.mesh_system(3, 2, **costs), objectives)
        everything = [nm.Mapping([1] * 6, placement) for placement in itertools.permutations(range(6))]
        assert len(everything) == 720
        F = round_significant(minimised(problem.evaluate_mappings(everything), objectives))
        front = np.unique(F[moocore.is_nondominated(F)], axis=0)
        evaluations = {"random": 4000, "es": 4000, "annealing": 1500, "moead": 2000, "guided": 700}.get(algorithm, 1000)
        options = {"snapshot_moves": 50, "run_moves": 1000} if algorithm == "annealing" else QUICK[algorithm]
        run = nm.search(problem, algorithm, evaluations=evaluations, seed=seed, options=options)
        if algorithm == "annealing":  # weighted sums lead to the ends, and to what bulges out between them
            assert run.front.objectives.min(axis=0) == pytest.approx(front.min(axis=0), rel=1e-9), f"graph {seed}"
            continue
        found = round_significant(minimised(run.front.table, objectives))
        assert np.array_equal(np.unique(found, axis=0), front), f"graph {seed}"
        sizes.append(len(front))
    if pair == "peak-hops" and len(graphs) > 1 and algorithm != "annealing":
        assert max(sizes) > (1 if algorithm == "guided" else 2)  # the graphs do pose a trade-off


@pytest.mark.parametrize("partitions", [2, 3])
def test_es_tries_so_many_partitions_with_so_many_generations_of_placements_each(problem, partitions):
    options = {"partition_offspring": partitions, "placement_offspring": 3, "placement_generations": 4}
    outer = []
    result = search_mappings(
        problem,
        "es",
        options,
        Budget(1 + 10 * partitions * 12),  # the vendor's mapping, then ten rounds
        keep_evaluations=True,
        on_generation=lambda state: outer.append(state.algorithm.outer[1]),
    )
    k = result.evaluated["cores_per_layer"][1:].reshape(10 * partitions, 12, -1)
    assert (k == k[:, :1]).all()
    # The parent of all is another only after a round of partitions with four generations each.
    changes = np.flatnonzero(np.diff(outer)) + 1
    assert changes.size > 0
    assert (changes % (4 * partitions) == 0).all()


@pytest.mark.slow
def test_search_beats_every_baseline_at_both_ends():
    problem = nm.MappingProblem(nm.sparse_mlp([1024, 2048, 1024, 512], 0.05), nm.load_system("loihi2"))
    run = nm.search(problem, evaluations=1500, seed=0)
    for gain in run.summary()["best"].values():
        assert gain["reduction_vs_best_baseline"] > 0
    assert run.summary()["best"]["latency_s"]["reduction_vs_vendor_default"] > 0.3
    fastest, frugal = run.front.best("latency_s"), run.front.best("energy_j")
    assert run.front.mappings[fastest].cores_used != run.front.mappings[frugal].cores_used


def test_hypervolume_never_falls_and_ends_as_the_front_has_it(problem):
    run = nm.search(problem, evaluations=1500, seed=5, options=QUICK["nsga2"])
    history = run.history
    assert (np.diff(history[:, 2]) >= 0).all()
    assert history[-1, 2] == pytest.approx(run.hypervolume, rel=1e-9)
    assert history[-1, 3:5].tolist() == run.front.objectives.min(axis=0).tolist()
    assert history[-1, 0] == 1500


def test_initial_population_holds_the_baselines(problem):
    mappings = list(nm.baselines(problem).values())
    run = nm.search(problem, evaluations=100, seed=0)
    for name in problem.objectives:
        best = problem.evaluate_mappings(mappings)[name].min()
        assert run.front.table[name].min() <= best


def test_a_front_never_holds_the_same_objectives_twice(problem):
    F = values(search_mappings(problem, options=QUICK["nsga2"], budget=Budget(2000), seed=1), problem)
    assert len(np.unique(round_significant(F), axis=0)) == len(F)


def test_a_mapping_without_a_finite_objective_ends_the_search_with_a_reason(problem):
    class Broken(type(problem.evaluator)):
        def evaluate(self, mappings):
            metrics = super().evaluate(mappings)
            if len(mappings.cores_per_layer) > 50:  # the baselines are fewer
                metrics["energy_j"][3] = np.nan
            return metrics

    broken = Broken(problem.partitioner, problem.system)
    with pytest.raises(nm.InputError, match=r"a mapping has .*nan.*; a search needs finite values"):
        nm.search(nm.MappingProblem(problem.network, problem.system, evaluator=broken), evaluations=500)


def test_every_objective_of_a_front_lies_within_the_reference_point(network, system):
    for other in ("cores_used", "messages", "message_hops"):
        problem = nm.MappingProblem(network, system, ("latency_s", other))
        run = nm.search(problem, evaluations=1000, options=QUICK["nsga2"])
        inside = (problem.normalised(minimised(run.front.table, problem.objectives)) < 1).all(axis=1)
        assert inside.mean() > 0.8, other


@pytest.mark.parametrize(
    ("algorithm", "option"), [("nsga3", "population"), ("moead", "population"), ("annealing", "weights")]
)
def test_directions_need_a_mapping_per_objective(network, system, algorithm, option):
    problem = nm.MappingProblem(network, system, ("latency_s", "energy_j", "messages", "cores_used"))
    with pytest.raises(nm.InputError, match=f"{option}: expected at least 4, one per objective, got 3"):
        nm.search(problem, algorithm, options={option: 3})


def test_wall_clock_budget_ends_the_search(problem):
    result = search_mappings(problem, "nsga2", budget=Budget(None, 0.3), seed=0)
    assert result.ended == "seconds"
    assert result.seconds >= 0.3
    assert result.evaluations > 0


@pytest.mark.parametrize("algorithm", ["nsga2", "nsga3", "smsemoa", "agemoea2", "spea2"])
@pytest.mark.default_cases(1)
def test_a_tiny_space_ends_as_exhausted(algorithm):
    graph = nx.DiGraph([("a", "b", {"messages": 1.0})])
    problem = nm.MappingProblem(nm.CoreGraph.from_networkx(graph), nm.mesh_system(2, 1))
    result = search_mappings(problem, algorithm, QUICK[algorithm], Budget(1000), seed=0)
    assert result.ended == "exhausted"
    assert len(result.mappings) == 1


def test_archive_keeps_the_first_of_equals_and_ignores_rounding_noise():
    F = np.array([[1.0, 2.0], [2.0, 1.0], [1.0 + 1e-15, 2.0 - 1e-15], [1.5, 1.5], [3.0, 3.0]])
    assert non_dominated_rows(F).tolist() == [True, True, False, True, False]


def test_round_significant_by_hand():
    # twelve significant digits: 1.234567890125 -> 1.23456789012 or ...13 by its binary value; zero and signs stay
    assert round_significant(np.array([[0.0, -123456789012.4, 1e-9 * 1.0000000000001]])).tolist() == [
        [0.0, -123456789012.0, 1e-9]
    ]


@pytest.mark.parametrize(("n_objectives", "count"), [(1, 1), (2, 100), (3, 91), (4, 84)])
def test_reference_directions_fit_the_population(n_objectives, count):
    # Das and Dennis: C(n + m - 1, m - 1) directions; n = 99 -> 100, n = 12 -> 91, n = 6 -> 84 (n = 7 gives 120)
    directions = reference_directions(n_objectives, 100)
    assert directions.shape == (count, n_objectives)
    assert directions.sum(axis=1) == pytest.approx(1)


def test_reference_point_is_beyond_the_vendor_and_every_baseline(network, system):
    problem = nm.MappingProblem(network, system, ("latency_s", "throughput_hz", "cores_used", "inter_chip_messages"))
    table = problem.evaluate_mappings(list(nm.baselines(problem).values()))
    assert table["inter_chip_messages"].max() == 0  # one chip: 1 takes the place of zero
    assert table["cores_used"].max() > 1.5 * table["cores_used"][0]  # the equal split uses all cores
    slowest = min(table["throughput_hz"][0] / 1.5, table["throughput_hz"].min() / 1.1)
    expected = [
        max(1.5 * table["latency_s"][0], 1.1 * table["latency_s"].max()),
        -slowest,
        1.1 * table["cores_used"].max(),
        1.0,
    ]
    assert problem.reference_point == pytest.approx(expected)
    F = np.array([expected, [0.0, expected[1] * 1.5, expected[2] / 2, 0.5]])
    assert problem.normalised(F) == pytest.approx(np.array([[1, 1, 1, 1], [0, 0.5, 0.5, 0.5]]))


def test_baselines_of_random_layer_orders_are_ranked(problem):
    named = problem.named_baselines
    latency = {k: problem.evaluate_mappings([b.mapping])["latency_s"][0] for k, b in named.items()}
    assert latency["vendor_order_min"] <= latency["vendor_order_median"] <= latency["vendor_order_max"]
    assert "10 random layer orders" in named["vendor_order_min"].note
    assert next(iter(named)) == "vendor_default"


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda p: nm.search(p, "nsga"), "no 'nsga'; did you mean 'nsga[23]'"),
        (lambda p: nm.search(p, options={"pop": 3}), "unknown option 'pop'"),
        (lambda p: nm.search(p, options={"population": 1}), "population: expected a whole number >= 2, got 1"),
        (lambda p: nm.search(p, options={"population": "many"}), "whole number >= 2, got 'many'"),
        (lambda p: nm.search(p, "moead", options={"neighbours": 1}), "neighbours: expected a whole number >= 2, got 1"),
        (lambda p: nm.search(p, "spea2", options={"population": 2001}), "population: expected at most 2000, got 2001"),
        (lambda p: nm.search(p, evaluations=0), "budget.evaluations: expected a whole number >= 1, got 0"),
        (lambda p: nm.search(p, evaluations=1.5), "got 1.5"),
        (lambda p: nm.search(p, evaluations=None), "got null for both; set one of them"),
        (lambda p: nm.search(p, seconds=-1), "budget.seconds: expected a number > 0 in s, got -1"),
        (lambda p: nm.search(p, seconds=float("nan")), "got nan"),
        (lambda p: nm.search(p, seed=-1), "seed: expected a whole number >= 0, got -1"),
        (lambda p: nm.MappingProblem(p.network, p.system, ("latency",)), "did you mean 'latency_s'"),
        (lambda p: nm.MappingProblem(p.network, p.system, ()), "at least one metric column"),
    ],
)
def test_wrong_arguments_are_refused(problem, call, match):
    with pytest.raises(nm.InputError, match=match):
        call(problem)


def test_wrong_types_are_refused(problem):
    with pytest.raises(TypeError, match="network: expected a Network or a CoreGraph, got str"):
        nm.MappingProblem("model.net", problem.system)
    with pytest.raises(TypeError, match=r"nm.load_system\('loihi2'\)"):
        nm.MappingProblem(problem.network, "loihi2")


def test_objectives_without_a_finite_value_are_refused():
    graph = nx.DiGraph([("a", "b", {"messages": 1.0})])
    free = nm.mesh_system(2, 2, t_barrier_s=0.0, t_dendop_s=0.0, t_synop_s=0.0, t_synmem_s=0.0)
    graph.remove_edge("a", "b")
    problem = nm.MappingProblem(nm.CoreGraph.from_networkx(graph), free, ("throughput_hz",))
    with pytest.raises(nm.InputError, match="are all costs of the system zero"):
        nm.search(problem, evaluations=10)


def test_checkpoints_of_another_search_or_none_at_all_are_refused(problem, tmp_path):
    checkpoint = tmp_path / "checkpoint.pkl"
    search_mappings(problem, budget=Budget(100), checkpoint=checkpoint)
    with pytest.raises(nm.InputError, match="belongs to a different search"):
        search_mappings(problem, budget=Budget(100), seed=1, checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:300])
    with pytest.raises(nm.InputError, match="cannot be read"):
        search_mappings(problem, budget=Budget(100), checkpoint=checkpoint)
    checkpoint.write_bytes(b"garbage")
    with pytest.raises(nm.InputError, match="belongs to a different search"):
        search_mappings(problem, budget=Budget(100), checkpoint=checkpoint)
