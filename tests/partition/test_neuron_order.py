import itertools
import json

import numpy as np
import pytest
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st

import neuromap_moo as nm
from neuromap_moo.network.files import load_npz
from neuromap_moo.partition import neuron_order
from neuromap_moo.partition.partitioner import Partitioner

SYSTEM = nm.load_system("mesh", {"topology": {"width": 4, "height": 4}})


def network_of(*matrices, recurrent=None, activity=None):
    """Layers l0, l1, ... joined by matrices (source, target); `recurrent` joins the last one with itself."""
    sizes = [matrices[0].shape[0], *(m.shape[1] for m in matrices)]
    rng = np.random.default_rng(0)
    layers = [
        nm.Layer(f"l{i}", n, "input" if i == 0 else "lif", rng.uniform(0.1, 1, n) if activity is None else activity[i])
        for i, n in enumerate(sizes)
    ]
    projections = [nm.Projection(f"l{i}", f"l{i + 1}", nm.Sparse.from_matrix(m)) for i, m in enumerate(matrices)]
    if recurrent is not None:
        last = f"l{len(matrices)}"
        projections.append(nm.Projection(last, last, nm.Sparse.from_matrix(recurrent)))
    return nm.Network("test", tuple(layers), tuple(projections))


def matrix_of(network, i):
    c = network.projections[i].connectivity
    found = np.zeros((c.n_source, c.n_target), dtype=bool)
    found[np.repeat(np.arange(c.n_source), np.diff(c.indptr)), c.indices] = True
    return found


def messages(network, k):
    """Messages into the slices of every layer, by loops over neurons, and as the partition counts them."""
    total = 0.0
    for p in range(len(network.projections)):
        matrix = matrix_of(network, p)
        source = network.layers[network.layer_index[network.projections[p].source]]
        for part in np.array_split(np.arange(matrix.shape[1]), k):
            total += sum(a for a, row in zip(source.activity, matrix, strict=True) if row[part].any())
    graph = Partitioner(network, SYSTEM).core_graph((k,) * len(network.layers))
    assert graph.messages.sum() == pytest.approx(total)
    return total


def interleaved(groups, n):
    """Source g has synapses into all targets t with t % groups == g."""
    return np.arange(n) % groups == np.arange(groups)[:, None]


def test_interleaved_groups_are_taken_apart():
    network = network_of(interleaved(4, 64), activity=[np.full(4, 0.25), np.ones(64)])
    ordered = nm.with_shared_sources(network, SYSTEM)
    assert [messages(network, k) for k in (1, 2, 4)] == pytest.approx([1.0, 2.0, 4.0])
    assert [messages(ordered, k) for k in (1, 2, 4)] == pytest.approx([1.0, 1.0, 1.0])
    groups = ordered.layers[1].order.reshape(4, 16) % 4
    assert (groups == groups[:, :1]).all()
    assert sorted(groups[:, 0]) == [0, 1, 2, 3]


def test_neurons_of_many_synapses_do_not_crowd_one_slice():
    """Half of the neurons have 24 synapses, the others 4: by common sources alone the former would share a slice."""
    rng = np.random.default_rng(0)
    matrix = np.zeros((48, 64), dtype=bool)
    for target in range(64):
        matrix[rng.choice(48, 24 if target % 2 else 4, replace=False), target] = True
    ordered = nm.with_shared_sources(network_of(matrix, activity=[np.ones(48), np.ones(64)]), SYSTEM)
    assert ordered.layers[1].order is not None
    graph = Partitioner(ordered, SYSTEM).core_graph((1, 2))
    assert graph.synops[1:].max() <= (0.5 + neuron_order.TOLERANCE) * matrix.sum()


def test_an_order_that_is_good_already_is_kept():
    blocks = np.kron(np.eye(4, dtype=bool), np.ones((4, 16), dtype=bool))
    network = network_of(blocks)
    assert nm.with_shared_sources(network, SYSTEM) == network
    dense = network_of(np.ones((5, 40), dtype=bool))
    assert nm.with_shared_sources(dense, SYSTEM) == dense


@examples(25)
@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.integers(1, 60), min_size=2, max_size=4),
    density=st.floats(0.02, 0.6),
    recurrent=st.booleans(),
)
def test_it_never_costs_a_message_whatever_the_number_of_slices(seed, sizes, density, recurrent):
    rng = np.random.default_rng(seed)
    matrices = [rng.random(pair) < density for pair in itertools.pairwise(sizes)]
    activity = [rng.random(n) * (rng.random(n) < 0.8) for n in sizes]
    loop = rng.random((sizes[-1], sizes[-1])) < density if recurrent else None
    network = network_of(*matrices, recurrent=loop, activity=activity)
    ordered = nm.with_shared_sources(network, SYSTEM)
    assert nm.with_shared_sources(network, SYSTEM) == ordered
    for k in range(1, min(*sizes, SYSTEM.n_cores // len(sizes)) + 1):
        assert messages(ordered, k) <= messages(network, k) * (1 + 1e-9)


@given(seed=st.integers(0, 10_000))
def test_an_order_numbers_neurons_anew_and_changes_no_synapse(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 12, 3)
    matrices = [rng.random((sizes[i], sizes[i + 1])) < 0.5 for i in range(2)]
    network = network_of(*matrices, recurrent=rng.random((sizes[2], sizes[2])) < 0.5)
    first, second = rng.permutation(sizes[1]), rng.permutation(sizes[2])
    after = nm.with_orders(network, {"l1": first, "l2": second})
    assert (matrix_of(after, 0) == matrices[0][:, first]).all()
    assert (matrix_of(after, 1) == matrices[1][np.ix_(first, second)]).all()
    assert (matrix_of(after, 2) == matrix_of(network, 2)[np.ix_(second, second)]).all()
    assert after.layers[1].activity.tolist() == network.layers[1].activity[first].tolist()
    assert after.layers[0].order is None
    again = rng.permutation(sizes[1])
    twice = nm.with_orders(after, {"l1": again})
    assert twice.layers[1].order.tolist() == first[again].tolist()  # numbers that the neurons had at the very first
    back = nm.with_orders(after, {"l1": np.argsort(first), "l2": np.argsort(second)})
    assert all((matrix_of(back, i) == matrix_of(network, i)).all() for i in range(3))
    assert (back.layers[1].order == np.arange(sizes[1])).all()


@given(seed=st.integers(0, 10_000), n=st.integers(2, 20), n_nets=st.integers(1, 20))
def test_exchanges_keep_both_halves_and_cut_less(seed, n, n_nets):
    rng = np.random.default_rng(seed)
    nets = rng.random((n_nets, n)) < 0.4
    weight = rng.random(n_nets)
    by_net, by_vertex = nm.Sparse.from_matrix(nets), nm.Sparse.from_matrix(nets.T)
    side = (rng.permutation(n) < n // 2).astype(np.int8)

    def cut(side):
        return sum(w for w, net in zip(weight, nets, strict=True) if len({int(s) for s in side[net]}) == 2)

    before, held = cut(side), side.sum()
    arrays = (by_net.indptr, by_net.indices, by_vertex.indptr, by_vertex.indices)
    load = rng.random(n)
    difference = abs(load @ (1 - 2 * side))
    neuron_order._exchange(*(np.asarray(a, dtype=np.int64) for a in arrays), weight, load, side)
    assert cut(side) <= before + 1e-9
    assert side.sum() == held
    assert abs(load @ (1 - 2 * side)) <= max(difference, neuron_order.TOLERANCE * load.sum()) + 1e-9
    for v in range(n):
        ends = (np.asarray(a, dtype=np.int64) for a in arrays[2:])
        moved = side.copy()
        moved[v] ^= 1
        assert neuron_order._gain(v, *ends, weight, counts(nets, side), side) == pytest.approx(cut(side) - cut(moved))


def counts(nets, side):
    return np.array([[(side[net] == s).sum() for s in (0, 1)] for net in nets], dtype=np.int64)


def test_only_layers_of_explicit_synapses_are_looked_at():
    rng = np.random.default_rng(0)
    shape = (2, 4, 4)
    layers = (
        nm.Layer("input", 32, "input", np.ones(32), shape),
        nm.Layer("map", 32, "relu", np.ones(32), shape),
        nm.Layer("a", 64, "relu", np.ones(64)),
        nm.Layer("b", 64, "relu", np.ones(64)),
    )
    projections = (
        nm.Projection("input", "map", nm.Convolution(shape, shape, (3, 3), padding=(1, 1))),
        nm.Projection("map", "a", nm.Sparse.from_matrix(rng.random((32, 64)) < 0.05)),
        nm.Projection("map", "b", nm.Dense(32, 64)),
    )
    network = nm.Network("mixed", layers, projections)
    ordered = nm.with_shared_sources(network, SYSTEM)
    assert [x.order is None for x in ordered.layers] == [True, True, False, True]
    assert nm.with_shared_sources(network, SYSTEM, ["b"]) == network
    with pytest.raises(nm.InputError, match=r"layer 'map', order: expected .* in a layer without a shape"):
        nm.with_orders(network, {"map": np.arange(32)})


@pytest.mark.parametrize(
    ("given_orders", "message"),
    [
        ({"l3": [0]}, r"order: no layer 'l3'; choose one of: l0, l1"),
        ({"l1": [0, 1, 1]}, r"layer 'l1', order: expected each of 0\.\.2 once"),
        ({"l1": [0, 1]}, r"layer 'l1', order: expected each of 0\.\.2 once"),
        ({"l1": [0.5, 1, 2]}, r"layer 'l1', order: "),
    ],
)
def test_wrong_orders_are_refused(given_orders, message):
    with pytest.raises(nm.InputError, match=message):
        nm.with_orders(network_of(np.ones((2, 3), dtype=bool)), given_orders)


def test_a_layer_reached_by_a_convolution_keeps_its_order():
    network = nm.Network(
        "conv",
        (nm.Layer("a", 4, "input", np.ones(4), (1, 2, 2)), nm.Layer("b", 4, "relu", np.ones(4), (1, 2, 2))),
        (nm.Projection("a", "b", nm.Convolution((1, 2, 2), (1, 2, 2), (1, 1))),),
    )
    with pytest.raises(nm.InputError, match=r"layer 'b', order: expected "):
        nm.with_orders(network, {"b": np.array([1, 0, 2, 3])})


def test_files_carry_the_order(tmp_path):
    activity = [np.full(4, 0.25), np.ones(64)]
    network = nm.with_shared_sources(network_of(interleaved(4, 64), activity=activity), SYSTEM)
    nm.save_network(network, tmp_path / "network.npz")
    read = load_npz(tmp_path / "network.npz")
    assert read == network
    assert read.layers[1].order.tolist() == network.layers[1].order.tolist()
    assert network.digest != network_of(interleaved(4, 64), activity=activity).digest

    mapping = nm.Mapping((1, 2), (3, 5, 9))
    nm.save_mappings(tmp_path / "mappings.json", {"m": mapping}, network, SYSTEM)
    written = json.loads((tmp_path / "mappings.json").read_text())
    slices = written["mappings"][0]["slices"][1:]
    number = np.array(written["orders"]["l1"])
    matrix = interleaved(4, 64)  # as the network was before
    reached = [int(matrix[:, number[s["start"] : s["stop"]]].any(axis=1).sum()) for s in slices]
    assert reached == [2, 2]
