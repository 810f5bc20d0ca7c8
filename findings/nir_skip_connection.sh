#!/usr/bin/env bash
# snntorch -> NIR: a skip connection cuts the network in two, and nothing says so.
#
# One would assume: a residual block, `b(fc2(h) + h)`, is exported with two edges into `b`, since NIR adds up
#   what arrives at a node; or the exporter refuses what it cannot express.
# True: spikingjelly writes both edges. snntorch follows modules only, and `+` is none: the skip is gone, `fc2`
#   is joined to the OUTPUT, and the neurons behind it get an extra input node of their own. The file loads, is
#   type checked, has every layer and all weights, and its deeper half receives none of the network's input.
# What it means for a mapper: synapses and memory are right and the traffic is not. The skip, often the longest
#   route of a residual network, costs nothing, and the deeper half is driven by its biases alone. Check before
#   any search that the edges join all layers into one piece and that the file has the inputs one expects.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install -qq torch==2.13.0 numpy==2.4.6 nir==1.0.8 nirtorch==2.6 snntorch==1.0.0 spikingjelly==2.0.0 networkx==3.6.1
cat >"$work/show.py" <<'PY'
import sys
from importlib.metadata import version

import networkx as nx
import nir
import snntorch
import torch
from snntorch.export_nir import export_to_nir
from spikingjelly.activation_based import neuron, nir_exchange

print("RESULT", *(f"{name} {version(name)}" for name in ("nir", "nirtorch", "snntorch", "spikingjelly", "torch")))


class Residual(torch.nn.Module):
    def __init__(self, make_neurons) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = (torch.nn.Linear(8, 8) for _ in range(3))
        self.a, self.b, self.c = (make_neurons() for _ in range(3))

    def forward(self, x):
        h = self.a(self.fc1(x))
        return self.c(self.fc3(self.b(self.fc2(h) + h)))


def leaky():
    return snntorch.Leaky(beta=torch.full((8,), 0.9), threshold=torch.ones(8), init_hidden=True)


exported = {
    "snntorch": export_to_nir(Residual(leaky), torch.ones(1, 8), ignore_dims=[0]),
    "spikingjelly": nir_exchange.export_to_nir(Residual(neuron.IFNode), torch.ones(1, 8)),
}
pieces = {}
for name, graph in exported.items():
    path = f"{sys.argv[1]}/{name}.nir"
    nir.write(path, graph)
    read = nir.read(path)
    edges = nx.DiGraph(read.edges)
    inputs = [node for node, kind in read.nodes.items() if isinstance(kind, nir.Input)]
    edges.remove_nodes_from([node for node, kind in read.nodes.items() if isinstance(kind, nir.Output)])
    pieces[name] = nx.number_weakly_connected_components(edges)
    print(f"RESULT {name:13} inputs {' '.join(inputs)}; pieces {pieces[name]}; ",
          " ".join(sorted(f"{a}->{b}" for a, b in read.edges)))
if pieces != {"snntorch": 2, "spikingjelly": 1} or ("fc2", "output") not in exported["snntorch"].edges:
    raise SystemExit("CHANGED: expected 2 pieces from snntorch, 1 from spikingjelly")
print("RESULT HOLDS")
PY
nice "$work/venv/bin/python" -W ignore "$work/show.py" "$work" >"$work/log" 2>"$work/err" || { tail -5 "$work/log" "$work/err"; exit 1; }
grep "^RESULT" "$work/log" | sed 's/^RESULT //'
