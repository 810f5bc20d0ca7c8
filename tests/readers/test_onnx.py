import dataclasses
import itertools
import re
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers import OPSET, examples, model_of, node, weights
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import neuromap_moo as nm
from neuromap_moo.network.activity import ActivitySpec
from neuromap_moo.oracles import analytic
from neuromap_moo.readers.onnx.reader import read_onnx, walk


def network_of(model, **more):
    walked = walk("'test'", model, **more)
    network = walked.assembly.network("test", ActivitySpec(activity_sigma=0.0))
    return network, walked.outputs, network.notes


def influences(network, outputs):
    """For each output value, which neurons of the input layers reach it by any way, as rows of booleans."""
    first = np.concatenate([[0], np.cumsum([layer.size for layer in network.layers])])
    n = int(first[-1])
    step = np.eye(n, dtype=bool)
    for p in network.projections:
        a, b = first[network.layer_index[p.source]], first[network.layer_index[p.target]]
        for i in range(p.connectivity.n_source):
            step[a + i, b + np.array(analytic._targets(p, i), dtype=int)] = True
    reach = step
    for _ in range(len(network.layers)):
        reach = (reach.astype(np.float32) @ step.astype(np.float32)) > 0
    inputs = np.concatenate(
        [np.arange(first[i], first[i + 1]) for i, layer in enumerate(network.layers) if layer.kind == "input"]
    )
    ids = np.concatenate([x.ravel() for x in outputs.values()])
    rows = np.zeros((ids.size, inputs.size), dtype=bool)
    rows[ids > 0] = reach[np.ix_(inputs, ids[ids > 0] - 1)].T
    return rows


def dependencies(model, shapes):
    """For each output value, which input values change it, found by changing one after the other."""
    run = ReferenceEvaluator(model)
    rng = np.random.default_rng(1)
    base = {name: rng.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in shapes.items()}
    before = np.concatenate([np.ravel(y) for y in run.run(None, base)])
    columns = []
    for name, x in base.items():
        for at in np.ndindex(x.shape):
            changed = x.copy()
            changed[at] += 50.0  # more than any other, so that the maximum is this one
            after = np.concatenate([np.ravel(y) for y in run.run(None, base | {name: changed})])
            columns.append(~np.isclose(before, after, rtol=1e-5, atol=1e-7))
    return np.array(columns).T


def check(nodes, shapes, outputs=("y",), opset=OPSET, **constants):
    model = model_of(nodes, shapes, outputs, opset, **constants)
    network, found, _ = network_of(model)
    np.testing.assert_array_equal(influences(network, found), dependencies(model, shapes))
    return network


# ------------------------------------------------------------------------------------------------ weighted operators


@given(
    channels=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.integers(1, 2),
    size=st.tuples(st.integers(3, 6), st.integers(3, 6)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.one_of(
        st.tuples(*[st.integers(0, 2)] * 4).map(lambda p: {"pads": list(p)}),
        st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]).map(lambda p: {"auto_pad": p}),
    ),
)
@examples(40)
def test_convolutions_connect_what_depends_on_what(channels, groups, size, kernel, strides, dilations, padding):
    n_in, n_out = channels[0] * groups, channels[1] * groups
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    if any(s > n for s, n in zip(spans, size, strict=True)):
        return
    if "auto_pad" in padding and padding["auto_pad"] != "VALID" and max(dilations) > 1:
        return  # onnx's evaluator refuses this
    attributes = {"strides": strides, "dilations": dilations, "group": groups, **padding}
    w = weights(n_out, n_in // groups, *kernel)
    network = check([node("Conv", "x w", **attributes)], {"x": (1, n_in, *size)}, w=w)
    assert [p.weight_bits for p in network.projections] == [8]


@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 1)] * 4),
    extra=st.booleans(),
)
@examples(25)
def test_transposed_convolutions_connect_what_depends_on_what(size, kernel, strides, pads, extra):
    full = [s * (n - 1) + k for s, n, k in zip(strides, size, kernel, strict=True)]
    if any(f - a - b < 1 for f, a, b in zip(full, pads[:2], pads[2:], strict=True)):
        return
    attributes = {"strides": strides, "pads": list(pads)}  # onnx's evaluator fails on groups
    if extra and min(strides) > 1:
        attributes["output_padding"] = [1, 1]
    w = weights(2, 3, *kernel)
    check([node("ConvTranspose", "x w", **attributes)], {"x": (1, 2, *size)}, w=w)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("AveragePool", {"kernel_shape": [2, 3]}),
        ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
        ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}),
        ("MaxPool", {"kernel_shape": [2, 2], "strides": [3, 2], "auto_pad": "SAME_UPPER"}),
        ("GlobalAveragePool", {}),
        ("GlobalMaxPool", {}),
    ],
)
def test_pools_are_layers_of_their_own(op, attributes):
    network = check([node(op, "x", **attributes)], {"x": (1, 2, 5, 6)})
    assert [layer.kind for layer in network.layers] == ["input", "pool"]
    assert [p.weight_bits for p in network.projections] == [1]


def test_one_dimensional_convolution_and_pool():
    network = check(
        [node("Conv", "x w", "a", strides=[2], pads=[1, 1]), node("MaxPool", "a", kernel_shape=[2])],
        {"x": (1, 3, 9)},
        w=weights(4, 3, 3),
    )
    assert [layer.shape for layer in network.layers] == [(3, 1, 9), (4, 1, 5), (4, 1, 4)]


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm(trans_a, trans_b):
    shape, w = ((4, 1) if trans_a else (1, 4)), weights(3, 4) if trans_b else weights(4, 3)
    network = check([node("Gemm", "x w", transA=trans_a, transB=trans_b)], {"x": shape}, w=w)
    assert network.n_synapses == 12


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((4,), (4, 3)),
        ((1, 4), (4, 3)),
        ((5, 4), (4, 3)),
        ((1, 5, 4), (4, 3)),
        ((2, 5, 4), (2, 4, 3)),
        ((2, 5, 4), (1, 4, 3)),
        ((1, 5, 4), (2, 4, 3)),
        ((5, 4), (4,)),
    ],
)
def test_products_with_constants_on_the_right(left, right):
    check([node("MatMul", "x w")], {"x": left}, w=weights(*right))


@pytest.mark.parametrize(("left", "right"), [((3, 4), (4, 5)), ((3, 4), (2, 4, 5)), ((2, 3, 4), (2, 4, 5))])
def test_products_with_constants_on_the_left(left, right):
    check([node("MatMul", "w x")], {"x": right}, w=weights(*left))


@pytest.mark.parametrize(
    ("left", "right"), [((3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((1, 2, 3, 4), (1, 2, 4, 2)), ((2, 3, 4), (1, 4, 5))]
)
def test_products_of_activations_have_traffic_and_no_weights(left, right):
    network = check([node("MatMul", "a b")], {"a": left, "b": right})
    products_of = [p for p in network.projections if p.weight_bits == 0]
    lead = np.broadcast_shapes(left[:-2], right[:-2])
    products = int(np.prod([*lead, left[-2], right[-1]])) * left[-1]
    assert sum(p.connectivity.n_synapses for p in products_of) == 2 * products
    copied = left[:-2] != right[:-2] and min(len(left), len(right)) > 2  # one matrix for several: a relay each
    assert len(network.projections) == len(products_of) + copied


def test_zeros_of_a_pruned_matrix_are_no_synapses():
    w = weights(6, 5) * (np.arange(30).reshape(6, 5) % 3 == 0)
    network = check([node("Gemm", "x w")], {"x": (1, 6)}, w=w.astype(np.float32))
    assert network.n_synapses == 10
    assert isinstance(network.projections[0].connectivity, nm.Sparse)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers(op, gates, direction):
    d, units, features = (2 if direction == "bidirectional" else 1), 3, 2
    w, r = weights(d, gates * units, features), weights(d, gates * units, units, seed=1)
    model = model_of(
        [node(op, "x w r", "every y", hidden_size=units, direction=direction)], {"x": (1, 1, features)}, w=w, r=r
    )
    network, outputs, notes = network_of(model)
    assert outputs["y"].shape == (d, 1, units)
    assert network.n_synapses == d * (gates * units * (features + units) + (gates * units if gates > 1 else 0))
    assert notes == ()
    assert influences(network, outputs).all()


def test_a_sequence_goes_through_one_set_of_neurons_and_says_so():
    w, r = weights(1, 12, 2), weights(1, 12, 3, seed=1)
    nodes = [
        node("LSTM", "x w r", "every last", hidden_size=3),
        node("Squeeze", "every axes", "e"),
        node("MatMul", "e v"),
    ]
    network, outputs, notes = network_of(
        model_of(nodes, {"x": (7, 1, 2)}, w=w, r=r, axes=np.array([1]), v=weights(3, 4))
    )
    assert outputs["y"].shape == (7, 1, 4)
    assert [layer.size for layer in network.layers] == [14, 2, 3, 12, 4]
    assert any("steps_per_inference" in text for text in notes)


# ------------------------------------------------------------------------------------------------- moves and functions


@pytest.mark.parametrize(
    ("nodes", "shape", "constants"),
    [
        ([("Transpose", "x", {"perm": [0, 2, 1]})], (1, 2, 3), {}),
        ([("Reshape", "x s", {})], (1, 2, 6), {"s": np.array([1, 4, 3])}),
        ([("Slice", "x a b c d", {})], (1, 5, 4), {"a": [1], "b": [5], "c": [1], "d": [2]}),
        ([("Gather", "x i", {"axis": 1})], (1, 5, 2), {"i": np.array([3, 0])}),
        ([("Pad", "x p", {})], (1, 2, 3), {"p": np.array([0, 1, 0, 0, 0, 2])}),
        ([("Tile", "x r", {})], (1, 2), {"r": np.array([1, 3])}),
        ([("Expand", "x s", {})], (1, 2, 1), {"s": np.array([1, 2, 3])}),
        ([("DepthToSpace", "x", {"blocksize": 2})], (1, 4, 2, 2), {}),
        ([("SpaceToDepth", "x", {"blocksize": 2})], (1, 1, 4, 2), {}),
        ([("Flatten", "x", {})], (1, 2, 3), {}),
    ],
)
def test_moved_values_come_from_the_same_neurons(nodes, shape, constants):
    made = {name: np.asarray(value, dtype=np.int64) for name, value in constants.items()}
    (op, inputs, attributes) = nodes[0]
    check([node(op, inputs, **attributes)], {"x": shape}, **made)
    size = int(np.prod(shape))
    moved = [node(op, inputs, "a", **attributes), node("Reshape", "a one", "b"), node("Sigmoid", "b")]
    check(moved, {"x": shape}, **made, one=np.array([1, -1]))
    network, _, _ = network_of(model_of([node(op, inputs, **attributes)], {"x": shape}, **made))
    assert [layer.size for layer in network.layers] == [size]


def test_split_and_concat_of_convolutions():
    nodes = [
        node("Conv", "x w", "a"),
        node("Split", "a", "b c", axis=1),
        node("Conv", "b v", "d", pads=[1, 1, 1, 1]),
        node("Concat", "d c x", "e", axis=1),
        node("Conv", "e u"),
    ]
    network = check(
        nodes, {"x": (1, 2, 3, 4)}, w=weights(4, 2, 1, 1), v=weights(3, 2, 3, 3, seed=1), u=weights(2, 7, 2, 2, seed=2)
    )
    assert [layer.size for layer in network.layers] == [24, 48, 36, 12]


def test_shuffled_groups():
    nodes = [
        node("Conv", "x w", "a", group=2),
        node("Reshape", "a s", "b"),
        node("Transpose", "b", "c", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "c t", "d"),
        node("Conv", "d w", group=2),
    ]
    check(nodes, {"x": (1, 4, 2, 3)}, w=weights(4, 2, 1, 1), s=np.array([1, 2, 2, 2, 3]), t=np.array([1, 4, 2, 3]))


def test_a_function_belongs_to_the_neurons_that_nobody_else_reads():
    nodes = [node("Conv", "x w", "a"), node("Relu", "a", "b"), node("Conv", "b v")]
    network = check(nodes, {"x": (1, 1, 3, 3)}, w=weights(2, 1, 2, 2), v=weights(1, 2, 1, 1))
    assert [layer.kind for layer in network.layers] == ["input", "relu", "conv"]


def test_values_read_before_and_after_a_function_need_two_layers():
    nodes = [
        node("Conv", "x w", "a"),
        node("Relu", "a", "b"),
        node("Conv", "b v", "c"),
        node("Mul", "a c"),
    ]
    network = check(nodes, {"x": (1, 1, 2, 2)}, w=weights(2, 1, 1, 1), v=weights(2, 2, 1, 1))
    assert [(layer.name, layer.kind) for layer in network.layers] == [
        ("x", "input"),
        ("conv_a", "conv"),
        ("relu_b", "relu"),
        ("conv_c", "conv"),
        ("mul_y", "mul"),
    ]


def test_a_function_made_of_several_nodes_is_one_function():
    nodes = [node("Gemm", "x w", "a"), node("Sigmoid", "a", "b"), node("Mul", "a b", "c"), node("Gemm", "c v")]
    network = check(nodes, {"x": (1, 3)}, w=weights(3, 4), v=weights(4, 2))
    assert [layer.kind for layer in network.layers] == ["input", "mul", "gemm"]


def test_a_residual_is_added_up_by_the_neurons_of_the_convolution():
    nodes = [
        node("Conv", "x w", "a"),
        node("Relu", "a", "b"),
        node("Conv", "b v", "c", pads=[1, 1, 1, 1]),
        node("Add", "c b", "d"),
        node("Relu", "d", "e"),
        node("Conv", "e u"),
    ]
    network = check(
        nodes, {"x": (1, 2, 3, 3)}, w=weights(2, 2, 1, 1), v=weights(2, 2, 3, 3, seed=1), u=weights(1, 2, 1, 1)
    )
    assert [(layer.name, layer.kind) for layer in network.layers] == [
        ("x", "input"),
        ("conv_a", "relu"),
        ("conv_c", "relu"),
        ("conv_y", "conv"),
    ]
    # each neuron of conv_a already has a synapse to its own place: the residual changes a weight
    assert [(p.source, p.target) for p in network.projections] == [
        ("x", "conv_a"),
        ("conv_a", "conv_c"),
        ("conv_c", "conv_y"),
    ]


def test_a_residual_over_two_convolutions_is_a_projection_of_its_own():
    nodes = [
        node("Conv", "x w", "a"),
        node("Relu", "a", "b"),
        node("Conv", "b v", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "d"),
        node("Conv", "d v", "e", pads=[1, 1, 1, 1]),
        node("Add", "e b"),
    ]
    network = check(nodes, {"x": (1, 2, 3, 3)}, w=weights(2, 2, 1, 1), v=weights(2, 2, 3, 3, seed=1))
    assert [(p.source, p.target, p.weight_bits) for p in network.projections][2:] == [
        ("conv_c", "conv_e", 8),
        ("conv_a", "conv_e", 1),
    ]


def test_two_branches_that_are_added_share_one_layer():
    nodes = [
        node("Conv", "x w", "a"),
        node("Relu", "a", "b"),
        node("Conv", "b v", "c", pads=[1, 1, 1, 1]),
        node("Conv", "x w", "d"),
        node("Add", "c d"),
    ]
    network = check(nodes, {"x": (1, 2, 3, 3)}, w=weights(2, 2, 1, 1), v=weights(2, 2, 3, 3, seed=1))
    assert [layer.name for layer in network.layers] == ["x", "conv_a", "conv_c"]
    assert {(p.source, p.target) for p in network.projections} == {
        ("x", "conv_a"),
        ("conv_a", "conv_c"),
        ("x", "conv_c"),
    }


def test_branches_from_the_same_neurons_are_not_merged():
    nodes = [node("Conv", "x w", "a"), node("Conv", "x v", "b", pads=[1, 1, 1, 1]), node("Add", "a b")]
    network = check(nodes, {"x": (1, 1, 3, 3)}, w=weights(2, 1, 1, 1), v=weights(2, 1, 3, 3))
    assert [layer.name for layer in network.layers] == ["x", "conv_a", "conv_b"]


def test_broadcast_gates():
    nodes = [
        node("GlobalAveragePool", "x", "a"),
        node("Conv", "a w", "b"),
        node("Sigmoid", "b", "c"),
        node("Mul", "x c"),
    ]
    network = check(nodes, {"x": (1, 2, 3, 2)}, w=weights(2, 2, 1, 1))
    assert {p.weight_bits for p in network.projections if p.target == "mul_y"} == {0}


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[1], [-1], [0, 2], [1, 2]])
def test_reductions(axes, keepdims):
    check([node("ReduceMean", "x", axes=axes, keepdims=keepdims)], {"x": (2, 3, 4)})


def test_self_attention():
    t, d = 3, 4
    nodes = [
        node("MatMul", "x wq", "q"),
        node("MatMul", "x wk", "k"),
        node("MatMul", "x wv", "v"),
        node("Transpose", "k", "kt", perm=[0, 2, 1]),
        node("MatMul", "q kt", "s"),
        node("Softmax", "s", "p"),
        node("MatMul", "p v", "o"),
        node("Add", "o x"),
    ]
    model = model_of(nodes, {"x": (1, t, d)}, wq=weights(d, d), wk=weights(d, d, seed=1), wv=weights(d, d, seed=2))
    network, outputs, notes = network_of(model)
    assert [layer.size for layer in network.layers] == [12, 12, 12, 12, 9, 12, 12][: len(network.layers)]
    assert any("Softmax" in text for text in notes)
    scores = next(layer for layer in network.layers if layer.kind == "softmax")
    assert scores.shape == (1, t, t)
    assert influences(network, outputs).any(axis=1).all()


def test_a_fused_projection_that_is_split_into_queries_and_keys():
    nodes = [
        node("MatMul", "x w", "qk"),
        node("Split", "qk", "q k", axis=2),
        node("Transpose", "k", "kt", perm=[0, 2, 1]),
        node("MatMul", "q kt"),
    ]
    network = check(nodes, {"x": (1, 3, 2)}, w=weights(2, 4))
    assert len([p for p in network.projections if p.source != "x"]) == 2


def test_constants_fold_and_shapes_are_known():
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Unsqueeze", "n axis", "m"),
        node("Concat", "m rest", "shape", axis=0),
        node("Reshape", "x shape", "r"),
        node("Mul", "w two", "w2"),
        node("MatMul", "r w2"),
    ]
    network = check(
        nodes,
        {"x": (1, 2, 3)},
        zero=np.array(0),
        axis=np.array([0]),
        rest=np.array([6]),
        w=weights(6, 2),
        two=np.float32(2),
    )
    assert [layer.size for layer in network.layers] == [6, 2]


def test_a_branch_whose_condition_is_known_is_taken():
    def branch(name, op):
        out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, ["h"], [f"{name}_out"], name=op)], name, [], [out])

    nodes = [
        node("MatMul", "x u", "h"),
        helper.make_node(
            "If", ["c"], ["a"], name="if", then_branch=branch("t", "Relu"), else_branch=branch("e", "Exp")
        ),
        node("MatMul", "a w"),
    ]
    for condition, kind in ((True, "relu"), (False, "exp")):
        network, _, _ = network_of(
            model_of(nodes, {"x": (1, 3)}, c=np.array(condition), u=weights(3, 3), w=weights(3, 2))
        )
        assert [layer.kind for layer in network.layers] == ["input", kind, "gemm"]


def test_embeddings_come_in_as_an_input_layer():
    ids = helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, 5])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    table = onnx.numpy_helper.from_array(weights(9, 4), "table")
    w = onnx.numpy_helper.from_array(weights(4, 3), "w")
    graph = helper.make_graph(
        [node("Gather", "table tokens", "e"), node("MatMul", "e w")], "test", [ids], [out], [table, w]
    )
    network, outputs, notes = network_of(helper.make_model(graph))
    assert [(layer.size, layer.kind) for layer in network.layers] == [(20, "input"), (15, "matmul")]
    assert outputs["y"].shape == (1, 5, 3)
    assert any("host" in text for text in notes)


@pytest.mark.parametrize(("scales", "size"), [([1, 1, 2, 2], (4, 6)), ([1, 1, 0.5, 1], (1, 3))])
def test_resizing_repeats_or_drops_values(scales, size):
    nodes = [
        node(
            "Resize", "x  s".replace("  ", " none "), coordinate_transformation_mode="asymmetric", nearest_mode="floor"
        )
    ]
    nodes[0].input[1] = ""
    model = model_of(nodes, {"x": (1, 1, 2, 3)}, s=np.array(scales, dtype=np.float32))
    network, outputs, _ = network_of(model)
    assert outputs["y"].shape == (1, 1, *size)
    np.testing.assert_array_equal(influences(network, outputs), dependencies(model, {"x": (1, 1, 2, 3)}))


# --------------------------------------------------------------------------------------------------- quantised graphs


def test_quantised_convolutions_and_products():
    rng = np.random.default_rng(0)
    w = rng.integers(1, 5, (3, 2, 2, 2)).astype(np.int8)
    nodes = [
        node("QuantizeLinear", "x one zero", "xq"),
        node("QLinearConv", "xq one zero w one zero one zero", "a"),
        node("DequantizeLinear", "a one zero", "b"),
        node("Flatten", "b", "c"),
        node("DynamicQuantizeLinear", "c", "q s z"),
        node("MatMulInteger", "q v z zero"),
    ]
    network, _, _ = network_of(
        model_of(
            nodes,
            {"x": (1, 2, 3, 3)},
            one=np.float32(1),
            zero=np.int8(0),
            w=w,
            v=rng.integers(1, 5, (12, 4)).astype(np.int8),
        )
    )
    assert [layer.size for layer in network.layers] == [18, 12, 4]
    assert [p.weight_bits for p in network.projections] == [8, 8]


def test_the_bits_of_weights_follow_their_quantisation():
    nodes = [
        helper.make_node("Quant", ["w", "one", "zero", "bits"], ["wq"], name="quant", domain="qonnx.custom_op.general"),
        helper.make_node("BipolarQuant", ["v", "one"], ["vq"], name="bipolar", domain="qonnx.custom_op.general"),
        node("MatMul", "x wq", "a"),
        node("MatMul", "a vq"),
    ]
    model = model_of(
        nodes,
        {"x": (1, 3)},
        w=weights(3, 2),
        v=weights(2, 2),
        one=np.float32(1),
        zero=np.float32(0),
        bits=np.float32(4),
    )
    model.opset_import.append(helper.make_opsetid("qonnx.custom_op.general", 1))
    network, _, _ = network_of(model)
    assert [p.weight_bits for p in network.projections] == [4, 1]
    assert (
        network_of(model_of([node("MatMul", "x w")], {"x": (1, 3)}, w=weights(3, 2)), weight_bits=6)[0]
        .projections[0]
        .weight_bits
        == 6
    )


# ------------------------------------------------------------------------------------------------------- wrong graphs


def conv(**more):
    return node("Conv", "x w", **more)


@pytest.mark.parametrize(
    ("nodes", "shapes", "constants", "message"),
    [
        (
            [conv()],
            {"x": (1, 3, 4, 4)},
            {"w": weights(2, 2, 1, 1)},
            r"node 'conv_y' \(Conv\): expected 3 input channels",
        ),
        ([conv()], {"x": (2, 2, 4, 4)}, {"w": weights(2, 2, 1, 1)}, r"expected a batch of 1.*give input_shape"),
        ([conv()], {"x": (1, 2, 4)}, {"w": weights(2, 2, 1, 1)}, "expected weights of 3 axes"),
        ([conv()], {"x": (1, 2, 2, 2, 2)}, {"w": weights(2, 2, 1, 1, 1)}, "1 or 2 dimensions of space"),
        ([conv()], {"x": (1, 2, 2, 2)}, {"w": weights(2, 2, 3, 3)}, "expected at least one value"),
        ([conv()], {"x": (1, 2, 2, 2)}, {"w": weights(2, 2, 1, 1) * np.nan}, "weights 'w' hold NaN"),
        ([conv(strides=[0, 1])], {"x": (1, 2, 2, 2)}, {"w": weights(2, 2, 1, 1)}, "strides and dilations >= 1"),
        ([conv(group=3)], {"x": (1, 2, 2, 2)}, {"w": weights(2, 2, 1, 1)}, "input channels in 3 groups"),
        ([node("Conv", "x x")], {"x": (1, 2, 2, 2)}, {}, "weights 'x' are no constants"),
        ([node("MatMul", "x w")], {"x": (1, 3)}, {"w": weights(4, 2)}, "expected weights for 3 values"),
        ([node("MatMul", "x w")], {"x": (1, 3)}, {"w": np.zeros((3, 0), dtype=np.float32)}, "are empty"),
        ([node("Einsum", "x w", equation="ij,jk->ik")], {"x": (1, 3)}, {"w": weights(3, 2)}, "Einsum cannot be mapped"),
        ([node("Relu", "missing")], {"x": (1, 3)}, {}, r"'missing' is made by no node before it"),
        ([node("Relu", "b", "a"), node("Relu", "a", "b"), node("Relu", "a")], {"x": (1,)}, {}, "the graph has a cycle"),
        ([node("Relu", "x")], {"x": (1, "n")}, {}, r"input 'x' has shape \[1, 0\], of no fixed size; give input_shape"),
        ([node("Relu", "x")], {"x": (1, 0)}, {}, "input 'x' has shape"),
        ([node("Relu", "x")], {"x": (100_000, 100_000)}, {}, "layer 'x': expected 1 to 100000000 neurons"),
        (
            [node("Expand", "x s")],
            {"x": (1, 1)},
            {"s": np.array([10**6, 10**6])},
            r"node 'expand_y' \(Expand\): expected at most 100000000 values",
        ),
        (
            [node("Reshape", "x s")],
            {"x": (1, 4)},
            {"s": np.array([3, 3])},
            r"'reshape_y' \(Reshape\): cannot be mapped",
        ),
        (
            [node("Loop", "n c x", body=helper.make_graph([], "b", [], []))],
            {"x": (1, 4)},
            {"n": np.array(3), "c": np.array(True)},
            "a loop over values that neurons send",
        ),
        ([node("Relu", "x", "z")], {"x": (1, 4)}, {}, "output 'y' is made by no node"),
    ],
)
def test_wrong_graphs_are_refused_with_the_node(nodes, shapes, constants, message):
    with pytest.raises(nm.InputError, match=message):
        network_of(model_of(nodes, shapes, **constants))


def test_input_shapes_fill_open_sizes():
    model = model_of([node("MatMul", "x w")], {"x": ("batch", "n", 3)}, w=weights(3, 2))
    assert network_of(model, input_shape=[1, 4, 3])[0].layers[0].size == 12
    assert network_of(model, input_shape={"x": [1, 5, 3]})[0].layers[0].size == 15
    with pytest.raises(nm.InputError, match="input_shape names no input 'z'; the inputs are x"):
        network_of(model, input_shape={"z": [1, 5, 3]})
    two = model_of([node("Add", "a b")], {"a": (1, 3), "b": ("n", 3)})
    assert network_of(two)[0].layers[1].size == 3  # a batch of no fixed size is one
    with pytest.raises(nm.InputError, match="several inputs; give input_shape by name"):
        network_of(two, input_shape=[1, 3])


def test_files(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(model_of([node("Gemm", "x w", "a"), node("Softmax", "a")], {"x": (1, 3)}, w=weights(3, 2)), path)
    with pytest.warns(UserWarning, match=r"net\.onnx.*Softmax is taken as a function of each neuron"):
        network = nm.load_network(path, activity=0.3, activity_sigma=0.0, steps_per_inference=4)
    assert (network.name, network.steps_per_inference) == ("net", 4)
    assert network.layers[0].activity.tolist() == [0.3] * 3
    for content in (b"not a graph", path.read_bytes()[: path.stat().st_size // 2]):
        wrong = tmp_path / "wrong.onnx"
        wrong.write_bytes(content)
        with pytest.raises(nm.InputError, match=re.escape(str(wrong))):
            read_onnx(wrong, ActivitySpec())


def test_notes_stay_with_the_network_and_its_file(tmp_path):
    path = tmp_path / "net.onnx"
    model = model_of(
        [node("Gemm", "x w", "a"), node("Softmax", "a", "b"), node("Softmax", "b")], {"x": (1, 3)}, w=weights(3, 2)
    )
    onnx.save(model, path)
    told = r"net\.onnx.*Softmax is taken as a function"
    with pytest.warns(UserWarning, match=told) as warned:
        network = nm.load_network(path)
    assert [str(x.message) for x in warned] == [f"'{path}': {text}" for text in network.notes]
    assert len(network.notes) == 1
    assert {Path(x.filename).name for x in warned} == {Path(__file__).name}
    plain = dataclasses.replace(network, notes=())
    assert (plain, plain.digest) == (network, network.digest)
    assert nm.with_activity(network, {"x": np.zeros(3)}).notes == network.notes
    numbered = {x.name: np.arange(x.size)[::-1] for x in network.layers if x.shape is None}
    assert nm.with_orders(network, numbered).notes == network.notes
    nm.save_network(network, tmp_path / "net.npz")
    with pytest.warns(UserWarning, match=told.replace("onnx", "npz")):
        again = nm.load_network(tmp_path / "net.npz")
    assert (again, again.notes) == (network, network.notes)


@pytest.mark.parametrize("n_files", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutated_files_are_read_or_refused(tmp_path, n_files):
    """Change bytes, cut files off: a network or an InputError, nothing else."""
    nodes = [
        node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "b"),
        node("MaxPool", "b", "c", kernel_shape=[2, 2]),
        node("Flatten", "c", "d"),
        node("Gemm", "d v"),
    ]
    content = model_of(nodes, {"x": (1, 2, 4, 4)}, w=weights(3, 2, 3, 3), v=weights(27, 4)).SerializeToString()
    rng = np.random.default_rng(0)
    path = tmp_path / "mutated.onnx"
    refused = 0
    for n in range(n_files):
        data = bytearray(content)
        for at in rng.integers(0, len(data), rng.integers(1, 6)):
            data[at] = rng.integers(256)
        if n % 5 == 0:
            data = data[: rng.integers(1, len(data))]
        path.write_bytes(bytes(data))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read_onnx(path, ActivitySpec())
        except nm.InputError as error:
            refused += "\n" not in str(error)
    assert n_files / 6 < refused < n_files


# --------------------------------------------------------------------------------------------------------- large graphs


def shapes_of(model):
    """Shapes of values and constants by name, by onnx's own shape inference."""
    inferred = onnx.shape_inference.infer_shapes(model)
    shape = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in itertools.chain(inferred.graph.value_info, inferred.graph.input, inferred.graph.output)
    }
    return shape | {x.name: list(x.dims) for x in model.graph.initializer}


def multiplications(model):
    """Multiplications of all Conv and Gemm nodes, and the values they make."""
    shape = shapes_of(model)
    total = values = 0
    for n in model.graph.node:
        if n.op_type in ("Conv", "Gemm"):
            out, w = shape[n.output[0]], shape[n.input[1]]
            per_value = np.prod(w[1:]) if n.op_type == "Conv" else np.prod(w) / out[-1]
            total += int(np.prod(out) * per_value)
            values += int(np.prod(out))
    return total, values


def test_totals_of_a_public_network_equal_a_count_from_its_file(networks_folder):
    path = networks_folder / "mnist_cnn.onnx"
    network = nm.load_network(path)
    total, values = multiplications(onnx.load(path))
    weighted = [p for p in network.projections if p.weight_bits > 1]
    assert sum(p.connectivity.n_multiplications for p in weighted) == total
    assert sum(network.layers[network.layer_index[p.target]].size for p in weighted) == values


WHEEL = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

#: Graphs in which values are read before and after a function, or by several: layers beyond the plain ones.
WITH_MORE_LAYERS = {"densenet121"}


def added_up(model):
    """Values of convolutions that are added to those of another one: the same neurons take both."""
    shape = shapes_of(model)
    maker = {name: n for n in model.graph.node for name in n.output}

    def is_conv(name):
        while name in maker and maker[name].op_type == "BatchNormalization":
            name = maker[name].input[0]
        return name in maker and maker[name].op_type == "Conv"

    return sum(
        (sum(map(is_conv, n.input)) - 1) * int(np.prod(shape[n.output[0]]))
        for n in model.graph.node
        if n.op_type == "Sum" and sum(map(is_conv, n.input)) > 1
    )


def counted(model):
    """Neurons of the input and of plain layers, and synapses of weighted ones, tap by tap along each axis."""
    shape = shapes_of(model)
    given = {x.name for x in model.graph.initializer}
    neurons = sum(int(np.prod(shape[x.name])) for x in model.graph.input if x.name not in given)
    synapses = 0
    for n in model.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute}
        if n.op_type in ("Conv", "Gemm", "MaxPool", "AveragePool", "GlobalAveragePool"):
            neurons += int(np.prod(shape[n.output[0]]))
        if n.op_type == "Gemm":
            synapses += int(np.prod(shape[n.input[1]]))
        if n.op_type == "Conv":
            assert attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
            weights, taps = shape[n.input[1]], 1
            for axis in range(2):
                size, out, kernel = shape[n.input[0]][2 + axis], shape[n.output[0]][2 + axis], weights[2 + axis]
                before = attributes.get("pads", [0] * 4)[axis]
                step, apart = (attributes.get(key, [1, 1])[axis] for key in ("strides", "dilations"))
                places = np.arange(out)[:, None] * step - before + np.arange(kernel) * apart
                taps *= int(((places >= 0) & (places < size)).sum())
            synapses += weights[0] * weights[1] * taps
    return neurons, synapses


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(WHEEL.glob("light_*.onnx")), ids=lambda path: path.stem.removeprefix("light_"))
def test_totals_of_the_graphs_in_the_onnx_wheel_equal_a_count_from_the_file(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = nm.load_network(path)
    model = onnx.load(path)
    total, values = multiplications(model)
    neurons, synapses = counted(model)
    weighted = [p for p in network.projections if p.weight_bits > 1]
    assert sum(p.connectivity.n_multiplications for p in weighted) == total
    assert sum(p.connectivity.n_synapses for p in weighted) == synapses
    size = {x.name: x.size for x in network.layers}
    assert sum(size[name] for name in {p.target for p in weighted}) == values - added_up(model)
    more = sum(size.values()) - (neurons - added_up(model))
    assert more > 0 if path.stem.removeprefix("light_") in WITH_MORE_LAYERS else more == 0
