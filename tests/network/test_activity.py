import numpy as np
import onnx
import pytest
from helpers import model_of, node, weights

import neuromap_moo as nm


def measured(tmp_path, nodes, shapes, samples, outputs=("y",), **constants):
    path = tmp_path / "net.onnx"
    model = model_of(nodes, shapes, outputs, **constants)
    model.ir_version = 8
    onnx.save(model, path)
    np.savez(tmp_path / "samples.npz", **samples)
    return path, nm.measure_activity(path, tmp_path / "samples.npz")


def test_activity_is_the_share_of_samples_whose_value_is_not_zero(tmp_path):
    w = np.array([[1, -1], [0, 1]], dtype=np.float32)
    x = np.array([[1, 0], [1, 2], [-1, 0], [0, 0]], dtype=np.float32)
    _, activity = measured(tmp_path, [node("Gemm", "x w", "a"), node("Relu", "a")], {"x": (1, 2)}, {"x": x}, w=w)
    # x w = (1, -1), (1, 1), (-1, 1), (0, 0)
    assert activity.by_layer["x"].tolist() == [0.75, 0.25]
    assert activity.by_layer["gemm_a"].tolist() == [0.5, 0.5]
    assert (activity.n_samples, activity.not_shown) == (4, ())


def test_layers_that_send_two_versions_have_the_activity_of_each(tmp_path):
    nodes = [node("MatMul", "x w", "a"), node("Relu", "a", "b"), node("MatMul", "b v", "c"), node("Mul", "a c")]
    x = np.array([[1.0, 1.0], [-1.0, 1.0]], dtype=np.float32)
    _, activity = measured(
        tmp_path, nodes, {"x": (1, 2)}, {"x": x}, w=np.eye(2, dtype=np.float32), v=np.eye(2, dtype=np.float32)
    )
    assert activity.by_layer["matmul_a"].tolist() == [1.0, 1.0]
    assert activity.by_layer["relu_b"].tolist() == [0.5, 1.0]
    assert activity.by_layer["mul_y"].tolist() == [0.5, 1.0]


def test_maps_keep_their_order_under_any_cut(tmp_path):
    w = np.zeros((2, 1, 1, 1), dtype=np.float32)
    w[0], w[1] = 1, -1
    x = np.zeros((2, 1, 2, 3), dtype=np.float32)
    x[0, 0, 0, 1], x[1, 0, 1, 2] = 1, -1
    nodes = [node("Conv", "x w", "a"), node("Relu", "a", "b"), node("Transpose", "b", perm=[0, 1, 3, 2])]
    path, activity = measured(tmp_path, nodes, {"x": (1, 1, 2, 3)}, {"x": x[:, None]}, w=w)
    expected = np.zeros((2, 2, 3))
    expected[0, 0, 1], expected[1, 1, 2] = 0.5, 0.5
    assert activity.by_layer["conv_a"].reshape(2, 2, 3).tolist() == expected.tolist()
    nm.save_activity(activity, tmp_path / "activity.npz")
    network = nm.load_network(path, activity=tmp_path / "activity.npz", steps_per_inference=3)
    assert network.steps_per_inference == 3
    by_columns = nm.with_cuts(network, {"conv_a": "columns"})
    assert by_columns.layers[1].activity.reshape(3, 2, 2).transpose(2, 1, 0).tolist() == expected.tolist()


def test_relays_send_what_others_send_and_gates_always(tmp_path):
    w, r = weights(1, 8, 3), weights(1, 8, 2, seed=1)
    x = np.zeros((4, 5, 1, 3), dtype=np.float32)
    x[:2] = 1
    nodes = [node("LSTM", "x w r", "every y", hidden_size=2)]
    _, activity = measured(tmp_path, nodes, {"x": (5, 1, 3)}, {"x": x}, w=w, r=r)
    assert activity.not_shown == ("lstm_every_step", "lstm_every_gates")
    assert set(activity.by_layer["lstm_every_gates"]) == {1.0}
    assert activity.by_layer["x"].tolist() == [0.5] * 15
    assert activity.by_layer["lstm_every"].tolist() == [0.5] * 2  # tanh(0) is zero


def test_a_quantised_value_is_nothing_at_its_zero_point(tmp_path):
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d"), node("MatMul", "d w")]
    x = np.array([[0.0, 0.1, 3.0]], dtype=np.float32)
    constants = {"s": np.float32(1), "z": np.uint8(7), "w": weights(3, 2)}
    _, activity = measured(tmp_path, nodes, {"x": (1, 3)}, {"x": x}, **constants)
    assert activity.by_layer["x"].tolist() == [0.0, 0.0, 1.0]


def test_random_samples_say_that_they_are_none(tmp_path):
    path = tmp_path / "net.onnx"
    model = model_of([node("MatMul", "x w")], {"x": (1, 3)}, w=weights(3, 2))
    model.ir_version = 8
    onnx.save(model, path)
    first, again, other = (nm.measure_activity(path, seed=seed) for seed in (0, 0, 1))
    assert first.n_samples == 0
    assert first.by_layer["x"].tolist() == again.by_layer["x"].tolist() == [1.0] * 3
    assert other.network == first.network


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ({"x": np.ones((4, 2))}, r"samples of input 'x': expected shape \(n, 3\), got \(4, 2\)"),
        ({"x": np.ones((0, 3))}, r"expected shape \(n, 3\), got \(0, 1, 3\)"),
        ({"x": np.full((2, 3), np.nan)}, "samples of input 'x': expected finite numbers"),
        ({"x": np.ones((2, 3)), "z": np.ones(2)}, r"expected arrays for the inputs \['x'\], got \['x', 'z'\]"),
    ],
)
def test_wrong_samples_are_refused(tmp_path, samples, message):
    with pytest.raises(nm.InputError, match=message):
        measured(tmp_path, [node("MatMul", "x w")], {"x": (1, 3)}, samples, w=weights(3, 2))


def test_wrong_files_are_refused(tmp_path):
    path, activity = measured(
        tmp_path, [node("MatMul", "x w")], {"x": (1, 3)}, {"any": np.ones((2, 3))}, w=weights(3, 2)
    )
    kept = tmp_path / "activity.npz"
    nm.save_activity(activity, kept)
    other = tmp_path / "other.onnx"
    model = model_of([node("MatMul", "x w")], {"x": (1, 3)}, w=weights(3, 4))
    onnx.save(model, other)
    with pytest.raises(nm.InputError, match=r"activity\.npz': was measured on another file than .*other\.onnx"):
        nm.load_network(other, activity=kept)
    with pytest.raises(nm.InputError, match="expected a number or a file that task=profile wrote"):
        nm.load_network(path, activity=path)
    with pytest.raises(nm.InputError, match=r"samples .*expected an \.npy or \.npz file"):
        nm.measure_activity(path, path)
    with pytest.raises(nm.InputError, match=r"activity is measured on \.net, \.nir, \.onnx, \.py files, got '\.npz'"):
        nm.measure_activity("x.npz")
    with pytest.raises(nm.InputError, match="activity: no layer 'nowhere'"):
        nm.with_activity(nm.load_network(path), {"nowhere": np.ones(2)})


def test_layer_table_by_hand():
    shape = (2, 3, 3)
    layers = [
        nm.Layer("input", 18, "input", [0.5] * 18, shape),
        nm.Layer("map", 18, "relu", [0.25] * 18, shape),
        nm.Layer("out", 2, "gemm", [0.0] * 2),
    ]
    projections = [
        nm.Projection("input", "map", nm.Convolution(shape, shape, (3, 3), padding=(1, 1)), 8),
        nm.Projection("map", "out", nm.Dense(18, 2), 8),
        nm.Projection("input", "out", nm.Dense(18, 2), 1),
    ]
    from neuromap_moo.network.network import layer_table

    table = layer_table(nm.Network("n", layers, projections), [1, 2, 1])
    assert table["synapses"] == [0, 4 * 49, 72]  # 3 * 3 places see 9, 6 or 4 of 9: 49 in all
    assert table["multiplications"] == [0, 4 * 81, 36]
    assert table["messages"] == [9.0, 4.5, 0.0]
    assert table["fewest_cores"] == [1, 2, 1]
    assert table["shape"] == ["2x3x3", "2x3x3", "2"]
