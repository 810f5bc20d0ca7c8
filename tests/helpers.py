"""What tests of several rooms share: networks, core graphs, files of the readers, calls of the command line."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from contextlib import suppress
from pathlib import Path

import h5py
import networkx as nx
import nir
import numpy as np
import pytest
from hypothesis import settings
from onnx import TensorProto, helper, numpy_helper

import neuromap_moo as nm
from neuromap_moo.app.cli import main
from neuromap_moo.models.metrics import COLUMNS
from neuromap_moo.results import plotting

ROOT = Path(__file__).resolve().parents[1]

needs_lava = pytest.mark.skipif(importlib.util.find_spec("lava.magma") is None, reason="lava-nc is not installed")


def examples(n):
    """Draw n examples in the thorough profile, and as much fewer in the quick one as that draws fewer by default."""
    return settings(max_examples=max(1, n * settings.default.max_examples // 40))


# -------------------------------------------------------------------------------------------------------- the model

#: All metric columns that are numbers.
NUMERIC = [name for name, unit in COLUMNS.items() if unit is not None]

#: Costs that count nothing, to be overridden one by one.
FREE = {
    "t_dendop_s": 0.0,
    "t_synop_s": 0.0,
    "t_synmem_s": 0.0,
    "message_bits": 1.0,
    "bandwidth_bit_per_s": 1e30,
    "t_barrier_s": 0.0,
    "e_dendop_j": 0.0,
    "e_synop_j": 0.0,
    "e_synmem_j": 0.0,
    "e_message_j": 0.0,
    "e_link_j": 0.0,
    "p_chip_w": 0.0,
    "p_core_w": 0.0,
}


def core_graph(edges, loads=()):
    """Return a core graph of edges (source, target, messages) and loads {node: {dendops, ...}}, nodes sorted."""
    G = nx.DiGraph()
    G.add_nodes_from(sorted({*(end for edge in edges for end in edge[:2]), *loads}))
    for node, attributes in dict(loads).items():
        G.add_node(node, **attributes)
    for a, b, messages in edges:
        G.add_edge(a, b, messages=messages)
    return nm.CoreGraph.from_networkx(G)


def busy_graph(n, edges):
    """Return a core graph of n slices, each of one dendop, and edges (source, target, messages)."""
    return core_graph(edges, {i: {"dendops": 1.0} for i in range(n)})


def three_layers():
    return nm.sparse_mlp([20, 30, 16], 0.5, seed=3)


def gapped_network():
    """Return a network whose layer b fits in 2 and in 5 slices but not in 3 or 4 of 8 synapse words.

    Neurons 2 and 3 of its six are the heavy ones. One synapse of a source takes ceil((42 + 16) / 64) = 1 word, two take
    ceil((84 + 16) / 64) = 2 words, and there are 8 sources.
    """
    matrix = np.tile([0, 0, 1, 1, 0, 0], (8, 1))
    layers = (nm.Layer("a", 8, "input", np.ones(8)), nm.Layer("b", 6, "lif", np.zeros(6)))
    return nm.Network("gapped", layers, (nm.Projection("a", "b", nm.Sparse.from_matrix(matrix), 30),))


# ------------------------------------------------------------------------------------------------------ lava-dl files


def write_net(path, *layers):
    """Write a lava-dl file: each layer is a dict of dataset name -> value."""
    with h5py.File(path, "w") as file:
        group = file.create_group("layer")
        for i, datasets in enumerate(layers):
            node = group.create_group(str(i))
            for name, value in datasets.items():
                node[name] = value
    return path


def kind(name):
    return {"type": np.array([name], dtype="S10")}


def inputs(*shape):
    return kind(b"input") | {"shape": np.array(shape)}


def dense(weights, **more):
    weights = np.asarray(weights, dtype=np.float32)
    return kind(b"dense") | {"shape": np.array(weights.shape[:1]), "weight": weights, **more}


def cuba(vth=1, i_decay=4096, v_decay=0):
    return {"neuron/type": "CUBA", "neuron/vThMant": vth, "neuron/iDecay": i_decay, "neuron/vDecay": v_decay}


def sdnn(vth=6, **more):
    return {"neuron/type": "SDNN", "neuron/vThMant": vth, **{f"neuron/{key}": value for key, value in more.items()}}


# -------------------------------------------------------------------------------------------------------- ONNX graphs

OPSET = 17


def model_of(nodes, shapes, outputs=("y",), opset=OPSET, **constants):
    """Build a model; `shapes` are those of the inputs, `constants` the initializers."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    made = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "test", inputs, ends, made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def node(op, inputs, output="y", **attributes):
    outputs = output.split()
    return helper.make_node(op, inputs.split(), outputs, name=f"{op.lower()}_{outputs[0]}", **attributes)


def weights(*shape, seed=0):
    """Weights of which no sum cancels: all positive."""
    return np.random.default_rng(seed).uniform(0.5, 1.5, shape).astype(np.float32)


# --------------------------------------------------------------------------------------------------------- NIR graphs


def nir_conv(n_in, n_out, kernel, size=None, **more):
    rng = np.random.default_rng(0)
    given = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": np.zeros(n_out)} | more
    weight = rng.uniform(0.5, 1.5, (n_out, n_in // given["groups"], *kernel))
    make = nir.Conv2d if len(kernel) == 2 else nir.Conv1d
    return make(input_shape=size, weight=weight, **given)


def nir_pool(kernel, stride, padding=0, kind=nir.SumPool2d):
    return kind(kernel_size=np.array([kernel] * 2), stride=np.array([stride] * 2), padding=np.array([padding] * 2))


def nir_flatten(*shape):
    return nir.Flatten(input_type={"input": np.array(shape)}, start_dim=0, end_dim=-1)


def nir_ends(n_in, n_out):
    return {
        "input": nir.Input(input_type={"input": np.atleast_1d(n_in)}),
        "output": nir.Output(output_type={"output": np.atleast_1d(n_out)}),
    }


def nir_chain(*names):
    return list(itertools.pairwise(names))


# ----------------------------------------------------------------------------------------------------- Lava processes

#: A process in which Lava hangs: its model raises.
BROKEN_PROCESS = """
from lava.magma.core.decorator import implements, requires
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


class Broken(AbstractProcess):
    def __init__(self, shape):
        super().__init__(shape=shape)
        self.a_in = InPort(shape=shape)


@implements(proc=Broken, protocol=LoihiProtocol)
@requires(CPU)
class PyBroken(PyLoihiProcessModel):
    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, int)

    def run_spk(self):
        self.a_in.recv()
        raise RuntimeError("broken on purpose")
"""


def commands_with(word):
    """Process ids and their command lines, where a word is in them."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            command = path.read_bytes().decode(errors="replace").split("\0")
            if any(word in argument for argument in command):
                found[int(path.parent.name)] = command
    return found


# --------------------------------------------------------------------------------------------------- the command line

#: A network on which a run takes little.
SMALL = ["network.sizes=[64,96,64]", "network.density=0.3", "name=small"]


def undrawn(figure, folder, name):
    """What stands for a file of a figure: drawing takes more time than all else in a small run."""
    assert figure.axes
    for ending in ("pdf", "png"):
        (folder / f"{name}.{ending}").write_bytes(b"")


def call(monkeypatch, capsys, *arguments, draw=False):
    """Run the command line in this process; return exit code, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["neuromap_moo", *arguments])
    if not draw:
        monkeypatch.setattr(plotting, "save_figure", undrawn)
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err
