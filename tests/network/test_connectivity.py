import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import neuromap_moo as nm
from neuromap_moo.mapping.mapping import stack
from neuromap_moo.models.analytic import AnalyticEvaluator
from neuromap_moo.network.connectivity import NUMBERINGS, row_words, slice_bounds
from neuromap_moo.network.files import load_npz
from neuromap_moo.oracles import analytic
from neuromap_moo.partition.partitioner import Partitioner

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def convolutions(draw):
    groups = draw(st.integers(1, 3))
    shapes = [(groups * draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 6))) for _ in range(2)]
    n = math.prod(shapes[0])
    place = draw(
        st.one_of(
            st.none(),
            st.permutations(range(n)),
            st.lists(st.integers(-1, n - 1), min_size=1, max_size=20),
        )
    )
    return nm.Convolution(
        *shapes,
        kernel=draw(pairs),
        stride=draw(pairs),
        padding=draw(st.tuples(st.integers(-1, 3), st.integers(-1, 3))),
        dilation=draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        groups=groups,
        transposed=draw(st.booleans()),
        cut=draw(st.sampled_from(sorted(NUMBERINGS))),
        place=None if place is None else np.array(place),
    )


def explicit(connectivity):
    """(n_source, n_target) booleans, by the oracle's plain loops."""
    matrix = np.zeros((connectivity.n_source, connectivity.n_target), dtype=bool)
    p = nm.Projection("a", "b", connectivity)
    for i in range(connectivity.n_source):
        matrix[i, analytic._targets(p, i)] = True
    return matrix


def per_neuron(connectivity, bounds):
    """(n_source, k) synapses of each neuron into each slice."""
    rows = connectivity.rows(bounds)
    full = np.zeros((rows.start.size - 1, bounds.size - 1), dtype=int)
    for r in range(rows.start.size - 1):
        own = slice(rows.start[r], rows.start[r + 1])
        assert (np.diff(rows.slices[own].astype(int)) > 0).all()
        full[r, rows.slices[own]] = rows.synapses[own]
    return full[connectivity.row_of_source]


@given(c=convolutions(), part=st.floats(0, 1))
def test_a_convolution_answers_as_the_matrix_of_its_synapses(c, part):
    matrix = explicit(c)
    sparse = nm.Sparse.from_matrix(matrix)
    assert c.n_synapses == sparse.n_synapses == matrix.sum()
    assert c.sends.tolist() == sparse.sends.tolist()
    for k in {1, 1 + round(part * (c.n_target - 1)), c.n_target}:
        bounds = slice_bounds(c.n_target, k)
        assert per_neuron(c, bounds).tolist() == per_neuron(sparse, bounds).tolist()


def test_synapses_by_hand():
    # 3x3 places, a 2x2 kernel: input (0, 0) reaches output (0, 0) alone, the middle one all four
    c = nm.Convolution((1, 3, 3), (2, 2, 2), (2, 2))
    assert c.n_synapses == 2 * 16
    assert explicit(c)[0].tolist() == [True, False, False, False, True, False, False, False]
    assert explicit(c)[4].all()
    assert nm.Convolution((1, 3, 3), (2, 2, 2), (2, 2), cut="rows").rows(np.array([0, 4, 8])).synapses.tolist() == [
        *(2, 4, 2),  # the first row of inputs reaches the first row of outputs: two channels, one or two places
        *(2, 2, 4, 4, 2, 2),
        *(2, 4, 2),
    ]


@given(c=convolutions(), bits=st.integers(1, 8), part=st.floats(0, 1))
def test_a_kernel_is_stored_once_per_slice(c, bits, part):
    k = 1 + round(part * (c.n_target - 1))
    channels, height, width = c.output_shape
    filled = math.ceil(c.input_shape[0] / 16) * 16
    for bounds in (slice_bounds(c.n_target, k), np.append(np.arange(0, c.n_target, -(-c.n_target // k)), c.n_target)):
        expected = []
        for low, high in itertools.pairwise(bounds):
            held = {n // (height * width) if c.cut == "channels" else n % channels for n in range(low, high)}
            weights = filled * len(held) * c.kernel[0] * c.kernel[1] // c.groups
            if (filled * len(held) * c.kernel[0] * c.kernel[1]) % c.groups == 0:
                expected.append(math.ceil(weights * (bits + 1) / 64))
            else:
                expected.append(math.ceil(filled * len(held) * c.kernel[0] * c.kernel[1] * (bits + 1) / 64 / c.groups))
        assert c.words(bits, bounds).tolist() == expected
    for window in {1, 2, k, c.n_target}:
        starts = range(c.n_target - min(window, c.n_target) + 1)
        most = max(c.words(bits, np.array([a, a + min(window, c.n_target)]))[0] for a in starts)
        assert c.window_words(bits, window) == most


def test_without_weights_nothing_is_stored_or_read():
    c = nm.Convolution((2, 3, 3), (2, 3, 3), (1, 1))
    assert c.words(0, np.array([0, 18])).tolist() == [0]
    assert c.window_words(0, 5) == 0
    assert row_words(np.array([0, 3]), 0).tolist() == [0, 0]


def test_multiplications_as_others_count_them():
    assert nm.Convolution((3, 5, 5), (4, 5, 5), (3, 3), padding=(1, 1)).n_multiplications == 3 * 4 * 9 * 25
    assert nm.Convolution((4, 5, 5), (4, 5, 5), (3, 3), padding=(1, 1), groups=4).n_multiplications == 4 * 9 * 25
    assert nm.Convolution((3, 2, 2), (4, 4, 4), (2, 2), (2, 2), transposed=True).n_multiplications == 3 * 4 * 4 * 4
    half = np.arange(25)  # the first channel of three
    assert nm.Convolution((3, 5, 5), (4, 3, 3), (3, 3), place=half).n_multiplications == 4 * 9 * 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_shape": (2, 3)}, r"convolution, input_shape: expected 3 numbers, got \(2, 3\)"),
        ({"kernel": (0, 1)}, "convolution, kernel: expected a whole number >= 1, got 0"),
        ({"stride": (1, 1.5)}, r"convolution, stride: expected a whole number >= 1, got 1\.5"),
        ({"groups": 3}, "convolution, groups: expected a divisor of 2 input and 4 output channels, got 3"),
        ({"cut": "diagonal"}, "convolution, cut: expected one of channels, rows, columns, got 'diagonal'"),
        ({"place": [0, 18]}, r"convolution, place: expected a list of numbers in -1\.\.17"),
        ({"place": [-2]}, r"convolution, place: expected a list of numbers in -1\.\.17"),
        ({"place": [0.5]}, "convolution, place: expected numbers of type int32, got float64"),
    ],
)
def test_wrong_convolutions_are_refused(change, message):
    given_values = {"input_shape": (2, 3, 3), "output_shape": (4, 3, 3), "kernel": (1, 1), **change}
    with pytest.raises(nm.InputError, match=message):
        nm.Convolution(**given_values)


# --------------------------------------------------------------------------------------------------------- networks


def layer(name, shape, rng, cut="channels"):
    size = int(np.prod(shape))
    return nm.Layer(name, size, "relu", rng.uniform(0, 1, size), shape if len(shape) == 3 else None, cut)


def small_network(rng, cuts=("channels", "channels", "channels")):
    """An input map, two convolutions with a residual of one to one synapses, a pool, a dense layer."""
    shapes = [(2, 4, 5), (3, 4, 5), (3, 4, 5), (3, 2, 2)]
    names = ["input", "first", "second", "pool"]
    layers = [layer(n, s, rng) for n, s in zip(names, shapes, strict=True)] + [layer("out", (4,), rng)]
    network = nm.Network(
        "small",
        layers,
        [
            nm.Projection("input", "first", nm.Convolution(shapes[0], shapes[1], (3, 3), padding=(1, 1)), 8),
            nm.Projection("first", "second", nm.Convolution(shapes[1], shapes[2], (3, 1), padding=(1, 0)), 5),
            nm.Projection("first", "pool", nm.Convolution(shapes[1], shapes[3], (2, 2), (2, 3), groups=3), 1),
            nm.Projection("second", "pool", nm.Convolution(shapes[2], shapes[3], (2, 2), (2, 3)), 0),
            nm.Projection("pool", "out", nm.Sparse.from_matrix(rng.random((12, 4)) < 0.6), 8),
            nm.Projection("second", "out", nm.Dense(60, 4), 4),
        ],
        steps_per_inference=3,
    )
    return nm.with_cuts(network, dict(zip(names[1:], cuts, strict=True)))


def whole_matrix(network, order):
    """All synapses between all neurons in their order of the maps; `order` is the cut of each layer."""
    first = np.concatenate([[0], np.cumsum([x.size for x in network.layers])])
    matrix = np.zeros((first[-1], first[-1]), dtype=int)
    natural = []
    for x in network.layers:
        places = np.arange(x.size)
        if x.shape is not None:
            places = np.arange(x.size).reshape(x.shape).transpose(NUMBERINGS[order[x.name]]).ravel()
        natural.append(places)
    for p in network.projections:
        a, b = network.layer_index[p.source], network.layer_index[p.target]
        matrix[np.ix_(first[a] + natural[a], first[b] + natural[b])] += explicit(p.connectivity)
    return matrix


@given(seed=st.integers(0, 1000), cuts=st.tuples(*[st.sampled_from(sorted(NUMBERINGS))] * 3))
def test_a_cut_numbers_neurons_anew_and_changes_no_synapse(seed, cuts):
    before = small_network(np.random.default_rng(seed))
    after = nm.with_cuts(before, dict(zip(["first", "second", "pool"], cuts, strict=True)))
    plain = {x.name: "channels" for x in before.layers}
    changed = plain | {"first": cuts[0], "second": cuts[1], "pool": cuts[2]}
    assert [x.cut for x in after.layers] == [changed[x.name] for x in after.layers]
    assert (whole_matrix(before, plain) == whole_matrix(after, changed)).all()
    for x, y in zip(before.layers, after.layers, strict=True):
        places = np.arange(x.size)
        if x.shape is not None:
            places = places.reshape(x.shape).transpose(NUMBERINGS[y.cut]).ravel()
        assert y.activity.tolist() == x.activity[places].tolist()
    assert nm.with_cuts(after, plain) == before


@given(seed=st.integers(0, 1000), cuts=st.tuples(*[st.sampled_from(sorted(NUMBERINGS))] * 3))
def test_metrics_of_convolutions_equal_the_oracle(seed, cuts):
    rng = np.random.default_rng(seed)
    network = small_network(rng, cuts)
    system = nm.mesh_system(4, 3, cores_per_router=2)
    k = rng.integers(1, 5, 5)
    mapping = nm.Mapping(tuple(map(int, k)), tuple(map(int, rng.permutation(24)[: k.sum()])))
    partitioner = Partitioner(network, system)
    metrics = AnalyticEvaluator(partitioner, system).evaluate(stack([mapping]))
    for name, value in analytic.reference_metrics(network, system, mapping).items():
        if isinstance(value, (int, float)):
            assert metrics[name][0] == pytest.approx(value, rel=1e-9), name


def test_networks_with_convolutions_keep_through_a_file(tmp_path):
    network = small_network(np.random.default_rng(0), ("rows", "columns", "channels"))
    nm.save_network(network, tmp_path / "net.npz")
    again = load_npz(tmp_path / "net.npz")
    assert again == network
    assert [(x.shape, x.cut) for x in again.layers] == [(x.shape, x.cut) for x in network.layers]


def test_a_mapping_of_convolutions_is_checked_with_its_memory():
    # 64 channels in and out, 3x3, 8 bits: 64 * 9 * 9 / 64 = 81 words per output channel
    rng = np.random.default_rng(0)
    shape = (64, 6, 6)
    network = nm.Network(
        "one",
        [layer("input", shape, rng), layer("map", shape, rng)],
        [nm.Projection("input", "map", nm.Convolution(shape, shape, (3, 3), padding=(1, 1)))],
    )
    system = nm.mesh_system(4, 4, cores_per_router=1)
    problem = nm.MappingProblem(network, system)
    assert problem.partitioner.layer_loads(1, 4).words.tolist() == [16 * 81] * 4
    by_rows = nm.with_cuts(network, {"map": "rows"})
    assert (
        nm.MappingProblem(by_rows, system, cut="as_given").partitioner.layer_loads(1, 4).words.tolist() == [64 * 81] * 4
    )
    tight = nm.mesh_system(4, 4, cores_per_router=1, synapse_words=2000)
    assert nm.MappingProblem(network, tight).partitioner.minimum.tolist() == [1, 3]
    with pytest.raises(nm.InputError, match=r"layer 'map'.*needs"):
        nm.MappingProblem(by_rows, tight, cut="as_given")
    with pytest.raises(nm.InputError, match="synapse words"):
        nm.check(nm.Mapping((1, 2), (0, 1, 2)), nm.MappingProblem(network, tight))


def test_best_cuts_follow_memory_and_messages():
    rng = np.random.default_rng(0)
    wide, deep = (4, 32, 32), (256, 4, 4)
    network = nm.Network(
        "two",
        [
            layer("input", wide, rng),
            layer("wide", wide, rng),
            layer("between", (256, 4, 4), rng),
            layer("deep", deep, rng),
        ],
        [
            nm.Projection("input", "wide", nm.Convolution(wide, wide, (3, 3), padding=(1, 1))),
            nm.Projection("wide", "between", nm.Convolution(wide, deep, (8, 8), (8, 8))),
            nm.Projection("between", "deep", nm.Convolution(deep, deep, (3, 3), padding=(1, 1))),
        ],
    )
    small = nm.mesh_system(16, 16, cores_per_router=1, neurons=512)
    best = {x.name: x.cut for x in nm.with_best_cuts(network, small).layers}
    assert best["wide"] in ("rows", "columns")  # a place reaches one or two slices, by channels all
    assert best["deep"] == "channels"  # 256 * 256 * 9 weights fit into no core that holds all channels
    assert best["input"] == best["wide"]


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        ({"nowhere": "rows"}, "cut: no layer 'nowhere'"),
        ({"out": "rows"}, "layer 'out', cut: expected a feature map, it has no shape"),
        ({"first": "upwards"}, "layer 'first', cut: expected one of channels, rows, columns, got 'upwards'"),
    ],
)
def test_wrong_cuts_are_refused(cuts, message):
    with pytest.raises(nm.InputError, match=message):
        nm.with_cuts(small_network(np.random.default_rng(0)), cuts)


def test_two_projections_of_a_pair_need_different_neurons():
    layers = [nm.Layer("a", 4, "input", [0.1] * 4), nm.Layer("b", 2, "lif", [0.1] * 2)]
    upper, lower = np.zeros((4, 2)), np.zeros((4, 2))
    upper[:2], lower[2:] = 1, 1
    parts = [nm.Projection("a", "b", nm.Sparse.from_matrix(m), 8) for m in (upper, lower)]
    network = nm.Network("two", layers, parts)
    together = nm.Network("one", layers, [nm.Projection("a", "b", nm.Sparse.from_matrix(upper + lower), 8)])
    system = nm.mesh_system(2, 2, cores_per_router=1)
    mapping = nm.Mapping((2, 2), (0, 1, 2, 3))
    found, expected = (nm.MappingProblem(n, system).evaluate_mappings([mapping]) for n in (network, together))
    for key in ("messages", "latency_s", "energy_j", "message_hops"):
        if key in expected:
            assert found[key] == pytest.approx(expected[key], rel=1e-12)
    lower[0] = 1
    with pytest.raises(
        nm.InputError, match="one projection per pair of layers, or several from different neurons, got 2"
    ):
        nm.Network("both", layers, [parts[0], nm.Projection("a", "b", nm.Sparse.from_matrix(lower), 8)])


def test_a_feature_map_needs_the_shape_and_cut_of_its_convolution():
    rng = np.random.default_rng(0)
    c = nm.Convolution((1, 2, 2), (1, 2, 2), (1, 1), cut="rows")
    with pytest.raises(nm.InputError, match=r"expected a target layer of shape \(1, 2, 2\) cut by rows, got shape"):
        nm.Network("n", [layer("a", (1, 2, 2), rng), layer("b", (1, 2, 2), rng)], [nm.Projection("a", "b", c)])
    with pytest.raises(nm.InputError, match=r"layer 'x', shape: expected \(channels, height, width\) of 4 neurons"):
        nm.Layer("x", 4, "relu", [0.0] * 4, (1, 3, 1))


@pytest.mark.parametrize("cut", ["auto", "as_given", None, "rows", {}])
def test_a_network_without_feature_maps_stays_the_same_object(cut):
    network = nm.sparse_mlp([20, 30, 10], 0.2)
    assert nm.MappingProblem(network, nm.mesh_system(3, 3), cut=cut).network is network


def test_a_problem_numbers_feature_maps_for_its_system():
    network = small_network(np.random.default_rng(0))
    system = nm.mesh_system(4, 4, cores_per_router=4)
    best = nm.with_best_cuts(network, system)
    assert nm.MappingProblem(network, system).network == best
    assert nm.MappingProblem(best, system).network == best
    assert nm.MappingProblem(network, system, cut="as_given").network is network
    maps = [x for x in network.layers if x.shape is not None]
    by_rows = nm.with_cuts(network, {x.name: "rows" for x in maps})
    assert nm.MappingProblem(network, system, cut="rows").network == by_rows
    one = {maps[-1].name: "columns"}
    assert nm.MappingProblem(network, system, cut=one).network == nm.with_cuts(network, one)
    with pytest.raises(
        nm.InputError, match="cut: no 'diagonal'; choose one of: as_given, auto, channels, columns, rows"
    ):
        nm.MappingProblem(network, system, cut="diagonal")
