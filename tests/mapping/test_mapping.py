import json
import re
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import neuromap_moo as nm
from neuromap_moo.mapping.check import _words
from neuromap_moo.mapping.mapping import stack
from neuromap_moo.partition.partitioner import Partitioner

seeds = st.integers(0, 2**32 - 1)


def problem(network, system):
    return SimpleNamespace(network=network, system=system)


@pytest.fixture
def tight():
    """6 -> 4 neurons, dense with 8 bits, on 2 x 2 routers of 2 cores, core 3 broken; 4 neurons and 12 words a core."""
    layers = (nm.Layer("a", 6, "input", np.full(6, 0.5)), nm.Layer("b", 4, "lif", np.full(4, 0.5)))
    network = nm.Network("tight", layers, (nm.Projection("a", "b", nm.Dense(6, 4), 8),))
    # 4 targets: 6 rows of ceil(96 / 64) = 2 words = 12; 2 targets: 6 rows of 1 word
    return problem(network, nm.mesh_system(2, 2, 2, masked_cores=[3], neurons=4, synapse_words=6, name="tight"))


# ------------------------------------------------------------------------------------------------------------ class


def test_any_sequences_of_integers_become_tuples():
    expected = nm.Mapping((1, 2), (4, 0, 7))
    for convert in (list, np.array, lambda x: np.array(x, dtype=np.int32), lambda x: np.array(x, dtype=float)):
        made = nm.Mapping(convert([1, 2]), convert([4, 0, 7]))
        assert made == expected
        assert hash(made) == hash(expected)
        assert [type(v) for v in (*made.cores_per_layer, *made.core_of_slice)] == [int] * 5
    assert expected.cores_used == 3
    assert nm.Mapping((1, 2), (4, 7, 0)) != expected


@pytest.mark.parametrize(
    ("cores_per_layer", "core_of_slice", "message"),
    [
        ([1.5], [0], r"cores_per_layer: expected a list of whole numbers, got \[1\.5\]"),
        ([], [0], r"cores_per_layer: expected a list of whole numbers, got \[\]"),
        ([[1]], [0], "cores_per_layer: expected a list of whole numbers"),
        (1, [0], "cores_per_layer: expected a list of whole numbers, got 1"),
        ([1], ["a"], r"core_of_slice: expected a list of whole numbers, got \['a'\]"),
        ([1], None, "core_of_slice: expected a list of whole numbers, got None"),
        ([1, 2], [0, [1]], "core_of_slice: expected a list of whole numbers"),
        ([2**70], [0], "cores_per_layer: expected a list of whole numbers"),
    ],
)
def test_mapping_refuses_what_is_no_list_of_whole_numbers(cores_per_layer, core_of_slice, message):
    with pytest.raises(nm.InputError, match=message):
        nm.Mapping(cores_per_layer, core_of_slice)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_mapping_refuses_numbers_that_are_no_integers_without_a_warning(value):
    with pytest.raises(nm.InputError, match="core_of_slice: expected a list of whole numbers"):
        nm.Mapping([1], [value])


def test_stack_and_unstack():
    mappings = [nm.Mapping((1, 2), (4, 0, 7)), nm.Mapping((1, 1), (2, 3))]
    batch = stack(mappings)
    assert batch.cores_per_layer.tolist() == [[1, 2], [1, 1]]
    assert batch.core_of_slice.tolist() == [[4, 0, 7], [2, 3, -1]]
    assert batch.unstack() == mappings


def test_stack_refuses_mappings_of_different_problems():
    with pytest.raises(nm.InputError, match="expected one or more of the same problem, got 0"):
        stack([])
    with pytest.raises(nm.InputError, match="of the same problem, got 2 with"):
        stack([nm.Mapping((1,), (0,)), nm.Mapping((1, 1), (0, 1))])


# ------------------------------------------------------------------------------------------------------------ check


def test_check_accepts_a_mapping_that_breaks_no_rule(tight):
    assert nm.check(nm.Mapping((2, 2), (0, 5, 7, 1)), tight) is None


@pytest.mark.parametrize(
    ("cores_per_layer", "core_of_slice", "message"),
    [
        ((2,), (0, 1), "cores_per_layer: expected 2 layers, got 1"),
        ((2, 0), (0, 1), "layer 'b': expected at least 1 core, got 0"),
        ((3, -1), (0, 1), "layer 'b': expected at least 1 core, got -1"),
        ((2, 2), (0, 1, 2), "core_of_slice: expected 4 cores as cores_per_layer says, got 3"),
        ((2, 2), (0, 1, 2, 8), r"slice 3: core 8 is not in 0\.\.7 on system 'tight'"),
        ((2, 2), (-1, 1, 2, 4), r"slice 0: core -1 is not in 0\.\.7"),
        ((2, 2), (0, 3, 2, 4), "slice 1: core 3 is masked out on system 'tight'"),
        ((2, 2), (0, 1, 2, 1), "slices 1 and 3: both on core 1; a core holds one slice"),
        ((2, 5), (0, 1, 2, 4, 5, 6, 7), "layer 'b': expected at most 4 cores, one per neuron, got 5"),
        ((1, 2), (0, 1, 2), "layer 'a': 6 neurons in a slice, a core holds 4; give it more cores"),
        ((2, 1), (0, 1, 2), "layer 'b', slice 0: 12 synapse words, a core holds 6; give it more cores"),
    ],
)
def test_check_names_the_broken_rule(tight, cores_per_layer, core_of_slice, message):
    with pytest.raises(nm.InputError, match="mapping, " + message):
        nm.check(nm.Mapping(cores_per_layer, core_of_slice), tight)


def test_check_names_the_slice_that_does_not_fit():
    # four sources into target neuron 3 alone: slices {0 1} {2} {3}; the last takes 4 words
    layers = (nm.Layer("a", 4, "input", np.ones(4)), nm.Layer("b", 4, "lif", np.ones(4)))
    network = nm.Network("n", layers, (nm.Projection("a", "b", nm.Sparse(4, 4, range(5), [3] * 4)),))
    with pytest.raises(nm.InputError, match="layer 'b', slice 2: 4 synapse words, a core holds 3"):
        nm.check(nm.Mapping((1, 3), range(4)), problem(network, nm.mesh_system(2, 2, synapse_words=3)))


def test_check_refuses_another_partition_of_a_core_graph():
    graph = nm.CoreGraph.from_networkx(nx.empty_graph(2))
    case = problem(graph, nm.mesh_system(2, 2))
    assert nm.check(nm.Mapping((1, 1), (3, 0)), case) is None
    with pytest.raises(nm.InputError, match=r"cores_per_layer: the core graph's partition is fixed to \(1, 1\)"):
        nm.check(nm.Mapping((1, 2), (0, 1, 2)), case)
    with pytest.raises(nm.InputError, match="slices 0 and 1: both on core 2"):
        nm.check(nm.Mapping((1, 1), (2, 2)), case)


def test_check_works_with_a_mapping_problem(tight):
    made = nm.MappingProblem(tight.network, tight.system)
    assert nm.check(nm.Mapping((2, 2), (0, 5, 7, 1)), made) is None
    with pytest.raises(nm.InputError, match="core 3 is masked out"):
        nm.check(nm.Mapping((2, 2), (0, 5, 7, 3)), made)


@given(seeds)
def test_check_agrees_with_the_partitioner_on_what_fits(random_network, seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    large = nm.mesh_system(8, 6)
    limits = {"synapse_words": int(rng.integers(3, 40)), "neurons": int(rng.integers(2, 12))}
    small = problem(network, nm.mesh_system(8, 6, **limits))
    partitioner = Partitioner(network, large)
    for _ in range(5):
        k = np.array([rng.integers(1, layer.size + 1) for layer in network.layers])
        words, neurons = [], []
        for i, layer in enumerate(network.layers):
            loads = partitioner.layer_loads(i, int(k[i]))
            assert _words(network, layer.name, int(k[i])).tolist() == loads.words.tolist()
            words.append(loads.words.max())
            neurons.append(loads.dendops.max())
        mapping = nm.Mapping(k, rng.permutation(48)[: k.sum()])
        if max(words) <= limits["synapse_words"] and max(neurons) <= limits["neurons"]:
            assert nm.check(mapping, small) is None
        else:
            with pytest.raises(nm.InputError, match=r"(synapse words|neurons in a slice), a core holds \d+; give it"):
                nm.check(mapping, small)


@given(seeds)
def test_check_accepts_random_mappings_that_were_made_to_fit(random_network, random_mapping, seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    system = nm.mesh_system(4, 4, 2, masked_cores=[0, 9], synapse_words=150, neurons=6)
    assert nm.check(random_mapping(rng, network, system), problem(network, system)) is None


# ------------------------------------------------------------------------------------------------------------- JSON


def test_file_has_the_documented_layout(chain, tmp_path):
    system = nm.mesh_system(2, 2, 2)
    mappings = {"m000": nm.Mapping((1, 2, 1), (5, 0, 3, 7)), "vendor_default": nm.Mapping((1, 1, 1), (0, 1, 2))}
    nm.save_mappings(tmp_path / "mappings.json", mappings, chain, system)
    assert json.loads((tmp_path / "mappings.json").read_text()) == {
        "schema": 1,
        "network": chain.digest,
        "system": system.digest,
        "mappings": [
            {
                "id": "m000",
                "cores_per_layer": [1, 2, 1],
                "slices": [
                    {"layer": "input", "start": 0, "stop": 2},
                    {"layer": "hidden", "start": 0, "stop": 2},
                    {"layer": "hidden", "start": 2, "stop": 3},
                    {"layer": "output", "start": 0, "stop": 2},
                ],
                "core_of_slice": [5, 0, 3, 7],
            },
            {
                "id": "vendor_default",
                "cores_per_layer": [1, 1, 1],
                "slices": [
                    {"layer": "input", "start": 0, "stop": 2},
                    {"layer": "hidden", "start": 0, "stop": 3},
                    {"layer": "output", "start": 0, "stop": 2},
                ],
                "core_of_slice": [0, 1, 2],
            },
        ],
    }


def test_keys_stand_in_the_documented_order(chain, tmp_path):
    nm.save_mappings(tmp_path / "m.json", {"a": nm.Mapping((1, 1, 1), (0, 1, 2))}, chain, nm.mesh_system(2, 2))
    data = json.loads((tmp_path / "m.json").read_text())
    assert list(data) == ["schema", "network", "system", "mappings"]
    assert list(data["mappings"][0]) == ["id", "cores_per_layer", "slices", "core_of_slice"]


@given(seeds)
def test_mappings_are_read_back_equal(random_network, random_mapping, tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    network, system = random_network(rng), nm.mesh_system(6, 5)
    mappings = {f"m{i}": random_mapping(rng, network, system) for i in range(3)}
    path = tmp_path_factory.mktemp("mappings") / "mappings.json"
    nm.save_mappings(path, mappings, network, system)
    assert nm.load_mappings(path) == (mappings, network.digest, system.digest)
    for entry, m in zip(json.loads(path.read_text())["mappings"], mappings.values(), strict=True):
        sizes = [s["stop"] - s["start"] for s in entry["slices"]]
        expected = [
            len(part)
            for layer, k in zip(network.layers, m.cores_per_layer, strict=True)
            for part in np.array_split(np.arange(layer.size), k)
        ]
        assert sizes == expected


def test_mapping_of_a_core_graph_is_saved_as_slices_of_one(tmp_path):
    graph, system = nm.CoreGraph.from_networkx(nx.empty_graph(["x", "y"])), nm.mesh_system(2, 2)
    mappings = {"m": nm.Mapping((1, 1), (3, 1))}
    nm.save_mappings(tmp_path / "m.json", mappings, graph, system)
    slices = json.loads((tmp_path / "m.json").read_text())["mappings"][0]["slices"]
    assert slices == [{"layer": "x", "start": 0, "stop": 1}, {"layer": "y", "start": 0, "stop": 1}]
    assert nm.load_mappings(tmp_path / "m.json") == (mappings, graph.digest, system.digest)


def test_no_mappings_at_all_are_read_back(chain, tmp_path):
    system = nm.mesh_system(2, 2)
    nm.save_mappings(tmp_path / "m.json", {}, chain, system)
    assert nm.load_mappings(tmp_path / "m.json") == ({}, chain.digest, system.digest)


GOOD = '{"schema": 1, "network": "n", "system": "s", "mappings": [%s]}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected the mappings.json of a run, got something else"),
        ("{", "expected the mappings.json of a run, got something else"),
        ("[]", "expected the mappings.json of a run, got something else"),
        ("null", "expected the mappings.json of a run, got something else"),
        ("{}", "expected the mappings.json of a run, got something else .*schema"),
        ('{"schema": 2}', "expected schema 1, got 2"),
        ('{"schema": 1, "mappings": []}', "expected the mappings.json of a run.*network"),
        (GOOD % '{"id": "a", "cores_per_layer": [1]}', "expected the mappings.json of a run.*core_of_slice"),
        (GOOD % '{"id": "a", "cores_per_layer": [1.5], "core_of_slice": [0]}', "cores_per_layer: expected a list of"),
        (GOOD % '{"id": "a", "cores_per_layer": [1], "core_of_slice": "0"}', "core_of_slice: expected a list of whole"),
        (GOOD % ('{"id": "a", "cores_per_layer": [1' + "0" * 30 + '], "core_of_slice": [0]}'), "expected"),
        (GOOD % "3", "expected the mappings.json of a run, got something else"),
    ],
)
def test_bad_json_is_refused(tmp_path, content, message):
    path = tmp_path / "mappings.json"
    path.write_text(content)
    with pytest.raises(nm.InputError, match=message):
        nm.load_mappings(path)


def test_wrong_mapping_inside_a_file_names_the_file(tmp_path):
    path = tmp_path / "mappings.json"
    path.write_text(GOOD % '{"id": "a", "cores_per_layer": [1.5], "core_of_slice": [0]}')
    with pytest.raises(nm.InputError, match=re.escape(str(path))):
        nm.load_mappings(path)


def test_binary_and_missing_files_are_refused(tmp_path):
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(nm.InputError, match=r"binary\.json.*expected the mappings\.json of a run, got something else"):
        nm.load_mappings(tmp_path / "binary.json")
    with pytest.raises(nm.InputError, match=r"nowhere\.json.*cannot be read.*expected the mappings\.json of a run"):
        nm.load_mappings(tmp_path / "nowhere.json")
