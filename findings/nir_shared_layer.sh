#!/usr/bin/env bash
# PyTorch -> NIR, PyTorch -> ONNX: a layer used twice is a loop, two layers, or one matrix read twice.
#
# One would assume: `b(fc(a(fc(x))))`, one weight matrix applied at two depths, is feed-forward in every file.
# True: snntorch writes one `fc` with two ways in and two out. The edges a->fc and fc->a close a CYCLE: the file
#   describes a recurrent network. spikingjelly writes `fc` and `fc_1`, with the weights twice. torch's ONNX
#   exporter writes two operators that share one initialiser.
# What it means for a mapper: three counts of layers and synapses for one network (1, 2 and 2 layers; 64, 128 and
#   64 stored weights), and one of them has traffic that runs back. On a chip the two uses are two layers: the
#   neurons behind them differ. Look for cycles in a file whose author trained no recurrence.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install -qq torch==2.13.0 numpy==2.4.6 nir==1.0.8 nirtorch==2.6 snntorch==1.0.0 spikingjelly==2.0.0 \
    networkx==3.6.1 onnx==1.23.2 onnxscript==0.7.2
cat >"$work/show.py" <<'PY'
import sys
from importlib.metadata import version

import networkx as nx
import nir
import onnx
import snntorch
import torch
from snntorch.export_nir import export_to_nir
from spikingjelly.activation_based import neuron, nir_exchange

names = ("nir", "nirtorch", "snntorch", "spikingjelly", "torch", "onnx", "onnxscript")
print("RESULT", *(f"{name} {version(name)}" for name in names))


class Twice(torch.nn.Module):
    """One matrix of 8 x 8 at two depths."""

    def __init__(self, make_neurons) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(8, 8, bias=False)
        self.a, self.b = make_neurons(), make_neurons()

    def forward(self, x):
        return self.b(self.fc(self.a(self.fc(x))))


def leaky():
    return snntorch.Leaky(beta=torch.full((8,), 0.9), threshold=torch.ones(8), init_hidden=True)


found = {}
exported = {
    "snntorch": export_to_nir(Twice(leaky), torch.ones(1, 8), ignore_dims=[0]),
    "spikingjelly": nir_exchange.export_to_nir(Twice(neuron.IFNode), torch.ones(1, 8)),
}
for name, graph in exported.items():
    path = f"{sys.argv[1]}/{name}.nir"
    nir.write(path, graph)
    read = nir.read(path)
    weights = [node.weight.size for node in read.nodes.values() if isinstance(node, nir.Linear)]
    cycles = list(nx.simple_cycles(nx.DiGraph(read.edges)))
    found[name] = (len(weights), sum(weights), len(cycles))
path = f"{sys.argv[1]}/twice.onnx"
torch.onnx.export(Twice(torch.nn.ReLU).eval(), (torch.ones(1, 8),), path, dynamo=True, verbose=False, external_data=False)
graph = onnx.load(path).graph
operators = [node for node in graph.node if node.op_type in ("Gemm", "MatMul")]
found["torch.onnx"] = (len(operators), sum(8 * 8 for tensor in graph.initializer if list(tensor.dims) == [8, 8]), 0)
for name, (layers, stored, loops) in found.items():
    print(f"RESULT {name:13} weighted layers {layers}, stored weights {stored}, cycles {loops}")
expected = {"snntorch": (1, 64, 1), "spikingjelly": (2, 128, 0), "torch.onnx": (2, 64, 0)}
if found != expected:
    raise SystemExit(f"CHANGED: expected {expected}")
print("RESULT HOLDS")
PY
nice "$work/venv/bin/python" -W ignore "$work/show.py" "$work" >"$work/log" 2>"$work/err" || { tail -5 "$work/log" "$work/err"; exit 1; }
grep "^RESULT" "$work/log" | sed 's/^RESULT //'
