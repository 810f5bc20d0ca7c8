#!/usr/bin/env bash
# networkx: a part of a graph keeps the graph's order only while it is at least half of the graph.
#
# One would assume: `G.subgraph(part)` lists its nodes in the order of G, as it does whenever one tries it on
#   a large part, or in the order of `part`; either way the same in each run.
# True: for a part of less than half of the nodes the view walks a Python set. With layer names as nodes the
#   order then depends on PYTHONHASHSEED, which is random in each process. `copy()`, `nx.to_scipy_sparse_array`
#   and everything built on the part inherit it.
# What it means for a mapper: "cut the network into chips, then place each part in order" is repeatable for two
#   halves and changes from run to run for three thirds, under one seed. The script places a chain of 24 layers
#   on a line of cores, part by part: hops stay the same with 2 parts and differ with 3 or 4. Iterate over
#   `[n for n in G if n in part]`, or name nodes by integers kept in order.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install -qq networkx==3.6.1
cat >"$work/show.py" <<'PY'
import networkx as nx

chain = nx.path_graph([f"layer_{i:02}" for i in range(24)])
names = list(chain)
for parts in (2, 3, 4):
    size = 24 // parts
    order = [node for i in range(parts) for node in chain.subgraph(names[i * size : (i + 1) * size])]
    core = {node: place for place, node in enumerate(order)}
    hops = sum(abs(core[a] - core[b]) for a, b in chain.edges)
    print(f"{parts} parts: {hops} hops, first part begins {' '.join(order[:4])}")
PY
"$work/venv/bin/python" -c 'import networkx; print("networkx", networkx.__version__)'
for seed in 1 2 3; do
    echo "process with hash seed $seed"
    PYTHONHASHSEED=$seed nice "$work/venv/bin/python" "$work/show.py" | tee "$work/$seed" | sed 's/^/  /'
done
halves=$(grep -h "^2 parts" "$work"/[123] | sort -u | wc -l)
for parts in 3 4; do
    different=$(grep -h "^$parts parts" "$work"/[123] | sort -u | wc -l)
    [ "$different" -gt 1 ] || { echo "CHANGED: the order in $parts parts no longer depends on the hash seed"; exit 1; }
done
[ "$halves" -eq 1 ] || { echo "CHANGED: halves depend on the hash seed too"; exit 1; }
echo "HOLDS"
