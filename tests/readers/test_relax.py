"""Networks from TVM relax modules; these tests need the extra `tvm`."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers import model_of, node, weights

import neuromap_moo as nm

relax = pytest.importorskip("tvm.relax")
from tvm.relax.frontend.onnx import from_onnx  # noqa: E402 - after the check that TVM is there

WHEEL = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def both(model, tmp_path):
    """The network of an ONNX model, and that of the relax module that TVM makes of it."""
    model.ir_version = 8
    onnx.save(model, tmp_path / "net.onnx")
    return nm.load_network(tmp_path / "net.onnx"), nm.from_relax(module_of(model))


def module_of(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return from_onnx(model, keep_params_in_input=False)


def structure(network):
    """All but names: sizes, shapes and connectivity."""
    return (
        [(x.size, x.shape) for x in network.layers],
        [
            (
                network.layer_index[p.source],
                network.layer_index[p.target],
                p.weight_bits,
                p.connectivity.n_synapses,
                p.connectivity.n_multiplications,
            )
            for p in network.projections
        ],
    )


GRAPHS = {
    "cnn": (
        [
            node("Conv", "x w b", "a", pads=[1, 1, 1, 1], strides=[2, 1]),
            node("Relu", "a", "c"),
            node("MaxPool", "c", "d", kernel_shape=[2, 2], strides=[2, 2]),
            node("Flatten", "d", "e"),
            node("Gemm", "e v", transB=1),
        ],
        {"x": (1, 2, 8, 6)},
        {"w": weights(3, 2, 3, 3), "b": weights(3), "v": weights(5, 18)},
    ),
    "grouped and transposed": (
        [
            node("Conv", "x w", "a", group=2, dilations=[2, 2]),
            node("ConvTranspose", "a v", "b", strides=[2, 2]),
            node("GlobalAveragePool", "b"),
        ],
        {"x": (1, 2, 8, 8)},
        {"w": weights(4, 1, 3, 3), "v": weights(4, 3, 2, 2)},
    ),
    "residual": (
        [node("Conv", "x w", "a"), node("Conv", "x v", "b"), node("Sum", "a b", "c"), node("Relu", "c")],
        {"x": (1, 2, 4, 4)},
        {"w": weights(3, 2, 1, 1), "v": weights(3, 2, 1, 1)},
    ),
    "branches": (
        [
            node("Conv", "x w", "a"),
            node("Relu", "a", "b"),
            node("Concat", "a b", "c", axis=1),
            node("Transpose", "c", "d", perm=[0, 2, 3, 1]),
            node("ReduceMean", "d", axes=[3], keepdims=0),
        ],
        {"x": (1, 2, 4, 4)},
        {"w": weights(3, 2, 1, 1)},
    ),
    "split and multiplied": (
        [
            node("MatMul", "x w", "a"),
            node("Split", "a s", "b c", axis=1),
            node("Transpose", "c", "d", perm=[1, 0]),
            node("MatMul", "b d"),
        ],
        {"x": (3, 4)},
        {"w": weights(4, 6), "s": np.array([3, 3])},
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_module_gives_the_network_of_the_graph_it_came_from(name, tmp_path):
    nodes, shapes, constants = GRAPHS[name]
    graph, module = both(model_of(nodes, shapes, **constants), tmp_path)
    assert structure(graph) == structure(module)


def test_a_public_network(networks_folder):
    path = networks_folder / "mnist_cnn.onnx"
    module = module_of(onnx.load(path))
    assert structure(nm.from_relax(module)) == structure(nm.load_network(path))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet", "resnet50", "shufflenet", "inception_v1"])
def test_graphs_of_the_onnx_wheel(name):
    path = WHEEL / f"light_{name}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert structure(nm.from_relax(module_of(onnx.load(path)))) == structure(nm.load_network(path))


def test_composites_are_named_and_read_as_what_they_hold(tmp_path):
    nodes, shapes, constants = GRAPHS["cnn"]
    module = module_of(model_of(nodes, shapes, **constants))
    parts = nm.partition_relax(module)
    text = str(parts)
    assert '"Composite": "loihi.conv2d_bias_relu"' in text
    assert '"Composite": "loihi.dense"' in text
    assert structure(nm.from_relax(parts)) == structure(nm.from_relax(module))


def test_what_cannot_be_mapped_is_refused():
    with pytest.raises(nm.InputError, match="expected a TVM module with a function 'nowhere'"):
        nm.from_relax(module_of(model_of([node("Relu", "x")], {"x": (1, 3)})), "nowhere")
    with pytest.raises(nm.InputError, match=r"binding '\w+': operator relax\.\S+ cannot be mapped"):
        nm.from_relax(module_of(model_of([node("CumSum", "x a")], {"x": (2, 3)}, a=np.array(0))))
