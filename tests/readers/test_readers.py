import itertools
import re

import h5py
import numpy as np
import pytest
from helpers import dense, inputs, kind, write_net
from hypothesis import given
from hypothesis import strategies as st

import neuromap_moo as nm
from neuromap_moo.network.assembly import weight_bits_of

# ------------------------------------------------------------------------------------------------------- sparse_mlp


@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    density=st.floats(0.01, 1.0),
    seed=st.integers(0, 1000),
)
def test_sparse_mlp_has_exactly_the_synapses_asked_for(sizes, density, seed):
    network = nm.sparse_mlp(sizes, density, seed=seed)
    assert [layer.size for layer in network.layers] == sizes
    for p, (n, m) in zip(network.projections, itertools.pairwise(sizes), strict=True):
        assert (p.connectivity.n_source, p.connectivity.n_target) == (n, m)
        assert p.connectivity.n_synapses == round(density * n * m)


def test_sparse_mlp_names_kinds_and_numbers():
    network = nm.sparse_mlp([4, 6, 5, 3], 0.5, weight_bits=5, steps_per_inference=7, name="mine")
    assert network.layer_names == ("input", "hidden_1", "hidden_2", "output")
    assert [layer.kind for layer in network.layers] == ["input", "lif", "lif", "lif"]
    assert [(p.source, p.target) for p in network.projections] == list(itertools.pairwise(network.layer_names))
    assert {p.weight_bits for p in network.projections} == {5}
    assert (network.name, network.steps_per_inference, network.depth) == ("mine", 7, 3)


def test_density_and_activity_may_differ_from_part_to_part():
    network = nm.sparse_mlp([10, 10, 10], [0.1, 1.0], activity=[0.1, 0.2, 0.3], activity_sigma=0.0)
    # round(0.1 * 100) and round(1.0 * 100)
    assert [p.connectivity.n_synapses for p in network.projections] == [10, 100]
    for layer, mean in zip(network.layers, (0.1, 0.2, 0.3), strict=True):
        np.testing.assert_allclose(layer.activity, mean, rtol=1e-12)


def test_sparse_mlp_of_density_one_is_full():
    p = nm.sparse_mlp([3, 4], 1.0).projections[0].connectivity
    assert p.indptr.tolist() == [0, 4, 8, 12]
    assert p.indices.tolist() == [0, 1, 2, 3] * 3


def test_same_seed_same_network_other_seed_other_network():
    digests = [nm.sparse_mlp([20, 30, 10], 0.2, seed=seed).digest for seed in (0, 0, 1, 2)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_places_of_synapses_are_drawn_evenly():
    # 40 of 100 cells in each of 200 draws: each cell is hit Binomial(200, 0.4) times, 80 +- 6.9; 5 sigma = 34.6.
    hits = np.zeros((10, 10))
    for seed in range(200):
        c = nm.sparse_mlp([10, 10], 0.4, seed=seed).projections[0].connectivity
        hits[np.repeat(np.arange(10), np.diff(c.indptr)), c.indices] += 1
    assert hits.sum() == 200 * 40
    assert np.abs(hits - 80).max() < 34.6


@given(size=st.integers(1, 200), mean=st.floats(0, 0.2), sigma=st.floats(0, 0.5), seed=st.integers(0, 1000))
def test_mean_activity_is_exact_where_nothing_is_cut(size, mean, sigma, seed):
    draw = nm.lognormal_activity(size, mean, sigma, np.random.default_rng(seed), maximum=50.0)
    assert draw.shape == (size,)
    assert draw.mean() == pytest.approx(mean, rel=1e-12)
    assert (draw >= 0).all()


def test_activity_is_cut_at_the_maximum():
    draw = nm.lognormal_activity(1000, 0.8, 2.0, np.random.default_rng(0))
    assert draw.max() == 1.0
    assert draw.mean() < 0.8


@given(mean=st.floats(0, 1), seed=st.integers(0, 1000))
def test_sigma_zero_gives_every_neuron_the_mean(mean, seed):
    draw = nm.lognormal_activity(5, mean, 0.0, np.random.default_rng(seed))
    np.testing.assert_allclose(draw, mean, rtol=1e-12)


def test_a_wider_sigma_spreads_the_activity():
    spread = [nm.lognormal_activity(500, 0.1, s, np.random.default_rng(0)).std() for s in (0.0, 0.2, 0.5)]
    assert spread[0] < spread[1] < spread[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": [4]}, r"sizes: expected .*at least two layers.*got \[4\]"),
        ({"sizes": [4, 0]}, r"sizes.*got .*0"),
        ({"density": 0.0}, r"density: expected .*got 0"),
        ({"density": 1.5}, r"density: expected .*got 1\.5"),
        ({"density": -0.1}, r"density: expected .*got -0\.1"),
        ({"density": float("nan")}, "density: expected .*got nan"),
        ({"density": [0.5, 0.5]}, r"density: expected one value per projection \(1\), got 2"),
        ({"density": "much"}, "density: expected a number.*'much'"),
        ({"activity": [0.1]}, r"activity: expected one value per layer \(2\), got 1"),
        ({"activity": -0.1}, r"activity: expected a .*got -0\.1"),
        ({"activity": 1.5}, r"activity: expected a mean .*messages per neuron and timestep, got 1\.5"),
        ({"activity": float("nan")}, "activity: expected a .*got nan"),
        ({"activity_sigma": -1.0}, r"activity_sigma: expected a number >= 0, got -1\.0"),
        ({"activity_sigma": float("inf")}, "activity_sigma: expected a number >= 0, got inf"),
        ({"activity_sigma": 2000.0}, "activity"),  # exp(2000) is beyond all floats
        ({"weight_bits": 40}, "weight_bits.*got 40"),
        ({"steps_per_inference": 0}, "steps_per_inference.*got 0"),
    ],
)
def test_sparse_mlp_refuses_wrong_numbers(change, message):
    with pytest.raises(nm.InputError, match=message):
        nm.sparse_mlp(**({"sizes": [4, 5], "density": 0.5} | change))


# ------------------------------------------------------------------------------------------------------ weight bits


@pytest.mark.parametrize(
    ("weights", "bits"),
    [
        ([0, 0], 1),
        ([1, 0], 1),
        ([1, 2, 3], 2),
        ([-1, -3], 2),
        ([-1, 1], 2),  # one bit and the sign
        ([-3, 2], 3),
        ([-4, 3], 3),  # two's complement reaches -4..3 with 3 bits
        ([-3, 4], 4),
        ([4, 8], 2),  # 2^2 leaves: 1, 2
        ([-8, 4, 2], 3),  # 2^1 leaves: -4, 2, 1
        ([-2, 2], 2),  # 2^1 leaves: -1, 1
        ([6, -10], 4),  # 2^1 leaves: 3, -5
        ([63], 6),
        ([-32, 31], 6),
        ([65], 8),  # 7 bits count as 8
        ([-64, 63], 8),
        ([128], 1),
        ([-128, 127], 8),
        ([255], 8),
    ],
)
def test_weight_bits_by_hand(weights, bits):
    assert weight_bits_of(np.array([weights], dtype=np.float64)) == bits


def test_weight_bits_of_every_pair_of_small_weights():
    for pair in itertools.product(range(-40, 41), repeat=2):
        small = [w for w in pair if w]
        while small and all(w % 2 == 0 for w in small):
            small = [w // 2 for w in small]
        bits = 1
        if any(w < 0 for w in small) and any(w > 0 for w in small):
            while not all(-(2 ** (bits - 1)) <= w < 2 ** (bits - 1) for w in small):
                bits += 1
        else:
            while not all(abs(w) < 2**bits for w in small):
                bits += 1
        assert weight_bits_of(np.array(pair, dtype=np.float64)) == (8 if bits == 7 else bits), pair


# -------------------------------------------------------------------------------------------------------- .net files


def test_net_file_with_input_flatten_and_dense_layers(tmp_path):
    path = write_net(
        tmp_path / "tiny.net",
        inputs(2, 1, 2),
        kind(b"flatten"),
        dense([[1, 0, -2, 0], [0, 0, 0, 0], [0, 3, 0, 1]], **{"neuron/type": "LIF"}),
        dense([[4, 0, 8]], **{"neuron/type": np.bytes_(b"Sigma_Delta")}),
        dense([[0]]),
    )
    network = nm.load_network(path, activity=0.25, activity_sigma=0.0, steps_per_inference=5)
    assert network.name == "tiny"
    assert network.steps_per_inference == 5
    # 2 * 1 * 2 inputs; flatten makes no layer; the last has no neuron
    assert [(layer.name, layer.size, layer.kind) for layer in network.layers] == [
        ("input", 4, "input"),
        ("dense_2", 3, "lif"),
        ("dense_3", 1, "sigma_delta"),
        ("dense_4", 1, "linear"),
    ]
    assert all((layer.activity == 0.25).all() for layer in network.layers)
    first, second, last = network.projections
    # weights are (n_out, n_in): input 0 -> 0 (1); 1 -> 2 (3); 2 -> 0 (-2); 3 -> 2 (1); zeros are not stored
    assert (first.source, first.target) == ("input", "dense_2")
    assert first.connectivity.indptr.tolist() == [0, 1, 2, 3, 4]
    assert first.connectivity.indices.tolist() == [0, 2, 0, 2]
    # -2..3: high 3 takes 2 bits, and one for the sign
    assert first.weight_bits == 3
    # 4 and 8 are 1 and 2 times 2^2
    assert second.connectivity.indptr.tolist() == [0, 1, 1, 2]
    assert second.weight_bits == 2
    assert (last.connectivity.n_synapses, last.weight_bits) == (0, 1)


def test_net_file_without_an_input_layer_gets_one(tmp_path):
    network = nm.load_network(write_net(tmp_path / "x.net", dense([[1, 2, 3], [4, 5, 6]])))
    assert [(layer.name, layer.size, layer.kind) for layer in network.layers] == [
        ("input", 3, "input"),
        ("dense_0", 2, "linear"),
    ]
    assert network.projections[0].connectivity.n_synapses == 6
    assert network.steps_per_inference == 1


def test_activity_of_a_net_file_follows_the_seed(tmp_path):
    path = write_net(tmp_path / "x.net", dense(np.ones((20, 30))))
    digests = [nm.load_network(path, seed=seed).digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    for layer in nm.load_network(path, activity=0.1, activity_sigma=0.3).layers:
        assert layer.activity.mean() == pytest.approx(0.1, rel=1e-12)
        assert layer.activity.std() > 0


def test_more_than_ten_layers_are_read_in_the_order_of_their_numbers(tmp_path):
    path = write_net(tmp_path / "deep.net", *(dense(np.ones((i + 2, i + 1))) for i in range(12)))
    assert [layer.size for layer in nm.load_network(path).layers] == list(range(1, 14))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "the group 'layer' is empty"),
        ([inputs(2), kind(b"conv")], "layer 1: expected real weights in 'weight', found none"),
        (
            [inputs(2), kind(b"lstm")],
            "layer 1: layers of type 'lstm' cannot be read; expected one of input, conv, pool",
        ),
        ([inputs(2), inputs(2)], "layer 1: expected 'input' only as the first layer"),
        ([inputs(0)], "layer 0, shape: expected numbers of neurons, got \\[0\\]"),
        ([inputs(3), dense([[1, 2]])], "layer 1: expected 3 inputs as the layer before has, its weights have 2"),
        ([dense([[1], [2]]), dense([[1]])], "layer 1: expected 2 inputs as the layer before has, its weights have 1"),
        ([dense([[1, np.nan]])], "layer 0: expected integer weights, found NaN, infinity or fractions"),
        ([dense([[1, -np.inf]])], "layer 0: expected integer weights, found NaN"),
        ([dense([[0.5, 1]])], "layer 0: expected integer weights, found NaN, infinity or fractions"),
        ([dense([1, 2])], r"layer 0: expected weights \(n_out, n_in\), got shape \(2,\)"),
        ([dense(np.ones((0, 3)))], r"layer 0: expected weights \(n_out, n_in\), got shape \(0, 3\)"),
        ([kind(b"dense")], "layer 0: expected real weights in 'weight', found none"),
        ([{"weight": np.ones((1, 1))}], r"layer 0: expected a lava-dl \.net file, in which each layer has a 'type'"),
        ([kind(b"\xff\xfe")], "expected a lava-dl .net file"),
        ([kind(b"dense") | {"weight": np.array([[b"x"]])}], "(layer 0|could not read it)"),
    ],
)
@pytest.mark.default_cases(6)
def test_wrong_net_files_are_refused_with_the_place(tmp_path, layers, message):
    path = write_net(tmp_path / "wrong.net", *layers)
    with pytest.raises(nm.InputError, match=re.escape(str(path)) + ".*" + message):
        nm.load_network(path)


def test_missing_layer_is_named(tmp_path):
    path = write_net(tmp_path / "gap.net", dense([[1]]), dense([[1]]), dense([[1]]))
    with h5py.File(path, "a") as file:
        file.move("layer/1", "layer/7")
    with pytest.raises(nm.InputError, match=r"gap\.net.*expected layers 0\.\.2, layer 1 is missing"):
        nm.load_network(path)


def test_dataset_in_the_place_of_a_layer_is_refused(tmp_path):
    path = tmp_path / "flat.net"
    with h5py.File(path, "w") as file:
        file["layer/0"] = np.ones(3)
    with pytest.raises(nm.InputError, match=r"flat\.net.*expected a lava-dl \.net file"):
        nm.load_network(path)


def test_hdf5_file_without_layers_is_refused(tmp_path):
    with h5py.File(tmp_path / "other.net", "w") as file:
        file["weights"] = np.ones(3)
    with pytest.raises(nm.InputError, match=r"other\.net.*with a group 'layer', found \['weights'\]"):
        nm.load_network(tmp_path / "other.net")


@pytest.mark.parametrize("content", [b"not HDF5 at all", b"\x89HDF\r\n\x1a\n and then nothing"])
def test_file_that_is_no_hdf5_is_refused(tmp_path, content):
    (tmp_path / "text.net").write_bytes(content)
    with pytest.raises(nm.InputError, match=r"text\.net.*expected a lava-dl \.net file \(HDF5\), could not read it"):
        nm.load_network(tmp_path / "text.net")


def test_truncated_net_file_is_refused(tmp_path):
    path = write_net(tmp_path / "cut.net", dense(np.ones((20, 20))))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(nm.InputError, match=r"cut\.net.*expected a lava-dl \.net file"):
        nm.load_network(path)


@pytest.mark.parametrize("ending", [".npz", ".net"])
def test_empty_and_missing_files_are_named(tmp_path, ending):
    path = tmp_path / f"file{ending}"
    with pytest.raises(nm.InputError, match=re.escape(str(path)) + ".*no such file"):
        nm.load_network(path)
    path.touch()
    with pytest.raises(nm.InputError, match=re.escape(str(path)) + ".*the file is empty"):
        nm.load_network(path)


@pytest.mark.parametrize("name", ["model.txt", "model", "model.net.gz"])
def test_unknown_ending_is_refused(tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(nm.InputError, match=r"expected an ending .*\.npz.*\.net.*got"):
        nm.load_network(tmp_path / name)


def test_folder_with_the_right_ending_is_refused(tmp_path):
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(nm.InputError, match=r"folder\.npz.*no such file"):
        nm.load_network(tmp_path / "folder.npz")


def test_npz_keeps_its_activity_and_takes_new_steps(chain, tmp_path):
    path = tmp_path / "chain.npz"
    nm.save_network(chain, path)
    assert nm.load_network(str(path), activity=0.9, seed=5) == chain
    changed = nm.load_network(path, steps_per_inference=9)
    assert changed.steps_per_inference == 9
    assert changed.layers[0].activity.tolist() == chain.layers[0].activity.tolist()


@pytest.mark.parametrize("steps", [0, -1])
@pytest.mark.parametrize("ending", [".npz", ".net"])
def test_wrong_steps_are_refused_whatever_the_format(chain, tmp_path, ending, steps):
    path = tmp_path / f"network{ending}"
    if ending == ".npz":
        nm.save_network(chain, path)
    else:
        write_net(path, dense([[1]]))
    with pytest.raises(nm.InputError, match=f"steps_per_inference.*got {steps}"):
        nm.load_network(path, steps_per_inference=steps)


@pytest.mark.parametrize(("name", "sizes"), [("mnist_mlp", [784, 128, 64, 10]), ("oxford", [200, 256, 200])])
def test_trained_networks_are_read(networks_folder, name, sizes):
    network = nm.load_network(networks_folder / f"{name}.net")
    assert [layer.size for layer in network.layers] == sizes
    with h5py.File(networks_folder / f"{name}.net") as file:
        weights = [node["weight"][()] for _, node in sorted(file["layer"].items()) if "weight" in node]
    assert len(weights) == len(network.projections)
    for p, w in zip(network.projections, weights, strict=True):
        assert p.connectivity.n_synapses == np.count_nonzero(w)
        rows = np.repeat(np.arange(w.shape[1]), np.diff(p.connectivity.indptr))
        assert (w[p.connectivity.indices, rows] != 0).all()


def conv(weights, shape, type_name=b"conv", **more):
    weights = np.asarray(weights, dtype=np.float32)
    given = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], **more}
    given = {key: np.asarray(value) for key, value in given.items()}
    return kind(type_name) | {"shape": np.array(shape), "weight": weights, "neuron/type": b"SDNN", **given}


def test_net_file_with_convolutions_pools_and_dense_layers(tmp_path):
    path = write_net(
        tmp_path / "maps.net",
        inputs(2, 6, 5),
        conv(np.ones((4, 1, 3, 3)), (4, 3, 5), stride=[2, 1], padding=[1, 1], groups=2),
        conv(np.ones((1, 1, 2, 2)), (4, 1, 2), b"pool", stride=[2, 2]),
        kind(b"flatten") | {"shape": np.array([8, 1, 1])},
        dense(np.arange(24).reshape(3, 8) % 5),
    )
    network = nm.load_network(path)
    assert [(x.name, x.kind, x.shape) for x in network.layers] == [
        ("input", "input", (2, 6, 5)),
        ("conv_1", "sdnn", (4, 3, 5)),
        ("pool_2", "sdnn", (4, 1, 2)),
        ("dense_4", "linear", None),
    ]
    first, second, third = (p.connectivity for p in network.projections)
    assert (first.groups, first.stride, first.padding) == (2, (2, 1), (1, 1))
    assert second.n_synapses == 4 * 2 * 4
    # weights of value 0 are not stored; value 7 is channel 3, row 0, column 1
    assert third.n_synapses == np.count_nonzero(np.arange(24) % 5)


def test_recurrent_averaging_and_joining_layers(tmp_path):
    path = write_net(
        tmp_path / "more.net",
        inputs(4),
        kind(b"dense_rec") | {"shape": [6], "weight": np.ones((6, 4)), "weight_rec": np.eye(6)},
        dense(np.ones((2, 6))),
        kind(b"concat") | {"layers": np.array([1, 2])},
        kind(b"average") | {"shape": [4]},
    )
    network = nm.load_network(path)
    assert [(p.source, p.target, p.connectivity.n_synapses) for p in network.projections] == [
        ("input", "dense_1", 24),
        ("dense_1", "dense_1", 6),
        ("dense_1", "dense_2", 12),
        ("dense_1", "average_4", 6),
        ("dense_2", "average_4", 2),
    ]
    assert network.layers[-1].size == 4


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            conv(np.ones((4, 3, 2, 2)), (4, 5, 4)),
            "layer 1: expected 2 input channels as the map before has, got 3 in 1",
        ),
        (
            conv(np.ones((4, 2, 2, 2)), (4, 5, 5)),
            r"layer 1, shape: expected \(4, 5, 4\) by its kernel.*got \(4, 5, 5\)",
        ),
        (conv(np.ones((4, 2, 2)), (4, 5, 4)), r"layer 1: expected weights \(n_out, n_in, height, width\), got shape"),
        (kind(b"average") | {"shape": [7]}, "layer 1: expected a divisor of 60 neurons as its shape, got 7"),
        (kind(b"concat") | {"layers": [3]}, r"layer 1, layers: expected numbers of layers before 1, got \[3\]"),
        (
            kind(b"dense_rec") | {"shape": [2], "weight": np.ones((2, 60))},
            "layer 1: expected real weights in 'weight_rec'",
        ),
    ],
)
@pytest.mark.default_cases(2)
def test_wrong_maps_are_refused_with_the_place(tmp_path, layer, message):
    with pytest.raises(nm.InputError, match=message):
        nm.load_network(write_net(tmp_path / "wrong.net", inputs(2, 6, 5), layer))


def test_a_map_is_needed_before_a_convolution(tmp_path):
    with pytest.raises(nm.InputError, match=r"layer 1: expected a map \(channels, height, width\) before it"):
        nm.load_network(write_net(tmp_path / "wrong.net", inputs(4), conv(np.ones((1, 1, 1, 1)), (1, 2, 2))))


def test_the_public_sigma_delta_network_is_read(networks_folder):
    network = nm.load_network(networks_folder / "pilotnet_sdnn.net")
    assert [x.size for x in network.layers] == [39600, 76032, 26460, 8064, 5632, 2560, 100, 50, 10, 1]
    assert [x.shape for x in network.layers[1:6]] == [(24, 32, 99), (36, 15, 49), (48, 7, 24), (64, 4, 22), (64, 2, 20)]
    # places inside the map times weights, as no kernel but the fourth is padded
    assert network.projections[0].connectivity.n_synapses == 76032 * 27
    assert network.projections[1].connectivity.n_synapses == 26460 * 24 * 9


def mutated(content, rng):
    data = bytearray(content)
    for at in rng.integers(0, len(data), rng.integers(1, 30)):
        data[at] = rng.integers(256)
    return bytes(data[: rng.integers(1, len(data))] if rng.random() < 0.2 else data)


@pytest.mark.parametrize("n_files", [10, pytest.param(250, marks=pytest.mark.slow)])
def test_mutated_net_files_are_read_or_refused(tmp_path, n_files):
    """HDF5's library crashes on some of them; that must not be ours."""
    path = write_net(
        tmp_path / "x.net",
        inputs(2, 4, 4),
        conv(np.ones((3, 2, 3, 3)), (3, 2, 2)),
        kind(b"flatten"),
        dense(np.ones((2, 12))),
    )
    content, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(n_files):
        path.write_bytes(mutated(content, rng))
        try:
            nm.load_network(path)
        except nm.InputError as error:
            refused += "\n" not in str(error)
    assert refused > n_files / 10


def test_a_net_file_without_an_input_layer_takes_its_shape(tmp_path):
    first = kind(b"conv") | {"shape": np.array([4, 3, 3]), "weight": np.ones((4, 2, 3, 3))}
    path = write_net(tmp_path / "net.net", first)
    with pytest.raises(nm.InputError, match=r"got 'conv'; give input_shape, its \(channels, height, width\)"):
        nm.load_network(path)
    for shape in ([2, 5, 5], {"input": [2, 5, 5]}):
        network = nm.load_network(path, input_shape=shape)
        assert [(x.name, x.shape) for x in network.layers] == [("input", (2, 5, 5)), ("conv_0", (4, 3, 3))]
    with pytest.raises(nm.InputError, match=r"layer 0, shape: expected \(4, 4, 4\) by its kernel"):
        nm.load_network(path, input_shape=[2, 6, 6])
    with pytest.raises(nm.InputError, match=r"input_shape: expected a whole number >= 1, got 0"):
        nm.load_network(path, input_shape=[2, 0, 5])
    nm.save_network(network, tmp_path / "net.npz")
    with pytest.raises(nm.InputError, match=r"\.nir and \.net files; a \.npz file holds every size, so leave it out"):
        nm.load_network(tmp_path / "net.npz", input_shape=[2, 5, 5])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"activity": 1.5}, "activity: expected a mean of at most 1 messages per neuron and timestep, got 1.5"),
        ({"activity_sigma": 11}, "activity_sigma: expected at most 10, got 11"),
        ({"seed": -1}, "seed: expected a whole number >= 0, got -1"),
    ],
)
def test_activity_out_of_range_is_refused(tmp_path, wrong, message):
    path = write_net(tmp_path / "net.net", dense(np.ones((3, 4))))
    with pytest.raises(nm.InputError, match=re.escape(message)):
        nm.load_network(path, **wrong)
