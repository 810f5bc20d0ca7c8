import re

import h5py
import nir
import numpy as np
import pytest
from helpers import nir_chain, nir_conv, nir_ends, nir_flatten, nir_pool

import neuromap_moo as nm
from neuromap_moo.oracles import analytic


def lif(*shape):
    ones = np.ones(shape)
    return nir.LIF(tau=ones, r=ones, v_leak=ones, v_threshold=ones)


def affine(n_in, n_out, seed=0):
    return nir.Affine(weight=np.random.default_rng(seed).uniform(0.5, 1.5, (n_out, n_in)), bias=np.zeros(n_out))


def read(tmp_path, nodes, edges):
    path = tmp_path / "net.nir"
    nir.write(path, nir.NIRGraph(nodes=nodes, edges=edges, type_check=False))
    return nm.load_network(path, activity_sigma=0.0)


def pairs(network):
    return {(p.source, p.target): p for p in network.projections}


def test_weights_and_the_neurons_after_them_are_one_layer(tmp_path):
    nodes = nir_ends(4, 2) | {"w": affine(4, 3), "a": lif(3), "v": nir.Linear(weight=np.eye(2, 3)), "b": lif(2)}
    network = read(tmp_path, nodes, nir_chain("input", "w", "a", "v", "b", "output"))
    assert [(x.name, x.size, x.kind) for x in network.layers] == [
        ("input", 4, "input"),
        ("a", 3, "lif"),
        ("b", 2, "lif"),
    ]
    assert [p.connectivity.n_synapses for p in network.projections] == [12, 2]  # zeros are culled
    assert [p.weight_bits for p in network.projections] == [8, 8]


def test_convolutions_pools_and_flatten(tmp_path):
    nodes = nir_ends([2, 8, 6], 3) | {
        "c": nir_conv(2, 4, (3, 3), (8, 6), padding=(1, 1), stride=(2, 1), groups=2),
        "a": nir.IF(r=np.ones((4, 4, 6)), v_threshold=np.ones((4, 4, 6))),
        "p": nir_pool(2, 2),
        "q": nir_pool(2, 1, kind=nir.AvgPool2d),
        "f": nir_flatten(4, 1, 2),
        "w": affine(8, 3),
        "b": lif(3),
    }
    network = read(tmp_path, nodes, nir_chain("input", "c", "a", "p", "q", "f", "w", "b", "output"))
    assert [(x.name, x.kind, x.shape) for x in network.layers] == [
        ("input", "input", (2, 8, 6)),
        ("a", "if", (4, 4, 6)),
        ("p", "pool", (4, 2, 3)),
        ("q", "pool", (4, 1, 2)),
        ("b", "lif", None),
    ]
    c = pairs(network)["input", "a"].connectivity
    assert (c.kernel, c.stride, c.padding, c.groups) == ((3, 3), (2, 1), (1, 1), 2)
    assert pairs(network)["p", "q"].connectivity.n_synapses == 4 * 2 * 4
    # neuron (3, 0, 1) of q is value 7 of the flat vector
    assert analytic._targets(pairs(network)["q", "b"], 7) == [0, 1, 2]


def test_one_dimensional_convolutions(tmp_path):
    nodes = nir_ends([2, 9], [3, 4]) | {"c": nir_conv(2, 3, (3,), 9, stride=2), "a": lif(3, 4)}
    network = read(tmp_path, nodes, nir_chain("input", "c", "a", "output"))
    assert [x.shape for x in network.layers] == [(2, 1, 9), (3, 1, 4)]
    assert network.n_synapses == 4 * 3 * 2 * 3


@pytest.mark.parametrize(("padding", "size"), [("same", 6), ("valid", 4)])
def test_padding_by_name(tmp_path, padding, size):
    nodes = nir_ends([1, 6, 6], [1, size, size]) | {
        "c": nir_conv(1, 1, (3, 3), (6, 6), padding=padding),
        "a": lif(1, size, size),
    }
    network = read(tmp_path, nodes, nir_chain("input", "c", "a", "output"))
    assert network.layers[1].shape == (1, size, size)


def test_recurrence_is_a_cycle(tmp_path):
    nodes = nir_ends(4, 3) | {
        "w": affine(4, 3),
        "a": lif(3),
        "r": affine(3, 3, seed=1),
        "d": nir.Delay(delay=np.ones(3)),
    }
    network = read(tmp_path, nodes, [*nir_chain("input", "w", "a", "output"), *nir_chain("a", "r", "d", "a")])
    # the delay comes after the recurrent weights: what they make is a layer that sums up, and passes on one to one
    assert {(p.source, p.target) for p in network.projections} == {("input", "a"), ("a", "r"), ("r", "a")}
    plain = read(tmp_path, nodes, [*nir_chain("input", "w", "a", "output"), *nir_chain("a", "d", "r", "a")])
    assert {(p.source, p.target) for p in plain.projections} == {("input", "a"), ("a", "a")}
    assert plain.depth == 2


def test_values_that_several_nodes_make_are_added(tmp_path):
    nodes = nir_ends(3, 2) | {
        "w": affine(3, 4),
        "a": lif(4),
        "v": affine(3, 4, 1),
        "b": lif(4),
        "u": affine(4, 2),
        "c": lif(2),
    }
    edges = [*nir_chain("input", "w", "a", "u"), *nir_chain("input", "v", "b", "u"), *nir_chain("u", "c", "output")]
    network = read(tmp_path, nodes, edges)
    assert {(p.source, p.target) for p in network.projections} == {
        ("input", "a"),
        ("input", "b"),
        ("a", "c"),
        ("b", "c"),
    }


def test_neurons_after_neurons_are_joined_one_to_one(tmp_path):
    nodes = nir_ends(3, 3) | {"s": nir.Scale(scale=np.ones(3)), "a": lif(3), "t": nir.Threshold(threshold=np.ones(3))}
    network = read(tmp_path, nodes, nir_chain("input", "s", "a", "t", "output"))
    assert [x.kind for x in network.layers] == ["input", "lif", "threshold"]
    assert [analytic._targets(p, 1) for p in network.projections] == [[1], [1]]


def test_all_kinds_of_neurons(tmp_path):
    ones = np.ones(2)
    kinds = {
        "i": nir.I(r=ones),
        "if": nir.IF(r=ones, v_threshold=ones),
        "li": nir.LI(tau=ones, r=ones, v_leak=ones),
        "lif": lif(2),
        "cubali": nir.CubaLI(tau_mem=ones, tau_syn=ones, r=ones, v_leak=ones),
        "cubalif": nir.CubaLIF(tau_mem=ones, tau_syn=ones, r=ones, v_leak=ones, v_threshold=ones),
    }
    network = read(tmp_path, nir_ends(2, 2) | kinds, nir_chain("input", *kinds, "output"))
    assert [x.kind for x in network.layers] == ["input", *kinds]


def test_weights_without_neurons_are_a_linear_layer(tmp_path):
    nodes = nir_ends(3, 2) | {"w": affine(3, 4), "v": affine(4, 2)}
    network = read(tmp_path, nodes, nir_chain("input", "w", "v", "output"))
    assert [(x.name, x.kind) for x in network.layers] == [("input", "input"), ("w", "linear"), ("v", "linear")]


def test_nested_graphs(tmp_path):
    inner = nir.NIRGraph(
        nodes=nir_ends(3, 2) | {"w": affine(3, 2), "a": lif(2)},
        edges=nir_chain("input", "w", "a", "output"),
        type_check=False,
    )
    outer = nir_ends(3, 2) | {"first": inner, "v": affine(2, 2), "b": lif(2)}
    network = read(tmp_path, outer, nir_chain("input", "first", "v", "b", "output"))
    assert [x.name for x in network.layers] == ["input", "first/a", "b"]
    assert {(p.source, p.target) for p in network.projections} == {("input", "first/a"), ("first/a", "b")}


def test_neurons_with_one_parameter_for_all_take_their_number_from_what_comes_in(tmp_path):
    nodes = nir_ends(4, 3) | {"w": affine(4, 3), "a": lif(1)}
    assert read(tmp_path, nodes, nir_chain("input", "w", "a", "output")).layers[1].size == 3


@pytest.mark.parametrize(
    ("nodes", "edges", "message"),
    [
        ({"w": affine(3, 2), "a": lif(2)}, nir_chain("input", "w", "a"), "node 'w': expected 3 values.*got"),
        ({"w": affine(4, 3), "a": lif(2)}, nir_chain("input", "w", "a"), "node 'a': expected 2 values, node 'w' makes"),
        (
            {"c": nir_conv(1, 1, (3, 3), (6, 6)), "a": lif(2)},
            nir_chain("input", "c", "a"),
            r"'c' \(Conv2d\): expected values \(channels",
        ),
        (
            {"s": nir.Scale(scale=np.ones(4)), "a": lif(4)},
            [*nir_chain("input", "s", "s"), ("s", "a")],
            "node 's': expected neurons on the cycle it is on, found none",
        ),
        ({"p": nir_pool(2, 2)}, [], r"'p' \(SumPool2d\): expected an edge into it, found none"),
        (
            {"w": nir.Linear(weight=np.full((2, 4), np.nan)), "a": lif(2)},
            nir_chain("input", "w", "a"),
            "node 'w': its weights hold NaN or infinity",
        ),
    ],
)
@pytest.mark.default_cases(2)
def test_wrong_graphs_are_refused_with_the_node(tmp_path, nodes, edges, message):
    with pytest.raises(nm.InputError, match=re.escape(str(tmp_path)) + f".*({message})"):
        read(tmp_path, nir_ends(4, 2) | nodes, edges)


def test_files_that_are_none_are_refused(tmp_path):
    path = tmp_path / "net.nir"
    read(tmp_path, nir_ends(4, 3) | {"w": affine(4, 3), "a": lif(3)}, nir_chain("input", "w", "a", "output"))
    content = path.read_bytes()
    for wrong in (b"no HDF5", content[: len(content) // 2]):
        path.write_bytes(wrong)
        with pytest.raises(nm.InputError, match=r"net\.nir.*expected a NIR file \(HDF5\), could not read it"):
            nm.load_network(path)


@pytest.mark.parametrize("n_files", [10, pytest.param(250, marks=pytest.mark.slow)])
def test_mutated_files_are_read_or_refused(tmp_path, n_files):
    path = tmp_path / "net.nir"
    nodes = nir_ends([1, 6, 6], 2) | {
        "c": nir_conv(1, 2, (3, 3), (6, 6)),
        "a": lif(2, 4, 4),
        "p": nir_pool(2, 2),
        "f": nir_flatten(2, 2, 2),
        "w": affine(8, 2),
        "b": lif(2),
    }
    read(tmp_path, nodes, nir_chain("input", "c", "a", "p", "f", "w", "b", "output"))
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(n_files):
        data = bytearray(content)
        for at in rng.integers(0, len(data), 8):
            data[at] = rng.integers(256)
        path.write_bytes(bytes(data))
        try:
            nm.load_network(path)
        except nm.InputError as error:
            refused += "\n" not in str(error)
    assert refused > n_files / 10


@pytest.mark.parametrize(
    ("name", "sizes"), [("lif_norse", [1, 1]), ("cnn_sinabs", [2312, 4096, 4096, 1024, 512, 128, 256, 10])]
)
def test_public_files_are_read(networks_folder, name, sizes):
    network = nm.load_network(networks_folder / f"{name}.nir")
    assert [x.size for x in network.layers] == sizes


def test_the_shape_of_an_input_may_be_given(tmp_path):
    nodes = nir_ends((2, 5, 5), (3, 3, 3)) | {"w": nir_conv(2, 3, (3, 3), (5, 5)), "a": lif(3, 3, 3)}
    path = tmp_path / "net.nir"
    nir.write(path, nir.NIRGraph(nodes=nodes, edges=nir_chain("input", "w", "a", "output"), type_check=False))
    with h5py.File(path, "r+") as file:
        del file["node/nodes/input/shape"]
    with pytest.raises(nm.InputError, match="expected a NIR file, could not read it"):
        nm.load_network(path)
    for shape in ([2, 5, 5], {"input": [2, 5, 5]}):
        assert [x.shape for x in nm.load_network(path, input_shape=shape).layers] == [(2, 5, 5), (3, 3, 3)]
        assert list(nm.measure_activity(path, input_shape=shape, steps=2).by_layer) == ["input", "a"]
    with pytest.raises(nm.InputError, match="input_shape names no input 'x'; the inputs are input"):
        nm.load_network(path, input_shape={"x": [2, 5, 5]})
    with pytest.raises(nm.InputError, match=r"node 'w' \(Conv2d\): expected values"):
        nm.load_network(path, input_shape=[50])
