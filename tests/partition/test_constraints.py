"""The user's constraints: kept by everything that makes mappings, checked independently, refused when contradictory."""

from __future__ import annotations

import itertools
import json

import networkx as nx
import numpy as np
import pytest
import yaml
from helpers import SMALL, call, examples, gapped_network
from hypothesis import given
from hypothesis import strategies as st

import neuromap_moo as nm
from neuromap_moo.annealing.run import advance, start_run
from neuromap_moo.annealing.space import Scalarisation
from neuromap_moo.evolution.budget import Budget
from neuromap_moo.evolution.driver import search_mappings
from neuromap_moo.evolution.generation import non_dominated_rows
from neuromap_moo.evolution.moves import MOVES, cross_blocks, cross_layers, mutate
from neuromap_moo.mapping.mapping import stack

#: On two chips of 3x4 routers in a row, two cores each; core 5 is masked out. Chip 0 has cores 0 to 23.
CASES = {
    "cores": {"layers": {"hidden_1": {"cores": [0, 1, 2, 3, 9, 30, 31]}}},
    "routers": {"layers": {"hidden_1": {"routers": [1, 2, 13]}, "output": {"routers": 1}}},
    "chips": {"layers": {"hidden_1": {"chips": 1}, "hidden_2": {"chips": [0]}}},
    "rows": {"layers": {"hidden_1": {"rows": [0, 1]}, "output": {"rows": 3}}},
    "region": {"layers": {"hidden_1": {"region": [1, 1, 4, 2]}, "hidden_2": {"region": [2, 0, 3, 3]}}},
    "fixed": {"layers": {"hidden_1": {"fixed": {0: 17, 3: 40}}, "output": {"fixed": {1: 0}}}},
    "min_max_cores": {"layers": {"hidden_1": {"min_cores": 5, "max_cores": 7}, "output": {"max_cores": 2}}},
    "neurons": {"layers": {"hidden_1": {"min_neurons_per_core": 4}, "output": {"max_neurons_per_core": 3}}},
    "same_chip": {"same_chip": [["hidden_1", "hidden_2"], ["output"]]},
    "same_chip_tight": {
        "layers": {"hidden_1": {"min_cores": 12}, "hidden_2": {"min_cores": 10}, "output": {"min_cores": 8}},
        "same_chip": [["hidden_1", "hidden_2"], ["output", "input"]],
    },
    # Overlapping regions: both layers fit each alone, together they cannot have all the cores they would like.
    "overlap": {
        "layers": {
            "hidden_1": {"rows": 0, "min_cores": 4},
            "hidden_2": {"region": [0, 0, 3, 0]},
            "output": {"cores": [0, 1, 2]},
        }
    },
    "all": {
        "layers": {
            "hidden_1": {"rows": [0, 1], "fixed": {2: 4}, "min_cores": 4},
            "hidden_2": {"region": [0, 0, 2, 2], "max_cores": 9},
            "output": {"chips": 1, "fixed": {0: 30}, "max_neurons_per_core": 8},
        },
        "same_chip": [["hidden_1", "hidden_2"]],
    },
}


def network():
    return nm.sparse_mlp([20, 30, 24, 16], 0.5, activity=0.8, seed=3)


def system(**changes):
    return nm.mesh_system(3, 4, 2, chips_x=2, synapse_words=60, masked_cores=[5], **changes)


@pytest.fixture(scope="module")
def problems():
    return {name: nm.MappingProblem(network(), system(), constraints=given) for name, given in CASES.items()}


def assert_legal(problem, X):
    assert problem.encoding.first_infeasible(X) == -1
    batch = problem.encoding.decode(X)
    assert problem.is_legal(batch).all()
    for mapping in batch.unstack():
        nm.check(mapping, problem)


def brute_force(problem):
    """Every mapping of a tiny problem that `check` lets pass."""
    cores = problem.system.usable_cores.tolist()
    fits = [np.flatnonzero(row).tolist() for row in problem.encoding.fits]
    legal = []
    for k in itertools.product(*fits):
        for placed in itertools.permutations(cores, sum(k)):
            mapping = nm.Mapping(k, placed)
            try:
                nm.check(mapping, problem)
            except nm.InputError:
                continue
            legal.append(mapping)
    return legal


@pytest.mark.parametrize("case", CASES)
def test_check_refuses_what_breaks_a_constraint(case, problems):
    problem, free = problems[case], nm.MappingProblem(network(), system())
    X = free.encoding.random(100, np.random.default_rng(0))
    batch = free.encoding.decode(X)
    legal = []
    for mapping in batch.unstack():
        try:
            nm.check(mapping, problem)
            legal.append(True)
        except nm.InputError:
            legal.append(False)
    assert not all(legal)
    assert problem.is_legal(batch).tolist() == legal


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        (
            {"layers": {"b": {"cores": [0, 1, 2]}}},
            r"'b', slice 1: core 3, .* allow cores \[0, 1, 2\], it is on 3",
        ),
        ({"layers": {"b": {"routers": [2]}}}, r"layer 'b', slice 1: core 3, .* allow routers \[2\], it is on 3"),
        ({"layers": {"b": {"chips": [0]}}}, r"layer 'b', slice 0: core 2, .* allow chips \[0\], it is on 1"),
        ({"layers": {"b": {"rows": [0]}}}, r"slice 1: core 3 lies in row 1, the constraints allow rows \[0\]"),
        ({"layers": {"b": {"region": [1, 0, 1, 0]}}}, r"slice 1: core 3 lies at \(1, 1\), .* region \[1, 0, 1, 0\]"),
        ({"layers": {"b": {"fixed": {0: 3}}}}, "layer 'b', slice 0: core 2, the constraints fix it to core 3"),
        ({"layers": {"a": {"fixed": {1: 1}}}}, "layer 'a': 1 cores, the constraints fix its slice 1"),
        ({"layers": {"a": {"fixed": {1: 2}}}}, "layer 'a': 1 cores, the constraints fix its slice 1"),
        ({"layers": {"b": {"min_cores": 3}}}, "layer 'b': 2 cores, the constraints ask for at least 3"),
        ({"layers": {"b": {"max_cores": 1}}}, "layer 'b': 2 cores, the constraints allow at most 1"),
        ({"layers": {"b": {"min_neurons_per_core": 3}}}, "2 neurons per core, the constraints ask for at least 3"),
        ({"layers": {"b": {"max_neurons_per_core": 2}}}, "3 neurons per core, the constraints allow at most 2"),
        ({"same_chip": [["a", "b"]]}, r"same_chip \['a', 'b'\]: expected one chip, its slices are on chips \[0, 1\]"),
    ],
)
def test_check_says_which_constraint_is_broken(constraints, message):
    layers = (nm.Layer("a", 2, "input", np.ones(2)), nm.Layer("b", 5, "lif", np.zeros(5)))
    plain = nm.Network("plain", layers, (nm.Projection("a", "b", nm.Dense(2, 5), 8),))
    problem = nm.MappingProblem(plain, nm.mesh_system(1, 2, chips_x=2))
    mapping = nm.Mapping([1, 2], [0, 2, 3])
    nm.check(mapping, problem)
    problem.constraints = nm.Constraints.from_config(constraints)
    with pytest.raises(nm.InputError, match=message):
        nm.check(mapping, problem)


def test_no_other_slice_takes_a_fixed_core():
    problem = nm.MappingProblem(network(), system(), constraints={"layers": {"output": {"fixed": {1: 40}}}})
    place_40 = int(np.searchsorted(problem.encoding.cores, 40))
    assert problem.legality.tables.allowed[:, place_40].tolist() == [False] * 4 + [True]
    assert problem.encoding.minimum[3] == 2
    k = problem.encoding.minimum
    cores = [40, *range(5), *range(6, 12)][: k.sum()]
    with pytest.raises(nm.InputError, match="layer 'output', slice 1: core 9, the constraints fix it to core 40"):
        nm.check(nm.Mapping(k, cores), problem)
    cores[0], cores[-1] = cores[-1], cores[0]
    nm.check(nm.Mapping(k, cores), problem)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.default_cases(4)
def test_sampling_and_random_genotypes(case, problems):
    problem = problems[case]
    rng = np.random.default_rng(1)
    assert_legal(problem, problem.encoding.random(100, rng))
    assert_legal(problem, nm.operators(problem)["sampling"]._do(problem, 150, random_state=rng))


@pytest.mark.parametrize("case", CASES)
def test_repair_of_garbage(case, problems):
    problem = problems[case]
    rng = np.random.default_rng(2)
    garbage = rng.integers(-60, 100, (100, problem.n_var))
    repaired = problem.encoding.repair(garbage)
    assert_legal(problem, repaired)
    assert (problem.encoding.repair(repaired) == repaired).all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.default_cases(4)
def test_crossovers_and_mutations(case, problems):
    problem = problems[case]
    rng = np.random.default_rng(3)
    for cross in (cross_layers, cross_blocks):
        parents = problem.encoding.random(80, rng).reshape(2, 40, -1)
        for children in cross(problem.space, parents, rng):
            assert_legal(problem, children)
    X = problem.encoding.random(40 * len(MOVES), rng)
    kinds = np.repeat(np.arange(len(MOVES)), 40)
    for _ in range(3):
        X = mutate(problem.space, X, kinds, rng)
        assert_legal(problem, X)


@pytest.mark.parametrize("case", CASES)
def test_annealing_keeps_them_for_thousands_of_moves(case, problems):
    problem = problems[case]
    rng = np.random.default_rng(4)
    weights = (1e6, 1e6)
    for start in problem.encoding.random(3, rng):
        run = start_run(problem.space, Scalarisation(weights), start, 6_000, 0.5, rng)
        while not run.ended:
            advance(problem.space, run, 400, rng)
            assert_legal(problem, problem.encoding.join(run.cores_per_layer, run.place)[None])
        best = problem.encoding.join(*run.best)[None]
        assert_legal(problem, best)
        values = problem.evaluate_mappings(problem.encoding.decode(best).unstack())
        cost = sum(w * values[name][0] for w, name in zip(weights, problem.objectives, strict=True))
        assert run.best_cost == pytest.approx(cost, rel=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_every_baseline(case, problems):
    problem = problems[case]
    named = problem.named_baselines
    assert next(iter(named)) == "vendor_default"
    for baseline in named.values():
        nm.check(baseline.mapping, problem)
    assert any("constraints" in baseline.note for baseline in named.values())
    for baseline in problem.balanced:
        nm.check(baseline.mapping, problem)


@pytest.mark.parametrize("algorithm", ["nsga2", "moead", "es", "annealing", "random"])
@pytest.mark.parametrize(
    "case", ["all", *(pytest.param(x, marks=pytest.mark.slow) for x in ("fixed", "neurons", "overlap"))]
)
@pytest.mark.default_cases(1)
def test_whole_searches(case, algorithm, problems):
    problem = problems[case]
    run = nm.search(problem, algorithm, evaluations=600, seed=1)
    assert run.evaluations == 600
    for mapping in run.front.mappings:
        nm.check(mapping, problem)


def test_a_slice_that_may_stay_stays():
    problem = nm.MappingProblem(network(), system(), constraints={"layers": {"output": {"rows": 0}}})
    X = nm.MappingProblem(network(), system()).encoding.random(50, np.random.default_rng(5))
    before, after = problem.encoding.decode(X), problem.encoding.decode(problem.encoding.repair(X))
    row = problem.system.router_xy[problem.system.router_of_core, 1]
    kept = 0
    for old, new in zip(before.unstack(), after.unstack(), strict=True):
        first = sum(old.cores_per_layer[:3])
        placed = np.array(old.core_of_slice)
        in_row = row[problem.system.usable_cores] == 0
        if (row[placed[first:]] != 0).sum() <= in_row.sum() - (row[placed] == 0).sum():  # enough are free
            kept += 1
            assert old.core_of_slice[:first] == new.core_of_slice[:first]
            for a, b in zip(old.core_of_slice[first:], new.core_of_slice[first:], strict=True):
                assert row[b] == 0
                assert a == b or row[a] != 0
    assert kept > 5


def test_the_nearest_free_core_is_taken():
    graph = nx.DiGraph()
    graph.add_nodes_from("ab")
    graph.add_edge("a", "b", messages=1.0)
    constraints = {"layers": {"a": {"cores": [0, 3]}}}
    problem = nm.MappingProblem(nm.CoreGraph.from_networkx(graph), nm.mesh_system(4, 1), constraints=constraints)
    k, place = problem.legality.settled(np.array([1, 1]), np.array([2, 1]))
    assert (k.tolist(), place.tolist()) == ([1, 1], [3, 1])
    k, place = problem.legality.settled(np.array([1, 1]), np.array([2, 3]))
    assert place.tolist() == [0, 3]


def ring(rng, n):
    """A core graph of n nodes that talk in a ring and across."""
    graph = nx.DiGraph()
    graph.add_nodes_from(f"n{i}" for i in range(n))
    for i in range(n):
        graph.add_edge(f"n{i}", f"n{(i + 1) % n}", messages=float(rng.integers(1, 9)))
        graph.add_edge(f"n{i}", f"n{(i + 2) % n}", messages=float(rng.integers(0, 4)))
    return nm.CoreGraph.from_networkx(graph)


@pytest.mark.parametrize(
    "constraints",
    [
        {"layers": {"n0": {"rows": 1}, "n2": {"cores": [0, 1]}, "n4": {"fixed": {0: 5}}}},
        {"layers": {"n1": {"region": [0, 0, 1, 0]}}, "same_chip": [["n0", "n3"], ["n1", "n2"]]},
    ],
)
@pytest.mark.default_cases(1)
def test_the_front_is_that_of_all_legal_placements(constraints):
    graph = ring(np.random.default_rng(6), 5)
    tiny = nm.mesh_system(1, 3, chips_x=2)
    problem = nm.MappingProblem(graph, tiny, ("message_hops", "peak_link_messages"), constraints=constraints)
    legal = brute_force(problem)
    assert 0 < len(legal) < 720
    F = problem.evaluator.evaluate(stack(legal))
    F = np.stack([F[name] for name in problem.objectives], axis=1)
    expected = np.unique(F[non_dominated_rows(F)], axis=0)
    run = nm.search(problem, evaluations=600, options={"population": 20, "local_share": 0.5})
    assert np.unique(run.front.objectives, axis=0) == pytest.approx(expected)


@pytest.mark.slow
def test_the_front_is_that_of_all_legal_partitions_and_placements():
    small = nm.sparse_mlp([4, 6, 3], 0.8, activity=0.9, seed=1)
    constraints = {
        "layers": {"hidden_1": {"rows": [0], "min_cores": 2}, "output": {"fixed": {0: 4}, "max_cores": 2}},
        "same_chip": [["input"]],
    }
    tiny = nm.mesh_system(3, 1, chips_y=2, t_barrier_s=0.0)
    problem = nm.MappingProblem(small, tiny, constraints=constraints)
    legal = brute_force(problem)
    F = problem.evaluate_mappings(legal)
    F = np.stack([F[name] for name in problem.objectives], axis=1)
    expected = np.unique(F[non_dominated_rows(F)], axis=0)
    run = nm.search(problem, evaluations=600, options={"population": 30, "local_share": 0.5})
    found = run.front.objectives[np.lexsort(run.front.objectives.T[::-1])]
    assert found == pytest.approx(expected, rel=1e-9)


@examples(60)
@given(st.integers(0, 2**32 - 1))
def test_constraints_are_refused_exactly_where_no_mapping_meets_them(seed):
    rng = np.random.default_rng(seed)
    graph = ring(rng, 4)
    tiny = nm.mesh_system(1, 3, chips_x=2, masked_cores=[1] if rng.random() < 0.3 else [])
    layers = {}
    for name in graph.layer_names:
        if rng.random() < 0.6:
            layers[name] = {"cores": rng.choice(6, rng.integers(1, 4), replace=False).tolist()}
        elif rng.random() < 0.3:
            layers[name] = {"fixed": {0: int(rng.integers(6))}}
    groups = [rng.choice(graph.layer_names, 2, replace=False).tolist() for _ in range(rng.integers(0, 3))]
    constraints = {"layers": layers, "same_chip": groups}
    free = nm.MappingProblem(graph, tiny)
    try:
        problem = nm.MappingProblem(graph, tiny, constraints=constraints)
    except nm.InputError:
        try:
            free.constraints = nm.Constraints.from_config(constraints)
        except nm.InputError:
            return  # a core fixed twice
        assert brute_force(free) == []
        return
    legal = brute_force(problem)
    assert legal
    X = problem.encoding.encode(legal)
    assert (problem.encoding.repair(X) == X).all()
    assert_legal(problem, problem.encoding.repair(rng.integers(-9, 15, (20, problem.n_var))))


@examples(40)
@given(st.integers(0, 2**32 - 1))
def test_repair_is_legal_under_random_constraints(seed):
    rng = np.random.default_rng(seed)
    some = system()
    layers = {}
    for name in network().layer_names:
        layer = {}
        if rng.random() < 0.5:
            layer["rows"] = rng.choice(4, rng.integers(1, 4), replace=False).tolist()
        if rng.random() < 0.3:
            layer["chips"] = int(rng.integers(2))
        if rng.random() < 0.3:
            layer["cores"] = rng.choice(some.usable_cores, 20, replace=False).tolist()
        if rng.random() < 0.3:
            layer["min_cores"] = int(rng.integers(1, 5))
        if rng.random() < 0.3:
            layer["max_cores"] = int(rng.integers(4, 9))
        if rng.random() < 0.2:
            layer["fixed"] = {int(rng.integers(4)): int(rng.choice(some.usable_cores))}
        layers[name] = layer
    groups = [rng.choice(list(layers), 2, replace=False).tolist() for _ in range(rng.integers(0, 3))]
    try:
        problem = nm.MappingProblem(network(), some, constraints={"layers": layers, "same_chip": groups})
    except nm.InputError:
        return
    repaired = problem.encoding.repair(rng.integers(-60, 100, (20, problem.n_var)))
    assert_legal(problem, repaired)
    assert (problem.encoding.repair(repaired) == repaired).all()
    for mapping in nm.baselines(problem).values():
        nm.check(mapping, problem)


REFUSED = {
    "contradictory counts": (
        {"layers": {"output": {"min_cores": 9, "max_cores": 4}}},
        "min_cores: 9 is more than max_cores, 4",
    ),
    "neurons the wrong way": (
        {"layers": {"output": {"min_neurons_per_core": 9, "max_neurons_per_core": 4}}},
        "min_neurons_per_core: 9 is more than max_neurons_per_core, 4",
    ),
    "region too small": (
        {"layers": {"hidden_1": {"cores": [0, 1, 2], "min_cores": 8}}},
        r"layer 'hidden_1': needs at least 8 cores \(min_cores\) and can have at most 3 \(usable cores in its cores\)",
    ),
    "memory needs more": (
        {"layers": {"hidden_1": {"max_cores": 1}}},
        r"needs at least \d cores \(to fit\) and can have at most 1",
    ),
    "neurons against memory": (
        {"layers": {"hidden_1": {"min_neurons_per_core": 30}}},
        r"needs at least 3 cores \(to fit\) and can have at most 1 \(min_neurons_per_core 30 of 30 neurons\)",
    ),
    "more cores than neurons": (
        {"layers": {"output": {"min_cores": 17}}},
        r"at least 17 cores .* at most 16 \(to fit\)",
    ),
    "fixed beyond max_cores": (
        {"layers": {"output": {"fixed": {6: 1}, "max_cores": 4}}},
        r"at least 7 cores \(slice 6 is fixed\) and can have at most 4",
    ),
    "a core fixed twice": (
        {"layers": {"hidden_1": {"fixed": {0: 17}}, "output": {"fixed": {2: 17}}}},
        "core 17 is fixed for 'hidden_1' slice 0 and for 'output' slice 2",
    ),
    "fixed on a masked core": ({"layers": {"output": {"fixed": {0: 5}}}}, "slice 0 on core 5, which is masked out"),
    "fixed on no core": ({"layers": {"output": {"fixed": {0: 99}}}}, r"slice 0 on core 99, which is not in 0\.\.47"),
    "fixed outside": (
        {"layers": {"output": {"fixed": {0: 0}, "rows": 3}}},
        "core 0, which lies outside the layer's rows",
    ),
    "nothing in common": ({"layers": {"output": {"rows": 3, "cores": [0]}}}, "cores and rows leave no usable core"),
    "no such chip": ({"layers": {"output": {"chips": 2}}}, r"chips: expected ids in 0\.\.1"),
    "no such row": ({"layers": {"output": {"rows": 4}}}, r"no router of 'mesh' has y 4; they lie in 0\.\.3"),
    "two layers, one place": (
        {"layers": {"hidden_1": {"cores": [0, 1, 2, 3]}, "output": {"cores": [0, 1, 2, 3], "min_cores": 3}}},
        r"layers 'hidden_1', 'output' need at least 6 cores together and can have only 4",
    ),
    "a group larger than a chip": (
        {
            "layers": {n: {"min_cores": 9} for n in ("hidden_1", "hidden_2", "output")},
            "same_chip": [["hidden_1", "hidden_2"], ["output", "hidden_2"]],
        },
        r"layers 'hidden_1', 'hidden_2', 'output' of same_chip need 27 cores together, a chip has at most 24",
    ),
    "groups that do not go together": (
        {
            "layers": {"hidden_1": {"min_cores": 15}, "hidden_2": {"min_cores": 15}, "output": {"min_cores": 15}},
            "same_chip": [["hidden_1"], ["hidden_2"], ["output"]],
        },
        r"no assignment to chips gives every same_chip group .*'hidden_1' 15.* at most 24",
    ),
    "no such layer": ({"layers": {"hiden_1": {"rows": 0}}}, "layers: no layer 'hiden_1'; did you mean 'hidden_1'"),
    "no such layer in a group": ({"same_chip": [["outputs"]]}, "same_chip: no layer 'outputs'; did you mean 'output'"),
    "unknown key": ({"layer": {}}, "constraints: unknown key 'layer'; did you mean 'layers'"),
    "unknown layer key": ({"layers": {"output": {"row": 1}}}, "layer 'output': unknown key 'row'; did you mean 'rows'"),
    "no list": (
        {"layers": {"output": {"cores": "1-4"}}},
        "layer 'output', cores: expected a whole number >= 0, got '1-4'",
    ),
    "an empty list": ({"layers": {"output": {"rows": []}}}, "rows: expected a list of numbers"),
    "a wrong id": ({"layers": {"output": {"chips": [-1]}}}, "chips: expected a whole number >= 0, got -1"),
    "a wrong region": ({"layers": {"output": {"region": [0, 2, 3, 1]}}}, r"region: expected \[x0, y0, x1, y1\]"),
    "a short region": ({"layers": {"output": {"region": [0, 2]}}}, r"region: expected \[x0, y0, x1, y1\]"),
    "a list of fixed": ({"layers": {"output": {"fixed": [3]}}}, "fixed: expected core ids by slice index"),
    "a slice by name": ({"layers": {"output": {"fixed": {"first": 3}}}}, "fixed, slice index: expected a whole number"),
    "cores in words": (
        {"layers": {"output": {"min_cores": "all"}}},
        "min_cores: expected a whole number >= 1, got 'all'",
    ),
    "a group of letters": ({"same_chip": ["output"]}, "same_chip: expected lists of layer"),
    "layers as a list": ({"layers": ["output"]}, "layers: expected constraints by layer name"),
    "a layer as a number": ({"layers": {"output": 3}}, "layer 'output': expected keys such as rows"),
    "a number": (3, "constraints: expected layers and same_chip"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_contradictions_and_wrong_input_are_refused(name):
    constraints, message = REFUSED[name]
    with pytest.raises(nm.InputError, match=message):
        nm.MappingProblem(network(), system(), constraints=constraints)


def test_counts_between_which_nothing_fits_are_refused():
    gapped, some = gapped_network(), nm.mesh_system(4, 2, synapse_words=8)
    with pytest.raises(
        nm.InputError, match=r"between 3 cores \(min_cores\) and 4 \(max_cores\) no number of slices fits"
    ):
        nm.MappingProblem(gapped, some, constraints={"layers": {"b": {"min_cores": 3, "max_cores": 4}}})
    problem = nm.MappingProblem(gapped, some, constraints={"layers": {"b": {"cores": [0, 1, 2, 3]}}})
    assert_legal(problem, problem.encoding.repair(np.random.default_rng(0).integers(0, 9, (30, problem.n_var))))


def test_constraints_of_a_dict_a_file_and_themselves_are_the_same(tmp_path):
    path = tmp_path / "constraints.yaml"
    path.write_text(yaml.safe_dump(CASES["all"]))
    made = nm.Constraints.from_config(CASES["all"])
    assert (
        made
        == nm.Constraints.from_config(path)
        == nm.Constraints.from_config(str(path))
        == nm.Constraints.from_config(made)
    )
    assert nm.Constraints.from_config(made.to_dict()) == made
    assert hash(made) == hash(nm.Constraints(made.layers, made.same_chip))
    assert nm.Constraints({"a": nm.LayerConstraints(rows=1)}) == nm.Constraints({"a": {"rows": [1]}, "b": None})
    assert made != nm.Constraints.from_config(CASES["rows"])
    assert made.digest == nm.Constraints(dict(reversed(made.layers.items())), [["hidden_2", "hidden_1"]]).digest
    assert not nm.Constraints.from_config(None)
    assert nm.Constraints.from_config({}).to_dict() == {}
    (tmp_path / "wrong.yaml").write_text("layers: [")
    with pytest.raises(nm.InputError, match=r"wrong.yaml': expected YAML"):
        nm.Constraints.from_config(tmp_path / "wrong.yaml")
    with pytest.raises(nm.InputError, match=r"missing.yaml': cannot be read"):
        nm.Constraints.from_config(tmp_path / "missing.yaml")


@pytest.mark.default_cases(1)
def test_core_graphs_on_systems_that_are_no_mesh(graph_system):
    graph = ring(np.random.default_rng(8), 7)
    routers = sorted(set(graph_system.router_of_core[graph_system.usable_cores].tolist()))
    own = graph_system.usable_cores[[1, 4, 6]].tolist()
    constraints = {"layers": {"n1": {"routers": routers[:2]}, "n3": {"cores": own}, "n5": {"fixed": {0: own[2]}}}}
    problem = nm.MappingProblem(graph, graph_system, ("message_hops", "energy_j"), constraints=constraints)
    for mapping in nm.baselines(problem).values():
        nm.check(mapping, problem)
    run = nm.search(problem, evaluations=500, options={"population": 20})
    for mapping in run.front.mappings:
        nm.check(mapping, problem)
    with pytest.raises(nm.InputError, match="a core graph has no neurons"):
        nm.MappingProblem(graph, graph_system, constraints={"layers": {"n1": {"max_neurons_per_core": 4}}})
    with pytest.raises(nm.InputError, match=r"needs at least 2 cores \(min_cores\) and can have at most 1"):
        nm.MappingProblem(graph, graph_system, constraints={"layers": {"n1": {"min_cores": 2}}})
    if graph_system.router_xy is None:
        with pytest.raises(nm.InputError, match="have no coordinates; use routers or cores"):
            nm.MappingProblem(graph, graph_system, constraints={"layers": {"n1": {"rows": 0}}})


def test_a_name_that_two_nodes_have_is_refused():
    graph = nx.DiGraph([(1, "1", {"messages": 2.0})])
    with pytest.raises(nm.InputError, match="layers: 2 layers are called '1'"):
        nm.MappingProblem(
            nm.CoreGraph.from_networkx(graph), nm.mesh_system(2, 2), constraints={"layers": {1: {"rows": 0}}}
        )


def test_groups_gather_on_the_chip_with_most_of_their_slices():
    constraints = {"same_chip": [["hidden_1"]]}
    problem = nm.MappingProblem(network(), system(), constraints=constraints)
    k = np.array([1, 5, 4, 2])
    place = np.array([0, 30, 31, 1, 2, 32, 3, 4, 6, 7, 8, 9])
    _, settled = problem.legality.settled(k, place)
    chip = problem.legality.tables.chip[settled]
    assert chip[1:6].tolist() == [1] * 5
    assert settled[[0, 1, 2, *range(5, 12)]].tolist() == [0, 30, 31, 32, 3, 4, 6, 7, 8, 9]


def test_resume_refuses_other_constraints(tmp_path):
    checkpoint = tmp_path / "checkpoint.pkl"
    first = nm.MappingProblem(network(), system(), constraints=CASES["rows"])
    search_mappings(first, budget=Budget(200), checkpoint=checkpoint)
    search_mappings(first, budget=Budget(200), checkpoint=checkpoint)
    for other in (None, CASES["chips"]):
        with pytest.raises(nm.InputError, match=r"belongs to a different search \(network, system, constraints"):
            search_mappings(
                nm.MappingProblem(network(), system(), constraints=other), budget=Budget(200), checkpoint=checkpoint
            )


COMMAND = [*SMALL, "system=mesh", "budget.evaluations=200", "algorithm.population=20"]


def rows_of(folder, layer):
    mappings = json.loads((folder / "mappings.json").read_text())["mappings"]
    assert len(mappings) > 5
    placed = [
        core for m in mappings for s, core in zip(m["slices"], m["core_of_slice"], strict=True) if s["layer"] == layer
    ]
    width = nm.load_system("mesh").topology.width
    per_router = nm.load_system("mesh").topology.cores_per_router
    return {core // per_router // width for core in placed}


def test_on_the_command_line(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("layers: {hidden_1: {rows: [0, 1]}}\n")
    ways = ["+constraints.layers.hidden_1.rows=[0,1]", "constraints=c.yaml"]
    for i, way in enumerate(ways):
        code, _, err = call(monkeypatch, capsys, *COMMAND, way, f"output=run{i}")
        assert code == 0, err
        assert rows_of(tmp_path / f"run{i}", "hidden_1") <= {0, 1}
        provenance = json.loads((tmp_path / f"run{i}" / "provenance.json").read_text())
        assert provenance["config"]["constraints"] == {"layers": {"hidden_1": {"rows": [0, 1]}}}
        assert provenance["constraints"] == nm.Constraints({"hidden_1": {"rows": [0, 1]}}).digest
    fronts = {(tmp_path / f"run{i}" / "front.csv").read_text() for i in range(len(ways))}
    assert len(fronts) == 1

    # Scoring again keeps the run's constraints, or takes those given.
    code, _, err = call(monkeypatch, capsys, "task=evaluate", "run=run0", "output=again")
    assert code == 0, err
    assert rows_of(tmp_path / "again", "hidden_1") <= {0, 1}
    code, _, err = call(monkeypatch, capsys, "task=evaluate", "run=run0", "output=free", "constraints=null")
    assert code == 0, err
    assert not rows_of(tmp_path / "free", "hidden_1") <= {0, 1}
    code, _, err = call(
        monkeypatch, capsys, "task=evaluate", "run=run0", "output=no", "+constraints.layers.hidden_1.rows=[2]"
    )
    assert code == 2
    assert "the constraints allow rows [2]" in err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+constraints.layer.hidden_1.rows=[0]", "unknown key 'layer'; did you mean 'layers'?"),
        ("+constraints.layers.hidden.rows=[0]", "no layer 'hidden'; did you mean 'hidden_1'?"),
        ("+constraints.layers.hidden_1.row=[0]", "unknown key 'row'; did you mean 'rows'?"),
        (
            "constraints.layers.hidden_1.rows=[0]",
            "constraints are added with a plus, +constraints.layers.hidden_1.rows",
        ),
        ("constraints={layers:{hidden_1:{min_cores:9,max_cores:4}}}", "min_cores: 9 is more than max_cores, 4"),
        ("+constraints.layers.hidden_1.fixed={0:9999}", "slice 0 on core 9999, which is not in"),
        ("constraints=nowhere.yaml", "constraints 'nowhere.yaml': cannot be read"),
        ("constraints=[1]", "constraints: expected layers and same_chip"),
    ],
)
@pytest.mark.default_cases(3)
def test_wrong_constraints_on_the_command_line(override, message, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(monkeypatch, capsys, *COMMAND, override, "output=run")
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()
