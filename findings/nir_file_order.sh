#!/usr/bin/env bash
# NIR: a file gives the layers back in the order of the alphabet.
#
# One would assume: writing a network of twelve layers and reading it again gives twelve layers in the order in
#   which they were written; the edges do come back in order.
# True: nodes are HDF5 groups, and HDF5 lists groups by name. `affine_10` and `affine_11` come before `affine_2`,
#   all affine layers before all neurons, `input` after both. The graph is equal, its `nodes` are not in order.
# What it means for a mapper: whoever takes layers in file order (a placer that works in order of adding, a
#   partition array per layer, a genome with one gene per layer) searches another problem before and after one
#   save. On a line of cores the same chain costs several times the hops. A saved mapping that counts layers
#   by number fits the wrong layers. Sort by the edges, and key stored mappings by layer name.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install -qq nir==1.0.8 numpy==2.4.6 h5py==3.16.0
cat >"$work/show.py" <<'PY'
import sys
from importlib.metadata import version

import nir
import numpy as np

print("nir", version("nir"), "h5py", version("h5py"), "numpy", version("numpy"))
layers = []
for _ in range(12):
    layers += [nir.Affine(np.eye(4), np.zeros(4)), nir.IF(r=np.ones(4), v_threshold=np.ones(4))]
before = nir.NIRGraph.from_list(*layers)
nir.write(sys.argv[1], before)
after = nir.read(sys.argv[1])


def hops(graph) -> int:
    core = {name: place for place, name in enumerate(graph.nodes)}
    return sum(abs(core[a] - core[b]) for a, b in graph.edges)


for title, graph in (("before", before), ("after ", after)):
    names = list(graph.nodes)
    print(f"{title} {' '.join(names[:6])} ... {' '.join(names[-3:])}; hops of the chain on a line: {hops(graph)}")
same_edges = sorted(before.edges) == sorted(after.edges)
print("same edges:", same_edges)
if not same_edges or list(after.nodes) != sorted(before.nodes) or hops(after) <= 5 * hops(before):
    raise SystemExit("CHANGED: nodes no longer come back in the order of the alphabet")
print("HOLDS")
PY
nice "$work/venv/bin/python" -W ignore "$work/show.py" "$work/chain.nir"
